"""
Errors planted in calls of TaskExecutor, each found by mypy, by pyright and by ty, and not run.

Each line has an ignore for each checker that finds it, and each checker refuses an ignore that it
does not need. What a checker does not find has none, and a comment that says so.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, Unpack, assert_type

import anyio

from mtaio.types import NothingElse, Returned, Service1, Unset

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from anyio.abc import TaskStatus

    from mtaio import TaskExecutor
    from mtaio.types import MapOptions

T = TypeVar("T")


async def fetch(x: int) -> str:
    """Take one argument."""
    return str(x)


async def fetch_two(x: int, y: str = "", *, quiet: bool = False) -> float:
    """Take one or two arguments, and a keyword."""
    return 0.0 if quiet else x + len(y)


async def fetch_four(w: int, x: str, y: bytes, z: float = 0.0) -> bytes:
    """Take three or four arguments."""
    return f"{w}{x}{y!r}{z}".encode()


async def query(text: str, *args: object) -> int:
    """Take any number of arguments."""
    return len(text) + len(args)


async def first(x: T, y: Sequence[T]) -> T:
    """Be generic."""
    return y[0] if y else x


def plain(x: int) -> str:
    """Be plain."""
    return str(x)


def plain_two(x: int, y: str = "") -> float:
    """Be plain, with one or two arguments."""
    return x + len(y)


def plain_three(x: int, y: str, z: bytes) -> bytes:
    """Be plain, with three arguments."""
    return f"{x}{y}{z!r}".encode()


class Client:
    """Has methods, and can be called."""

    async def get(self, x: int) -> str:
        """Be a method."""
        return str(x)

    @classmethod
    def load(cls, x: int) -> bytes:
        """Be a class method."""
        return bytes(x)

    async def __call__(self, x: int) -> str:
        """Be called."""
        return str(x)


async def serve(port: int, *, task_status: TaskStatus[bytes]) -> str:
    """Be a service with one argument."""
    task_status.started(b"")
    return str(port)


async def serve_three(
    a: int, b: str, c: bytes = b"", *, task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED
) -> str:
    """Be a service with two or three arguments."""
    task_status.started(a)
    return f"{b}{c!r}"


async def in_run(executor: TaskExecutor, client: Client) -> None:
    """`run` checks the number and the types of arguments."""
    await executor.run(fetch, "1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run(fetch)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue] # ty: ignore[no-matching-overload]
    await executor.run(fetch, 1, 2)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run(fetch_two, 1, 2)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run(fetch_two, "1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run(fetch_two, 1, "", True)  # type: ignore[arg-type, call-arg] # pyright: ignore[reportArgumentType, reportCallIssue] # ty: ignore[no-matching-overload] # noqa: FBT003
    await executor.run(fetch_four, 1, "", "")  # type: ignore[arg-type, call-arg] # pyright: ignore[reportArgumentType, reportCallIssue] # ty: ignore[no-matching-overload]
    await executor.run(fetch_four, 1, "")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run(fetch_four, 1, "", b"", "")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue] # not found by ty
    await executor.run(query, 1, 2, 3)  # type: ignore[arg-type, call-arg] # pyright: ignore[reportArgumentType, reportCallIssue] # ty: ignore[no-matching-overload]
    await executor.run(first, 1, 2)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run(plain, "1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run(plain)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue] # ty: ignore[no-matching-overload]
    await executor.run(client.get, "1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run(client.load, "1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run(client, "1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run(partial(fetch_two, 1), 2)  # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type] # not found by mypy
    await executor.run(lambda: 1, 2)  # type: ignore[arg-type, misc] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run(fetch, x=1)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue] # ty: ignore[no-matching-overload]
    await executor.run(fetch, 1, limit=2)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue] # ty: ignore[no-matching-overload]
    await executor.run(fetch, 1, timeout="1")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run(fetch(1), 1)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run(fetch(1), retry=2)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    _: int = await executor.run(fetch, 1)  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType] # ty: ignore[invalid-assignment]
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run, fetch, "1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # not found by ty


async def in_workers(executor: TaskExecutor) -> None:
    """So do `run_in_thread` and `run_in_process`."""
    await executor.run_in_thread(plain, "1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run_in_thread(plain)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run_in_thread(plain_two, 1, 2)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run_in_thread(plain_two, "1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run_in_thread(plain_three, 1, "", "")  # type: ignore[arg-type, call-arg] # pyright: ignore[reportArgumentType, reportCallIssue] # ty: ignore[no-matching-overload]
    await executor.run_in_thread(plain_three, 1, "")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run_in_thread(plain, 1, limit=2)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue] # ty: ignore[no-matching-overload]
    await executor.run_in_process(plain, "1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run_in_process(plain)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run_in_process(plain_two, 1, 2)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.run_in_process(plain_three, 1, "", "")  # type: ignore[arg-type, call-arg] # pyright: ignore[reportArgumentType, reportCallIssue] # ty: ignore[no-matching-overload]
    await executor.run_in_process(plain_three, 1, "")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    _: int = await executor.run_in_process(plain, 1)  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType] # ty: ignore[invalid-assignment]


async def in_tasks(executor: TaskExecutor) -> None:
    """So do `submit`, `start` and `every`."""
    await executor.submit(fetch, "1")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue] # ty: ignore[no-matching-overload]
    await executor.submit(fetch)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue] # ty: ignore[no-matching-overload]
    await executor.submit(fetch_two, 1, quite=True)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue] # ty: ignore[no-matching-overload]
    executor.submit_nowait(plain, "1")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue] # ty: ignore[no-matching-overload]
    await executor.start(serve, "80")  # type: ignore[misc] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.start(serve)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.start(serve, 80, 81)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.start(serve_three, 1, 2)  # type: ignore[misc] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.start(serve_three, 1, "", "")  # type: ignore[misc] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.start(fetch, 1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    executor.every(1, fetch, "1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # not found by ty
    executor.every(1, fetch)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # not found by ty


async def in_sources(executor: TaskExecutor, numbers: list[int], texts: list[str]) -> None:
    """Functions are checked against the items of one source or two, and options by their names."""
    await executor.map(fetch, texts)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.map(fetch, 5)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.map(fetch_four, numbers)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.map(fetch_two, numbers, numbers)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.map(fetch_two, texts, texts)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.map(plain_two, texts, numbers)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.map(fetch, numbers, numbers)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.map(fetch_two, range(3), [1, 2, 3])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.map(lambda x, y: x.upper() + y, numbers, texts)  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownLambdaType, reportUnknownMemberType] # ty: ignore[missing-attribute]
    await executor.map(fetch, numbers, limit="1")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.map(fetch, numbers, limt=1)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue] # not found by ty
    await executor.map(fetch_two, numbers, quiet=True)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue] # not found by ty
    await executor.map(fetch, numbers, errors="ignore")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue] # ty: ignore[no-matching-overload]
    await executor.for_each(fetch_two, texts, numbers)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    executor.stream(fetch_two, texts, numbers)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    executor.stream(fetch, texts)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # ty: ignore[invalid-argument-type]
    await executor.map(fetch_four, numbers, numbers, numbers)  # not found: a third source
    _: list[int] = await executor.map(fetch, numbers)  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType] # ty: ignore[invalid-assignment]


async def in_several(executor: TaskExecutor) -> None:
    """`gather` and `race` know what each call returns."""
    await executor.gather(fetch, plain)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue] # ty: ignore[no-matching-overload]
    await executor.race(fetch(1), fetch)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue] # ty: ignore[no-matching-overload]
    await executor.race(fetch(1), 5)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue] # ty: ignore[no-matching-overload]
    a: str = await executor.race(fetch(1), fetch_two(1))  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType] # ty: ignore[invalid-assignment]
    b: tuple[str, float] = await executor.gather(fetch(1), fetch_two(1), errors="return")  # type: ignore[assignment] # pyright: ignore[reportAssignmentType] # ty: ignore[invalid-assignment]
    del a, b


async def found(
    executor: TaskExecutor,
    numbers: list[int],
    texts: list[str],
    calls: list[Callable[[], Awaitable[int]]],
) -> None:
    """Nothing is refused that is right, and types are kept."""
    assert_type(await executor.run(fetch, 1), str)
    assert_type(await executor.run(fetch_two, 1), float)
    assert_type(await executor.run(fetch_two, 1, ""), float)
    assert_type(await executor.run(fetch_four, 1, "", b""), bytes)
    assert_type(await executor.run(fetch_four, 1, "", b"", 1.0), bytes)
    assert_type(await executor.run(first, 1, [2]), int)
    assert_type(await executor.run(query, ""), int)
    assert_type(await executor.run(query, "", 1, 2, 3, 4), int)  # ty: ignore[type-assertion-failure] # Unknown
    assert_type(await executor.run(query, "", *texts), int)  # ty: ignore[type-assertion-failure] # Unknown
    assert_type(await executor.run(plain, 1), str)
    assert_type(await executor.run(lambda x: x + 1, 1), int)
    assert_type(await executor.run(Path, "a", "b", "c", "d"), Path)
    assert_type(await executor.run(Client().get, 1, timeout=1), str)
    assert_type(await executor.run(partial(fetch_two, 1, quiet=True), ""), float)
    assert_type(await executor.run(calls[0], retry=2), int)  # ty: ignore[type-assertion-failure] # Awaitable[int] | int
    assert_type(await executor.run_in_thread(plain_two, 1), float)
    assert_type(await executor.run_in_thread(plain_three, 1, "", b""), bytes)
    assert_type(await executor.run_in_process(plain_two, 1, ""), float)
    assert_type(await executor.run_in_process(plain_three, 1, "", b"", timeout=1), bytes)
    await executor.run_in_thread(print, *texts)
    await executor.run_in_thread(os.path.join, "a", "b", "c", "d")
    assert_type(await executor.map(fetch_two, numbers, limit=5), list[float])
    assert_type(await executor.map(plain_two, numbers, texts, limit=5), list[float])
    assert_type(await executor.race(fetch(1)), str)
    assert_type(await executor.race(fetch(1), fetch(2)), str)
    assert_type(await executor.race(fetch(1), lambda: fetch_two(1), limit=1), str | float)
    assert_type(await executor.race(fetch(1), partial(plain_three, 1, "", b"")), str | bytes)
    assert_type(await executor.race(*map(fetch, numbers)), str)
    assert_type(
        await executor.gather(fetch(1), partial(fetch_two, 1), errors="return"),
        tuple[str | Exception, float | Exception],
    )
    assert_type(
        await executor.gather(*map(fetch, numbers), errors="return"), tuple[str | Exception, ...]
    )
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run, fetch, 1)
        group.start_soon(executor.run, fetch_two, 1)
        group.start_soon(executor.run_in_thread, plain_three, 1, "", b"")


async def wrapping(
    executor: TaskExecutor,
    fn: Callable[[int], Returned[T]],
    seconds: float | Unset | None,
    **options: Unpack[MapOptions],
) -> list[T]:
    """The names in signatures are there for functions around ours."""
    await executor.run(fetch, 1, timeout=seconds)
    return await executor.map(fn, [1], **options)


service: Service1[int, str, bytes] = serve
nothing: NothingElse | None = None
