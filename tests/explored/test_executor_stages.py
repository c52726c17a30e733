"""Stages under one executor, and merged sources, under many schedules: none waits for another."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.core import merge
from tests.explored.executor_stage import Stage, caught, explored

if TYPE_CHECKING:
    from collections import Counter

    from mtaio.testing import Simulation, Victim


class Line:
    """Stages of one line; each number that goes through is marked with the stage it is in."""

    def __init__(self, sim: Simulation, max_workers: int) -> None:
        self.stage = Stage(sim, max_workers)
        self.read = self.stage.source

    async def step(self, x: int, steps: int) -> int:
        """Do the work of the next stage, which takes so many steps."""
        return await self.stage.work(x + 10, steps) 

    def all_done(self, *items: int, stages: int) -> bool:
        """Return whether each item went once through each stage."""
        return self.stage.returned == dict.fromkeys(
            [x + 10 * (stage + 1) for x in items for stage in range(stages)], 1
        )

    def clear(self) -> None:
        """Assert that nothing is left, and that each stage began what it had taken."""
        self.stage.read.clear()  # the source's items are counted by what the first stage made of them
        self.stage.clear()


@explored
@pytest.mark.parametrize("max_workers", [1, 2, 3])
@pytest.mark.parametrize("steps", [(1, 2, 3), (3, 1, 1)], ids=["ever slower", "ever faster"])
async def test_three_stages(
    sim: Simulation, victim: Victim, max_workers: int, steps: tuple[int, int, int]
) -> None:
    """All items go through all stages, whichever is slow, with as few slots as there are."""
    line = Line(sim, max_workers)
    executor = line.stage.executor

    async def run() -> None:
        first = executor.stream(partial(line.step, steps=steps[0]), range(3), max_pending=0, limit=1)
        second = executor.stream(partial(line.step, steps=steps[1]), first, max_pending=0, limit=1)
        await executor.for_each(partial(line.step, steps=steps[2]), second, limit=1)

    await victim(run)
    assert victim.fired or line.all_done(0, 1, 2, stages=3)
    line.clear()
