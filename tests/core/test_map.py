"""TaskExecutor.map: results, order, limits, workers, progress, and what it refuses."""

from __future__ import annotations

import itertools
import re
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from mtaio.core import Retry, TaskExecutor
from mtaio.resources import RateLimiter
from tests.core.gauge import Gauge

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
        Generator,
        Iterator,
    )


async def double(x: float) -> float:
    """Return twice ``x``, after ``x`` seconds."""
    await anyio.sleep(x)
    return 2 * x


async def at_once(x: int) -> int:
    """Return ``x`` without suspending."""
    return x


def counted(source: list[int], taken: list[int]) -> Iterator[int]:
    """Yield the items of ``source``, noting in ``taken`` when each is asked for."""
    for item in source:
        taken.append(item)
        yield item


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("method", ["map", "for_each", "gather", "race", "stream", "as_completed"])
async def test_in_a_cancelled_scope_nothing_runs(method: str, count: int) -> None:
    """Each of them is a checkpoint: it raises the cancellation before any item is called."""
    executor = TaskExecutor(2)
    started: list[int] = []

    async def item(x: int) -> None:
        started.append(x)

    async def call() -> None:
        if method in {"map", "for_each"}:
            await getattr(executor, method)(item, range(count))
        elif method in {"gather", "race"}:
            await getattr(executor, method)(*[item(x) for x in range(count)])
        else:
            stream = (
                executor.stream(item, range(count))
                if method == "stream"
                else executor.as_completed(*[item(x) for x in range(count)])
            )
            async with stream as results:
                async for _ in results:
                    raise AssertionError

    with anyio.CancelScope() as scope:
        scope.cancel()
        await call()
    assert scope.cancelled_caught
    assert started == []
    assert executor.statistics().started == 0


# ---- results and order -------------------------------------------------------------------------


async def test_results_stand_in_the_order_of_the_items() -> None:
    """Whatever finishes first, the list follows the source."""
    assert await TaskExecutor(3).map(double, [3, 1, 2]) == [6, 2, 4]
    assert anyio.current_time() == 3


async def test_unordered_results_stand_in_the_order_of_completion() -> None:
    """With ordered=False the list tells who was first."""
    assert await TaskExecutor(3).map(double, [3, 1, 2], ordered=False) == [2, 4, 6]


async def test_empty_source_gives_an_empty_list() -> None:
    """No items, no results, no time."""
    executor = TaskExecutor(3)
    assert await executor.map(double, []) == []
    assert anyio.current_time() == 0
    assert executor.statistics().started == 0


async def test_several_iterables_end_with_the_shortest() -> None:
    """The function gets one argument from each source, as with the builtin map."""

    async def join(a: int, b: str, c: float) -> tuple[int, str, float]:
        await anyio.sleep(1)
        return a, b, c

    results = await TaskExecutor(2).map(join, itertools.count(), [*"abc"], [0.5, 1.5])
    assert results == [(0, "a", 0.5), (1, "b", 1.5)]


async def test_results_may_be_none_and_errors() -> None:
    """A result is handed through as it is, also when it looks like a failure or like nothing."""
    error = ValueError("a value")

    async def same(x: object) -> object:
        await anyio.lowlevel.checkpoint()
        return x

    results = await TaskExecutor(2).map(same, [None, error, StopIteration()])
    assert results[:2] == [None, error]
    assert isinstance(results[2], StopIteration)


# ---- what can be applied -----------------------------------------------------------------------


async def test_plain_function_runs_in_worker_threads() -> None:
    """A function that is not async is called in threads, and the event loop goes on."""

    def where(x: int) -> tuple[int, bool]:
        return x, threading.current_thread() is threading.main_thread()

    assert await TaskExecutor(2).map(where, range(3)) == [(0, False), (1, False), (2, False)]


class Doubler:
    """Has an async __call__ and an async method."""

    async def __call__(self, x: int) -> tuple[int, bool]:
        """Tell in which thread it was called."""
        await anyio.sleep(1)
        return 2 * x, threading.current_thread() is threading.main_thread()

    async def method(self, x: int) -> tuple[int, bool]:
        """Do the same."""
        return await self(x)


@pytest.mark.parametrize(
    "fn",
    [Doubler(), Doubler().method, partial(Doubler()), partial(partial(Doubler().method))],
    ids=["object", "method", "partial-object", "partial-method"],
)
async def test_async_callables_are_called_in_the_event_loop(
    fn: Callable[[int], Coroutine[Any, Any, tuple[int, bool]]],
) -> None:
    """Objects with an async __call__, methods and partials of them count as async functions."""
    assert await TaskExecutor(2).map(fn, [1, 2]) == [(2, True), (4, True)]
    assert anyio.current_time() == 1


async def test_awaitable_that_is_no_coroutine_is_awaited() -> None:
    """What a plain function returns may be any awaitable, also of an async function."""

    class Later:
        def __init__(self, x: int) -> None:
            self.x = x

        def __await__(self) -> Generator[Any, Any, int]:
            yield from anyio.sleep(1).__await__()
            return self.x

    def later(x: int) -> Awaitable[int]:
        return Later(x)

    with pytest.warns(RuntimeWarning, match="later is a plain function, so it was called in a"):
        assert await TaskExecutor(2).map(later, [1, 2]) == [1, 2]
    assert anyio.current_time() == 1


# ---- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_workers", "limit", "most"), [(3, None, 3), (None, 3, 3), (3, 5, 3), (5, 3, 3), (1, 1, 1)]
)
async def test_no_more_than_the_limit_at_once(
    max_workers: int | None, limit: int | None, most: int
) -> None:
    """max_workers and limit both hold; nine items of one second take their time."""
    gauge = Gauge()

    async def work(_: int) -> None:
        with gauge:
            await anyio.sleep(1)

    executor = TaskExecutor(max_workers)
    await executor.map(work, range(9), limit=limit)
    assert gauge.peak == most
    assert anyio.current_time() == 9 // most
    assert executor.statistics().peak == most


async def test_without_any_limit_all_items_run_at_once() -> None:
    """max_workers=None and no limit: as many as there are."""
    executor = TaskExecutor()
    await executor.map(double, [1] * 500)
    assert anyio.current_time() == 1
    assert executor.statistics().peak == 500


async def test_max_workers_holds_across_calls() -> None:
    """Two calls at the same time share the executor's slots, and neither starves."""
    executor = TaskExecutor(2)
    gauge = Gauge()
    ends = []

    async def work(_: int) -> None:
        with gauge:
            await anyio.sleep(1)

    async def call(items: int) -> None:
        await executor.map(work, range(items))
        ends.append((items, anyio.current_time()))

    async with anyio.create_task_group() as group:
        group.start_soon(call, 20)
        await anyio.sleep(0.5)
        group.start_soon(call, 2)
    assert gauge.peak == 2
    assert ends[0][0] == 2
    assert ends[0][1] <= 5
    assert ends[1] == (20, 11)


async def test_long_call_does_not_starve_a_short_one() -> None:
    """Slots are handed over item by item, in the order of asking."""
    executor = TaskExecutor(1)
    order = []

    async def work(name: str) -> None:
        order.append(name)
        await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        group.start_soon(executor.map, work, ["long"] * 5)
        await anyio.sleep(0.5)
        group.start_soon(executor.map, work, ["short"] * 2)
    assert order == ["long", "short", "long", "short", "long", "long", "long"]


# ---- workers -----------------------------------------------------------------------------------


def workers() -> int:
    """Count the tasks of a pool that are there now."""
    return sum("Pool._work" in (task.name or "") for task in anyio.get_running_tasks())


async def test_items_that_never_suspend_need_one_worker() -> None:
    """The next worker starts when an item suspends, and not before."""
    seen = []

    async def work(x: int) -> int:
        seen.append(workers())
        return x

    executor = TaskExecutor(100)
    assert await executor.map(work, range(100)) == list(range(100))
    assert set(seen) == {1}
    assert executor.statistics().peak == 1


async def test_workers_are_started_up_to_the_limit_and_no_further() -> None:
    """Each item that suspends starts a worker, until there are as many as may run."""
    seen = []

    async def work(_: int) -> None:
        await anyio.sleep(1)
        seen.append(workers())

    await TaskExecutor(10).map(work, range(30))
    assert seen[0] == 10
    assert max(seen) == 10


async def test_slow_async_source_keeps_no_idle_crowd() -> None:
    """Without a limit, a worker that waits for the source is used before another is started."""
    seen = []

    async def slow() -> AsyncIterator[int]:
        for i in range(50):
            await anyio.sleep(1)
            yield i

    async def work(_: int) -> None:
        await anyio.sleep(0.5)
        seen.append(workers())

    await TaskExecutor().for_each(work, slow())
    assert max(seen) <= 2


async def test_unread_stream_keeps_no_idle_crowd() -> None:
    """Without a limit, a worker held back by the consumer is used before another is started."""
    seen = []

    async def work(_: int) -> None:
        await anyio.sleep(0.5)
        seen.append(workers())

    async with TaskExecutor().stream(work, range(200), max_pending=4) as results:
        async for _ in results:
            await anyio.sleep(1)
    assert max(seen) <= 6


# ---- checkpoints -------------------------------------------------------------------------------


async def test_map_without_suspensions_obeys_a_deadline() -> None:
    """An endless map of items that never suspend is cancelled like any other work."""
    with anyio.move_on_after(0) as scope:
        await TaskExecutor(10).for_each(at_once, itertools.count())
    assert scope.cancelled_caught


async def test_map_without_suspensions_yields_every_32_items() -> None:
    """Another task runs between each 32 items and the next, in whichever order they run."""
    done = 0
    gaps = []

    async def work(_: int) -> None:
        nonlocal done
        done += 1

    async def other() -> None:
        before = 0
        while done < 1000:
            await anyio.lowlevel.checkpoint()
            gaps.append(done - before)
            before = done

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await TaskExecutor(10).for_each(work, range(1000))
    assert len(gaps) >= 1000 // 32
    assert max(gaps) <= 2 * 32


# ---- laziness ----------------------------------------------------------------------------------


async def test_source_is_read_only_as_fast_as_it_is_used() -> None:
    """aiometer#46, cpython#74028, trio#2770: nothing is taken before a worker is free for it."""
    taken: list[int] = []
    seen = []

    async def work(x: int) -> None:
        seen.append((x, len(taken)))
        await anyio.sleep(1)

    await TaskExecutor(3).map(work, counted(list(range(9)), taken))
    assert seen == [(x, x + 1) for x in range(9)]


# ---- rate and retry ----------------------------------------------------------------------------


async def test_rate_as_a_number_spaces_starts_evenly() -> None:
    """rate=2 starts an item each half second, however many might run."""
    starts = []

    async def work(_: int) -> None:
        starts.append(anyio.current_time())
        await anyio.sleep(10)

    await TaskExecutor(10).map(work, range(4), rate=2)
    assert starts == [0, 0.5, 1, 1.5]


async def test_rate_limiter_may_be_shared() -> None:
    """One RateLimiter in two calls holds them together to its rate."""
    limiter = RateLimiter(1, burst=1)
    executor = TaskExecutor(10)
    starts = []

    async def work(_: int) -> None:
        starts.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        group.start_soon(partial(executor.map, work, range(2), rate=limiter))
        group.start_soon(partial(executor.for_each, work, range(2), rate=limiter))
    assert starts == [0, 1, 2, 3]


async def test_rate_applies_to_plain_functions() -> None:
    """Threads are started at the rate as well."""
    starts = []

    def work(_: int) -> None:
        starts.append(anyio.from_thread.run_sync(anyio.current_time))

    await TaskExecutor(10).map(work, range(3), rate=2)
    assert starts == [0, 0.5, 1]


async def test_waiting_for_a_token_keeps_the_slot() -> None:
    """The order is slot, then rate: a call that holds a token never waits for a slot."""
    executor = TaskExecutor(2)
    starts = []

    async def work(x: int) -> int:
        starts.append((x, anyio.current_time()))
        await anyio.sleep(3)
        return x

    await executor.map(work, range(4), rate=1)
    assert starts == [(0, 0), (1, 1), (2, 3), (3, 4)]


async def test_retry_as_a_number_of_attempts() -> None:
    """retry=3 calls an item up to three times, each attempt after a token of its own."""
    calls = []

    async def work(x: int) -> int:
        calls.append(anyio.current_time())
        if len(calls) < 3:
            raise ConnectionError(x)
        return x

    executor = TaskExecutor(2)
    assert await executor.map(work, [7], retry=Retry(attempts=3, jitter=0), rate=1) == [7]
    assert calls == [0, 1, 2]
    assert executor.statistics().retried == 2
    assert executor.statistics().failed == 0


async def test_retry_applies_to_plain_functions() -> None:
    """A function that runs in a thread is tried again like an async one."""
    calls = []

    def work(x: int) -> int:
        calls.append(x)
        if len(calls) < 2:
            raise ConnectionError(x)
        return x

    assert await TaskExecutor(2).map(work, [7], retry=2) == [7]
    assert calls == [7, 7]


# ---- progress ----------------------------------------------------------------------------------


async def test_progress_is_reported_after_each_item() -> None:
    """on_progress gets how many are done and how many there are."""
    reports = []

    def note(done: int, total: int | None) -> None:
        reports.append((anyio.current_time(), done, total))

    await TaskExecutor(2).map(double, [1, 3, 1], on_progress=note)
    assert reports == [(1, 1, 3), (2, 2, 3), (3, 3, 3)]


async def test_progress_without_a_length_has_no_total() -> None:
    """A generator does not tell how long it is; the shortest of several lists does."""
    totals: list[int | None] = []

    def note(_: int, total: int | None) -> None:
        totals.append(total)

    async def second(a: int, _: object) -> int:
        return a

    await TaskExecutor(2).map(at_once, iter(x for x in [1]), on_progress=note)
    await TaskExecutor(2).map(second, [1, 2, 3], [1, 2], on_progress=note)
    await TaskExecutor(2).map(second, [1], itertools.count(), on_progress=note)
    assert totals == [None, 2, 2, 1]


async def test_length_is_not_asked_for_without_need() -> None:
    """A container whose length is dear to compute is not asked for it without on_progress."""

    class Query:
        def __len__(self) -> int:
            raise AssertionError

        def __iter__(self) -> Iterator[int]:
            return iter([1, 2])

    assert await TaskExecutor(2).map(at_once, Query()) == [1, 2]


# ---- refusals ----------------------------------------------------------------------------------


async def test_arguments_that_do_not_fit_fail_the_item() -> None:
    """A function called with the wrong number of arguments is an error of that item."""
    with pytest.raises(TypeError, match=re.escape("at_once() takes 1 positional")) as info:
        await TaskExecutor(2).map(at_once, [1], [2])  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType] # the mistake
    assert info.value.__notes__ == ["in item 0: at_once(1, 2)"]
