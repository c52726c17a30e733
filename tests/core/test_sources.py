"""What items come from: sync and async iterables, how far ahead they are read, who closes them."""

from __future__ import annotations

import itertools
from contextlib import aclosing
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from mtaio.core import TaskExecutor
from mtaio.testing import settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator


async def second_of(x: int) -> int:
    """Return ``x`` a second later."""
    await anyio.sleep(1)
    return x


async def numbers(stop: int, *, every: float = 0) -> AsyncGenerator[int, None]:
    """Yield numbers up to ``stop``, one ``every`` so many seconds."""
    for i in range(stop):
        await anyio.sleep(every)
        yield i


# ---- kinds of sources --------------------------------------------------------------------------


async def test_async_generator() -> None:
    """Items of an async generator are worked on while it waits for more."""
    assert await TaskExecutor(2).map(second_of, numbers(4, every=0.75)) == [0, 1, 2, 3]
    assert anyio.current_time() == 4.25  # the third is asked for at 1.75, when a worker is free


async def test_endless_async_source_obeys_a_deadline() -> None:
    """A source that never waits, and items that never wait, are cancelled all the same."""

    async def endless() -> AsyncIterator[int]:
        for i in itertools.count():
            yield i

    async def at_once(x: int) -> int:
        return x

    with anyio.move_on_after(0) as scope:
        await TaskExecutor(1).for_each(at_once, endless())
    assert scope.cancelled_caught


async def test_reader_yields_though_its_source_does_not() -> None:
    """Reading far ahead, the reader lets others run every 32 items."""
    read = 0
    seen: list[int] = []

    async def quick() -> AsyncIterator[int]:
        nonlocal read
        for i in range(200):
            read += 1
            yield i

    async def other() -> None:
        while read < 200:
            await anyio.lowlevel.checkpoint()
            seen.append(read)

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await TaskExecutor().map(second_of, quick())
    gaps = [b - a for a, b in itertools.pairwise([0, *seen])]
    assert max(gaps) <= 2 * 32


async def test_class_with_getitem_alone() -> None:
    """The old sequence protocol is enough."""

    class Old:
        def __getitem__(self, i: int) -> int:
            if i == 3:
                raise IndexError
            return i

    assert await TaskExecutor(2).map(second_of, Old()) == [0, 1, 2]  # type: ignore[call-overload] # typeshed asks for __iter__


async def test_mixed_sources_end_with_the_shortest() -> None:
    """Sync and async iterables go together, one item from each."""

    async def pair(a: int, b: str) -> tuple[int, str]:
        await anyio.sleep(1)
        return a, b

    executor = TaskExecutor(4)
    assert await executor.map(pair, numbers(9), [*"abc"]) == [(0, "a"), (1, "b"), (2, "c")]
    assert await executor.map(pair, itertools.count(), letters()) == [(0, "x"), (1, "y")]
    assert await executor.map(pair, numbers(9), letters()) == [(0, "x"), (1, "y")]


async def letters() -> AsyncGenerator[str, None]:
    """Yield two letters."""
    for letter in "xy":
        yield letter


async def test_sync_source_stays_with_its_owner() -> None:
    """An iterator that was partly read goes on where it stood, and may be read on afterwards."""
    source = iter(range(6))
    assert next(source) == 0
    executor = TaskExecutor(2)
    async with executor.stream(second_of, source) as results:
        async for _ in results:
            break
    assert 3 <= next(source) <= 5


# ---- reading ahead -----------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 50, None])
@pytest.mark.parametrize("ahead", [0, 1, 16])
async def test_async_source_is_read_as_far_ahead_as_told(limit: int | None, ahead: int) -> None:
    """aiometer#46: by default nothing is read before it can begin, else as many as told."""
    read = 0

    async def source() -> AsyncIterator[int]:
        nonlocal read
        for i in range(200):
            read += 1
            yield i

    async def stuck(_: int) -> None:
        await anyio.sleep_forever()

    max_pending = 0 if limit else 40
    async with anyio.create_task_group() as group:
        async with TaskExecutor().stream(
            stuck, source(), limit=limit, max_pending=max_pending, read_ahead=ahead
        ):
            await settle()
            assert read == (limit or 40) + ahead
        group.cancel_scope.cancel()


async def test_reading_ahead_hides_a_slow_source() -> None:
    """With ``read_ahead`` a source gets its next item while all workers are busy."""
    results = await TaskExecutor(2).map(second_of, numbers(4, every=0.75), read_ahead=1)
    assert results == [0, 1, 2, 3]
    assert anyio.current_time() == 4


async def test_what_was_read_ahead_is_dropped() -> None:
    """Read ahead, items that cannot begin any more are not called."""
    called = []

    async def work(x: int) -> None:
        called.append(x)
        await anyio.sleep(1)

    with anyio.move_on_after(0.5):
        await TaskExecutor(1).for_each(work, numbers(9), read_ahead=4)
    assert called == [0]


async def test_waiting_worker_gets_the_item_at_once() -> None:
    """An item goes to a worker that waits in the moment it comes."""
    starts = []

    async def work(x: int) -> None:
        starts.append((x, anyio.current_time()))
        await anyio.sleep(2.5)

    await TaskExecutor(4).map(work, numbers(5, every=1))
    assert starts == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]


# ---- closing -----------------------------------------------------------------------------------


class Scoped:
    """An async generator with a cancel scope and a task group across its yields."""

    def __init__(self) -> None:
        self.events: list[tuple[str, float]] = []
        self.tasks: set[int] = set()

    def note(self, event: str) -> None:
        """Note an event, its time, and the task in which it happened."""
        self.events.append((event, anyio.current_time()))
        self.tasks.add(anyio.get_current_task().id)

    async def __call__(self, stop: int) -> AsyncGenerator[int, None]:
        """Yield numbers that a task of its own makes."""
        try:
            with anyio.CancelScope():
                async with anyio.create_task_group() as group:
                    send, receive = anyio.create_memory_object_stream[int]()

                    async def make() -> None:
                        with send:
                            for i in range(stop):
                                await anyio.sleep(1)
                                await send.send(i)

                    group.start_soon(make)
                    with receive:
                        async for i in receive:
                            self.note(f"item {i}")
                            yield i
                    group.cancel_scope.cancel()
        finally:
            self.note("closed")


async def test_generator_with_scopes_is_read_and_closed_in_one_task() -> None:
    """trio#264, PEP 789: cancel scopes inside an async generator do not change hands."""
    source = Scoped()
    assert await TaskExecutor(3).map(second_of, source(3)) == [0, 1, 2]
    assert source.events == [("item 0", 1), ("item 1", 2), ("item 2", 3), ("closed", 3)]
    assert len(source.tasks) == 1


async def test_generator_with_scopes_is_closed_after_break() -> None:
    """trio#264, PEP 789: leaving a stream early unwinds the generator where it was read."""
    source = Scoped()
    async with TaskExecutor(3).stream(second_of, source(9)) as results:
        async for _ in results:
            break
    assert source.events[-1] == ("closed", 2)
    assert len(source.tasks) == 1


async def test_generator_with_scopes_is_closed_after_an_error() -> None:
    """A failing item ends the source too, in its own task."""
    source = Scoped()

    async def fail(x: int) -> int:
        raise ValueError(x)

    with pytest.raises(ValueError, match=r"^0\b"):
        await TaskExecutor(3).map(fail, source(9))
    assert source.events == [("item 0", 1), ("closed", 1)]
    assert len(source.tasks) == 1


async def test_error_of_a_task_inside_the_generator_comes_out() -> None:
    """A generator whose own task fails while it is suspended at a yield says so."""

    async def source() -> AsyncIterator[int]:
        async def fail() -> None:
            await anyio.sleep(1.5)
            raise LookupError

        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            for i in range(9):
                yield i

    with pytest.raises(BaseExceptionGroup) as info:
        await TaskExecutor(1).map(second_of, source())
    assert info.group_contains(LookupError)
    assert anyio.current_time() == 1.5


async def test_all_generators_are_closed_whatever_happens_to_one() -> None:
    """An error while one source is closed keeps the others from nothing."""
    closed = []

    async def source(name: str) -> AsyncIterator[str]:
        try:
            yield name
            yield name
        finally:
            closed.append(name)
            raise LookupError(name)

    async def join(a: str, b: str, c: str) -> str:
        await anyio.sleep(1)
        return a + b + c

    executor = TaskExecutor(1)
    with pytest.raises(ExceptionGroup, match=r"^2 errors in one call") as info:
        await executor.map(join, source("a"), ["x"], source("b"))
    assert sorted(error.args for error in info.value.exceptions) == [("a",), ("b",)]
    assert sorted(closed) == ["a", "b"]
    assert executor.statistics().in_flight == 0


async def test_generator_that_was_started_is_closed_though_nothing_ran() -> None:
    """A stream that is left at once closes its source as any other does."""
    closed = []

    async def source() -> AsyncGenerator[int, None]:
        try:
            for i in range(9):
                yield i
        finally:
            closed.append(anyio.current_time())

    started = source()
    assert await anext(started) == 0
    async with TaskExecutor(1).stream(second_of, started):
        pass
    assert closed == [0]


async def test_clean_up_of_a_generator_may_wait() -> None:
    """At the end of its items a generator may take its time to close; map waits for it."""

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep(5)

    assert await TaskExecutor(1).map(second_of, source()) == [1]
    assert anyio.current_time() == 1 + 5


async def test_other_async_sources_stay_open() -> None:
    """A stream that its owner may want to read on is not closed when the call ends."""
    send, receive = anyio.create_memory_object_stream[int](9)
    for i in range(6):
        send.send_nowait(i)
    with send, receive:
        async with TaskExecutor(1).stream(second_of, receive, max_pending=0) as results:
            async for result in results:
                assert result == 0
                break
        assert receive.receive_nowait() == 1


async def test_generator_is_closed_once() -> None:
    """A user who closes the generator as well sees no difference."""
    async with aclosing(numbers(9, every=1)) as source:
        async with TaskExecutor(2).stream(second_of, source) as results:
            async for _ in results:
                break
        with pytest.raises(StopAsyncIteration):
            await anext(source)


async def test_each_worker_finds_the_source_at_its_end() -> None:
    """The end of a sync source is asked for once by each worker, and never again."""
    asked = 0

    class Source:
        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            nonlocal asked
            asked += 1
            if asked > 4:
                raise StopIteration
            return asked

    assert await TaskExecutor(4).map(second_of, Source()) == [1, 2, 3, 4]
    assert asked == 8
