"""TaskExecutor.stream: results while the work goes on, backpressure, and leaving early."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from functools import partial
from inspect import CORO_CLOSED, CORO_CREATED, getcoroutinestate
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.lowlevel
import pytest
from anyio import to_thread

from mtaio.core import Outcome, TaskExecutor
from mtaio.exceptions import StrayCancellationError
from mtaio.testing import run, settle
from mtaio.types import UNSET
from tests.backends import BACKENDS
from tests.core.strays import stray

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from mtaio.core import Stream
    from mtaio.types import Unset

T = TypeVar("T")


async def double(x: float) -> float:
    """Return twice ``x``, after ``x`` seconds."""
    await anyio.sleep(x)
    return 2 * x


async def second_of(x: int) -> int:
    """Return ``x`` a second later."""
    await anyio.sleep(1)
    return x


async def read(results: Stream[T], got: list[T]) -> None:
    """Read a stream that was entered, to its end or its error, into ``got``."""
    async for result in results:
        got.append(result)  # noqa: PERF401 - what came before an error is wanted too


async def timed(results: Stream[T]) -> list[tuple[T, float]]:
    """Read a stream that was entered, to its end; return its results and when each came."""
    return [(result, anyio.current_time()) async for result in results]


def is_quiet(executor: TaskExecutor) -> bool:
    """Tell whether nothing runs or waits, and every item that started is accounted for."""
    now = executor.statistics()
    ended = now.succeeded + now.failed + now.cancelled
    return now.in_flight == now.waiting == 0 and now.started == ended


# ---- results -----------------------------------------------------------------------------------


async def test_results_come_as_they_are_completed() -> None:
    """Unordered, the default, the first to finish is the first to be handed over."""
    async with TaskExecutor(3).stream(double, [3, 1, 2]) as results:
        assert await timed(results) == [(2, 1), (4, 2), (6, 3)]


async def test_ordered_results_wait_for_those_before_them() -> None:
    """With ordered=True the head of the line holds the rest back, and they come with it."""
    async with TaskExecutor(3).stream(double, [3, 1, 2, 4], ordered=True) as results:
        assert await timed(results) == [(6, 3), (2, 3), (4, 3), (8, 5)]


async def test_end_is_the_end() -> None:
    """A stream that has ended stays so, and one of nothing ends at once."""
    for source in ([], [1]):
        async with TaskExecutor(3).stream(double, source) as results:
            assert [result async for result in results] == [2 * x for x in source]
            assert [result async for result in results] == []


async def test_results_may_be_none() -> None:
    """None is a result like any other, in both orders."""

    async def nothing(x: int) -> None:
        await anyio.sleep(x)

    for ordered in (False, True):
        async with TaskExecutor(3).stream(nothing, [1, 2], ordered=ordered) as results:
            assert [result async for result in results] == [None, None]


async def test_stream_is_made_anywhere() -> None:
    """Making a stream neither runs anything nor needs an event loop."""
    stream = await anyio.to_thread.run_sync(lambda: TaskExecutor(3).stream(double, [1], timeout=5))
    async with stream as results:
        assert [result async for result in results] == [2]


async def test_repr_says_what_it_is_of() -> None:
    """A message that shows a stream shows its function and how far it has come."""
    stream = TaskExecutor(3).stream(double, [1])
    assert repr(stream) == "<Stream of 'double', new>"
    async with stream:
        assert repr(stream) == "<Stream of 'double', entered>"
    assert repr(stream) == "<Stream of 'double', left>"
    several = TaskExecutor(3).as_completed(lambda: double(1))
    assert repr(several) == "<Stream of calls, new>"


async def test_consumers_are_woken_for_each_result_of_a_burst() -> None:
    """When the head of the line comes, all waiting consumers get one of the results behind it."""
    got: list[tuple[float, float]] = []

    async def consume(results: Stream[float]) -> None:
        got.append((await anext(results), anyio.current_time()))

    async with (
        TaskExecutor(3).stream(double, [3, 1, 2], ordered=True) as results,
        anyio.create_task_group() as group,
    ):
        for _ in range(3):
            group.start_soon(consume, results)
    assert sorted(got) == [(2, 3), (4, 3), (6, 3)]


# ---- backpressure ------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(
    ("max_workers", "limit", "max_pending", "window"),
    [
        (3, None, UNSET, 6),
        (3, None, 0, 3),
        (3, 2, UNSET, 4),
        (3, None, 5, 8),
        (None, None, UNSET, 100),
        (None, None, 7, 7),
        (None, None, 0, 1),
        (None, 2, 1, 3),
    ],
)
async def test_window_is_exact(
    max_workers: int | None,
    limit: int | None,
    max_pending: int | Unset,
    window: int,
    *,
    ordered: bool,
) -> None:
    """Exactly ``window`` items are between taken and handed over if none is read; never more."""
    taken = handed = 0

    def source() -> Iterator[int]:
        nonlocal taken
        for item in itertools.count():
            taken += 1
            assert taken - handed <= window
            yield item

    stream = TaskExecutor(max_workers).stream(
        second_of, source(), limit=limit, max_pending=max_pending, ordered=ordered
    )
    async with stream as results:
        for burst in (1, window, 2, 3 * window, 1):
            await anyio.sleep(100)
            assert taken - handed == window
            for _ in range(burst):
                await anext(results)
                handed += 1


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("max_workers", [3, None])
async def test_no_limit_on_results_that_wait(max_workers: int | None, *, ordered: bool) -> None:
    """With ``max_pending=None`` a consumer that reads nothing holds nothing back."""
    stream = TaskExecutor(max_workers).stream(
        second_of, range(500), max_pending=None, ordered=ordered
    )
    async with stream as results:
        await anyio.sleep(1000)
        assert sorted([result async for result in results]) == [*range(500)]
        assert anyio.current_time() == 1000


async def test_workers_woken_at_once_take_no_more_than_there_is_room_for() -> None:
    """A consumer that takes many results in one go makes room for as many items, no more."""
    taken = handed = 0
    most = 0

    async def work(x: int) -> int:
        nonlocal taken, most
        taken += 1
        most = max(most, taken - handed)
        await anyio.lowlevel.checkpoint()
        return x

    async with TaskExecutor(5).stream(work, itertools.count(), max_pending=5) as results:
        for _ in range(50):
            await settle()
            assert taken - handed == 10
            for _ in range(10):
                handed += 1
                await anext(results)
    assert most == 10


async def test_buffer_that_filled_while_a_worker_queued_for_its_slot() -> None:
    """A worker that gets its slot when the buffer is full again gives it back, and waits."""
    executor = TaskExecutor(2)
    taken = []

    async def work(x: int) -> int:
        taken.append((x, anyio.current_time()))
        await anyio.sleep(1)
        return x

    async with anyio.create_task_group() as group:
        group.start_soon(executor.map, double, [1.5])
        await settle()
        async with executor.stream(work, range(3), max_pending=0) as results:
            await anyio.sleep(1.25)
            assert executor.statistics().waiting == 1  # the worker of item 0
            await anyio.sleep(5)
            assert executor.statistics().waiting == 0
            assert taken == [(0, 0), (1, 1)]
            assert await timed(results) == [(0, 6.25), (1, 6.25), (2, 7.25)]
    assert is_quiet(executor)


async def test_ready_results_are_taken_fairly() -> None:
    """Taking results that are there yields for real once in 32."""
    runs = 0

    async def other() -> None:
        nonlocal runs
        while True:
            await anyio.lowlevel.checkpoint()
            runs += 1

    async with TaskExecutor(200).stream(second_of, range(128)) as results:
        await anyio.sleep(2)
        async with anyio.create_task_group() as group:
            group.start_soon(other)
            await anyio.lowlevel.checkpoint()
            before = runs
            for _ in range(128):
                await anext(results)
            assert 3 <= runs - before <= 5
            group.cancel_scope.cancel()


# ---- leaving early -----------------------------------------------------------------------------


async def test_worker_that_was_about_to_start_takes_nothing() -> None:
    """After the consumer left no item starts, not even in a worker already on its way."""
    started = []

    async def work(x: int) -> None:
        started.append(x)
        await anyio.sleep(9)

    for _ in range(10):
        started.clear()
        async with TaskExecutor(5).stream(work, range(9)):
            await anyio.lowlevel.checkpoint()
            before = list(started)
        assert started == before


async def test_nothing_is_handed_over_after_leaving() -> None:
    """Results that were not taken are dropped with the block."""
    async with TaskExecutor(3).stream(double, [1, 1, 1]) as results:
        await anyio.sleep(2)
    with pytest.raises(
        RuntimeError,
        match=re.escape(
            "this stream was left, and its work stopped. Write: async with executor.stream(...) as "
            "results: async for result in results: ..."
        ),
    ):
        await anext(results)


async def test_entered_twice() -> None:
    """A stream is entered once, for its source is used up."""
    async with TaskExecutor(3).stream(double, [1]) as results:
        with pytest.raises(
            RuntimeError,
            match=r"was entered before, and can be entered only once\. Call stream\(\) again",
        ):
            async with results:
                raise AssertionError


async def test_iterated_without_entering() -> None:
    """Forgetting ``async with`` is an error that says what to write."""
    executor = TaskExecutor(3)
    for stream, method in (
        (executor.stream(double, [1]), "stream"),
        (executor.as_completed(partial(double, 1)), "as_completed"),
    ):
        message = rf"^this stream was not entered\. Write: async with executor\.{method}\("
        with pytest.raises(RuntimeError, match=message):
            await anext(stream)


# ---- errors ------------------------------------------------------------------------------------


async def fail_at(x: int) -> int:
    """Fail at time 3 for 3, else return ``x`` at time ``x``."""
    await anyio.sleep(x)
    if x == 3:
        raise ValueError(x)
    return x


@pytest.mark.parametrize("ordered", [False, True])
async def test_ready_results_come_before_the_error(*, ordered: bool) -> None:
    """With "raise" the consumer gets what was done before, then the error, then the end."""
    got: list[int] = []
    async with TaskExecutor().stream(fail_at, [1, 2, 3, 4], ordered=ordered) as results:
        await anyio.sleep(5)
        with pytest.raises(ValueError, match=r"^3\b") as info:
            await read(results, got)
        assert [result async for result in results] == []
    assert got == [1, 2]
    assert info.value.__notes__ == ["in item 2: fail_at(3)"]


@pytest.mark.parametrize("ordered", [False, True])
async def test_collected_errors_come_after_all_results(*, ordered: bool) -> None:
    """aiometer#32: with "collect" failures neither stop the stream nor block its line or window."""
    got: list[int] = []
    items = [3] * 20 + [1, 2, 3, 4]
    async with TaskExecutor(2).stream(fail_at, items, ordered=ordered, errors="collect") as results:
        with pytest.raises(ExceptionGroup, match=r"^21 errors in one call"):
            await read(results, got)
    assert got == [1, 2, 4]


async def test_failures_behind_a_slow_first_item_count() -> None:
    """aiostream#89: no more than the window is done behind a stuck item, failures included."""
    started = []

    async def work(x: int) -> int:
        started.append(x)
        await anyio.sleep(100 if x == 0 else 1)
        if x:
            raise ValueError(x)
        return x

    async with TaskExecutor(2).stream(work, range(9), ordered=True, errors="collect") as results:
        await anyio.sleep(50)
        assert started == [0, 1, 2, 3]
        with pytest.raises(ExceptionGroup, match=r"^8 errors in one call"):
            assert [result async for result in results] == [0]


async def test_error_in_a_stream_whose_consumer_left() -> None:
    """What an item raises while it is cancelled is raised by the block."""

    async def work(x: int) -> int:
        try:
            await anyio.sleep(x)
        except anyio.get_cancelled_exc_class():
            raise ValueError(x) from None
        return x

    async def consume() -> None:
        async with TaskExecutor(2).stream(work, [1, 2]) as results:
            await anext(results)

    with pytest.raises(ValueError, match=r"^2\b"):
        await consume()


async def test_error_that_was_not_fetched() -> None:
    """An error that came while the consumer did something else is raised by the block."""
    with pytest.raises(ValueError, match=r"^3\b"):
        async with TaskExecutor(2).stream(fail_at, [3]):
            await anyio.sleep(5)


async def test_error_of_the_body_and_of_an_item() -> None:
    """Neither is lost: they come in one flat group, the body's first."""

    async def consume() -> None:
        async with TaskExecutor(2).stream(fail_at, [3]):
            await anyio.sleep(5)
            raise LookupError

    with pytest.raises(ExceptionGroup, match=r"^2 errors in one call") as info:
        await consume()
    assert [type(error) for error in info.value.exceptions] == [LookupError, ValueError]


async def test_error_of_the_clean_up_beats_cancellation() -> None:
    """Cancelled from outside, the block raises what an item raised meanwhile."""

    async def work(x: int) -> None:
        try:
            await anyio.sleep(x)
        finally:
            raise ValueError(x)

    with pytest.raises(ValueError, match=r"^9\b"), anyio.move_on_after(1):
        async with TaskExecutor(2).stream(work, [9]) as results:
            await anext(results)


async def test_error_of_the_body_beats_cancellation() -> None:
    """An error that was on its way out when the block was cancelled goes on."""

    async def linger(_: int) -> None:
        try:
            await anyio.sleep(1)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)

    async def consume() -> None:
        async with TaskExecutor(1).stream(linger, [0]):
            await anyio.sleep(0.5)
            raise ValueError("body")

    with anyio.move_on_after(1) as scope:
        with pytest.raises(ValueError, match=r"^body$"):
            await consume()
    assert scope.cancel_called
    assert not scope.cancelled_caught
    assert anyio.current_time() == 1.5


async def test_stray_cancellation_yields_to_a_real_one() -> None:
    """Cancelled from outside, a stray cancellation of an item is not worth reporting."""

    async def work(_: int) -> None:
        await anyio.sleep(1)
        stray()

    with anyio.CancelScope() as scope:
        async with TaskExecutor(2).stream(work, [1]):
            await anyio.sleep(2)
            scope.cancel()
            await anyio.sleep(1)
    assert scope.cancelled_caught


# ---- aclose ------------------------------------------------------------------------------------


async def test_aclose_stops_the_work() -> None:
    """What runs is cancelled and gone when it returns; what was not taken is dropped."""
    executor, ended = TaskExecutor(2), list[int]()

    async def work(x: int) -> int:
        try:
            await anyio.sleep(x)
        finally:
            ended.append(x)
        return x

    async with executor.stream(work, [1, 1, 9, 8]) as results:
        assert await anext(results) == 1
        await settle()
        await results.aclose()
        assert sorted(ended) == [1, 1, 8, 9]
        assert is_quiet(executor)
        await results.aclose()
        assert [result async for result in results] == []
        assert anyio.current_time() == 1
    assert executor.statistics().cancelled == 2


async def test_aclose_ends_the_stream_for_all_who_share_it() -> None:
    """A task that waits for a result gets the end of the stream."""
    got: list[float] = []
    async with (
        TaskExecutor(2).stream(double, [1, 9]) as results,
        anyio.create_task_group() as group,
    ):
        group.start_soon(read, results, got)
        await anyio.sleep(2)
        await results.aclose()
    assert got == [2]
    assert anyio.current_time() == 2


async def test_error_that_aclose_comes_upon() -> None:
    """It is not lost: it comes where the next result would, or at the end of the block."""

    async def work(x: int) -> None:
        try:
            await anyio.sleep(x)
        finally:
            raise ValueError(x)

    async with TaskExecutor(1).stream(work, [5]) as results:
        await settle()
        await results.aclose()
        with pytest.raises(ValueError, match=r"^5\b"):
            await anext(results)

    async def consume() -> None:
        async with TaskExecutor(1).stream(work, [5]) as results:
            await settle()
            await results.aclose()

    with pytest.raises(ValueError, match=r"^5\b"):
        await consume()


async def test_aclose_before_the_block() -> None:
    """Nothing has been started and nothing will be; coroutines that were given are closed."""
    call = double(1)
    async with contextlib.aclosing(TaskExecutor(1).as_completed(call)) as outcomes:
        assert getcoroutinestate(call) == CORO_CREATED
    assert getcoroutinestate(call) == CORO_CLOSED
    assert repr(outcomes) == "<Stream of calls, left>"
    with pytest.raises(RuntimeError, match=r"^<Stream of calls, left> "):
        await outcomes.__aenter__()


async def test_aclose_after_the_block() -> None:
    """There is nothing left to do."""
    async with TaskExecutor(1).stream(double, [1]) as results:
        pass
    await results.aclose()
    await to_thread.run_sync(anyio.run, results.aclose)
    with pytest.raises(RuntimeError, match=r"^this stream was left, and its work stopped\."):
        await anext(results)


@pytest.mark.parametrize("backend", BACKENDS)
def test_aclose_in_another_loop(backend: str) -> None:
    """It is refused, as it could neither cancel nor wait there; of a loop that is over, it ends."""
    stream = TaskExecutor(1).stream(anyio.sleep, [9])
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    loop.run_until_complete(stream.__aenter__())
    with pytest.raises(
        RuntimeError, match=r"^<Stream of 'sleep', entered> .* and aclose\(\) works"
    ):
        run(stream.aclose, backend=backend)
    assert repr(stream) == "<Stream of 'sleep', entered>"
    loop.close()
    run(stream.aclose, backend=backend)
    assert repr(stream) == "<Stream of 'sleep', left>"


async def test_aclose_can_be_cancelled() -> None:
    """The work is stopped, and waited for by the block."""

    async def linger(_: int) -> None:
        try:
            await anyio.sleep(9)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)

    async with TaskExecutor(1).stream(linger, [0]) as results:
        await settle()
        with anyio.move_on_after(1) as scope:
            await results.aclose()
        assert scope.cancelled_caught
    assert anyio.current_time() == 2


# ---- asyncio's own cancellation ----------------------------------------------------------------


def test_stray_cancellation_of_the_producer() -> None:
    """Cancelling the task that makes the results is an error that the consumer sees."""

    async def main() -> None:
        async with TaskExecutor(2).stream(double, [5]) as results:
            await settle()
            (producer,) = (t for t in asyncio.all_tasks() if "Stream._produce" in t.get_name())
            producer.cancel()
            with pytest.raises(StrayCancellationError, match=r"^this stream raised CancelledError"):
                await anext(results)

    run(main, backend="asyncio")


def test_shutdown_of_the_event_loop() -> None:
    """Cancelled one by one, as asyncio.run does to what is left, all tasks are just cancelled."""
    executor = TaskExecutor(2)

    async def consume() -> None:
        async with executor.stream(double, [5, 6, 7]) as results:
            async for _ in results:
                raise AssertionError

    async def work() -> None:
        await executor.map(double, [5, 6, 7])

    async def main() -> None:
        for call in (consume, work):
            main_task = asyncio.ensure_future(call())
            await settle()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert main_task in others
            for task in others:
                task.cancel()
            ends = await asyncio.gather(*others, return_exceptions=True)
            assert {type(end) for end in ends} <= {asyncio.CancelledError, type(None)}
            assert sum(task.cancelled() for task in others) >= 1
            assert is_quiet(executor)

    run(main, backend="asyncio")


# Outcomes.


async def test_outcomes_say_which_item() -> None:
    """Each has its number, its item, and the value or the error, in the order of completion."""
    executor = TaskExecutor(3)
    async with executor.stream(half, [3, 2, 8, 2], outcomes=True) as outcomes:
        found = [(each.index, each.item, each.value, each.error) async for each in outcomes]
    assert [each[:3] for each in found] == [(1, 2, 1), (0, 3, None), (3, 2, 1), (2, 8, 4)]
    odd = found[1][3]
    assert isinstance(odd, ValueError)
    assert odd.__notes__ == ["in item 0: half(3)"]
    statistics = executor.statistics()
    assert (statistics.succeeded, statistics.failed) == (3, 1)


async def half(number: int, more: int = 0) -> int:
    """Return half of an even number, which takes as many seconds; or fail."""
    await anyio.sleep(number)
    if number % 2:
        raise ValueError(number)
    return number // 2 + more


async def test_outcomes_of_several_sources() -> None:
    """The item is a tuple; timeouts are outcomes, and the order may be that of the items."""

    async def numbers() -> AsyncIterator[int]:
        for number in (4, 2):
            yield number

    executor = TaskExecutor(2, timeout=3)
    stream = executor.stream(half, numbers(), [0, 1], outcomes=True, ordered=True)
    async with stream as outcomes:
        first, second = [each async for each in outcomes]
    assert (first.index, first.item) == (0, (4, 0))
    assert isinstance(first.error, TimeoutError)
    assert second == Outcome(index=1, item=(2, 1), value=2)


async def test_outcomes_of_a_plain_function() -> None:
    """Of a function that runs in a thread, too."""
    async with TaskExecutor(2).stream(divmod, [7], [2], outcomes=True) as outcomes:
        assert [each async for each in outcomes] == [Outcome(index=0, item=(7, 2), value=(3, 1))]
