"""Batches: lists of what a source gives, which begin when they are full or due."""

from __future__ import annotations

import math
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.lowlevel
import pytest
from anyio.lowlevel import checkpoint

from mtaio.core import TaskExecutor
from mtaio.testing import settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

A = TypeVar("A")

Begun = list[tuple[float, list[int]]]


class Halt(BaseException):
    """Ends a program."""


def is_many(batch: list[int]) -> list[int]:
    """Return the batch, in a thread."""
    assert type(batch) is list
    return batch


async def gives_back(batch: list[A]) -> list[A]:
    """Return the batch."""
    await anyio.lowlevel.checkpoint()
    return batch


async def apart(count: int, seconds: float = 1, error: Exception | None = None) -> Any:
    """Yield numbers, so many seconds apart."""
    for number in range(count):
        await anyio.sleep(seconds)
        yield number
    if error is not None:
        raise error


def failing(count: int, error: Exception) -> Iterator[int]:
    """Yield numbers, then raise."""
    yield from range(count)
    raise error


class Work:
    """Takes its time, and notes when each batch begins."""

    def __init__(self, seconds: float = 0) -> None:
        self.begun: Begun = []
        self.ended: list[list[int]] = []
        self._seconds = seconds

    async def __call__(self, batch: list[int]) -> int:
        """Work on a batch."""
        self.begun.append((anyio.current_time(), batch))
        await anyio.sleep(self._seconds)
        self.ended.append(batch)
        return len(batch)


@pytest.mark.parametrize("fn", [gives_back, is_many], ids=["async", "plain"])
@pytest.mark.parametrize(
    "source",
    [range, lambda n: [*range(n)], lambda n: iter(range(n)), apart],
    ids=["range", "list", "iterator", "async generator"],
)
async def test_each_item_is_in_one_batch(fn: Any, source: Any) -> None:
    """Batches are full but for the last, and in the order of the source."""
    assert await TaskExecutor().map(fn, source(7), batch=3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert await TaskExecutor().map(fn, iter(()), batch=3) == []


async def test_a_batch_begins_when_it_is_full_or_due() -> None:
    """Due is counted from its first item; at the end of the source it begins at once."""
    work = Work()
    send, receive = anyio.create_memory_object_stream[int](math.inf)
    async with receive, anyio.create_task_group() as group:
        group.start_soon(partial(TaskExecutor(2).for_each, work, receive, batch=3, within=1.5))
        for moment, numbers in [(1, [0]), (2, [1]), (4, [2, 3, 4, 5]), (5, [6, 7]), (7, [8])]:
            await anyio.sleep(moment - anyio.current_time())
            for number in numbers:
                send.send_nowait(number)
        await anyio.sleep(0.25)
        send.close()
    assert work.begun == [
        (2.5, [0, 1]),
        (4, [2, 3, 4]),
        (5, [5, 6, 7]),
        (7.25, [8]),
    ]


async def test_within_0_takes_what_is_there() -> None:
    """A batch then waits for nothing, and has what comes at the same moment."""
    work = Work(1)
    await TaskExecutor().for_each(work, apart(3), batch=9, within=0)
    assert work.begun == [(1, [0]), (2, [1]), (3, [2])]


async def test_results_are_not_withheld() -> None:
    """The result of a batch comes when that ends, whatever the source waits for."""
    seen: list[tuple[float, int]] = []
    stream = TaskExecutor().stream(Work(0.25), apart(5), batch=2, ordered=True)
    async with stream as results:
        async for result in results:
            seen.append((anyio.current_time(), result))  # noqa: PERF401 - with the moment
    assert seen == [(2.25, 2), (4.25, 2), (5.25, 1)]


async def test_no_slot_is_held_while_a_batch_fills() -> None:
    """Also where each item is there at once, but for a turn of the event loop."""
    executor = TaskExecutor(1)
    send, receive = anyio.create_memory_object_stream[int](math.inf)
    for number in range(5):
        send.send_nowait(number)

    async with receive, anyio.create_task_group() as group:
        group.start_soon(partial(executor.for_each, Work(1), receive, batch=6))
        await settle()
        assert executor.statistics().in_use == 0
        assert await executor.run(gives_back, [1]) == [1]  # which would wait for a slot in use
        send.send_nowait(5)
        await settle()
        assert executor.statistics().in_use == 1
        send.close()
    in_use: list[int] = []

    async def turns() -> AsyncIterator[int]:
        for number in range(6):
            await checkpoint()
            in_use.append(executor.statistics().in_use)
            yield number

    await executor.for_each(Work(), turns(), batch=6)
    assert in_use[2:] == [0, 0, 0, 0]


async def test_a_batch_goes_on_filling_while_all_are_at_work() -> None:
    """Nor is more than one batch read that has not begun."""
    work = Work(10)
    send, receive = anyio.create_memory_object_stream[int](math.inf)
    async with receive, anyio.create_task_group() as group:
        call = partial(TaskExecutor().for_each, work, receive, batch=4, within=1, limit=1)
        group.start_soon(call)
        await settle()
        send.send_nowait(0)
        await anyio.sleep(3)
        for number in range(1, 4):
            send.send_nowait(number)
        await anyio.sleep(3)
        for number in range(4, 12):
            send.send_nowait(number)
        await settle()
        assert receive.statistics().current_buffer_used == 7
        send.close()
    assert work.begun == [(1, [0]), (11, [1, 2, 3, 4]), (21, [5, 6, 7, 8]), (31, [9, 10, 11])]


async def test_a_batch_that_is_due_waits_for_its_slot() -> None:
    """Other calls have them all; it goes on filling meanwhile, and then comes first."""
    work = Work(1)
    executor = TaskExecutor(1)
    async with anyio.create_task_group() as group:
        group.start_soon(partial(executor.for_each, work, apart(6), batch=5, within=1.5))
        await anyio.sleep(0.5)
        group.start_soon(partial(executor.map, anyio.sleep, [3.25, 3.25]))
    assert work.begun == [(3.75, [0, 1, 2]), (8, [3, 4, 5])]


@pytest.mark.parametrize("ahead", [0, 1])
async def test_a_batch_is_begun_when_the_call_is_cancelled(ahead: int) -> None:
    """It can give its items back; not those that were read ahead."""
    work = Work(1)
    executor = TaskExecutor(2)
    with anyio.move_on_after(3.5):
        await executor.for_each(work, apart(9), batch=9, read_ahead=ahead)
    assert work.begun == ([] if ahead else [(3.5, [0, 1, 2])])
    assert work.ended == []
    assert executor.statistics().cancelled == len(work.begun)


async def test_batches_are_read_ahead() -> None:
    """With ``read_ahead=1`` one batch is full when a worker is free."""
    work = Work(5)
    await TaskExecutor().for_each(work, apart(6), batch=2, limit=1, read_ahead=1)
    assert work.begun == [(2, [0, 1]), (7, [2, 3]), (12, [4, 5])]


@pytest.mark.parametrize(("plain", "limit"), [(False, 1), (False, 3), (True, 1)])
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("count", [3, 5])
async def test_an_error_of_the_source_comes_after_what_was_read(
    *, plain: bool, limit: int, kind: str, count: int
) -> None:
    """The batch that it cuts short begins, and then it stops the call."""
    begun: list[list[int]] = []

    def note(batch: list[int]) -> list[int]:
        begun.append(batch)
        return batch

    async def note_async(batch: list[int]) -> list[int]:
        return await gives_back(note(batch))

    error = OSError("the source broke")
    source: Any = failing(count, error) if kind == "sync" else apart(count, 0, error)
    work: Any = note if plain else note_async
    executor = TaskExecutor(4)
    with pytest.raises(OSError, match="the source broke"):
        await executor.map(work, source, batch=3, limit=limit)
    assert begun == [[0, 1, 2], [3, 4]][: 1 + count // 4]
    assert executor.statistics().in_use == executor.statistics().in_flight == 0


async def test_an_error_of_the_source_drops_what_was_read_ahead() -> None:
    """Whatever ends the call early does; the batch that it cuts short is no exception."""
    work = Work(1)
    source = apart(5, 0, OSError("the source broke"))
    with pytest.raises(OSError, match="the source broke"):
        await TaskExecutor().map(work, source, batch=3, limit=1, read_ahead=2)
    assert [batch for _, batch in work.begun] in ([], [[0, 1, 2]])


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_no_error_is_lost(kind: str) -> None:
    """If the last batch fails too, both come out."""

    async def fail(_: list[int]) -> None:
        raise LookupError

    error = OSError("the source broke")
    source: Any = failing(2, error) if kind == "sync" else apart(2, 0, error)
    with pytest.raises(ExceptionGroup) as caught:
        await TaskExecutor(1).for_each(fail, source, batch=3)
    assert [type(each) for each in caught.value.exceptions] == [LookupError, OSError]


async def test_interrupts_are_not_put_off() -> None:
    """What ends a program comes at once from an async source; what was read is begun, cancelled."""

    async def source() -> AsyncIterator[int]:
        yield 1
        raise Halt

    work = Work()
    with pytest.raises(Halt):
        await TaskExecutor().for_each(work, source(), batch=2)
    assert work.begun == [(0, [1])]
    assert work.ended == []


async def test_options_count_batches() -> None:
    """Progress, the limit, retries and statistics are of batches."""
    progress: list[tuple[int, int | None]] = []
    tries: list[int] = []

    async def unsteady(batch: list[int]) -> int:
        tries.append(len(batch))
        if len(tries) == 1:
            raise OSError
        return len(batch)

    executor = TaskExecutor()
    sizes = await executor.map(
        unsteady,
        range(10),
        batch=4,
        limit=1,
        retry=2,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert (sizes, tries) == ([4, 4, 2], [4, 4, 4, 2])
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert executor.statistics().succeeded == 3


async def test_batches_are_sent_to_pools() -> None:
    """Each batch is one call, and chunks consist of batches."""
    with ThreadPoolExecutor(1) as pool:
        assert await TaskExecutor().map(is_many, range(5), batch=2, via=pool, chunksize=2) == [
            [0, 1],
            [2, 3],
            [4],
        ]


async def test_outcomes_of_batches() -> None:
    """The item of an outcome is the batch."""
    async with TaskExecutor().stream(Work(), range(3), batch=2, outcomes=True) as outcomes:
        assert [(each.item, each.value) async for each in outcomes] == [([0, 1], 2), ([2], 1)]


@pytest.mark.parametrize(
    ("batch", "shown"), [(100, r"fail\(\[0, \.\.\. 100 items\]\)"), (1, r"fail\(\[0\]\)")]
)
async def test_a_note_shows_the_first_item(batch: int, shown: str) -> None:
    """And how many there are, however many that is."""

    async def fail(_: list[int]) -> None:
        raise OSError

    with pytest.raises(OSError) as caught:  # noqa: PT011 - its note is what matters
        await TaskExecutor(1).map(fail, range(200), batch=batch)
    (note,) = caught.value.__notes__
    assert re.search(f"^in item 0: .*{shown}$", note)


async def test_a_function_may_empty_its_batch() -> None:
    """The list is the function's own."""

    async def consume(batch: list[int]) -> None:
        batch.clear()
        raise OSError

    with pytest.raises(OSError) as caught:  # noqa: PT011 - as above
        await TaskExecutor(1).map(consume, range(2), batch=2)
    assert caught.value.__notes__[0].endswith("consume([])")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch": 0}, ValueError, "batch=0 is less than 1. Pass how many items"),
        ({"batch": True}, TypeError, "batch=True is a bool, not an int"),
        ({"within": 1}, ValueError, "within=1 is how long .* and batch= is not given"),
        ({"batch": 2, "within": -1}, ValueError, "within=-1 is less than 0"),
        ({"batch": 2, "within": "1"}, TypeError, "within='1' is a str, not a number"),
    ],
)
async def test_refusals(options: Any, error: type[Exception], message: str) -> None:
    """Options that make no sense are named, with the way out."""
    call: Any = TaskExecutor().map
    with pytest.raises(error, match=message):
        await call(gives_back, [], **options)


async def test_batches_are_of_one_source() -> None:
    """Several give tuples when they are zipped."""
    call: Any = TaskExecutor().map
    with pytest.raises(ValueError, match=r"one source, and there are 2\. .* zip\(a, b\)"):
        await call(gives_back, [1], [2], batch=2)
    assert await TaskExecutor().map(gives_back, zip("ab", [1, 2], strict=True), batch=2) == [
        [("a", 1), ("b", 2)]
    ]


async def test_error_while_all_workers_are_busy() -> None:
    """The batch that the error cut short begins when a worker is free; then the error is raised."""
    begun: list[list[int]] = []

    async def source() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(1)  # the first batch is due meanwhile
        yield 2
        raise OSError

    async def work(batch: list[int]) -> None:
        begun.append(batch)
        await anyio.sleep(10)

    with pytest.raises(OSError):  # noqa: PT011 - the source's
        await TaskExecutor().for_each(work, source(), batch=3, within=0.1, limit=1)
    assert begun == [[1], [2]]
