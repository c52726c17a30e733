"""`submit`, services and `drain` under many schedules: each task ends once, and is gone."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from mtaio.core import Retry, TaskStatus
from mtaio.exceptions import LimitError, TaskCancelledError
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.testing import settle
from tests.explored.executor_stage import Stage, caught, explored, reasons

if TYPE_CHECKING:
    from anyio.abc import TaskStatus as Readiness

    from mtaio.core import TaskHandle
    from mtaio.testing import Simulation, Victim

ENDED = {TaskStatus.SUCCEEDED, TaskStatus.FAILED, TaskStatus.CANCELLED}


def check_ended(stage: Stage, handles: list[TaskHandle[Any]]) -> None:
    """Assert that each task has ended, once, in the way that its handle says."""
    statuses = [handle.status for handle in handles]
    assert set(statuses) <= ENDED
    assert all(handle.done for handle in handles)
    assert statuses.count(TaskStatus.SUCCEEDED) == stage.returned.total()
    assert statuses.count(TaskStatus.FAILED) == stage.raised.total()
    assert statuses.count(TaskStatus.CANCELLED) >= stage.cancelled.total()


def bounded(stage: Stage, most: int) -> None:
    """Let no more than ``most`` submitted tasks be unfinished at any time."""
    stage.sim.always(lambda: stage.executor.statistics().submitted <= most)


@explored
async def test_submitted_tasks_run_in_order(sim: Simulation, victim: Victim) -> None:
    """Submitting too much waits; what was let in runs, in the order of submission."""
    stage = Stage(sim, 1, max_pending=1)
    bounded(stage, 2)
    handles: list[TaskHandle[int]] = []

    async def submit() -> None:
        for x in range(4):
            handle = await stage.executor.submit(stage.work, x)
            handles.append(handle)

    async with stage.executor:
        await victim(submit)
    assert list(stage.started) == list(range(len(handles)))
    assert [await handle for handle in handles] == list(range(len(handles)))
    assert victim.cancelled or len(handles) == 4
    check_ended(stage, handles)
    stage.clear()


@explored
async def test_two_who_submit(sim: Simulation, victim: Victim) -> None:
    """Of two who wait for room both get in; one that is cancelled takes no place along."""
    stage = Stage(sim, 1)
    bounded(stage, 1)
    handles: list[TaskHandle[int]] = []

    async def submit(*items: int) -> None:
        for x in items:
            handle = await stage.executor.submit(stage.work, x)
            handles.append(handle)

    async with stage.executor, anyio.create_task_group() as group:
        group.start_soon(submit, 0, 1)
        await victim(submit, 10, 11)
    done = {await handle for handle in handles}
    assert {0, 1} <= done <= {0, 1, 10, 11}
    assert stage.started.total() == len(handles)
    check_ended(stage, handles)
    stage.clear()


@explored
async def test_submit_nowait(sim: Simulation, victim: Victim) -> None:
    """It is refused if there are as many unfinished tasks as there may be, and else taken."""
    stage = Stage(sim, 1, max_pending=1)
    bounded(stage, 2)
    handles: list[TaskHandle[int]] = []

    async def submit() -> None:
        for x in range(4):
            unfinished = sum(not handle.done for handle in handles)
            try:
                handles.append(stage.executor.submit_nowait(stage.work, x))
            except LimitError:
                assert unfinished == 2
            else:
                assert unfinished < 2
            await checkpoint()

    async with stage.executor:
        await victim(submit)
    assert stage.started.total() == len(handles) >= (not victim.cancelled) * 2
    check_ended(stage, handles)
    stage.clear()


@explored
async def test_handle_is_cancelled(sim: Simulation) -> None:
    """A task is cancelled, before or while it runs, or has ended; its waiters learn which."""
    stage = Stage(sim, 1, max_pending=2)
    outcomes: list[int | None] = []

    async def wait(handle: TaskHandle[int]) -> None:
        try:
            outcomes.append(await handle)
        except TaskCancelledError:
            outcomes.append(None)

    async def cancel(handle: TaskHandle[int]) -> None:
        await checkpoint()
        handle.cancel()

    async with stage.executor, anyio.create_task_group() as group:
        handles = [await stage.executor.submit(stage.work, x) for x in range(3)]
        group.start_soon(cancel, handles[1])
        group.start_soon(wait, handles[1])
        group.start_soon(wait, handles[1])
    first, second = outcomes
    assert first == second == (1 if handles[1].status is TaskStatus.SUCCEEDED else None)
    assert stage.returned[0] == stage.returned[2] == 1
    check_ended(stage, handles)
    stage.clear()


@explored
async def test_waiters(sim: Simulation, victim: Victim) -> None:
    """A waiter that is cancelled disturbs neither the task nor the other waiter."""
    stage = Stage(sim, 1)
    results: list[int] = []

    async def wait(handle: TaskHandle[int]) -> None:
        results.append(await handle)

    async with stage.executor, anyio.create_task_group() as group:
        handle = await stage.executor.submit(stage.work, 7, 2)
        group.start_soon(wait, handle)
        await victim(wait, handle)
    assert results == [7] * (1 if victim.cancelled else 2)
    assert handle.status is TaskStatus.SUCCEEDED
    stage.clear()


@explored
async def test_error_is_seen_once(sim: Simulation, victim: Victim) -> None:
    """An error goes to the code that awaits the handle; if none did, the block raises it."""
    stage = Stage(sim, 2, max_pending=1)
    seen: list[BaseException] = []

    async def wait(handle: TaskHandle[int]) -> None:
        seen.extend((await caught(_awaiting, handle))[1])

    async def block() -> None:
        async with stage.executor:
            handles = [await stage.executor.submit(stage.fail, x) for x in (1, 2, 3)]
            await victim(wait, handles[0])

    _, errors = await caught(block)
    assert reasons(seen + errors) == {1: 1, 3: 1}
    assert reasons(seen) in ({1: 1}, {})
    assert seen or victim.cancelled
    stage.clear()


async def _awaiting(handle: TaskHandle[Any]) -> Any:
    return await handle


@explored
async def test_failing_tasks_disturb_no_other(sim: Simulation) -> None:
    """Tasks that fail cancel no other, and every error comes out of the block, once."""
    stage = Stage(sim, 1, max_pending=3)

    async def block() -> None:
        async with stage.executor:
            for x in range(4):
                await stage.executor.submit(stage.fail, x)

    _, errors = await caught(block)
    assert [error.args for error in errors] == [(1,), (3,)]
    assert stage.returned == {0: 1, 2: 1}
    stage.clear()


@explored
async def test_block_that_fails(sim: Simulation, victim: Victim) -> None:
    """An error, or a cancellation, of the block's body cancels what was submitted."""
    stage = Stage(sim, 1, max_pending=2)
    handles: list[TaskHandle[int]] = []

    async def block() -> None:
        async with stage.executor:
            for x in range(3):
                handle = await stage.executor.submit(stage.linger, x)
                handles.append(handle)
            await checkpoint()
            raise ValueError("body")

    _, errors = await caught(victim, block)
    assert reasons(errors) in ({"body": 1}, {})
    assert errors or victim.cancelled
    check_ended(stage, handles)
    stage.clear()


@explored
async def test_block_that_is_cancelled_while_it_drains(sim: Simulation, victim: Victim) -> None:
    """Leaving the block waits for the work; cancelled meanwhile, it cancels that and waits."""
    stage = Stage(sim, 1, max_pending=2)
    handles: list[TaskHandle[int]] = []

    async def block() -> None:
        async with stage.executor:
            handles.extend([await stage.executor.submit(stage.linger, x) for x in range(2)])

    await victim(block)
    check_ended(stage, handles)
    assert victim.cancelled or stage.returned == {0: 1, 1: 1}
    stage.clear()


@explored
async def test_drain(sim: Simulation, victim: Victim) -> None:
    """It waits for everything, those who wait for room included; cancelled, it leaves all alone."""
    stage = Stage(sim, 1)
    bounded(stage, 1)
    handles: list[TaskHandle[int]] = []

    async def submit() -> None:
        for x in range(3):
            try:
                handles.append(await stage.executor.submit(stage.work, x))
            except RuntimeError as error:
                assert "draining" in str(error)  # noqa: PT017 - it may come, or not
                return

    async with stage.executor, anyio.create_task_group() as group:
        group.start_soon(submit)
        await checkpoint()
        drained = await victim(stage.executor.drain)
        assert drained is (None if victim.cancelled else True)
        if drained:
            assert stage.executor.statistics().submitted == 0
    assert stage.returned.total() == len(handles)
    check_ended(stage, handles)
    stage.clear()


@explored
async def test_drain_in_time_or_not(sim: Simulation, victim: Victim) -> None:
    """After its time is up it cancels what is left, and says so; nothing is left either way."""
    stage = Stage(sim, 2, max_pending=1)
    async with stage.executor:
        handles = [await stage.executor.submit(stage.sleep, x) for x in (0.5, 1, 1.5)]
        drained = await victim(stage.executor.drain, 1)
        if not victim.cancelled:
            check_ended(stage, handles)
            assert drained is (stage.returned.total() == 3)
            assert stage.returned[0.5] == 1
            assert sim.time() == 1
    check_ended(stage, handles)
    stage.clear()


@explored
async def test_drain_that_cuts_short(sim: Simulation) -> None:
    """A task that is cancelled by drain cannot submit another, and drain ends."""
    stage = Stage(sim, 2, max_pending=1)

    async def spawn(x: int) -> None:
        try:
            await stage.sleep(x)
        finally:
            with anyio.CancelScope(shield=True), contextlib.suppress(RuntimeError):
                await stage.executor.submit(stage.work, x + 10)

    async with stage.executor:
        for x in (1, 2):
            await stage.executor.submit(spawn, x)
        await stage.executor.drain(1)
        assert stage.executor.statistics().submitted == 0
        assert stage.started[12] == 0
    stage.clear()


@explored
async def test_drain_and_a_task_that_submits(sim: Simulation, victim: Victim) -> None:
    """What is drained may submit more, which is drained too."""
    stage = Stage(sim, 1)

    async def spawn(x: int) -> None:
        await stage.work(x)
        if x < 2:
            await stage.executor.submit(spawn, x + 1)

    async with stage.executor:
        await stage.executor.submit(spawn, 0)
        drained = await victim(stage.executor.drain)
        if not victim.cancelled:
            assert drained is True
            assert stage.returned == {0: 1, 1: 1, 2: 1}
    assert stage.returned == {0: 1, 1: 1, 2: 1}
    stage.clear()


@explored
async def test_cancel(sim: Simulation) -> None:
    """The executor's cancel ends what there is; what comes afterwards runs."""
    stage = Stage(sim, 1, max_pending=1)
    handles: list[TaskHandle[int]] = []

    async def submit() -> None:
        for x in range(3):
            handle = await stage.executor.submit(stage.work, x)
            handles.append(handle)

    async def cancel() -> None:
        await checkpoint()
        stage.executor.cancel()

    async with stage.executor, anyio.create_task_group() as group:
        group.start_soon(submit)
        group.start_soon(cancel)
    check_ended(stage, handles)
    assert len(handles) == 3
    stage.clear()


@explored
async def test_timeouts(sim: Simulation, victim: Victim) -> None:
    """A submitted task has the executor's timeout, from when it has its slot."""
    stage = Stage(sim, 1, max_pending=2, timeout=1)

    async def wait(handle: TaskHandle[float]) -> bool:
        return isinstance((await caught(_awaiting, handle))[1][0], MTAIOTimeoutError)

    async with stage.executor:
        handles = [await stage.executor.submit(stage.sleep, x) for x in (0.75, 1.5, 0.5)]
        late = await victim(wait, handles[1])
        assert late is (None if victim.cancelled else True)
        await handles[2].wait()
        _ = handles[1].exception
    assert [handle.status for handle in handles] == ["succeeded", "failed", "succeeded"]
    assert sim.time() == 2.25
    stage.clear()


# ---- tasks that depend on each other ----


@explored
async def test_item_that_awaits_its_own(sim: Simulation, victim: Victim) -> None:
    """An item may wait for a task of its own executor, whatever the limit."""
    stage = Stage(sim, 1, beyond=1)

    async def parent(x: int) -> int | None:
        handle = await stage.executor.submit(stage.work, x, 2)
        result = await victim(_awaiting, handle)
        await stage.work(-x)
        return result

    async with stage.executor:
        handle = await stage.executor.submit(parent, 1)
    assert await handle == (None if victim.cancelled else 1)
    assert stage.returned == {1: 1, -1: 1}
    stage.clear()


@explored
async def test_items_that_await_each_others(sim: Simulation, victim: Victim) -> None:
    """A slot that is lent to a task comes back, also when two wait for that task."""
    stage = Stage(sim, 1, beyond=1)

    async def waiting(handle: TaskHandle[int]) -> int:
        return await handle

    async with stage.executor, anyio.create_task_group() as group:
        handle = await stage.executor.submit(stage.work, 5, 2)
        group.start_soon(stage.executor.map, waiting, [handle, handle])
        await victim(stage.executor.run, waiting, handle)
    assert handle.status is TaskStatus.SUCCEEDED
    stage.clear()


@explored
async def test_item_that_waits_for_room(sim: Simulation, victim: Victim) -> None:
    """An item that submits to its own full executor waits for its child, and goes on."""
    stage = Stage(sim, 1, beyond=1)
    bounded(stage, 1)

    async def parent() -> None:
        for x in range(3):
            await stage.executor.submit(stage.work, x)

    async with stage.executor:
        await victim(stage.executor.run, parent)
    assert victim.cancelled or stage.returned == {0: 1, 1: 1, 2: 1}
    assert set(stage.started.values()) <= {1}
    stage.clear()


@explored
async def test_item_that_stops_waiting(sim: Simulation, victim: Victim) -> None:
    """An item that does not wait for its task any more lends it nothing, and has its slot back."""
    stage = Stage(sim, 1, beyond=1)

    async def parent() -> None:
        handle = await stage.executor.submit(stage.sleep, 5)
        await victim(_awaiting, handle)
        start = sim.time()
        await stage.executor.run(stage.sleep, 1)
        assert sim.time() == start + 1

    async with stage.executor:
        await stage.executor.run(parent)
    assert stage.returned == {5: 1, 1: 1}
    stage.clear()


@explored
async def test_service_that_waits_for_room(sim: Simulation, victim: Victim) -> None:
    """A call that waits for a place is let in as soon as the item in that place waits for it."""
    stage = Stage(sim, 1, beyond=1)
    occupied = anyio.Event()

    async def helper(*, task_status: Readiness[None]) -> None:
        task_status.started()
        await occupied.wait()
        await stage.executor.submit(stage.work, 1)

    async def item(helping: TaskHandle[None]) -> None:
        occupied.set()
        await checkpoint()
        await victim(helping.wait)
        await stage.work(2)

    async with stage.executor:
        await stage.executor.submit(item, await stage.executor.start(helper))
    assert stage.returned[2] == 1
    assert stage.returned[1] == 1 or victim.fired
    stage.clear()


# ---- services ----


class Pulse:
    """A service that is ready after a step, and counts how many of it there are."""

    def __init__(self, *, fails_before: int = 0, fails_after: int = 0) -> None:
        self.alive = 0
        self.runs = 0
        self.fails_before = fails_before
        self.fails_after = fails_after

    async def run(self, *, task_status: Readiness[str]) -> None:
        """Be ready, then go on until cancelled."""
        self.runs += 1
        self.alive += 1
        try:
            await checkpoint()
            if self.fails_before >= self.runs:
                raise ValueError("before")
            task_status.started("ready")
            await checkpoint()
            if self.fails_after >= self.runs:
                raise ValueError("after")
            await anyio.sleep_forever()
        finally:
            self.alive -= 1
            with anyio.CancelScope(shield=True):
                await checkpoint()


@explored
async def test_service(sim: Simulation, victim: Victim) -> None:
    """A service is ready when start returns, outlives the work, and is gone after the block."""
    stage = Stage(sim, 1)
    pulse = Pulse()

    async def working(x: int) -> int:
        await stage.work(x)
        assert pulse.alive or victim.cancelled or victim.fired
        return x

    async with stage.executor:
        handle = await victim(stage.executor.start, pulse.run)
        if handle is None:
            await settle()
            assert stage.executor.statistics().services == pulse.alive == 0
        else:
            assert handle.start_value == "ready"
            assert stage.executor.statistics().services == 1
        await stage.executor.submit(working, 1)
    assert pulse.alive == 0
    assert stage.returned == {1: 1}
    stage.clear()


@explored
async def test_service_in_a_block_that_is_cancelled(sim: Simulation, victim: Victim) -> None:
    """Whatever ends the block ends its services too."""
    stage = Stage(sim, 1)
    pulse = Pulse()

    async def block() -> None:
        async with stage.executor:
            await stage.executor.start(pulse.run)
            await stage.executor.submit(stage.work, 1)

    await victim(block)
    assert pulse.alive == 0
    assert victim.cancelled or stage.returned == {1: 1}
    stage.clear()


@explored
async def test_service_that_fails_before_it_is_ready(sim: Simulation, victim: Victim) -> None:
    """Its error goes to the code that starts it, and the block goes on."""
    stage = Stage(sim, 1)
    pulse = Pulse(fails_before=1)
    async with stage.executor:
        _, errors = await caught(victim, stage.executor.start, pulse.run)
        assert reasons(errors) == {"before": 1} or victim.cancelled
        await stage.executor.run(stage.work, 1)
    assert pulse.alive == 0
    assert stage.returned == {1: 1}
    stage.clear()


@explored
async def test_service_that_fails(sim: Simulation, victim: Victim) -> None:
    """A service that cannot be kept alive ends the block, which raises its error once."""
    stage = Stage(sim, 1)
    pulse = Pulse(fails_after=1)

    async def block() -> None:
        async with stage.executor:
            await stage.executor.start(pulse.run)
            await stage.executor.run(stage.work, 1, 3)
            await anyio.sleep_forever()

    _, errors = await caught(victim, block)
    assert reasons(errors) == {"after": 1} or (victim.cancelled and not errors)
    assert pulse.alive == 0
    stage.clear()


@explored
async def test_service_that_is_restarted(sim: Simulation, victim: Victim) -> None:
    """A service that fails is started again, after its wait, and once at a time."""
    stage = Stage(sim, 1)
    pulse = Pulse(fails_after=1)
    sim.always(lambda: pulse.alive <= 1)
    policy = Retry(attempts=2, wait_initial=1, jitter=0)

    async def block() -> None:
        async with stage.executor:
            await stage.executor.start(partial(pulse.run), restart=policy)
            await anyio.sleep(2)
            assert pulse.alive == 1

    await victim(block)
    assert pulse.alive == 0
    assert victim.fired or pulse.runs == 2
    stage.clear()


@explored
async def test_service_that_is_cancelled(sim: Simulation) -> None:
    """The executor's cancel ends a service that is there, be it ready, about to be, or new."""
    stage = Stage(sim, 1)
    pulse = Pulse()
    errors: list[BaseException] = []

    async def start() -> None:
        try:
            handle = await stage.executor.start(pulse.run)
        except TaskCancelledError as error:
            errors.append(error)
        else:
            await handle.wait()
            assert handle.status is TaskStatus.CANCELLED

    async with stage.executor, anyio.create_task_group() as group:
        group.start_soon(start)
        while not stage.executor.statistics().services:
            await checkpoint()
        stage.executor.cancel()
    assert pulse.alive == 0
    stage.clear()


@explored
async def test_service_that_is_cancelled_by_its_handle(sim: Simulation, victim: Victim) -> None:
    """Its handle ends it too, whether that is waited for or not."""
    stage = Stage(sim, 1)
    pulse = Pulse()
    async with stage.executor:
        handle = await stage.executor.start(pulse.run)
        handle.cancel()
        await victim(handle.wait)
        assert victim.cancelled or handle.status is TaskStatus.CANCELLED
    assert handle.status is TaskStatus.CANCELLED
    assert pulse.alive == 0
    stage.clear()
