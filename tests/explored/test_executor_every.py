"""`TaskExecutor.every` under many schedules: one run at a time, each of which ends once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from tests.explored.executor_stage import Stage, explored

if TYPE_CHECKING:
    from mtaio.core import PeriodicTask
    from mtaio.testing import Simulation, Victim


class Once:
    """A function of which no two calls may overlap."""

    def __init__(self, stage: Stage, seconds: float) -> None:
        self.stage = stage
        self.seconds = seconds
        self.running = 0
        self.calls = 0

    async def __call__(self) -> None:
        """Sleep, and take a step to clean up."""
        assert not self.running
        self.running += 1
        self.calls += 1
        try:
            await self.stage.sleep(self.seconds)
        finally:
            try:
                with anyio.CancelScope(shield=True):
                    await checkpoint()
            finally:
                self.running -= 1


async def check(*pairs: tuple[PeriodicTask, Once]) -> None:
    """Assert that tasks have ended, and that each of their runs has ended once."""
    for task, once in pairs:
        await task.wait()
        found = task.statistics()
        assert found.runs == found.succeeded + found.failed + found.cancelled
        assert found.runs >= once.calls
        assert not once.running
        assert (found.running, found.leading) == (False, False)


@explored
async def test_block_is_struck(sim: Simulation, victim: Victim) -> None:
    """Whatever ends the block, every schedule ends with it, and no slot is kept."""
    stage = Stage(sim, 1)
    pairs: list[tuple[PeriodicTask, Once]] = []

    def repeat(period: float, seconds: float, **options: Any) -> None:
        once = Once(stage, seconds)
        pairs.append((stage.executor.every(period, once, **options), once))

    async def block() -> None:
        async with stage.executor:
            repeat(2, 3, overlap="queue")
            repeat(2, 3, overlap="cancel")
            await anyio.sleep(3.5)
            pairs[0][0].cancel()

    await victim(block)
    await check(*pairs)
    stage.clear()


@explored
async def test_run_is_struck(sim: Simulation, victim: Victim) -> None:
    """A run that is struck is an error of that run, or its end; the others are made."""
    stage = Stage(sim, 1)
    once = Once(stage, 1)
    runs = 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        await (victim(once) if runs == 1 else once())

    async with stage.executor:
        task = stage.executor.every(2, run)
        await anyio.sleep(3)
        task.stop()
    await check((task, once))
    assert runs == task.statistics().runs == 2
    assert task.statistics().succeeded >= 1
    stage.clear()
