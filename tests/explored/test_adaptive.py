"""AdaptiveLimiter under many schedules, with a caller cancelled everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from mtaio.exceptions import ConcurrencyLimitError
from mtaio.resilience import AdaptiveLimiter, Pipeline
from mtaio.testing import assert_quiescent
from tests.explored.searches import explored, together

if TYPE_CHECKING:
    from mtaio.testing import Simulation, Victim


class Stage:
    """
    A limiter with a queue, and what must hold after every step.

    Args:
        sim: Where it is watched.
        max_waiting: As for the limiter.
    """

    def __init__(self, sim: Simulation, max_waiting: int) -> None:
        self.limiter = AdaptiveLimiter(initial=1, max_limit=1, max_waiting=max_waiting)
        self.api = Pipeline(self.limiter)
        self.max_waiting = max_waiting
        self.inside = 0
        self.refused: list[str] = []
        self.served: list[str] = []
        sim.always(self.holds)

    def holds(self) -> bool:
        """Return whether nobody is inside without a slot, or waits for one that is free."""
        now = self.limiter.statistics()
        idle = now.waiting > 0 and now.in_use < now.limit
        return self.inside <= now.in_use <= 1 and not idle and now.waiting <= self.max_waiting

    async def work(self, name: str) -> None:
        """Hold the slot over a checkpoint."""
        self.inside += 1
        try:
            await checkpoint()
            self.served.append(name)
        finally:
            self.inside -= 1

    async def call(self, name: str) -> None:
        """Make a call."""
        try:
            await self.api.run(self.work, name)
        except ConcurrencyLimitError:
            self.refused.append(name)

    async def block(self, name: str) -> None:
        """Enter a block."""
        try:
            async with self.limiter:
                await self.work(name)
        except ConcurrencyLimitError:
            self.refused.append(name)

    def clear(self, victim: Victim) -> None:
        """Hold that all are gone, and that nobody but the victim went without."""
        assert self.inside == 0
        assert_quiescent(self.limiter)
        now = self.limiter.statistics()
        assert (now.in_use, now.waiting, now.rejected) == (0, 0, len(self.refused))
        assert {*self.served, *self.refused} >= {"other", "third"}
        assert victim.cancelled or "victim" in {*self.served, *self.refused}


@explored
async def test_slot_is_never_lost(victim: Victim, sim: Simulation) -> None:
    """A call that is cancelled as the slot comes to it hands it on."""
    stage = Stage(sim, 2)
    await together(
        other=lambda: stage.block("other"),
        victim=lambda: victim(stage.call, "victim"),
        third=lambda: stage.call("third"),
    )
    stage.clear(victim)
    assert not stage.refused


@explored
async def test_queue_has_its_bound(victim: Victim, sim: Simulation) -> None:
    """One of three is refused if none has ended by then; a cancelled wait makes room."""
    stage = Stage(sim, 1)
    await together(
        victim=lambda: victim(stage.block, "victim"),
        other=lambda: stage.call("other"),
        third=lambda: stage.block("third"),
    )
    stage.clear(victim)
    assert len(stage.refused) <= 1
