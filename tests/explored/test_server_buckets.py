"""ServerBuckets under many schedules, cancelled everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio.clients import Route, ServerBuckets
from mtaio.resources import RateLimiter
from mtaio.testing import Simulation, Victim, assert_quiescent
from tests.clients.service import Service
from tests.explored.searches import explored, together
from tests.resources.timers import live_timers

if TYPE_CHECKING:
    from collections.abc import Hashable


class Watched:
    """
    Buckets and a service, with what must hold after every step.

    Args:
        sim: Where they are watched.
        service: The service.
        buckets: The buckets.
    """

    def __init__(self, sim: Simulation, service: Service, buckets: ServerBuckets) -> None:
        self.service = service
        self.buckets = buckets
        self.accepted: list[str] = []
        self._timers = live_timers()
        sim.always(self.holds)

    def holds(self) -> bool:
        """Return whether there is one timer at most for those that wait for the one bucket."""
        now = self.buckets.statistics()
        timers = live_timers() - self._timers
        return timers <= now.waiting + now.in_flight and now.in_flight <= self.service.limit + 1

    async def ask(self, name: str, route: Hashable = "r") -> None:
        """Ask until the service accepts."""
        while not await self.service.ask(self.buckets, route):
            pass
        self.accepted.append(name)

    def ends(self, *accepted: str, refused: int) -> None:
        """Make sure that nothing is left, and that the tasks not cancelled were served."""
        assert set(accepted) <= set(self.accepted)
        now = self.buckets.statistics()
        assert (now.in_flight, now.waiting) == (0, 0)
        assert self.service.refused <= refused
        assert live_timers() == self._timers
        assert_quiescent(self.buckets)


@explored
async def test_one_bucket(victim: Victim, sim: Simulation) -> None:
    """Two in five seconds: nothing is refused, unless one that the server counted was cancelled."""
    watched = Watched(sim, Service(2, 5), ServerBuckets())
    await together(
        a=lambda: watched.ask("a"),
        victim=lambda: victim(watched.ask, "victim"),
        b=lambda: watched.ask("b"),
        c=lambda: watched.ask("c"),
    )
    watched.ends("a", "b", "c", refused=1 if victim.cancelled else 0)


@explored
async def test_two_routes_become_one(victim: Victim, sim: Simulation) -> None:
    """Tasks wait for both as the server names their bucket: nobody is forgotten on the way."""
    watched = Watched(sim, Service(2, 5, bucket="b"), ServerBuckets())
    x, y = Route("x", major=1), Route("y", major=1)
    await together(
        a=lambda: watched.ask("a", x),
        victim=lambda: victim(watched.ask, "victim", y),
        b=lambda: watched.ask("b", y),
        c=lambda: watched.ask("c", x),
    )
    watched.ends("a", "b", "c", refused=2)


@explored
async def test_a_hold_and_an_overall_limit(victim: Victim, sim: Simulation) -> None:
    """All are held while some wait for their bucket, and others for the limit of all."""
    buckets = ServerBuckets(overall=RateLimiter(1, slack=0))
    watched = Watched(sim, Service(3, 5), buckets)

    async def hold() -> None:
        buckets.hold(2)

    await together(
        a=lambda: watched.ask("a"),
        victim=lambda: victim(watched.ask, "victim"),
        hold=hold,
        b=lambda: watched.ask("b"),
    )
    watched.ends("a", "b", refused=1 if victim.cancelled else 0)
    assert sim.time() >= 2 or victim.cancelled
