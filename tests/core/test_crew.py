"""Plain functions over a list: threads that take several items before they come back."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from anyio import from_thread, to_thread

from mtaio.core import TaskExecutor
from mtaio.core._threads import ThreadCall
from mtaio.exceptions import StrayCancellationError
from mtaio.testing import assert_quiescent, run, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable

PATIENCE = 5
"""Real seconds for which a thread waits for another part of the test, lest a failure hang."""


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that gets an entry for each way to a thread."""
    made: list[object] = []
    run_sync: Any = to_thread.run_sync

    async def counted(fn: Any, *args: Any, **options: Any) -> Any:
        made.append(fn)
        return await run_sync(fn, *args, **options)

    monkeypatch.setattr(to_thread, "run_sync", counted)
    return made


def double(x: int) -> int:
    """Be a short function."""
    return 2 * x


class Own(list[int]):
    """A list whose iterator may be anybody's."""


async def test_one_way_for_a_row_of_items(hops: list[object]) -> None:
    """A thread takes one item after another, whatever becomes of the results."""
    executor = TaskExecutor(threads=1)
    seen: list[int] = []
    assert await executor.map(double, range(100)) == [2 * x for x in range(100)]
    assert sorted(await executor.map(double, (1, 2, 3), ordered=False)) == [2, 4, 6]
    await executor.for_each(seen.append, [*range(100)])
    assert seen == [*range(100)]
    assert await executor.map(divmod, [7, 8], [2, 3]) == [(3, 1), (2, 2)]
    assert len(hops) == 4
    statistics = executor.statistics()
    assert (statistics.started, statistics.succeeded, statistics.peak) == (205, 205, 1)
    assert_quiescent(executor)


async def test_each_by_itself_where_more_is_wanted(hops: list[object]) -> None:
    """Iterators of the user's run in the event loop; so do timeouts, rates, progress, streams."""
    executor = TaskExecutor(threads=1)
    assert await executor.map(double, iter([1, 2])) == [2, 4]
    assert await executor.map(double, Own([1, 2])) == [2, 4]
    assert await executor.map(double, [1, 2], timeout=5) == [2, 4]
    assert await executor.map(double, [1, 2], rate=1000) == [2, 4]
    assert await executor.map(double, [1, 2], retry=2) == [2, 4]
    assert await executor.map(double, [1, 2], on_progress=lambda _done, _total: None) == [2, 4]
    async with executor.stream(double, [1, 2]) as results:
        assert [each async for each in results] == [2, 4]
    shared = TaskExecutor(threads=anyio.CapacityLimiter(1))
    assert await shared.map(double, [1, 2]) == [2, 4]
    assert len(hops) == 16


async def test_as_many_at_once_as_the_limits_allow() -> None:
    """Functions that block get threads up to the narrowest limit, and no more."""
    for executor, limit in [
        (TaskExecutor(threads=3), None),
        (TaskExecutor(3), None),
        (TaskExecutor(threads=None), 3),
    ]:
        wait = threading.Barrier(3).wait
        await executor.map(wait, [PATIENCE] * 6, limit=limit)
        assert executor.statistics().peak == 3
        assert_quiescent(executor)


async def test_contexts_stay_apart() -> None:
    """What one item sets, the next does not see, though it runs in the same thread."""
    variable = ContextVar("variable", default=0)
    variable.set(7)

    def change(x: int) -> int:
        before = variable.get()
        variable.set(x)
        return before

    assert await TaskExecutor(threads=1).map(change, [1, 2, 3]) == [7, 7, 7]


@pytest.mark.parametrize("errors", ["collect", "return"])
async def test_errors_stay_with_their_items(errors: Any) -> None:
    """An item that raises ends as any other does, and those after it are called."""
    executor = TaskExecutor(threads=1)

    def odd(x: int) -> int:
        if x % 2 == 0:
            raise ValueError(x)
        return x

    if errors == "return":
        results = await executor.map(odd, range(5), errors="return")
        assert [repr(each) for each in results] == [
            "ValueError(0)",
            "1",
            "ValueError(2)",
            "3",
            "ValueError(4)",
        ]
    else:
        with pytest.raises(ExceptionGroup) as caught:
            await executor.map(odd, range(5), errors=errors)
        assert [each.args for each in caught.value.exceptions] == [(0,), (2,), (4,)]
    statistics = executor.statistics()
    assert (statistics.succeeded, statistics.failed) == (2, 3)


async def test_first_error_stops_the_threads() -> None:
    """No item is begun after it, in whatever thread."""
    called: list[int] = []

    def fail(x: int) -> None:
        called.append(x)
        raise LookupError(x)

    with pytest.raises(LookupError):
        await TaskExecutor(threads=1).map(fail, range(5))
    assert called == [0]


async def test_cancelled_call_waits_for_what_runs_and_begins_no_more() -> None:
    """The function that runs goes on to its end, and none after it is called."""
    executor, release = TaskExecutor(threads=1), threading.Event()
    entered, called = anyio.Event(), list[int]()

    def block(x: int) -> None:
        called.append(x)
        from_thread.run_sync(entered.set)
        assert release.wait(PATIENCE)

    async with anyio.create_task_group() as group:
        group.start_soon(executor.map, block, range(5))
        await entered.wait()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await settle()
        assert executor.statistics().in_flight == 1
        release.set()
    assert called == [0]
    assert_quiescent(executor)


async def test_thread_comes_back_for_another_call(hops: list[object]) -> None:
    """Calls that wait for a thread get it between two items, first come, first served."""
    executor, order, asked = TaskExecutor(threads=1), list[Any](), anyio.Event()

    async def other() -> None:
        await asked.wait()
        order.append(await executor.run_in_thread(double, 50))

    def work(x: int) -> None:
        if x == 1:
            from_thread.run_sync(asked.set)
            from_thread.run(settle)
        order.append(x)

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await executor.for_each(work, range(4))
    assert order == [0, 1, 100, 2, 3]
    assert len(hops) == 3


async def test_slot_comes_back_for_another_call() -> None:
    """So do calls that wait for a slot of ``max_workers``."""
    executor, order, asked = TaskExecutor(1), list[Any](), anyio.Event()

    async def other() -> None:
        await asked.wait()
        await executor.run(anyio.sleep, 0)
        order.append("other")

    def work(x: int) -> None:
        if x == 1:
            from_thread.run_sync(asked.set)
            from_thread.run(settle)
        order.append(x)

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await executor.for_each(work, range(4))
    assert order == [0, 1, "other", 2, 3]


@pytest.mark.parametrize("limit", ["max_workers", "threads"])
async def test_calls_that_take_turns(limit: str) -> None:
    """A thread takes an item whoever waits: else two calls would hand the slot to and fro."""
    executor = TaskExecutor(1) if limit == "max_workers" else TaskExecutor(threads=1)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(executor.for_each, double, range(5))
    assert executor.statistics().succeeded == 15
    assert_quiescent(executor)


async def test_items_lend_slot_and_thread_to_what_they_call() -> None:
    """Nested calls wait neither for the slot nor for the thread of the item that makes them."""
    executor = TaskExecutor(1, threads=1)

    def outer(x: int) -> list[int]:
        return from_thread.run(executor.map, double, [x, x + 1, x + 2])

    assert await executor.map(outer, [1, 10]) == [[2, 4, 6], [20, 22, 24]]
    assert_quiescent(executor)


async def test_slot_lent_beyond_the_item() -> None:
    """What borrows the slot and outlives its item keeps it; the thread asks for another."""
    executor = TaskExecutor(1, threads=2)
    done: list[int] = []

    async def later() -> None:
        await executor.run(anyio.sleep, 1)
        done.append(executor.statistics().in_use)

    def work(x: int) -> int:
        if x == 0:
            from_thread.run_sync(group.start_soon, later)
            from_thread.run(settle)
        return x

    async with anyio.create_task_group() as group:
        assert await executor.map(work, range(3)) == [0, 1, 2]
    assert len(done) == 1
    assert_quiescent(executor)


async def test_awaitable_results_are_awaited_apart() -> None:
    """In a context of its own each, with errors and answers of the event loop passed on."""
    variable = ContextVar("variable", default=0)

    async def later(x: int) -> int:
        with suppress(TimeoutError), anyio.fail_after(0.5):
            await anyio.sleep(1)
        before = variable.get()
        variable.set(x)
        if x == 2:
            raise LookupError(x)
        return before + x

    def plain(x: int) -> Awaitable[int]:
        return later(x)

    executor = TaskExecutor(threads=1)
    with pytest.warns(RuntimeWarning, match=r"plain is a plain function"):
        results = await executor.map(plain, [1, 2, 3], errors="return")
    assert [repr(each) for each in results] == ["1", "LookupError(2)", "3"]
    assert anyio.current_time() == 1.5


async def test_cancelled_while_it_awaits_what_a_thread_returned() -> None:
    """The item is cancelled like any other, and none is begun after it."""
    executor = TaskExecutor(threads=1)
    with pytest.warns(RuntimeWarning, match=r".*is a plain function"), anyio.move_on_after(1):
        await executor.map(lambda x: anyio.sleep(x), [5, 5])  # noqa: PLW0108 - a plain one
    assert anyio.current_time() == 1
    assert executor.statistics().cancelled == executor.statistics().started == 1
    assert_quiescent(executor)


@pytest.mark.parametrize("ends", ["returns", "raises", "makes a coroutine"])
def test_natively_cancelled_worker_leaves_its_thread(ends: str) -> None:
    """The item counts as cancelled; its thread keeps its place, and takes no other."""

    async def main() -> None:
        executor, release = TaskExecutor(threads=1), threading.Event()
        entered, called = anyio.Event(), list[int]()
        workers: list[asyncio.Task[Any]] = []
        before = asyncio.all_tasks()

        def block(x: int) -> Any:
            called.append(x)
            from_thread.run_sync(entered.set)
            assert release.wait(PATIENCE)
            if ends == "raises":
                raise LookupError
            return anyio.lowlevel.checkpoint() if ends == "makes a coroutine" else None

        async with anyio.create_task_group() as group:

            async def call() -> None:
                with suppress(BaseException):
                    await executor.map(block, range(3), errors="return", limit=1)

            group.start_soon(call)
            await entered.wait()
            workers += asyncio.all_tasks() - before
            for each in workers:
                each.cancel()
            await settle()
            assert executor.statistics().threads_in_use == 1
            release.set()
        await executor.run_in_thread(double, 1)
        assert called == [0]
        assert executor.statistics().threads_in_use == 0

    run(main, backend="asyncio")


async def test_endless_range() -> None:
    """A range may be longer than any list; no item after the first error is begun."""
    called: list[int] = []

    def fail(x: int) -> None:
        called.append(x)
        raise LookupError(x)

    with pytest.raises(LookupError):
        await TaskExecutor(threads=1).for_each(fail, range(10**30))
    assert called == [0]
    wait = threading.Barrier(2).wait

    def meet_and_fail(x: int) -> None:
        wait(PATIENCE)
        fail(x)

    with pytest.raises((LookupError, ExceptionGroup)):
        await TaskExecutor(threads=2).for_each(meet_and_fail, range(10**30))
    assert called[1:] in ([0, 1], [1, 0])


async def test_short_functions_have_few_threads_take_them(hops: list[object]) -> None:
    """
    More would only wait for the interpreter's lock, and so would the event loop.

    One is enough. On a busy machine a thread may look blocked to another that comes.
    """
    executor, threads = TaskExecutor(), set[int]()

    def work(_: int) -> None:
        threads.add(threading.get_ident())

    await executor.for_each(work, range(20_000))
    assert len(hops) <= 10  # of 40; one stands by
    assert len(threads) <= 9


async def test_functions_that_block_after_short_ones() -> None:
    """The thread that stands by sees to it, and so do those after it."""
    wait = threading.Barrier(3).wait

    def work(x: int) -> None:
        if x >= 20_000:
            wait(PATIENCE)

    executor = TaskExecutor(threads=3)
    await executor.for_each(work, range(20_006))
    assert executor.statistics().peak == 3
    assert_quiescent(executor)


@pytest.mark.parametrize("ends", ["by itself", "with an error", "cancelled"])
async def test_thread_that_stands_by_goes_with_the_others(ends: str) -> None:
    """It need not be waited for."""
    executor, scope = TaskExecutor(threads=2), anyio.CancelScope()

    def work(x: int) -> None:
        if x == 20_000:
            if ends == "with an error":
                raise LookupError(x)
            if ends == "cancelled":
                from_thread.run_sync(scope.cancel)

    with suppress(LookupError), scope:
        await executor.for_each(work, range(20_001 if ends == "by itself" else 10**9))
    assert executor.statistics().in_flight == 0
    assert_quiescent(executor)


async def test_all_threads_at_once_where_they_do_not_share_a_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the interpreter's lock, short functions gain by each thread."""
    monkeypatch.setattr("sys._is_gil_enabled", lambda: False, raising=False)
    executor, threads, met = TaskExecutor(threads=2), set[int](), threading.Event()

    def work(x: int) -> None:
        threads.add(threading.get_ident())
        if len(threads) == 2:
            met.set()
        if x == 200:
            assert met.wait(PATIENCE)

    await executor.for_each(work, range(210))
    assert len(threads) == 2


@pytest.mark.parametrize("ends", ["raises", "makes a coroutine"])
def test_natively_cancelled_worker_counts_what_its_thread_had_left(
    monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """The thread had come back with an item, and the worker was cancelled before it knew."""
    made, cut = list[Any](), list[ThreadCall]()
    make: Any = ThreadCall.make

    async def cut_short(call: ThreadCall) -> None:
        await make(call)
        if not cut:
            cut.append(call)
            raise asyncio.CancelledError

    def work(_: int) -> Any:
        if ends == "raises":
            raise LookupError
        made.append(anyio.lowlevel.checkpoint())
        return made[-1]

    async def main() -> None:
        executor = TaskExecutor(threads=1)
        results = await executor.map(work, [1], errors="return")
        assert [type(each) for each in results] == [StrayCancellationError]
        assert executor.statistics().failed == 1
        assert all(each.cr_frame is None for each in made)  # closed
        assert_quiescent(executor)

    monkeypatch.setattr(ThreadCall, "make", cut_short)
    run(main, backend="asyncio")
