"""Calls that end when their ``until=`` does: nothing more is taken, and what runs ends."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio._internal import loops, unfinished
from mtaio._internal.backend import is_asyncio
from mtaio.core import Journal, TaskExecutor, merge
from mtaio.exceptions import StrayCancellationError
from mtaio.testing import settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from pathlib import Path


async def second(x: Any) -> Any:
    """Take a second."""
    await anyio.sleep(1)
    return x


def after(seconds: float) -> Any:
    """Return an async function that waits so long."""
    return partial(anyio.sleep, seconds)


async def over() -> None:
    """Be over, but for a turn of the event loop."""
    await checkpoint()


class Source:
    """An async generator that gives so many numbers, then waits for ever, and cleans up."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.cleaned = False

    async def numbers(self) -> AsyncGenerator[int]:
        """Yield the numbers."""
        try:
            while self.left:
                self.left -= 1
                yield self.left
            await anyio.sleep_forever()
        finally:
            await checkpoint()
            self.cleaned = True


async def test_a_call_returns_though_its_source_waits() -> None:
    """What runs at that moment ends, and its results are there."""
    executor = TaskExecutor(3)
    with unfinished.recording() as record:
        assert await executor.map(second, Source(2).numbers(), until=after(0.5)) == [1, 0]
    assert record.noted
    assert anyio.current_time() == 1
    assert executor.statistics().cancelled == executor.statistics().in_use == 0


async def test_a_source_that_does_not_wait_is_closed_at_leisure() -> None:
    """Its cleaning up is not cancelled."""
    source = Source(9)
    assert await TaskExecutor(2).map(second, source.numbers(), until=after(0.5)) == [8, 7]
    assert source.left == 7
    assert source.cleaned


async def test_a_source_in_a_turn_of_its_own_is_not_cancelled() -> None:
    """It is if it then waits, and not if it has an item: that is begun."""
    ended = anyio.Event()
    turns = 0
    begun: list[int] = []

    async def source() -> AsyncIterator[int]:
        nonlocal turns
        for number in range(9):
            ended.set()
            await checkpoint()
            turns += 1
            yield number

    async def item(number: int) -> None:
        begun.append(number)

    async def waits() -> AsyncIterator[int]:
        yield 0
        ended.set()
        await checkpoint()
        await anyio.sleep_forever()

    for executor in (TaskExecutor(2), TaskExecutor()):
        begun.clear()
        ended, turns = anyio.Event(), 0
        await executor.for_each(item, source(), until=ended.wait)
        assert begun == [*range(turns)]
        assert 0 < turns < 9
        ended = anyio.Event()
        await executor.for_each(item, waits(), until=ended.wait)


@pytest.mark.parametrize("options", [{}, {"read_ahead": 2}, {"batch": 2}])
@pytest.mark.parametrize("kind", ["list", "async"])
async def test_nothing_is_taken_if_it_is_over_before(kind: str, options: Any) -> None:
    """An async generator is closed all the same."""
    source = Source(9)
    numbers = source.numbers()
    await anext(numbers)
    given: Any = [1, 2] if kind == "list" else numbers
    with unfinished.recording() as record:
        assert await TaskExecutor().map(second, given, until=over, **options) == []
    assert record.noted
    assert source.left == 8
    assert source.cleaned == (kind == "async")
    await numbers.aclose()


async def test_no_slot_is_waited_for_if_it_is_over_before() -> None:
    """Others may have them all."""
    executor = TaskExecutor(1)
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run, second, 0)
        await settle()
        assert await executor.map(second, [1], until=over) == []
        assert anyio.current_time() == 0


@pytest.mark.parametrize(
    ("source", "noted"),
    [
        (lambda: [1, 2], False),
        (lambda: range(3), True),
        (lambda: range(10**30), True),
        (lambda: iter([1]), False),
        (lambda: (x for x in [1, 2, 3]), True),
        (lambda: (x for x in [1]), False),
        (lambda: Source(1).numbers(), True),
        (lambda: ended(1), False),
    ],
    ids=["list", "range", "long", "iterator", "generator", "short", "waits", "ends"],
)
async def test_a_call_that_was_cut_short_is_noted(source: Any, *, noted: bool) -> None:
    """Not if the source was known to be exhausted."""
    with unfinished.recording() as record:
        await TaskExecutor(2).for_each(second, source(), until=after(0.5))
    assert record.noted == noted
    assert anyio.current_time() == 1


@pytest.mark.parametrize("kind", ["journal", "merge"])
async def test_a_list_is_known_to_be_exhausted(kind: str, tmp_path: Path) -> None:
    """Also where it is read as an async source is, for a journal or beside one."""
    for left in (0, 1):
        numbers = [*range(2 + left)]
        journal = Journal[int](tmp_path / f"{left}.jsonl") if kind == "journal" else None
        source = merge(numbers, ended(0)) if kind == "merge" else numbers
        with unfinished.recording() as record:
            await TaskExecutor(2).for_each(second, source, until=after(0.5), journal=journal)
        assert record.noted == bool(left)


async def ended(count: int) -> AsyncIterator[int]:
    """Yield numbers, and end."""
    for number in range(count):
        yield number


async def test_what_was_read_is_begun() -> None:
    """A batch that is not full, and what was read ahead, run to their end."""
    executor = TaskExecutor()
    batches = await executor.map(second, Source(5).numbers(), batch=3, until=after(0.5))
    assert batches == [[4, 3, 2], [1, 0]]
    assert anyio.current_time() == 1.5
    ahead = executor.map(second, Source(5).numbers(), limit=1, read_ahead=3, until=after(0.5))
    assert await ahead == [4, 3, 2, 1]
    assert anyio.current_time() == 5.5


async def test_an_error_ends_the_call() -> None:
    """As that of a source does, and items are cancelled."""

    async def fail() -> None:
        await anyio.sleep(0.5)
        raise OSError

    executor = TaskExecutor(1)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its notes are what matters
        await executor.map(second, [1, 2, 3], until=fail)
    assert not hasattr(caught.value, "__notes__")
    assert executor.statistics().cancelled == 1


async def test_an_error_at_once_ends_the_call() -> None:
    """Before anything is taken."""

    async def fail() -> None:
        raise OSError

    source = Source(3)
    with pytest.raises(OSError):  # noqa: PT011 - it has no message
        await TaskExecutor().map(second, source.numbers(), until=fail)
    assert source.left == 3


async def test_a_stray_cancellation_is_an_error() -> None:
    """It would end the call silently."""

    async def stray() -> None:
        await anyio.sleep(0.5)
        raise anyio.get_cancelled_exc_class()

    if not is_asyncio(loops.current_loop()):
        pytest.skip("trio's cancellation cannot be made")
    with pytest.raises(StrayCancellationError, match=r"stray raised CancelledError"):
        await TaskExecutor().map(second, [1, 2], until=stray)


@pytest.mark.parametrize("how", ["scope", "native"])
async def test_cancelled_as_it_is_asked(how: str) -> None:
    """A call that is cancelled before it knows takes nothing, and closes its source."""
    source = Source(3)
    numbers = source.numbers()
    await anext(numbers)

    stop: Callable[[], object]

    async def until() -> None:
        stop()
        await checkpoint()

    call = partial(TaskExecutor().map, second, numbers, until=until, read_ahead=1)
    if how == "scope":
        with anyio.CancelScope() as scope:
            stop = scope.cancel
            await call()
    elif is_asyncio(loops.current_loop()):
        task = asyncio.ensure_future(call())
        stop = task.cancel
        await asyncio.wait([task])
    else:
        pytest.skip("trio has no Task.cancel()")
    assert source.left == 2


async def test_it_is_cancelled_when_the_call_has_ended() -> None:
    """And may clean up."""
    cleaned = False

    async def until() -> None:
        nonlocal cleaned
        try:
            await anyio.sleep_forever()
        finally:
            cleaned = True

    assert await TaskExecutor().map(second, [1, 2], until=until) == [1, 2]
    assert cleaned
    cleaned = False
    with anyio.move_on_after(0.5):
        await TaskExecutor().map(second, [1, 2], until=until)
    assert cleaned


async def test_results_that_wait_for_their_consumer_come() -> None:
    """Workers that wait for space do so no longer, and nothing is dropped."""
    for source in (range(99), Source(99).numbers()):
        stream = TaskExecutor().stream(second, source, limit=2, max_pending=1, until=after(5))
        async with stream as results:
            await anyio.sleep(10)
            assert len([result async for result in results]) == 3


async def test_several_sources() -> None:
    """Each of them is left to wait no longer."""

    async def add(a: int, b: int) -> int:
        await anyio.sleep(1)
        return a + b

    one, two = Source(2), Source(3)
    call = TaskExecutor().map(add, one.numbers(), two.numbers(), until=after(0.5))
    assert await call == [3, 1]
    call = TaskExecutor().map(add, one.numbers(), [1], until=after(0.5))
    assert await call == []


def test_threads_take_no_more(backend: str) -> None:
    """Nor do threads that take items themselves."""
    third = threading.Event()
    go = threading.Event()
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 2:
            third.set()
        if number >= 2:
            go.wait()
        return number

    async def main() -> None:
        async def until() -> None:
            await anyio.to_thread.run_sync(third.wait)

        async def let_go() -> None:
            await anyio.to_thread.run_sync(third.wait)
            await anyio.sleep(0.05)
            go.set()

        async with anyio.create_task_group() as group:
            group.start_soon(let_go)
            results = await TaskExecutor(threads=1).map(work, range(99), until=until)
        assert results == begun == [0, 1, 2]

    anyio.run(main, backend=backend)


@pytest.mark.parametrize(
    ("until", "message"),
    [
        (1, r"until=1 is an int, which is not callable\. Pass an async function without"),
        (threading.Event().wait, r"is not an async function, and would block the event loop"),
        (anyio.sleep, r"cannot be called as sleep\(\): missing a required argument"),
    ],
)
async def test_refusals(until: Any, message: str) -> None:
    """What cannot be awaited is refused, with the way out."""
    with pytest.raises(TypeError, match=message):
        await TaskExecutor().map(second, [], until=until)


def test_nothing_is_noted_outside() -> None:
    """A record sees what is noted in its block, and blocks do not see each other's."""
    unfinished.note()
    with unfinished.recording() as outer:
        with unfinished.recording() as inner:
            unfinished.note()
        assert inner.noted
        assert not outer.noted
