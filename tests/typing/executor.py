"""What type checkers make of TaskExecutor's calls: checked by mypy and pyright, and not run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, assert_type

import anyio

from mtaio.core import ExternalPool, Intake, Outcome, Stream, TaskHandle, merge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
    from concurrent.futures import Executor

    from anyio.abc import TaskStatus

    from mtaio.core import TaskExecutor
    from mtaio.resources import RateLimiter
    from mtaio.types import AckSource, Merge

T = TypeVar("T")


async def of_int(x: int) -> str:
    """Be async."""
    return str(x)


async def of_two(x: int, y: str) -> float:
    """Take two arguments."""
    return x + len(y)


async def of_three(x: int, y: str, z: bytes) -> bytes:
    """Take three arguments."""
    return z * x + y.encode()


async def of_none(x: int) -> None:
    """Return nothing."""
    del x


def plain(x: int) -> str:
    """Be plain."""
    return str(x)


def plain_two(x: int, y: str) -> float:
    """Be plain, and take two arguments."""
    return x + len(y)


async def thunk() -> int:
    """Take no arguments."""
    return 1


def plain_thunk() -> bytes:
    """Take no arguments, and be plain."""
    return b""


async def of_any(x: T) -> T:
    """Be generic."""
    return x


async def perhaps(x: int) -> str | None:
    """Return one of two types."""
    return str(x) if x else None


def either(x: int) -> str | Awaitable[str]:
    """Be async or plain, as the argument decides."""
    return of_int(x) if x else plain(x)


def untyped(x: int) -> Any:
    """Return what nobody knows."""
    return x


class Call:
    """Is async to call."""

    async def __call__(self, x: int) -> set[int]:
        """Be called."""
        return {x}

    async def method(self, x: int) -> list[int]:
        """Be a method."""
        return [x]


async def in_pools(executor: TaskExecutor, pool: Executor, numbers: list[int]) -> None:
    """A pool changes nothing about the results."""
    assert_type(await executor.map(plain, numbers, via=pool, chunksize=8), list[str])
    assert_type(await executor.map(plain, numbers, via=ExternalPool(pool, limit=4)), list[str])
    assert_type(await executor.run(plain, 1, via="processes"), str)
    assert_type(executor.stream(plain, numbers, via=pool), Stream[str])


async def of_batch(batch: list[int]) -> str:
    """Take a batch."""
    return str(batch)


async def of_several(x: int) -> list[bytes]:
    """Return several results."""
    return [bytes(x)]


async def of_pair(x: int, y: int) -> tuple[int, int]:
    """Return several results for two arguments."""
    return x, y


def generate(x: int) -> Iterator[bytes]:
    """Be a generator."""
    yield bytes(x)


async def batches(
    executor: TaskExecutor, numbers: list[int], later: AsyncIterator[int], event: anyio.Event
) -> None:
    """With ``batch=`` the function takes a list, with ``flatten=`` it returns several results."""
    assert_type(await executor.map(of_batch, numbers, batch=2), list[str])
    assert_type(await executor.map(of_batch, later, batch=2, within=0.5, limit=2), list[str])
    assert_type(await executor.map(len, numbers, batch=2, until=event.wait), list[int])
    assert_type(await executor.map(lambda batch: batch[0], numbers, batch=2), list[int])
    some = await executor.map(of_batch, numbers, batch=2, errors="return")
    assert_type(some, list[str | Exception])
    assert_type(await executor.for_each(of_batch, later, batch=2), None)
    assert_type(executor.stream(of_batch, numbers, batch=2), Stream[str])
    assert_type(
        executor.stream(of_batch, numbers, batch=2, errors="return"), Stream[str | Exception]
    )
    assert_type(executor.stream(of_batch, numbers, batch=2, outcomes=True), Stream[Outcome[str]])
    assert_type(executor.stream(of_several, later, flatten=True), Stream[bytes])
    assert_type(executor.stream(generate, numbers, flatten=True), Stream[bytes])
    assert_type(
        executor.stream(of_several, later, flatten=True, errors="return"),
        Stream[bytes | Exception],
    )
    assert_type(executor.stream(of_pair, [1], [2], flatten=True), Stream[int])
    assert_type(
        executor.stream(of_pair, [1], [2], flatten=True, errors="return"), Stream[int | Exception]
    )
    assert_type(executor.stream(list, later, batch=2, flatten=True), Stream[int])
    assert_type(
        executor.stream(list, later, batch=2, flatten=True, errors="return"),
        Stream[int | Exception],
    )


async def batches_refused(executor: TaskExecutor, numbers: list[int]) -> None:
    """An item is no batch, and what is not iterable has no elements."""
    await executor.map(of_int, numbers, batch=2)  # type: ignore[arg-type]
    await executor.map(of_batch, numbers)  # type: ignore[arg-type]
    await executor.map(of_batch, numbers, within=1)  # type: ignore[call-overload]
    executor.stream(of_none, numbers, flatten=True)  # type: ignore[call-overload]
    executor.stream(of_several, numbers, flatten=True, outcomes=True)  # type: ignore[call-overload]
    executor.stream(of_several, numbers, batch=2, flatten=True)  # type: ignore[call-overload]
    await executor.map(of_int, numbers, until=of_int)  # type: ignore[arg-type]


async def mapping(
    executor: TaskExecutor, numbers: list[int], later: AsyncIterator[int], texts: Iterable[str]
) -> None:
    """Results are those of the function, whether it is async or plain."""
    assert_type(await executor.map(of_int, [1]), list[str])
    assert_type(await executor.map(of_int, later), list[str])
    assert_type(await executor.map(of_int, numbers, limit=2, ordered=False), list[str])
    assert_type(await executor.map(of_none, numbers), list[None])
    assert_type(await executor.map(plain, numbers), list[str])
    assert_type(await executor.map(Call(), numbers), list[set[int]])
    assert_type(await executor.map(Call().method, numbers), list[list[int]])
    assert_type(await executor.map(str.upper, texts), list[str])
    assert_type(await executor.map(len, texts), list[int])
    assert_type(await executor.map(of_two, numbers, texts), list[float])
    assert_type(await executor.map(of_two, later, texts), list[float])
    assert_type(await executor.map(plain_two, numbers, texts), list[float])
    assert_type(await executor.map(of_three, numbers, texts, [b""]), list[bytes])
    assert_type(await executor.map(partial(of_two, y="y"), numbers), list[float])
    assert_type(await executor.map(lambda x: x + 1, numbers), list[int])
    assert_type(await executor.map(lambda x: of_two(x, "y"), numbers), list[float])
    assert_type(
        await executor.map(lambda x: x.upper(), texts, errors="return", retry=2),
        list[str | Exception],
    )
    assert_type(await executor.map(of_any, numbers), list[int])
    assert_type(await executor.map(perhaps, numbers), list[str | None])
    assert_type(await executor.map(either, numbers), list[str])
    assert_type(await executor.map(untyped, numbers), list[Any])
    assert_type(await executor.map(Path, texts), list[Path])
    assert_type(await executor.map(of_int, numbers, errors="raise"), list[str])
    assert_type(await executor.map(of_int, numbers, errors="collect"), list[str])
    assert_type(await executor.map(of_int, numbers, errors="return"), list[str | Exception])
    assert_type(await executor.map(plain, numbers, errors="return"), list[str | Exception])
    assert_type(
        await executor.map(of_two, numbers, texts, errors="return"), list[float | Exception]
    )
    assert_type(await executor.map(len, texts, errors="return", retry=2), list[int | Exception])
    await executor.for_each(of_int, numbers, on_progress=print)
    await executor.for_each(numbers.append, later)
    await executor.for_each(of_two, numbers, texts, errors="collect")


async def wrapping(
    executor: TaskExecutor, one: Callable[[int], Awaitable[T]], other: Callable[[int], T], x: T
) -> list[T]:
    """A generic function of the user's keeps its own types."""
    assert_type(await executor.map(one, [1]), list[T])
    assert_type(await executor.map(other, [1], errors="return"), list[T | Exception])
    assert_type(await executor.map(of_any, [x]), list[T])
    return await executor.map(one, [1])


async def mistakes(executor: TaskExecutor, numbers: list[int], texts: list[str]) -> None:
    """What checkers must refuse: the comments are checked, an idle one is an error."""
    await executor.map(of_int, texts)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # str is no int
    await executor.map(of_two, numbers)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # one argument short
    await executor.map(lambda x: x.upper(), numbers)  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue] # int is no str
    await executor.map(of_int, texts, errors="return")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType] # str is no int
    await executor.map(of_int, numbers, errors="ignore")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType] # no such policy
    await executor.map(of_int, 5)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType] # no iterable
    await executor.for_each(of_int, numbers, errors="return")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType] # nowhere to return to
    await executor.run_in_thread(plain, "a")  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # str is no int
    await executor.run_in_process(plain)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # one argument short
    executor.stream(of_int, texts)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # str is no int
    executor.stream(of_int, numbers, outcomes=True, errors="return")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType] # one of them
    await executor.gather(of_int, thunk)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # it takes an argument
    await executor.race(5)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType] # no call
    await executor.submit(of_int, "1")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType] # str is no int
    await executor.run(of_int, "1")  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # str is no int
    await executor.run(plain)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # one argument short
    await executor.run(of_int, x=1)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue] # keywords are options
    await executor.run(of_int, 1, rate=2)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType] # a limit for one call
    await executor.map(of_two, texts, numbers)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # the other way round
    await executor.for_each(of_int, numbers, numbers)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # one argument only
    executor.stream(of_three, numbers, texts)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # one argument short
    await executor.run(of_int(1), 1)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType] # arguments of an awaitable


async def stages(
    executor: TaskExecutor, numbers: Iterable[int], later: AsyncIterator[int], texts: list[str]
) -> None:
    """A stream and a merge are sources of what they give."""
    assert_type(executor.stream(len, executor.stream(of_int, numbers)), Stream[int])
    assert_type(await executor.map(of_int, merge(numbers, later, [1])), list[str])
    either: Merge[int | str] = merge(numbers, texts)
    assert_type(await executor.map(repr, either), list[str])
    await executor.map(of_int, executor.stream(of_int, numbers))  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # str is no int
    await executor.map(of_int, merge(texts, texts))  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # nor here


async def streaming(
    executor: TaskExecutor, numbers: list[int], later: AsyncIterator[int], texts: Iterable[str]
) -> None:
    """So are they in a stream."""
    assert_type(executor.stream(of_int, numbers), Stream[str])
    assert_type(executor.stream(of_int, later, ordered=True, max_pending=5), Stream[str])
    assert_type(executor.stream(plain, numbers), Stream[str])
    assert_type(executor.stream(of_two, numbers, texts), Stream[float])
    assert_type(executor.stream(of_int, numbers, errors="return"), Stream[str | Exception])
    assert_type(executor.stream(of_two, numbers, texts, errors="return"), Stream[float | Exception])
    assert_type(executor.stream(of_three, numbers, texts, [b""]), Stream[bytes])
    assert_type(
        executor.stream(of_three, numbers, texts, [b""], errors="return"),
        Stream[bytes | Exception],
    )
    assert_type(
        executor.stream(of_three, numbers, texts, [b""], outcomes=True), Stream[Outcome[bytes]]
    )
    async with executor.stream(of_int, numbers) as results:
        assert_type(results, Stream[str])
        async for result in results:
            assert_type(result, str)


class Letters:
    """A source with acknowledgement."""

    def __aiter__(self) -> AsyncIterator[int]:
        """Iterate."""
        raise NotImplementedError

    async def ack(self, letter: int) -> None:
        """Take note."""

    async def nack(self, letter: int, error: BaseException | None) -> None:
        """Take it back."""


def report(item: int, error: Exception) -> None:
    """Take what failed."""


async def acknowledging(
    executor: TaskExecutor,
    one: Callable[[], Awaitable[int]],
    some: Callable[[], Awaitable[list[int]]],
    texts: list[str],
) -> None:
    """An intake is a source of what is received, and a function takes the errors of any."""
    intake = Intake(one, ack=print, nack=Letters().nack)
    assert_type(intake, Intake[int])
    assert_type(Intake(some), Intake[list[int]])
    assert_type(Intake(some, many=True), Intake[int])
    source: AckSource[int] = intake
    source = Letters()
    assert_type(await executor.map(of_int, source), list[str])
    await executor.for_each(of_int, intake, errors=report)
    await executor.for_each(of_two, intake, texts, errors=lambda pair, _: pair[1].upper())
    assert_type(executor.stream(of_int, intake, errors=report), Stream[str])
    await executor.for_each(len, intake, batch=5, errors=lambda batch, _: batch.clear())
    await executor.for_each(plain_thunk, intake)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # one argument too few
    await executor.for_each(str.upper, texts, errors=report)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # str is no int
    await executor.map(of_int, intake, errors=report)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType] # no result then
    Intake(one, ack=str.upper)  # type: ignore[misc] # pyright: ignore[reportArgumentType] # str is no int


async def joining(
    executor: TaskExecutor, many: list[Awaitable[int]], thunks: list[Callable[[], int]]
) -> None:
    """Several calls keep their own types, as far as there are overloads."""
    one, two, three = of_int(1), of_two(1, ""), thunk()
    assert_type(await executor.gather(one), tuple[str, ...])
    assert_type(await executor.gather(one, two), tuple[str, float])
    assert_type(await executor.gather(one, two, three, limit=2), tuple[str, float, int])
    assert_type(await executor.gather(one, two, three, one), tuple[str, float, int, str])
    assert_type(
        await executor.gather(one, two, thunk, plain_thunk, partial(of_int, 1), lambda: three),
        tuple[str, float, int, bytes, str, int],
    )
    assert_type(await executor.gather(*many), tuple[int, ...])
    assert_type(await executor.gather(*many, limit=3), tuple[int, ...])
    assert_type(await executor.gather(*thunks), tuple[int, ...])
    assert_type(await executor.gather(plain_thunk, plain_thunk), tuple[bytes, bytes])
    assert_type(await executor.gather(thunk, plain_thunk, rate=1, limit=1), tuple[int, bytes])
    assert_type(await executor.gather(thunk, two), tuple[int, float])
    assert_type(
        await executor.gather(one, one, errors="return"), tuple[str | Exception, str | Exception]
    )
    assert_type(await executor.gather(*many, errors="return"), tuple[int | Exception, ...])
    assert_type(await executor.race(one, one), str)
    assert_type(await executor.race(thunk, thunk), int)
    assert_type(await executor.race(plain_thunk, rate=2, limit=1), bytes)
    assert_type(await executor.race(one, partial(plain, 1), lambda: of_int(1)), str)
    await executor.gather(thunk, plain_thunk, errors="return")  # accepted, if not inferred
    await executor.race(one, plain_thunk)
    executor.as_completed(one, thunk, plain_thunk, rate=1)
    async with executor.stream(of_int, [1], outcomes=True, ordered=True) as each:
        async for ended in each:
            assert_type(ended, Outcome[str])
    async with executor.stream(plain_two, [1], ["a"], outcomes=True) as pairs:
        async for pair in pairs:
            assert_type(pair.result(), float)
    async with executor.as_completed(one, one) as outcomes:
        async for outcome in outcomes:
            assert_type(outcome, Outcome[str])
            assert_type(outcome.result(), str)
            assert_type(outcome.error, Exception | None)


async def with_default(x: int, y: str = "") -> float:
    """Take an argument that may be left out."""
    return x + len(y)


async def single(executor: TaskExecutor, limiter: RateLimiter) -> None:
    """A single call gives what its function returns."""
    assert_type(await executor.run(of_int, 1), str)
    assert_type(await executor.run(of_int, 1, timeout=5, rate=limiter, retry=3), str)
    assert_type(await executor.run(of_int(1)), str)
    assert_type(await executor.run(plain, 1), str)
    assert_type(await executor.run(either, 1), str)
    assert_type(await executor.run(with_default, 1), float)
    assert_type(await executor.run(with_default, 1, ""), float)
    assert_type(await executor.run(lambda: 1), int)
    assert_type(await executor.run(int, "1", 2), int)
    assert_type(await executor.run(partial(of_two, 1), "y"), float)
    assert_type(await executor.run_in_thread(plain, 1), str)
    assert_type(await executor.run_in_thread(of_int, 1), str)
    assert_type(await executor.run_in_process(plain, 1, timeout=5), str)
    assert_type(await executor.submit(of_int, 1), TaskHandle[str])
    assert_type(executor.submit_nowait(plain, 1), TaskHandle[str])
    assert_type(await executor.submit(partial(of_two, 1), "y"), TaskHandle[float])
    assert_type(await executor.map(executor.submit_nowait, [plain_thunk]), list[bytes])
    assert_type(await (await executor.submit(of_int, 1)), str)
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run, of_int, 1)


async def at_port(port: int, *, task_status: TaskStatus[bytes]) -> str:
    """Be a service with an argument, that is ready with some bytes."""
    task_status.started(b"")
    return str(port)


async def at_once(*, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
    """Be a service without arguments."""
    task_status.started()


async def at_host(host: str, port: int, task_status: TaskStatus[int]) -> None:
    """Be a service with two arguments."""
    task_status.started(port + len(host))


async def at_three(a: int, b: int, c: int, *, task_status: TaskStatus[int]) -> None:
    """Be a service with more."""
    task_status.started(a + b + c)


async def at_four(a: int, b: int, c: int, d: int, *, task_status: TaskStatus[int]) -> None:
    """Be a service with more still, whose arguments are not checked."""
    task_status.started(a + b + c + d)


async def services(executor: TaskExecutor) -> None:
    """A handle knows what its service is ready with."""
    service = await executor.start(at_port, 80, restart=3)
    assert_type(service, TaskHandle[str, bytes])
    assert_type(service.start_value, bytes)
    assert_type(service.return_value, str)
    assert_type((await executor.start(at_once)).start_value, None)
    assert_type((await executor.start(at_host, "", 80)).start_value, int)
    assert_type((await executor.start(at_three, 1, 2, 3)).start_value, int)
    assert_type((await executor.start(at_four, 1, 2, 3, 4)).start_value, Any)
    assert_type((await executor.submit(of_int, 1)).start_value, None)
    await executor.start(at_port, "80")  # type: ignore[misc] # pyright: ignore[reportCallIssue, reportArgumentType] # str is no int
    await executor.start(at_port)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # one argument short
    await executor.start(of_int, 1)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # no service
