"""merge: several sources as one, read on demand, in turns."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from mtaio.core import TaskExecutor, merge
from mtaio.testing import settle
from tests.core.broker import Broker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator


async def second_of(x: int) -> int:
    """Return ``x`` a second later."""
    await anyio.sleep(1)
    return x


async def itself(x: int) -> int:
    """Return ``x``."""
    return x


async def every(seconds: float, *items: int) -> AsyncGenerator[int, None]:
    """Yield items, each so many seconds after the one before."""
    for item in items:
        await anyio.sleep(seconds)
        yield item


class Reads:
    """Sources that count what is read of them."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.closed: list[int] = []

    async def source(self, first: int, wait: float = 0) -> AsyncGenerator[int, None]:
        """Yield numbers from ``first`` on, in a task of its own from beginning to end."""
        with anyio.CancelScope():  # which has to be left in the task that entered it
            try:
                for x in itertools.count(first):
                    await anyio.sleep(wait)
                    self.read.append(x)
                    yield x
            finally:
                self.closed.append(first)


# ---- the order ---------------------------------------------------------------------------------


async def test_items_come_as_they_are_there() -> None:
    """No source waits for another, and the items end when the last source has ended."""
    got: list[tuple[int, float]] = []

    async def note(x: int) -> None:
        got.append((x, anyio.current_time()))

    slow, quick = every(3, 30, 31), every(1, 10, 11, 12)
    await TaskExecutor(2).for_each(note, merge(slow, quick))
    assert sorted(got) == [(10, 1), (11, 2), (12, 3), (30, 3), (31, 6)]


@pytest.mark.parametrize("limit", [1, 4, 100])
@pytest.mark.parametrize(("sync", "ratio"), [(0, 1.5), (2, 3)])
async def test_sources_take_turns(limit: int, sync: int, ratio: float) -> None:
    """Alike sources have as many turns, and sync ones, which never wait, starve no others."""
    numbers = [range(n, 1000, 10) for n in range(4)]
    begun: list[int] = []

    async def note(x: int) -> None:
        begun.append(x % 10)
        await anyio.lowlevel.checkpoint()

    sources = merge(*numbers[:sync], *(every(0, *each) for each in numbers[sync:]))
    await TaskExecutor().for_each(note, sources, limit=limit)
    for end in range(16, 200, 4):
        turns = [begun[:end].count(n) for n in range(4)]
        assert max(turns) <= ratio * min(turns) + 1


async def test_a_silent_source_holds_up_nothing() -> None:
    """A source that waits for ever is cancelled with the call, and the others go on until then."""
    send, receive = anyio.create_memory_object_stream[int](1)
    done: list[int] = []
    with send, receive, anyio.move_on_after(10) as scope:
        await TaskExecutor(1).for_each(note_in(done), merge(receive, every(1, 1, 2, 3)))
    assert scope.cancelled_caught
    assert done == [1, 2, 3]


def note_in(done: list[int]) -> Any:
    """Return a function that takes a second for an item, and notes it."""

    async def work(x: int) -> None:
        done.append(await second_of(x))

    return work


# ---- on demand ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
async def test_read_on_demand(n: int) -> None:
    """Besides the items that run each source but one has read one, and then reads no more."""
    reads = Reads()
    with anyio.move_on_after(0.5):
        await TaskExecutor(2).for_each(
            second_of, merge(*(reads.source(100 * i) for i in range(n))), limit=2
        )
    assert 2 <= len(reads.read) <= 2 + n - 1
    assert sorted(reads.closed) == [100 * i for i in range(n)]


async def test_all_sync_sources_are_not_read_ahead() -> None:
    """Where nothing has to be waited for an item is read when it begins."""
    first, second = iter(range(10)), iter(range(100, 110))
    executor = TaskExecutor(2)
    async with executor.stream(second_of, merge(first, second), max_pending=0):
        await settle()
        assert executor.statistics().in_flight == 2
    assert (next(first), next(second)) == (1, 101)


@pytest.mark.parametrize("batch", [None, 2, 9])
@pytest.mark.parametrize("how", ["cancelled", "failed item", "failed source", "left"])
async def test_what_a_source_has_in_hand_is_begun(how: str, batch: int | None) -> None:
    """However the call ends, each item that was read has begun once."""
    reads = Reads()
    begun: list[int] = []

    async def work(given: Any) -> None:
        begun.extend(given if isinstance(given, list) else [given])
        await anyio.sleep(1)
        if how == "failed item":
            raise OSError

    async def broken() -> AsyncGenerator[int, None]:
        await anyio.sleep(0.5)
        raise OSError
        yield

    sources = [reads.source(100 * i) for i in range(4)]
    source = merge(merge(*sources[:2]), *sources[2:], *([broken()] if "source" in how else []))
    executor = TaskExecutor(1)
    options: Any = {"batch": batch}
    try:
        with anyio.move_on_after(0.5):
            if how == "left":
                async with executor.stream(work, source, **options):
                    await settle()
            else:
                await executor.for_each(work, source, **options)
    except OSError:
        assert "failed" in how
    assert sorted(begun) == sorted(reads.read)
    assert len(begun) > 1
    assert len(reads.closed) == 4
    assert executor.statistics().in_use == 0


async def test_until_lets_what_is_in_hand_run() -> None:
    """Ended by ``until=``, a call still runs what its sources have read, and no read goes on."""
    reads = Reads()
    done: list[int] = []
    over = anyio.Event()

    async def end() -> None:
        await anyio.sleep(2.5)
        over.set()

    silent, never = anyio.create_memory_object_stream[int](1)
    async with anyio.create_task_group() as group:
        group.start_soon(end)
        with silent, never:
            nested = merge(reads.source(100), never)
            await TaskExecutor(1).for_each(
                note_in(done), merge(reads.source(0), nested), until=over.wait
            )
    assert sorted(done) == sorted(reads.read)
    assert len(done) in {3, 4}  # the one that ran, and perhaps one in hand


# ---- errors, and what sources may be -----------------------------------------------------------


async def test_an_error_of_one_source_ends_the_call() -> None:
    """It is raised bare, as that of a single source, and all sources are closed."""

    async def broken() -> AsyncGenerator[int, None]:
        yield 1
        raise OSError("the source broke")

    reads = Reads()
    executor = TaskExecutor(4)
    with pytest.raises(OSError, match=r"^the source broke$"):
        await executor.map(second_of, merge(reads.source(100, 0.25), broken()))
    assert reads.closed == [100]
    assert executor.statistics().in_flight == 0


async def test_kinds_of_sources() -> None:
    """Empty ones, streams, other merges, and sources with acknowledgement."""
    executor = TaskExecutor(2)
    broker = Broker([1, 2])
    nested = merge([], executor.stream(itself, [10, 11]), merge(every(1, 20), range(30, 32)))
    source = merge(nested, broker.intake())
    assert sorted(await executor.map(second_of, source)) == [1, 2, 10, 11, 20, 30, 31]
    assert sorted(broker.acked) == [1, 2]
    assert await executor.map(itself, merge(merge([]), every(0))) == []
    assert await executor.map(itself, merge(range(3))) == [0, 1, 2]


async def test_each_message_has_one_answer() -> None:
    """What a source with acknowledgement has in hand when the call ends goes back to it."""
    brokers = [Broker(range(10 * n, 10 * n + 9)) for n in range(3)]
    with anyio.move_on_after(1.5):
        source = merge(*(broker.intake() for broker in brokers))
        await TaskExecutor(1).for_each(second_of, source)
    assert sum(len(broker.acked) for broker in brokers) == 1
    assert sum(len(broker.returned()) for broker in brokers) > 1
    for broker in brokers:
        assert not broker.hand
        assert len(broker.acked) + len(broker.nacked) + len(broker.left) == 9


async def test_beside_other_sources() -> None:
    """A merge is one of several sources too, and may be read ahead."""

    async def pair(a: int, b: str) -> tuple[int, str]:
        return a, b

    source = merge(every(1, 1), every(2, 2))
    assert await TaskExecutor(2).map(pair, source, ["abc"]) == [(1, "abc")]
    assert await TaskExecutor(2).map(pair, merge([1], [2]), [*"ab"]) == [(1, "a"), (2, "b")]
    reads = Reads()
    with anyio.move_on_after(0.5):
        await TaskExecutor().for_each(
            second_of, merge(reads.source(0), reads.source(100)), limit=1, read_ahead=5
        )
    assert 6 <= len(reads.read) <= 8


async def test_sources_are_looked_at_by_the_call() -> None:
    """What is no source is refused as it would be alone, and nothing has been touched."""
    executor = TaskExecutor()
    numbers: Iterator[int] = iter(range(3))
    text: Any = "text"
    with pytest.raises(TypeError, match=r"^'text' is a str"):
        await executor.map(itself, merge(numbers, text))
    assert next(numbers) == 0
    with pytest.raises(ValueError, match=r"^merge\(\) of no sources"):
        merge()
    several = [merge([1], [2]), merge([3], [4])]
    with pytest.raises(TypeError, match=r"one by one, and got \[.*\. Write merge\(\*sources\)\.$"):
        merge(several)
    assert await executor.map(itself, merge([1, 2])) == [1, 2]
