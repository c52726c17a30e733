"""ResourceMonitor under many schedules, its stop and its ticks cancelled everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from mtaio._internal import loops
from mtaio.monitoring import ResourceMonitor
from tests.explored.searches import explored, together

if TYPE_CHECKING:
    from mtaio.testing import Simulation, Victim


class Watched:
    """A monitor with one handler, and how often that is at work."""

    def __init__(self, sim: Simulation) -> None:
        self.monitor = ResourceMonitor(1, handler_timeout=None)
        self.level = 2.0
        self.at_work = 0
        self.most = 0
        self.monitor.gauge("level", lambda: self.level)
        self.monitor.set_threshold("level", 1)
        self.monitor.on_threshold_exceeded(self.handle)
        self.monitor.on_recovered(self.handle)
        sim.always(lambda: self.at_work <= 1)

    async def handle(self, *_: object) -> None:
        """Take two steps and a while."""
        self.at_work += 1
        try:
            await checkpoint()
            await anyio.sleep(0.25)
        finally:
            self.at_work -= 1

    async def ends(self, tasks: int) -> None:
        """Stop, and see that nothing is left."""
        await self.monitor.stop()
        assert not self.monitor.running
        assert self.at_work == 0
        assert loops.count_tasks(loops.current_loop()) == tasks
        statistics = self.monitor.statistics()
        assert (statistics.handlers_failed, statistics.failed, statistics.dropped) == (0, 0, 0)


@explored
async def test_stop_leaves_nothing(sim: Simulation, victim: Victim) -> None:
    """However start, tick and stop meet, and whatever is cancelled, the handlers have ended."""
    watched = Watched(sim)
    monitor = watched.monitor
    tasks = loops.count_tasks(loops.current_loop())

    async def stops() -> None:
        await monitor.start()
        await monitor.tick()
        await monitor.stop()

    async def ticks() -> None:
        await monitor.start()
        watched.level = 0.0
        await monitor.tick()

    await together(stops=lambda: victim(stops), ticks=ticks)
    await watched.ends(tasks)


@explored
async def test_stopped_in_two_tasks(sim: Simulation, victim: Victim) -> None:
    """Both have stopped it, whoever was first and whichever was cancelled."""
    watched = Watched(sim)
    tasks = loops.count_tasks(loops.current_loop())
    await watched.monitor.start()
    await anyio.sleep(1)

    async def stops() -> None:
        await watched.monitor.stop()
        assert not watched.monitor.running

    await together(one=lambda: victim(stops), other=stops)
    await watched.ends(tasks)
