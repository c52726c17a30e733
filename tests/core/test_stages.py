"""Streams as sources: several stages under one executor, each with limits of its own."""

from __future__ import annotations

import asyncio
from inspect import CORO_CLOSED, getcoroutinestate
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from mtaio.core import Retry, TaskExecutor, merge
from mtaio.testing import settle
from tests.core.broker import Broker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from mtaio.core import Stream


async def second_of(x: int) -> int:
    """Return ``x`` a second later."""
    await anyio.sleep(1)
    return x


async def itself(x: int) -> int:
    """Return ``x``."""
    return x


class Steps:
    """The work of three stages, written down."""

    def __init__(self) -> None:
        self.begun: list[list[int]] = [[], [], []]
        self.done: list[list[int]] = [[], [], []]
        self.ended: list[int] = []
        self.at_work = 0

    def step(self, number: int, seconds: float = 1) -> Callable[[int], Any]:
        """Return the function of a stage."""

        async def work(x: int) -> int:
            self.begun[number].append(x)
            self.at_work += 1
            try:
                await anyio.sleep(seconds)
                self.done[number].append(x)
                return x
            finally:
                self.at_work -= 1
                with anyio.CancelScope(shield=True):
                    await anyio.lowlevel.checkpoint()
                self.ended.append(number)

        return work

    def failing(self, number: int, bad: int) -> Callable[[int], Any]:
        """Return a function that fails for one item."""
        work = self.step(number)

        async def fail(x: int) -> int:
            result: int = await work(x)
            if x == bad:
                raise LookupError(x)
            return result

        return fail


# ---- how they go together ------------------------------------------------------------------------


@pytest.mark.parametrize(("max_workers", "seconds"), [(1, 9), (2, 6), (3, 5), (None, 5)])
async def test_stages_overlap(max_workers: int | None, seconds: float) -> None:
    """Each item goes on as soon as its stage has room, with as few slots as there are."""
    steps, executor = Steps(), TaskExecutor(max_workers)
    first = executor.stream(steps.step(0), range(3), limit=1)
    second = executor.stream(steps.step(1), first, limit=1)
    assert await executor.map(steps.step(2), second, limit=1) == [0, 1, 2]
    assert anyio.current_time() == seconds
    assert steps.done == [[0, 1, 2]] * 3


@pytest.mark.parametrize("max_workers", [1, 2, 3])
@pytest.mark.parametrize("slow", [0, 1, 2])
async def test_a_slow_stage_holds_back_those_before_it(max_workers: int, slow: int) -> None:
    """Between two stages there are at most the results that may be pending, and none hangs."""
    steps, executor = Steps(), TaskExecutor(max_workers)
    works = [steps.step(n, 5 if n == slow else 0.1) for n in range(3)]
    most = [0, 0]

    async def watch() -> None:
        while True:
            await anyio.sleep(0.05)
            for n in range(2):
                most[n] = max(most[n], len(steps.begun[n]) - len(steps.begun[n + 1]))

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        stream: Stream[int] = executor.stream(works[0], range(9), limit=1, max_pending=1)
        stream = executor.stream(works[1], stream, limit=1, max_pending=1)
        await executor.for_each(works[2], stream, limit=1)
        group.cancel_scope.cancel()
    assert steps.done == [list(range(9))] * 3
    assert max(most) <= 3  # two of the stream, and one that is about to begin


async def test_options_are_those_of_each_stage() -> None:
    """A rate, retries in threads, and a timeout each hold for their own stage."""
    tries: list[int] = []
    started: list[float] = []

    def parse(x: int) -> int:
        tries.append(x)
        if tries.count(x) == 1:
            raise OSError(x)
        return x

    async def fetch(x: int) -> int:
        started.append(anyio.current_time())
        await anyio.sleep(10 if x == 2 else 0)
        return x

    executor = TaskExecutor(2)
    parsed = executor.stream(parse, range(4), retry=Retry(attempts=2, wait_initial=0), limit=1)
    fetched = executor.stream(fetch, parsed, rate=2, timeout=1, errors="return")
    results = await executor.map(str, fetched)
    assert sorted(tries) == sorted([*range(4)] * 2)
    assert started == [0, 0.5, 1, 1.5]
    assert {"0", "1", "3"} < set(results)
    assert "did not end within timeout=1 s" in "".join(results)


@pytest.mark.parametrize("max_workers", [1, 2])
async def test_inside_an_item(max_workers: int) -> None:
    """The stages of a call in an item share the slot that the item lends, and any that are free."""
    executor = TaskExecutor(max_workers)

    async def item(x: int) -> list[int]:
        return await executor.map(second_of, executor.stream(second_of, [x, x + 1]))

    assert await executor.map(item, [0, 10]) == [[0, 1], [10, 11]]
    assert executor.statistics().in_use == 0


async def test_a_stage_among_several_sources() -> None:
    """A stream goes together with other sources, and into a merge."""

    async def pair(a: int, b: str) -> tuple[int, str]:
        return a, b

    executor = TaskExecutor(2)
    stage = executor.stream(second_of, range(9), ordered=True)
    assert await executor.map(pair, stage, [*"ab"]) == [(0, "a"), (1, "b")]
    stages = executor.stream(second_of, range(2)), executor.stream(second_of, range(10, 12))
    merged = merge(*stages, [20])
    assert sorted(await executor.map(itself, merged)) == [0, 1, 10, 11, 20]


# ---- how they end --------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, 1, 2])
async def test_an_error_of_any_stage_ends_all(bad: int) -> None:
    """It is raised once, bare, with the note of its item; nothing is left running."""
    steps, executor = Steps(), TaskExecutor(3)
    works = [steps.failing(n, 1) if n == bad else steps.step(n) for n in range(3)]
    first = executor.stream(works[0], range(5), limit=1)
    second = executor.stream(works[1], first, limit=1)
    with pytest.raises(LookupError) as caught:
        await executor.for_each(works[2], second, limit=1)
    assert [note.split(":")[0] for note in caught.value.__notes__] == ["in item 1"]
    assert anyio.current_time() == max(3, 2 + bad)  # after the results that were there before it
    assert steps.at_work == 0
    assert executor.statistics().in_flight == 0


async def test_errors_of_two_stages_at_once() -> None:
    """Errors that come together are in one group, each once."""
    steps, executor = Steps(), TaskExecutor()
    first = executor.stream(steps.failing(0, 1), range(3), limit=1)
    with pytest.raises(ExceptionGroup) as caught:
        await executor.for_each(steps.failing(1, 0), first, limit=1)
    errors = caught.value.exceptions
    assert [type(each) for each in errors] == [LookupError, LookupError]
    assert sorted(each.args for each in errors) == [(0,), (1,)]


async def test_collected_errors_come_after_the_results() -> None:
    """A stage that collects its errors raises them when its results have gone on: then all ends."""
    steps, executor = Steps(), TaskExecutor()
    first = executor.stream(steps.failing(0, 1), range(4), limit=1, errors="collect")
    with pytest.raises(LookupError):
        await executor.for_each(steps.step(1, 3), first, limit=2)
    assert steps.done[:2] == [[0, 1, 2, 3], [0, 2]]  # as with any source that fails at its end
    assert steps.begun[1] == [0, 2, 3]


async def test_consumer_that_leaves() -> None:
    """A ``break`` cancels all stages and waits for them, and closes the first one's source."""
    steps, executor = Steps(), TaskExecutor(3)
    closed = False

    async def source() -> AsyncGenerator[int, None]:
        nonlocal closed
        try:
            for x in range(9):
                yield x
        finally:
            closed = True

    first = executor.stream(steps.step(0), source(), limit=1)
    second = executor.stream(steps.step(1), first, limit=1)
    async with executor.stream(steps.step(2), second, limit=1) as results:
        async for _ in results:
            await settle()
            assert steps.at_work > 1
            break
    assert closed
    assert steps.at_work == 0
    assert repr(first) == repr(first).replace("entered", "left")
    assert executor.statistics().in_use == 0


@pytest.mark.parametrize("after", [0, 0.5, 1.5, 2.5, 3.5])
@pytest.mark.parametrize("native", [False, True])
async def test_cancelled(after: float, *, native: bool) -> None:
    """All stages are gone; results that the next stage has not taken are dropped, and no more."""
    steps, executor = Steps(), TaskExecutor(2)

    async def call() -> None:
        first = executor.stream(steps.step(0), range(9), limit=1, max_pending=2)
        await executor.for_each(steps.step(1), first, limit=1)

    if native and is_asyncio():
        task = asyncio.ensure_future(call())
        await anyio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with anyio.move_on_after(after) as scope:
            await call()
        assert scope.cancelled_caught
    assert steps.at_work == 0
    assert len(steps.done[0]) - len(steps.begun[1]) <= 2
    assert executor.statistics().in_flight == executor.statistics().in_use == 0


def is_asyncio() -> bool:
    """Return whether asyncio runs here."""
    return isinstance(anyio.lowlevel.current_token().native_token, asyncio.AbstractEventLoop)


@pytest.mark.parametrize("merged", [False, True])
async def test_until_of_the_first_stage_loses_nothing(*, merged: bool) -> None:
    """Ended at its source, a line of stages brings to the end all that it has begun."""
    steps, executor = Steps(), TaskExecutor(3)
    over = anyio.Event()
    sources = [range(900, 990), range(90)] if merged else [range(90)]
    first = executor.stream(steps.step(0), merge(*sources), limit=1, until=over.wait)
    second = executor.stream(steps.step(1, 3), first, limit=1, max_pending=1)
    results: list[int] = []
    async with anyio.create_task_group() as group:

        async def consume() -> None:
            results.extend(await executor.map(steps.step(2), second, limit=1))

        group.start_soon(consume)
        await anyio.sleep(4.5)
        over.set()
    assert steps.begun[0]
    assert results == steps.begun[0] == steps.done[2]


async def test_acknowledged_by_the_stage_that_takes_it() -> None:
    """A message is acknowledged when the function of the first stage has succeeded."""
    broker, executor = Broker(range(4)), TaskExecutor(4)
    first = executor.stream(second_of, broker.intake(), limit=1)
    with anyio.move_on_after(3.5):
        await executor.for_each(second_of, first, limit=1)
    assert broker.acked == [0, 1, 2]
    assert broker.returned() == [3]


# ---- streams as arguments ------------------------------------------------------------------------


async def test_entered_by_the_user() -> None:
    """A stream that the user enters is the user's: calls share its results, and do not leave it."""
    executor = TaskExecutor()
    stream = executor.stream(second_of, range(4), limit=1)
    second = executor.stream(itself, stream, limit=1)  # given before it is entered
    async with stream, second as results:
        assert await anext(results) == 0
        await second.aclose()
        assert await executor.map(itself, stream) != []
        assert [result async for result in stream] == []


async def test_given_twice() -> None:
    """A stream is the source of one call, and the other has an error that says what to do."""
    executor = TaskExecutor()

    async def add(a: int, b: int) -> int:
        return a + b

    stream = executor.stream(second_of, range(4))
    with pytest.raises(RuntimeError, match=r"^<Stream of 'second_of', .*> is already the source"):
        await executor.map(add, stream, stream)
    with pytest.raises(RuntimeError, match=r"^<Stream of 'second_of', left> is already"):
        await executor.map(itself, stream)
    assert executor.statistics().in_flight == 0


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("how", ["map", "for_each", "stream", "late", "aclose", "cancelled"])
async def test_given_to_a_call_that_does_not_read_it(how: str, *, merged: bool) -> None:
    """It is closed, and so are the coroutines that it was made of."""
    executor = TaskExecutor()
    coroutine = second_of(1)
    stream = executor.as_completed(coroutine)
    source: Any = merge([1], stream) if merged else stream
    refused: Any = {"map": {"limit": 0}, "for_each": {"errors": "return"}, "stream": {"rate": 0}}
    if how == "aclose":
        await executor.stream(itself, source).aclose()
    elif how == "cancelled":
        task: Any = None
        if is_asyncio():  # its first task never starts
            task = asyncio.ensure_future(executor.map(itself, source))
            await settle()
        else:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await executor.map(itself, source)
        if task is not None:
            assert len(await task) == 1 + merged
    elif how == "late":
        with pytest.raises(ValueError, match=r"^max_pending=-1"):
            executor.stream(itself, source, max_pending=-1)
    else:
        with pytest.raises(ValueError, match="="):
            await getattr(executor, how)(itself, source, **refused[how])
    assert getcoroutinestate(coroutine) == CORO_CLOSED
    assert "left" in repr(stream)
