"""Hedge under many schedules, cancelled everywhere."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from mtaio.resilience import Call, Hedge
from mtaio.resources import ConcurrencyLimiter
from mtaio.testing import assert_quiescent
from tests.explored.searches import explored, together

if TYPE_CHECKING:
    from mtaio.testing import Simulation, Victim


class Watched:
    """
    A hedge around a limiter around a service, and what must hold after every step.

    Args:
        sim: Where it is watched.
        *seconds: How long the attempts last; negative for those that fail.
    """

    def __init__(self, sim: Simulation, *seconds: float) -> None:
        self.hedge = Hedge(1)
        self.limiter = ConcurrencyLimiter(2)
        self.seconds = iter(seconds)
        self.attempts = 0
        self.running = 0
        self.calls = 0
        self.results: list[float] = []
        self._sim = sim
        self._run = self.hedge.wrap(self._limited)
        sim.always(self.holds)

    def holds(self) -> bool:
        """Return whether nothing runs without its call and its slot."""
        return self.running <= self.limiter.statistics().in_use and (
            self.calls > 0 or self.running == 0
        )

    async def call(self) -> None:
        """Make a call."""
        self.calls += 1
        try:
            self.results.append(await self._run(Call(self._attempt, ())))
        except ConnectionError:
            self.results.append(-1)
        finally:
            self.calls -= 1
            if not self.calls:
                assert self.limiter.statistics().in_use == self.running == 0

    async def _limited(self, call: Call) -> Any:
        async with self.limiter:
            return await call.fn()

    async def _attempt(self) -> float:
        self.attempts += 1
        self.running += 1
        try:
            mine = next(self.seconds)
            await anyio.sleep(abs(mine))
            if mine < 0:
                raise ConnectionError
            await checkpoint()
            return mine
        finally:
            self.running -= 1

    def ends(self) -> None:
        """Make sure that nothing is left, and that no loser was waited for to its end."""
        assert self._sim.time() <= 3
        assert self.calls == self.running == 0
        assert_quiescent(self.limiter)
        now = self.hedge.statistics()
        assert now.wins <= now.hedges <= 1


@explored
async def test_both_answer_at_one_moment(victim: Victim, sim: Simulation) -> None:
    """Two answers and a cancellation at one moment: one result, or none, and nothing left."""
    watched = Watched(sim, 2, 1)
    await together(victim=partial(victim, watched.call))
    assert watched.results in ([2], [1], [])
    watched.ends()


@explored
async def test_answers_as_it_is_hedged(victim: Victim, sim: Simulation) -> None:
    """The answer may come in the very moment in which another attempt begins."""
    watched = Watched(sim, 1, 5)
    await together(victim=partial(victim, watched.call))
    assert watched.results in ([1], [])
    watched.ends()


@explored
async def test_both_fail_at_one_moment(victim: Victim, sim: Simulation) -> None:
    """Two failures and a cancellation at one moment: one error, or none, and nothing left."""
    watched = Watched(sim, -2, -1)
    await together(victim=partial(victim, watched.call))
    assert watched.results in ([-1], [])
    watched.ends()


@explored
async def test_second_call_beside_the_victim(victim: Victim, sim: Simulation) -> None:
    """What happens to one call is nothing to another that waits by the same timer."""
    watched = Watched(sim, 1.5, 0.5, 9, 9)
    await together(victim=partial(victim, watched.call), other=watched.call)
    assert set(watched.results) <= {1.5, 0.5}
    watched.ends()
