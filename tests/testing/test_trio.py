"""What is trio's alone: its clock, and the hooks into it."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
from anyio import to_thread

from mtaio._internal import clock
from mtaio._internal.clock import now
from mtaio.testing import Deadlock, current_simulation, run, settle, virtual_backend

trio = pytest.importorskip("trio")
trio_testing = pytest.importorskip("trio.testing")
outcome = pytest.importorskip("outcome")

REGISTER = "task_register"


def test_cancellation_from_outside_stays_one() -> None:
    """A cancellation of the main task from outside the function arrives."""

    async def scenario() -> None:
        trio.lowlevel.current_root_task().child_nurseries[-1].cancel_scope.cancel()
        await trio.sleep_forever()

    with pytest.raises(trio.Cancelled):
        run(scenario, backend="trio")


def test_cancellation_from_outside_wins_over_a_deadlock() -> None:
    """A cancellation from outside stays one, also in the cleanup of a deadlocked function."""

    async def scenario() -> None:
        try:
            await trio.sleep_forever()
        finally:
            trio.lowlevel.current_root_task().child_nurseries[-1].cancel_scope.cancel()

    with pytest.raises(trio.Cancelled):
        run(scenario, backend="trio")


def test_system_task_that_blocks_the_end() -> None:
    """A system task that refuses to end when the main task is over is a deadlock, too."""

    async def refuse() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    async def scenario() -> None:
        trio.lowlevel.spawn_system_task(refuse, name="refuser")
        await trio.sleep(1)

    with pytest.raises(Deadlock, match=r"^the run is blocked at t=1\.0 for ever") as caught:
        run(scenario, backend="trio")
    assert "refuser" in [stack.name for stack in caught.value.stacks]


def test_trio_clock_can_be_jumped_by_hand() -> None:
    """``MockClock.jump`` works as trio documents it."""

    async def scenario() -> None:
        trio.lowlevel.current_clock().jump(3)
        assert trio.current_time() == now() == 3.0

    run(scenario, backend="trio")


def test_trio_run_of_a_second_simulation() -> None:
    """While one simulation runs, trio cannot start with the clock of another one."""
    _, options = virtual_backend("trio")

    async def scenario() -> None:
        with pytest.raises(trio.TrioInternalError) as caught:
            await to_thread.run_sync(lambda: trio.run(trio.lowlevel.checkpoint, **options))
        assert str(caught.value.__cause__).startswith("a simulation is running in this process")
        assert clock.now() == current_simulation().time() == 0.0

    run(scenario)


def test_trio_autojump_is_called_when_all_is_blocked() -> None:
    """Trio calls ``MockClock._autojump`` of the instance when every task is blocked."""
    clock = trio_testing.MockClock(autojump_threshold=0)
    asked: list[float] = []
    jumped: list[None] = []
    sleep_time, autojump = clock.deadline_to_sleep_time, clock._autojump

    def deadline_to_sleep_time(deadline: float) -> float:
        asked.append(deadline)
        return float(sleep_time(deadline))

    def _autojump() -> None:
        jumped.append(None)
        assert asked[-1] == 5.0
        autojump()

    clock.deadline_to_sleep_time = deadline_to_sleep_time
    clock._autojump = _autojump
    trio.run(trio.sleep, 5, clock=clock)
    assert jumped == [None]
    assert math.inf in asked


def test_trio_task_can_be_thrown_at() -> None:
    """``Task._attempt_abort`` raises what it is given in a blocked task, in spite of shields."""

    async def scenario() -> str:
        tasks: list[Any] = []

        async def shielded() -> None:
            tasks.append(trio.lowlevel.current_task())
            with trio.CancelScope(shield=True), pytest.raises(LookupError):
                await trio.sleep_forever()

        def raise_error() -> None:
            raise LookupError

        async with trio.open_nursery() as nursery:
            nursery.start_soon(shielded)
            await trio_testing.wait_all_tasks_blocked()
            assert callable(tasks[0]._abort_func)
            tasks[0]._attempt_abort(raise_error)
            assert tasks[0]._abort_func is None
        return "ended"

    assert trio.run(scenario) == "ended"


def test_trio_thread_can_be_disowned() -> None:
    """With its ``task_register`` emptied, a thread ends without waking the task that waited."""
    gate = threading.Event()

    async def wait_for_thread() -> None:
        with pytest.raises(LookupError):
            await trio.to_thread.run_sync(gate.wait)

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_thread)
            await trio_testing.wait_all_tasks_blocked()
            (task,) = nursery.child_tasks
            registers = [f.f_locals.get(REGISTER) for f, _ in task.iter_await_frames()]
            (register,) = filter(None, registers)
            assert register == [task]
            register[0] = None
            trio.lowlevel.reschedule(task, outcome.Error(LookupError()))
        gate.set()
        await trio.to_thread.run_sync(int)

    trio.run(scenario)


def test_trio_tree_of_tasks() -> None:
    """The main task is alone in the innermost nursery of the root task."""

    async def scenario() -> None:
        root = trio.lowlevel.current_root_task()
        main = trio.lowlevel.current_task()
        assert list(root.child_nurseries[-1].child_tasks) == [main]

    trio.run(scenario)


def test_trio_own_wait_and_threads() -> None:
    """A run in which nothing happens has one wait for input of its own, and counts its threads."""

    async def scenario() -> None:
        statistics = trio.lowlevel.current_statistics().io_statistics
        names = [name for name in dir(statistics) if name.startswith("tasks_waiting")]
        await trio_testing.wait_all_tasks_blocked()
        statistics = trio.lowlevel.current_statistics().io_statistics
        assert sum(getattr(statistics, name) for name in names) == 1
        assert trio_testing.active_thread_count() == 0
        await trio.to_thread.run_sync(int)

    trio.run(scenario)


@pytest.mark.parametrize(
    ("owner", "hook"),
    [(trio_testing.MockClock, "_autojump"), (trio.lowlevel.Task, "_attempt_abort")],
)
def test_missing_trio_hook(owner: type, hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trio without them is refused, in words; asyncio works all the same."""
    monkeypatch.delattr(owner, hook)
    with pytest.raises(
        RuntimeError,
        match=rf"^mtaio\.testing cannot run trio [\d.]+ under virtual time: it has no "
        rf"{owner.__name__}\.{hook}\. Use a version that mtaio was tested with\.$",
    ):
        run(settle, backend="trio")
    run(settle, backend="asyncio")
