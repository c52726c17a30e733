"""Cancellation, from outside and stray: nothing lost, nothing left running."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.core import TaskExecutor
from mtaio.core._pool import Pool, Sink, Worker, take_items
from mtaio.core._statistics import Counters
from mtaio.core._types import Options
from mtaio.testing import run, settle
from tests.injection import at_every_checkpoint, cancelled_at

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    Scenario = Callable[[TaskExecutor, "Log"], Coroutine[Any, Any, object]]


class Log:
    """What a scenario's items and sources did, and what is still open."""

    def __init__(self) -> None:
        self.open = 0
        self.started = 0
        self.ended = 0

    async def item(self, x: int) -> int:
        """Work for a while, with clean-up that takes its time."""
        self.started += 1
        self.open += 1
        try:
            await anyio.sleep(x % 3)
            await anyio.sleep(1)
            self.ended += 1
            return x
        finally:
            try:
                with anyio.CancelScope(shield=True):  # which Task.cancel() ignores
                    await anyio.sleep(0.25)
            finally:
                self.open -= 1

    async def failing(self, x: int) -> int:
        """Fail for odd numbers."""
        if x % 2:
            await anyio.sleep(0.5)
            raise ValueError(x)
        return await self.item(x)

    async def source(self, stop: int) -> AsyncGenerator[int, None]:
        """Yield numbers, with a scope open and clean-up to do."""
        self.open += 1
        try:
            with anyio.CancelScope():
                for x in range(stop):
                    await anyio.sleep(0.5)
                    yield x
        finally:
            self.open -= 1


async def consume(stream: Any) -> None:
    """Read a stream to its end, slowly."""
    async with stream as results:
        async for _ in results:
            await anyio.sleep(0.5)


async def nested(executor: TaskExecutor, log: Log) -> None:
    """Map inside the items of a map."""

    async def outer(n: int) -> int:
        return sum(await executor.map(log.item, range(n)))

    await executor.map(outer, [2, 3])


SCENARIOS: dict[str, Scenario] = {
    "map-timeout": lambda ex, log: ex.map(log.item, range(7), timeout=2, errors="return"),
    "map-two-async-sources": lambda ex, log: ex.map(
        lambda a, b: log.item(a + b), log.source(3), log.source(2)
    ),
    "stream-ordered": lambda ex, log: consume(ex.stream(log.item, log.source(6), ordered=True)),
    "gather": lambda ex, log: ex.gather(*(log.item(x) for x in range(5)), limit=2),
    "race": lambda ex, log: ex.race(log.failing(1), log.item(1), log.item(2)),
    "nested": nested,
}


async def check(executor: TaskExecutor, log: Log) -> None:
    """Assert that a scenario left nothing behind, and that the executor works as before."""
    assert log.open == 0
    now = executor.statistics()
    assert now.in_flight == now.waiting == now.threads_in_use == now.threads_waiting == 0
    assert now.started == now.succeeded + now.failed + now.cancelled
    assert now.succeeded <= now.started
    here = anyio.get_current_task().id
    assert [task.name for task in anyio.get_running_tasks() if is_pool(task, here)] == []
    start = anyio.current_time()
    assert await executor.map(Log().item, [0] * 6) == [0] * 6
    assert anyio.current_time() == start + 1.25 * 6 / 3


def is_pool(task: anyio.TaskInfo, here: int) -> bool:
    """Tell whether a task is one of the executor's."""
    return task.id != here and "mtaio.core" in (task.name or "")


async def attempt(scenario: Scenario, executor: TaskExecutor, log: Log) -> None:
    """Run a scenario, which may fail as its items do."""
    try:
        await scenario(executor, log)
    except* ValueError:
        pass


@pytest.mark.parametrize("name", SCENARIOS)
def test_any_task_cancelled_natively(name: str) -> None:
    """Cancelling any one of the tasks behind a call ends the call, with nothing left."""
    scenario = SCENARIOS[name]

    async def once(moment: float, which: int) -> bool:
        executor, log = TaskExecutor(3), Log()
        before = asyncio.all_tasks()
        task = asyncio.ensure_future(attempt(scenario, executor, log))
        await anyio.sleep(moment)
        await settle()
        tasks = sorted(asyncio.all_tasks() - before, key=lambda task: task.get_name())
        if which < len(tasks):
            tasks[which].cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        await check(executor, log)
        return which < len(tasks)

    for moment in (0, 0.75, 1.6):
        which = 0
        while run(once, moment, which, backend="asyncio"):
            which += 1
        assert which > 0 or moment


async def test_outer_cancellation_is_never_a_failure() -> None:
    """Items that were running count as cancelled, not as failed."""
    executor = TaskExecutor(3)
    with anyio.move_on_after(0.5):
        await executor.map(anyio.sleep, [1] * 9)
    statistics = executor.statistics()
    assert (statistics.succeeded, statistics.failed, statistics.cancelled) == (0, 0, 3)


async def test_cancelled_call_takes_no_more_items() -> None:
    """An item that swallows the cancellation is the last of its worker."""
    executor = TaskExecutor(2)
    started = []

    async def work(x: int) -> None:
        started.append(x)
        try:
            await anyio.sleep(9)
        except anyio.get_cancelled_exc_class():
            return

    with anyio.move_on_after(1) as scope:
        await executor.map(work, range(99))
    assert scope.cancelled_caught
    assert started == [0, 1]
    assert executor.statistics().succeeded == 2


async def test_error_while_being_cancelled_is_raised() -> None:
    """What an item raises in its clean-up comes out instead of the cancellation, once."""
    executor = TaskExecutor(2)

    async def work(x: int) -> None:
        try:
            await anyio.sleep(9)
        finally:
            raise LookupError(x)

    with pytest.raises(ExceptionGroup, match=r"^2 errors in one call") as info:
        with anyio.move_on_after(1):
            await executor.map(work, range(9))
    assert [error.args for error in info.value.exceptions] == [(0,), (1,)]
    assert executor.statistics().failed == 2


async def test_errors_of_a_task_group_while_being_cancelled_are_raised_once() -> None:
    """A group of errors and cancellation is a failure, without the cancellation."""

    async def child(x: int) -> None:
        try:
            await anyio.sleep(9)
        finally:
            raise LookupError(x)

    async def work(x: int) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(child, x)
            await anyio.sleep(9)

    with pytest.raises(ExceptionGroup) as info, anyio.move_on_after(1):
        await TaskExecutor(2).map(work, [7])
    assert [error.args for error in info.value.exceptions] == [(7,)]


async def test_cancelled_while_the_caller_is_busy() -> None:
    """A call whose items were cancelled has no result, though its own task was not waiting."""
    executor = TaskExecutor(3)

    async def once(at: int) -> bool:
        results: list[object] = []

        async def call() -> None:
            results.extend(
                await executor.map(anyio.sleep, [0.5, 1, 1.5], timeout=1, errors="return")
            )

        hit = await cancelled_at(call(), at)
        assert [type(each).__name__ for each in results[2:]] in ([], ["TimeoutError"])
        return hit

    assert await at_every_checkpoint(once) > 2


def test_worker_whose_event_loop_is_gone() -> None:
    """Closed by the garbage collector, a worker closes its item and takes no other."""
    closed = []

    async def work(x: int) -> None:
        try:
            await asyncio.sleep(0)
        finally:
            closed.append(x)

    pool = Pool(
        work,
        iter(range(9)),
        sink=Sink(print),
        subject=work,
        many=False,
        limit=1,
        slots=None,
        counters=Counters(),
        options=Options(),
    )
    pool.attentive = False  # there is no task group to start workers in
    worker = take_items(pool, Worker())
    worker.send(None)
    worker.close()
    assert closed == [0]
    assert (pool.started, pool.ended) == (1, 1)
