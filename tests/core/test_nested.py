"""Calls made inside items of the same executor: they make progress, whatever the limit."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import from_thread

from mtaio.core import TaskExecutor
from mtaio.core._slots import CURRENT
from mtaio.exceptions import LimitError
from mtaio.testing import assert_quiescent, run, settle
from tests.core.gauge import Gauge

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from mtaio.core import TaskHandle
    from mtaio.core._slots import Link

    AsyncCall = Callable[[], Coroutine[Any, Any, int]]


class Work:
    """An executor, and a gauge that its items use."""

    def __init__(self, max_workers: int, max_pending: int = 0) -> None:
        self.executor = TaskExecutor(max_workers, max_pending=max_pending)
        self.gauge = Gauge()

    async def leaf(self, seconds: float = 1) -> float:
        """Work for a while."""
        with self.gauge:
            await anyio.sleep(seconds)
        return seconds

    def check(self, peak: int) -> None:
        """Check that so many were at work at once, at most, and that all is given back."""
        assert self.gauge.peak == peak
        statistics = self.executor.statistics()
        assert (statistics.in_flight, statistics.waiting, statistics.submitted) == (0, 0, 0)
        assert statistics.in_use == 0


# ---- direct nesting ------------------------------------------------------------------------------


async def test_map_in_map_in_map_with_one_worker() -> None:
    """aiojobs#98, conc#88: three levels deep with one slot, one works at a time, none is stuck."""
    work = Work(1)

    async def inner(_: int) -> float:
        return sum(await work.executor.map(work.leaf, [1, 1]))

    async def outer(_: int) -> float:
        return sum(await work.executor.map(inner, range(2)))

    assert await work.executor.map(outer, range(2)) == [4, 4]
    assert anyio.current_time() == 8
    work.check(peak=1)


async def test_nested_maps_use_the_whole_limit() -> None:
    """Nested work spreads over free slots: 3 x 4 seconds of it take 4 seconds with three slots."""
    work = Work(3)

    async def outer(_: int) -> None:
        await work.executor.for_each(work.leaf, [1] * 4)

    await work.executor.for_each(outer, range(3))
    assert anyio.current_time() == 4
    work.check(peak=3)


async def test_nested_call_takes_free_slots_as_well() -> None:
    """One outer item alone still gets all the slots for its inner calls."""
    work = Work(3)

    async def outer() -> None:
        await work.executor.for_each(work.leaf, [1] * 9)

    await work.executor.run(outer)
    assert anyio.current_time() == 3
    work.check(peak=3)


@pytest.mark.parametrize("max_workers", [1, 2, 3])
async def test_every_kind_of_call_nests(max_workers: int) -> None:
    """stream, run, map and gather with a limit inside one item, one after the other."""
    work = Work(max_workers)
    executor = work.executor

    async def source() -> AsyncGenerator[float]:
        for seconds in (1.0, 1.0):
            yield await executor.run(work.leaf, seconds)  # a source may use the executor, too

    async def outer() -> list[object]:
        found: list[object] = []
        async with executor.stream(work.leaf, [1, 1], ordered=True) as results:
            found += [each async for each in results]
        found.append(await executor.gather(work.leaf(1), work.leaf(2), limit=1))
        found.append(await executor.run(work.leaf, 1))
        found.append(await executor.map(work.leaf, source()))
        return found

    expected = [1, 1, (1, 2), 1, [1, 1]]
    assert await executor.gather(outer(), outer()) == (expected, expected)
    work.check(peak=max_workers)


async def test_nested_call_goes_before_those_that_wait_outside() -> None:
    """A nested call does not queue behind calls from outside: the item around it has the slot."""
    work, order = Work(1), list[str]()

    async def note(name: str) -> None:
        order.append(name)
        await anyio.sleep(1)

    async def outer() -> None:
        await anyio.sleep(1)
        await work.executor.run(note, "inside")

    async with anyio.create_task_group() as group:
        group.start_soon(work.executor.run, outer)
        await settle()
        group.start_soon(work.executor.run, note, "outside")
    assert order == ["inside", "outside"]


# ---- calls that belong together ------------------------------------------------------------------


async def gather_two(executor: TaskExecutor, a: AsyncCall, b: AsyncCall) -> set[int]:
    """Run both with `gather`."""
    return set(await executor.gather(a, b))


async def race_two(executor: TaskExecutor, a: AsyncCall, b: AsyncCall) -> set[int]:
    """Race both; the second, which the first waits for, cannot be left out."""
    both = set[int]()

    async def first() -> None:
        both.add(await a())

    async def second() -> None:
        both.add(await b())
        await anyio.sleep_forever()

    await executor.race(first, second)
    return both


async def complete_two(executor: TaskExecutor, a: AsyncCall, b: AsyncCall) -> set[int]:
    """Run both with `as_completed`."""
    async with executor.as_completed(a, b) as outcomes:
        return {outcome.result() async for outcome in outcomes}


@pytest.mark.parametrize("two", [gather_two, race_two, complete_two])
@pytest.mark.parametrize(("max_workers", "jobs"), [(1, 1), (2, 2), (2, 5)])
async def test_calls_of_an_item_may_wait_for_each_other(
    max_workers: int,
    jobs: int,
    two: Callable[[TaskExecutor, AsyncCall, AsyncCall], Awaitable[set[int]]],
) -> None:
    """A reader and a writer in each item end, though items hold all the slots."""
    executor = TaskExecutor(max_workers)

    async def job(number: int) -> set[int]:
        send, receive = anyio.create_memory_object_stream[int]()

        async def read() -> int:
            async with receive:
                return sum([each async for each in receive])

        async def write() -> int:
            async with send:
                for each in range(3):
                    await send.send(each)
            return number

        return await two(executor, read, write)

    assert await executor.map(job, range(10, 10 + jobs)) == [{3, 10 + each} for each in range(jobs)]
    assert_quiescent(executor)


async def wait_for_each_other(executor: TaskExecutor) -> str:
    """Gather two calls, the first of which waits for the second."""
    event = anyio.Event()

    async def second() -> str:
        event.set()
        return "both ran"

    _, text = await executor.gather(event.wait, second)
    return text


async def in_a_submitted_task(executor: TaskExecutor) -> str:
    """Make the calls in a submitted task."""
    async with executor:
        return await (await executor.submit(wait_for_each_other, executor))


async def in_a_worker_thread(executor: TaskExecutor) -> str:
    """Make them from the thread of an item."""
    return await executor.run(from_thread.run, wait_for_each_other, executor)


async def in_an_item_of_another(executor: TaskExecutor) -> str:
    """Make them in an item of another executor that an item of this one uses."""
    another = TaskExecutor(1)
    return await executor.run(another.run, wait_for_each_other, executor)


async def in_a_call_of_gather(executor: TaskExecutor) -> str:
    """Make them in one of the calls that an item gathers."""

    async def item() -> str:
        return (await executor.gather(partial(wait_for_each_other, executor)))[0]

    return await executor.run(item)


@pytest.mark.parametrize(
    "way", [in_a_submitted_task, in_a_worker_thread, in_an_item_of_another, in_a_call_of_gather]
)
async def test_inside_an_item_is_wherever_its_slot_would_be_lent(
    way: Callable[[TaskExecutor], Awaitable[str]],
) -> None:
    """Submitted tasks, threads, other executors' items and calls in calls: all are inside it."""
    executor = TaskExecutor(1)
    assert await way(executor) == "both ran"
    assert_quiescent(executor)


async def test_calls_of_an_item_take_no_slots_of_their_own() -> None:
    """The item's own slot covers them all; the maps that they make get it one after another."""
    work = Work(1)

    async def outer() -> None:
        await work.executor.gather(*(work.leaf(1) for _ in range(5)))
        assert anyio.current_time() == 1
        await work.executor.gather(*(work.executor.map(work.leaf, [1, 1]) for _ in range(2)))
        assert anyio.current_time() == 5
        assert work.executor.statistics().in_use == 1

    await work.executor.run(outer)
    assert work.executor.statistics().peak == 6
    work.check(peak=5)


async def test_limit_and_rate_hold_for_the_calls_of_an_item() -> None:
    """``limit=`` is kept inside an item, also one above ``max_workers``, and so is ``rate=``."""
    work = Work(2)

    async def outer() -> list[float]:
        times: list[float] = []
        for limit in (1, 3):
            await work.executor.gather(*(work.leaf(1) for _ in range(3)), limit=limit)
            times.append(anyio.current_time())
        await work.executor.gather(*(work.leaf(1) for _ in range(3)), rate=4)
        return [*times, anyio.current_time()]

    assert await work.executor.run(outer) == [3, 4, 5.5]
    work.check(peak=3)


async def test_calls_outside_an_item_take_slots() -> None:
    """Where no item is around them, calls of gather, race and as_completed count as items."""
    work = Work(1)
    await work.executor.gather(work.leaf(1), work.leaf(1))
    assert anyio.current_time() == 2
    assert await work.executor.race(partial(work.leaf, 1), partial(work.leaf, 0)) == 1
    async with work.executor.as_completed(work.leaf(1), work.leaf(1)) as outcomes:
        assert [outcome.index async for outcome in outcomes] == [0, 1]
    assert anyio.current_time() == 5
    work.check(peak=1)


async def test_calls_in_a_sibling_of_an_item_take_slots() -> None:
    """A task in the group in which the item itself runs is not inside it, so neither its calls."""
    work = Work(1)

    async def gather() -> None:
        await work.executor.gather(work.leaf(1), work.leaf(1))

    async with anyio.create_task_group() as group:

        async def item() -> None:
            group.start_soon(gather)
            await work.leaf(1)

        group.start_soon(work.executor.run, item)
    assert anyio.current_time() == 3
    work.check(peak=1)


# ---- submitted tasks -----------------------------------------------------------------------------


async def test_recursion_through_submit_20_deep() -> None:
    """aiojobs#98, conc#88: each task submits the next and awaits it; with one slot and no queue."""
    work = Work(1)

    async def nest(depth: int) -> int:
        await work.leaf(1 / 4)
        if depth == 0:
            return 0
        handle = await work.executor.submit(nest, depth - 1)
        return 1 + await handle

    async with work.executor:
        assert await (await work.executor.submit(nest, 20)) == 20
    assert anyio.current_time() == 21 / 4
    work.check(peak=1)


async def test_tree_of_submitted_tasks() -> None:
    """Each task submits three and awaits them all; they queue on its slot, and none is stuck."""
    work = Work(2, max_pending=99)

    async def nest(depth: int) -> int:
        await work.leaf(1)
        if depth == 0:
            return 1
        handles = [await work.executor.submit(nest, depth - 1) for _ in range(3)]
        async with anyio.create_task_group() as group:
            for handle in handles:
                group.start_soon(handle.wait)
        return 1 + sum([await handle for handle in handles])

    async with work.executor:
        assert await (await work.executor.submit(nest, 3)) == 1 + 3 + 9 + 27
    work.check(peak=2)


async def test_item_at_the_limit_has_one_task_beyond_it() -> None:
    """To submit a second task, an item at the limit waits for its first, lending it its slot."""
    work, started = Work(1), list[tuple[float, int]]()

    async def child(number: int) -> None:
        started.append((anyio.current_time(), number))
        await work.leaf(1)

    async def parent() -> None:
        for number in range(3):
            await work.executor.submit(child, number)
        assert anyio.current_time() == 2  # two have run, the third is beyond the limit
        await anyio.sleep(0.5)

    async with work.executor:
        await work.executor.submit(parent)
    assert started == [(0, 0), (1, 1), (2.5, 2)]
    work.check(peak=1)


async def test_several_tasks_of_one_item_submit_at_the_limit() -> None:
    """Side by side inside one item, too, there is one task beyond the limit at a time."""
    work = Work(1)

    async def child() -> None:
        await work.leaf(1)
        assert work.executor.statistics().submitted == 2

    async def submit_and_wait() -> None:
        await (await work.executor.submit(child))

    async def parent() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(submit_and_wait)

    async with work.executor:
        await work.executor.submit(parent)
    assert anyio.current_time() == 4
    work.check(peak=1)


async def test_task_queued_before_it_is_awaited_runs_in_the_waiters_slot() -> None:
    """A task that stands in the queue for long gets the slot of an item that starts to wait."""
    work = Work(1)

    async def parent() -> float:
        handle = await work.executor.submit(work.leaf)
        await anyio.sleep(1)
        assert handle.status == "pending"
        return await handle

    async with work.executor:
        first = await work.executor.submit(parent)
        await settle()
        assert await first == 1
    assert anyio.current_time() == 2


async def test_given_up_wait_leaves_both_running() -> None:
    """An item that stops waiting goes on, as does the task in its slot: one beyond the limit."""
    work = Work(1)

    async def parent() -> None:
        handle = await work.executor.submit(work.leaf, 3)
        with anyio.move_on_after(1):
            await handle
        assert handle.status == "running"
        await work.leaf(1)

    async with work.executor:
        await (await work.executor.submit(parent))
        assert anyio.current_time() == 2
        await work.executor.run(work.leaf, 1)  # only now is the limit kept again
        assert anyio.current_time() == 4
    work.check(peak=2)


async def test_given_up_wait_lends_the_slot_to_the_next() -> None:
    """The slot that a task took along is made good: other nested calls of the item go on."""
    work = Work(1)

    async def parent() -> None:
        event = anyio.Event()

        async def needs_the_parent() -> None:
            await event.wait()

        handle = await work.executor.submit(needs_the_parent)
        async with anyio.create_task_group() as group:

            async def wait_a_while() -> None:
                with anyio.move_on_after(2):
                    await handle

            group.start_soon(wait_a_while)
            await anyio.sleep(1)
            group.start_soon(work.executor.run, partial(work.leaf))  # queues behind the task
        event.set()
        await handle

    async with work.executor:
        await (await work.executor.submit(parent))
    assert anyio.current_time() == 3
    work.check(peak=1)


async def test_given_up_waits_exceed_the_limit_by_one() -> None:
    """However many tasks an item stops waiting for, together or in turn, one runs beside it."""
    work = Work(1, max_pending=4)

    async def together() -> None:
        handles = [work.executor.submit_nowait(work.leaf, 5) for _ in range(4)]
        with anyio.move_on_after(1):
            await work.executor.gather(*reversed(handles))
        await work.leaf(1)

    async def in_turn() -> None:
        for _ in range(4):
            handle = work.executor.submit_nowait(work.leaf, 5)
            with anyio.move_on_after(1):
                await handle
        await work.leaf(1)

    for parent in (together, in_turn):
        async with work.executor:
            await work.executor.run(parent)
    work.check(peak=2)


async def test_another_task_of_the_item_still_waits() -> None:
    """If two tasks of an item wait and one gives up, the slot stays lent."""
    work = Work(1)

    async def parent() -> None:
        handle = await work.executor.submit(work.leaf, 3)
        async with anyio.create_task_group() as group:
            group.start_soon(handle.wait)
            with anyio.move_on_after(1):
                await handle
            assert work.executor.statistics().in_use == 1

    async with work.executor:
        await (await work.executor.submit(parent))
    assert anyio.current_time() == 3
    work.check(peak=1)


# ---- tasks that outlive their item ---------------------------------------------------------------


async def test_worker_gets_another_slot_when_the_last_item_left_it_behind() -> None:
    """The same in a map: its worker asks for a slot again, and the limit is kept."""
    work = Work(1)

    async with anyio.create_task_group() as outside:

        async def item(number: int) -> None:
            if number == 0:
                outside.start_soon(work.executor.run, work.leaf, 3)
                await anyio.sleep(1)
            else:
                await work.leaf(1)

        outside.start_soon(work.executor.for_each, item, range(3))
    assert anyio.current_time() == 5
    work.check(peak=1)


async def test_sibling_of_an_item_borrows_nothing() -> None:
    """A task started in the group in which the item itself runs is not part of the item."""
    work = Work(1)

    async with anyio.create_task_group() as group:

        async def item(number: int) -> None:
            if number < 3:
                group.start_soon(work.executor.run, item, number + 1)
            await work.leaf(1)

        group.start_soon(work.executor.run, item, 0)
    assert anyio.current_time() == 4
    work.check(peak=1)


async def test_sibling_of_a_worker_borrows_nothing() -> None:
    """The same for the items of a map, which run in tasks of its own."""
    work = Work(2)

    async with anyio.create_task_group() as group:

        async def item(number: int) -> None:
            if number < 10:
                group.start_soon(work.executor.run, item, number + 10)
            await work.leaf(1)

        await work.executor.for_each(item, range(4))
    assert anyio.current_time() == 4
    work.check(peak=2)


async def test_sibling_of_an_inner_item_may_run_inside_the_outer_one() -> None:
    """A task that an inner item starts in a group of the outer one runs in the outer one's slot."""
    work = Work(1)

    async def outer() -> None:
        async with anyio.create_task_group() as group:

            async def inner(number: int) -> None:
                if number == 0:
                    group.start_soon(work.executor.run, work.leaf, 2)
                await work.leaf(1)

            await work.executor.for_each(inner, range(2))

    await work.executor.run(outer)
    assert anyio.current_time() == 4
    work.check(peak=1)


async def test_sibling_of_a_submitted_task_is_not_part_of_it() -> None:
    """A task that a submitted one starts in the group around the block may drain the executor."""
    work = Work(1)
    async with anyio.create_task_group() as group, work.executor:

        async def drain() -> None:
            assert await work.executor.drain()
            assert anyio.current_time() == 1

        async def task() -> None:
            group.start_soon(drain)
            await work.leaf(1)

        await work.executor.submit(task)
    work.check(peak=1)


async def test_calls_that_outlive_an_inner_item_run_in_the_outer_ones_slot() -> None:
    """Two calls outlive an inner item, inside the outer one: the second follows on the first."""
    work = Work(1)

    async def outer() -> None:
        async with anyio.create_task_group() as group:

            async def inner() -> None:
                group.start_soon(work.executor.run, work.leaf, 2)
                group.start_soon(work.executor.run, work.leaf, 2)
                await anyio.sleep(1)

            await work.executor.run(inner)

    await work.executor.run(outer)
    assert anyio.current_time() == 4
    work.check(peak=1)


async def test_endless_chain_of_tasks_that_outlive_items_keeps_nothing() -> None:
    """A crawler whose items start their successors elsewhere keeps nothing of their ancestors."""
    work = Work(1)

    def trail(link: Link) -> int:
        """Count what a context keeps alive."""
        following, length = link[0].around, 1
        while following is not None:
            following, length = following[0].around, length + 1
        return length

    async with anyio.create_task_group() as outside:

        async def page(number: int) -> None:
            link = CURRENT.get()
            assert link is not None
            assert trail(link) <= 2
            if number < 50:
                outside.start_soon(work.executor.run, page, number + 1)
            await anyio.sleep(1)

        await work.executor.run(page, 0)
    work.check(peak=0)


# ---- other executors and threads in between ------------------------------------------------------


@pytest.mark.parametrize("pause", [0, 1])
async def test_chain_of_submitted_tasks_across_two_executors(pause: float) -> None:
    """The same through submit: an item lends its slot to the task it awaits, elsewhere too."""
    a, b = Work(1), Work(1)

    async def third() -> float:
        return await a.leaf(1)

    async def second() -> float:
        handle = await a.executor.submit(third)  # A is full: its only task waits for this one
        return await handle

    async def first() -> float:
        handle = await b.executor.submit(second)
        await anyio.sleep(pause)  # the other task is in the queue before it is awaited
        return await handle

    async with a.executor, b.executor:
        assert await (await a.executor.submit(first)) == 1
    assert anyio.current_time() == 1 + pause
    a.check(peak=1)
    b.check(peak=0)


async def test_long_chain_of_awaited_tasks() -> None:
    """A task at the end of a chain of tasks elsewhere runs in the slot at its very beginning."""
    a, b = Work(1), Work(9)

    async def link(depth: int) -> float:
        if depth:
            handle = await b.executor.submit(link, depth - 1)
            await anyio.sleep(1)
            return await handle
        return await a.executor.run(a.leaf)

    async def first() -> float:
        return await (await b.executor.submit(link, 5))

    async with b.executor:
        assert await a.executor.run(first) == 1
    a.check(peak=1)


async def test_two_tasks_that_wait_for_each_other_do_not_hang_the_search() -> None:
    """A cycle of waits is walked once; when one of them gives up, both end."""
    executor = TaskExecutor(2)
    handles: list[TaskHandle[int]] = []

    async def ring(me: int) -> int:
        await anyio.sleep(1)
        with anyio.move_on_after(1 + me):
            await handles[1 - me]
        await executor.run(anyio.sleep, 1)
        return me

    async with executor:
        handles += [await executor.submit(ring, me) for me in range(2)]
    assert [await handle for handle in handles] == [0, 1]


async def test_call_from_a_worker_thread() -> None:
    """A plain function in a thread may call its executor through anyio, and lends its slot."""
    work = Work(1)

    def plain(depth: int) -> float:
        if depth == 0:
            return from_thread.run(work.executor.run, partial(work.leaf))
        return sum(from_thread.run(work.executor.map, plain, [depth - 1] * 2))

    assert await work.executor.run(plain, 2) == 4
    work.check(peak=1)


async def test_call_from_a_worker_thread_that_needs_a_thread() -> None:
    """With one thread, too: a thread that waits for another lends its place to it."""
    executor = TaskExecutor(1, threads=1)

    def plain(depth: int) -> int:
        return 1 + from_thread.run(executor.run, plain, depth - 1) if depth else 0

    assert await executor.run(plain, 5) == 5
    assert executor.statistics().threads_in_use == 0


@pytest.mark.parametrize("pause", [0, 1])
async def test_task_submitted_from_a_worker_thread_that_needs_a_thread(pause: float) -> None:
    """A thread that awaits a submitted task lends it its slot and its place among the threads."""
    executor = TaskExecutor(1, threads=1)

    def plain(depth: int) -> int:
        if not depth:
            return 0
        handle = from_thread.run(executor.submit, plain, depth - 1)
        from_thread.run(anyio.sleep, pause)

        async def wait() -> int:
            return await handle

        return 1 + from_thread.run(wait)

    async with executor:
        assert await (await executor.submit(plain, 5)) == 5
    assert executor.statistics().threads_in_use == 0


def test_callback_of_the_loop_runs_inside_no_item() -> None:
    """A callback keeps the context of the item that set it, but no task that could wait."""

    async def scenario() -> None:
        handles: list[TaskHandle[None]] = []

        async def item() -> None:
            def call() -> None:
                handles.append(executor.submit_nowait(anyio.sleep, 1))
                with pytest.raises(LimitError):
                    executor.submit_nowait(anyio.sleep, 1)

            asyncio.get_running_loop().call_soon(call)
            await anyio.sleep(3)
            assert handles[0].status == "pending"

        async with TaskExecutor(1) as executor:
            await executor.run(item)

    run(scenario, backend="asyncio")


async def test_draining_inside_an_item_lends_its_slot() -> None:
    """An item may drain the executor's submitted tasks, which need the slot that it holds."""
    work = Work(1)

    async def item() -> bool:
        await work.executor.submit(work.leaf)
        return await work.executor.drain()

    async with work.executor:
        assert await work.executor.run(item)
        assert anyio.current_time() == 1
    work.check(peak=1)


async def test_service_started_inside_an_item_gets_ready_in_its_slot() -> None:
    """A service may need the executor before it is ready; afterwards it runs inside no item."""
    work = Work(1)

    async def service(task_status: anyio.abc.TaskStatus[float]) -> None:
        task_status.started(await work.executor.run(work.leaf))
        await work.executor.run(work.leaf)

    async def item() -> float:
        handle = await work.executor.start(service)
        assert anyio.current_time() == 1
        await work.leaf(1)
        return float(handle.start_value)

    async with work.executor:
        assert await work.executor.run(item) == 1
        assert anyio.current_time() == 2
        await anyio.sleep(2)
    work.check(peak=1)
