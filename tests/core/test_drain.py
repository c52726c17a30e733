"""TaskExecutor.drain: wait for what was submitted, with a period of grace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from mtaio.core import TaskExecutor, TaskStatus
from mtaio.testing import settle

if TYPE_CHECKING:
    from mtaio.core import TaskHandle


async def after(seconds: float, value: str = "done") -> str:
    """Return ``value`` later."""
    await anyio.sleep(seconds)
    return value


async def test_drain_waits_for_everything_and_says_true() -> None:
    """It returns when the last task has ended, and the executor takes work again."""
    async with TaskExecutor(1, max_pending=9) as executor:
        handles = [await executor.submit(after, 1) for _ in range(3)]
        assert await executor.drain()
        assert anyio.current_time() == 3
        assert all(handle.done for handle in handles)
        assert await (await executor.submit(after, 1)) == "done"


async def test_drain_with_nothing_to_do_is_a_checkpoint() -> None:
    """It returns at once, and can be cancelled all the same."""
    async with TaskExecutor(1) as executor:
        assert await executor.drain()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await executor.drain()
        assert scope.cancelled_caught
    assert anyio.current_time() == 0


async def test_drain_cancels_what_is_left_after_the_grace() -> None:
    """aiojobs#48, trio#147: when the time is up it cancels the rest, waits for it, says False."""
    cleaned: list[float] = []

    async def slow() -> None:
        try:
            await anyio.sleep(9)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            cleaned.append(anyio.current_time())

    async with TaskExecutor(2, max_pending=9) as executor:
        quick = await executor.submit(after, 1)
        lost = await executor.submit(slow)
        queued = await executor.submit(after, 9)
        last = await executor.submit(after, 9)
        assert not await executor.drain(timeout=2)
        assert anyio.current_time() == 3
    assert cleaned == [3]
    assert quick.status is TaskStatus.SUCCEEDED
    assert {lost.status, queued.status, last.status} == {TaskStatus.CANCELLED}
    assert executor.statistics().cancelled == 2


async def test_drain_that_ends_in_time_is_true() -> None:
    """A task that ends before the grace is over ended on its own."""
    async with TaskExecutor(1) as executor:
        await executor.submit(after, 1)
        assert await executor.drain(timeout=1.5)
        assert anyio.current_time() == 1


async def test_drain_without_grace_cancels_at_once() -> None:
    """A timeout of 0 does not wait."""
    async with TaskExecutor(1) as executor:
        await executor.submit(after, 9)
        assert not await executor.drain(timeout=0)
        assert anyio.current_time() == 0


async def test_failures_are_left_to_the_block() -> None:
    """Draining does not look at errors: one that was not awaited is raised by the block."""

    async def fail() -> None:
        await anyio.sleep(1)
        raise ValueError("not awaited")

    async def block() -> None:
        async with TaskExecutor(1) as executor:
            await executor.submit(fail)
            assert await executor.drain()
            assert anyio.current_time() == 1

    with pytest.raises(ValueError, match=r"^not awaited$"):
        await block()


async def test_no_new_work_while_draining() -> None:
    """Submitting and starting are refused meanwhile, with the way out, and work again after."""
    async with TaskExecutor(2) as executor, anyio.create_task_group() as group:
        await executor.submit(after, 1)
        group.start_soon(executor.drain)
        await settle()
        refused = r"^<TaskExecutor max_workers=2> is draining and takes no new work\."
        with pytest.raises(RuntimeError, match=refused):
            await executor.submit(after, 1)
        with pytest.raises(RuntimeError, match=refused):
            executor.submit_nowait(after, 1)
        with pytest.raises(RuntimeError, match=refused):
            await executor.start(cast("Any", after))
        assert await executor.run(after, 0.5) == "done"  # what waits for its own work may go on
        await anyio.sleep(1)
        await executor.submit(after, 1)


async def test_submit_that_waits_when_the_drain_starts_is_drained_too() -> None:
    """A call made before the drain is let in when a place is free, and the drain waits for it."""
    async with TaskExecutor(1) as executor, anyio.create_task_group() as group:
        handles: list[TaskHandle[str]] = []

        async def late() -> None:
            handles.append(await executor.submit(after, 1))
            assert anyio.current_time() == len(handles)

        await executor.submit(after, 1)
        for _ in range(2):
            group.start_soon(late)
        await settle()
        assert await executor.drain()
        assert anyio.current_time() == 3
        assert [await handle for handle in handles] == ["done"] * 2


async def test_submit_that_waits_when_the_grace_is_over_is_refused() -> None:
    """When the tasks are cancelled there is room, but not for new work."""
    async with TaskExecutor(1) as executor, anyio.create_task_group() as group:
        refused: list[float] = []

        async def late() -> None:
            with pytest.raises(RuntimeError, match=r"is draining and takes no new work"):
                await executor.submit(after, 1)
            refused.append(anyio.current_time())

        await executor.submit(after, 9)
        group.start_soon(late)
        await settle()
        assert not await executor.drain(timeout=1)
        assert refused == [1]


async def test_submit_that_waits_as_the_block_ends_is_drained_too() -> None:
    """Leaving the block drains like that, too."""
    async with anyio.create_task_group() as group:

        async def late() -> None:
            assert await (await executor.submit(after, 1)) == "done"

        async with TaskExecutor(1) as executor:
            await executor.submit(after, 1)
            group.start_soon(late)
            await settle()
        assert anyio.current_time() == 2


async def test_tasks_that_are_drained_may_submit_more() -> None:
    """What is part of the work to be drained is let finish it, in nested calls too."""
    ended: list[str] = []

    async def leaf(name: str) -> None:
        await anyio.sleep(1)
        ended.append(name)

    async def inner(name: str) -> None:
        await executor.submit(leaf, name)

    async def task() -> None:
        await anyio.sleep(1)
        await executor.submit(leaf, "direct")
        await executor.for_each(inner, ["nested"])
        async with anyio.create_task_group() as group:
            group.start_soon(executor.submit, leaf, "group")

    async with TaskExecutor(4) as executor:
        await executor.submit(task)
        assert await executor.drain()
        assert sorted(ended) == ["direct", "group", "nested"]
        assert anyio.current_time() == 2


async def test_task_of_another_executor_that_a_drained_one_awaits_may_submit() -> None:
    """It is part of the work, as long as it is waited for there."""
    ended: list[str] = []

    async def leaf() -> None:
        ended.append("leaf")

    async def elsewhere() -> None:
        await anyio.sleep(1)
        await executor.submit(leaf)

    async def task() -> None:
        await (await other.submit(elsewhere))

    async with TaskExecutor(2) as executor, TaskExecutor(1) as other:
        await executor.submit(task)
        assert await executor.drain()
        assert ended == ["leaf"]


async def test_cancelled_tasks_submit_nothing_more() -> None:
    """When the grace is over, not even drained tasks start others: draining must end."""
    handles: list[TaskHandle[None]] = []

    async def hydra() -> None:
        try:
            await anyio.sleep(99)
        finally:
            handles.append(executor.submit_nowait(hydra))
            with pytest.raises(anyio.get_cancelled_exc_class()):
                await executor.submit(hydra)
            with (
                anyio.CancelScope(shield=True),
                pytest.raises(RuntimeError, match=r"is draining and takes no new work"),
            ):
                await executor.submit(hydra)

    async with TaskExecutor(1, max_pending=9) as executor:
        await executor.submit(hydra)
        await settle()
        assert not await executor.drain(timeout=1)
        assert anyio.current_time() == 1
    assert [handle.status for handle in handles] == ["cancelled"]
    assert executor.statistics().started == 1


async def test_services_go_on() -> None:
    """Draining ends no service; one that submits meanwhile is refused like any other."""
    refused: list[float] = []

    async def service(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        task_status.started()
        await anyio.sleep(0.5)
        with pytest.raises(RuntimeError, match=r"is draining"):
            await executor.submit(after, 1)
        refused.append(anyio.current_time())
        await anyio.sleep(1)
        await executor.submit(after, 1)
        await anyio.sleep_forever()

    async with TaskExecutor(2) as executor:
        handle = await executor.start(service)
        await executor.submit(after, 1)
        assert await executor.drain(timeout=5)
        assert anyio.current_time() == 1
        await anyio.sleep(2)
        assert handle.status is TaskStatus.RUNNING
    assert refused == [0.5]


async def test_drain_inside_a_submitted_task_is_refused() -> None:
    """It would wait for itself; so would an item inside the task, or a task that it awaits."""
    other = TaskExecutor(1)
    refused = r"^drain\(\) was called inside a submitted task, which would wait for itself"

    async def drain(*_: object) -> None:
        with pytest.raises(RuntimeError, match=refused):
            await executor.drain()

    async def task() -> None:
        await drain()
        await executor.for_each(drain, [1])
        await (await other.submit(drain))

    async with other, TaskExecutor(1) as executor:
        await (await executor.submit(task))


async def test_drain_inside_a_task_of_another_executor_is_fine() -> None:
    """Only the executor's own tasks would wait for themselves."""

    async def drain() -> bool:
        return await executor.drain()

    async with TaskExecutor(1) as other, TaskExecutor(1) as executor:
        await executor.submit(after, 1)
        assert await (await other.submit(drain))
    assert anyio.current_time() == 1


async def test_two_drains_at_once() -> None:
    """Each waits; the shorter grace cancels for both; new work is refused until both are over."""
    async with TaskExecutor(2) as executor, anyio.create_task_group() as group:
        results: list[tuple[bool, float]] = []

        async def drain(timeout: float) -> None:
            results.append((await executor.drain(timeout), anyio.current_time()))

        await executor.submit(after, 9)
        group.start_soon(drain, 1)
        group.start_soon(drain, 2)
        await anyio.sleep(0.5)
        with pytest.raises(RuntimeError, match=r"is draining"):
            await executor.submit(after, 1)
        await anyio.sleep(1)
        assert sorted(results) == [(False, 1), (True, 1)]
        await executor.submit(after, 1)


async def test_task_that_ends_with_the_grace_and_submits_is_cancelled_not_refused() -> None:
    """Time is up just as a task submits its successor: the drain is over, and no error is left."""

    async def again() -> None:
        await anyio.sleep(1)
        await executor.submit(again)

    async with TaskExecutor() as executor:
        await executor.submit(again)
        assert not await executor.drain(timeout=10)
        assert anyio.current_time() == 10
        assert executor.statistics().submitted == 0
