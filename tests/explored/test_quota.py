"""Quota, and limiters that are held, under many schedules, cancelled everywhere."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from mtaio.exceptions import LimitClosedError, LimitTimeoutError
from mtaio.resources import KeyedQuota, Quota, RateLimiter
from mtaio.testing import Simulation, Victim, assert_quiescent
from tests.explored.searches import Line, explored, together
from tests.resources.timers import live_timers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any


class Watched:
    """
    A quota, its line, and what was used of its limits, with what must hold after every step.

    Args:
        sim: Where it is watched.
        quota: The quota, of limits ``a`` and ``b`` that are full.
    """

    def __init__(self, sim: Simulation, quota: Quota) -> None:
        self.quota = quota
        self.line = Line()
        self.timers = live_timers()
        self.sleepers = 0  # tasks of the scenario that have set timers of their own
        self.acquired = 0
        self._over = False
        sim.always(self.holds)

    def holds(self) -> bool:
        """Return whether the quota keeps its promise at this moment."""
        if self._over:
            return True
        now = self.quota.statistics()
        timers = live_timers() - self.timers - self.sleepers
        return (
            timers <= (now.waiting > 0)
            and now.waiting <= len(self.line)
            and all(each.tokens <= each.burst + 1e-6 for each in now.limits.values())
        )

    async def work(
        self, name: str, cost: tuple[float, float], used: float | None = None, flight: float = 0
    ) -> None:
        """Take once, and settle what was used of ``b``."""
        self.line.asks(name)
        taken = self.quota.take(a=cost[0], b=cost[1])
        try:
            await taken.__aenter__()
        except BaseException:
            self.line.leaves(name)
            raise
        # A task that asked before and still waits would have been overtaken.
        assert self.line.gets(name) == 0, self.line.served
        try:
            if flight:
                self.sleepers += 1
                try:
                    await anyio.sleep(flight)
                finally:
                    self.sleepers -= 1
            if used is not None:
                taken.settle(b=used)
        finally:
            await taken.__aexit__(None, None, None)

    def ends(self, *served: str) -> None:
        """Make sure that nothing is left, and that the tasks not cancelled were served."""
        self._over = True
        now = self.quota.statistics()
        assert set(served) <= set(self.line.served)
        assert now.acquired == len(self.line.served)
        assert now.cancelled + now.rejected + now.timed_out == len(self.line.left)
        assert live_timers() == self.timers
        assert_quiescent(self.quota)


@explored
async def test_two_limits(victim: Victim, sim: Simulation) -> None:
    """In order, in one step; what comes back and what is missing reaches those who wait."""
    watched = Watched(sim, Quota(a=(2, 2), b=(4, 4)))
    await together(
        a=lambda: watched.work("a", (1, 4), used=2, flight=0.5),
        victim=lambda: victim(watched.work, "victim", (2, 3), 1),
        b=lambda: watched.work("b", (1, 2), used=4),
        c=lambda: watched.work("c", (1, 1)),
    )
    watched.ends("a", "b", "c")


@explored
async def test_held_and_observed(victim: Victim, sim: Simulation) -> None:
    """A refusal, another limit and a lower remaining while tasks wait: in order, and soon."""
    watched = Watched(sim, Quota(a=(2, 2), b=(4, 4)))
    held: list[float] = []

    async def server() -> None:
        await checkpoint()
        watched.quota.hold(3)
        held.append(sim.time())
        await checkpoint()
        watched.quota.observe(limit={"b": 8}, remaining={"b": 1})

    await together(
        a=lambda: watched.work("a", (1, 4)),
        b=lambda: watched.work("b", (1, 2)),
        server=server,
        victim=lambda: victim(watched.work, "victim", (2, 3)),
        c=lambda: watched.work("c", (1, 1)),
    )
    watched.ends("a", "b", "c")
    assert sim.time() <= 6


@explored
async def test_a_shared_limiter(victim: Victim, sim: Simulation) -> None:
    """Direct users and two quotas with two shared limiters: none starves, nothing is exceeded."""
    one, two = RateLimiter(1, slack=0), RateLimiter(1, slack=0)
    left, right = Quota(a=one, b=two), Quota(b=two, a=one)
    grants: list[float] = []

    async def use(acquire: Callable[[], Coroutine[Any, Any, object]], times: int) -> None:
        for _ in range(times):
            await acquire()
            grants.append(sim.time())

    await together(
        direct=lambda: use(one.acquire, 2),
        left=lambda: use(left.acquire, 1),
        victim=lambda: victim(use, right.acquire, 1),
        right=lambda: use(right.acquire, 1),
        other=lambda: use(two.acquire, 1),
    )
    assert sim.time() <= 5
    spent = [each.statistics().acquired for each in (one, two)]
    assert sum(spent) == len(grants) + left.statistics().acquired + right.statistics().acquired
    assert_quiescent(one, two, left, right)


@explored
async def test_timeouts_and_the_end(victim: Victim, sim: Simulation) -> None:
    """Those who wait too long, or until it is closed, are told so; nobody is left."""
    quota = Quota(a=(1, 1))
    ended: list[str] = []

    async def ask(name: str, timeout: float | None = None) -> None:
        try:
            await quota.acquire(timeout=timeout)
            ended.append(name)
        except LimitTimeoutError:
            ended.append(f"{name} late")
        except LimitClosedError:
            ended.append(f"{name} closed")

    async def close() -> None:
        await anyio.sleep(2.5)
        quota.close()

    await together(
        a=lambda: ask("a"),
        victim=lambda: victim(ask, "victim", 1),
        b=lambda: ask("b", 2),
        c=lambda: ask("c"),
        d=lambda: ask("d"),
        close=close,
    )
    assert sim.time() <= 2.5
    assert len(ended) >= 4
    assert_quiescent(quota)


@explored
async def test_keys(victim: Victim, sim: Simulation) -> None:
    """Keys come and go; none that somebody waits for or has is forgotten."""
    quotas = KeyedQuota(a=1, max_keys=2, idle_ttl=0)
    taken: dict[str, list[float]] = {}

    async def use(key: str) -> None:
        async with quotas.take(key):
            taken.setdefault(key, []).append(sim.time())
            await checkpoint()

    await together(
        a=lambda: use("x"),
        victim=lambda: victim(use, "x"),
        b=lambda: use("x"),
        c=lambda: use("y"),
    )
    moments = taken["x"]
    assert all(later - sooner >= 1 for sooner, later in pairwise(moments))
    assert_quiescent(quotas)


@explored
async def test_a_limiter_is_held(victim: Victim, sim: Simulation) -> None:
    """Held twice while tasks wait: none is served before the later end, and then in order."""
    limiter = RateLimiter(1, burst=2, slack=0)
    line = Line()
    held_until = 0.0

    async def work(name: str) -> None:
        line.asks(name)
        try:
            await limiter.acquire()
        except BaseException:
            line.leaves(name)
            raise
        assert line.gets(name) == 0, line.served
        assert sim.time() >= held_until

    async def hold() -> None:
        nonlocal held_until
        for seconds in (3, 1):
            limiter.hold(seconds)
            held_until = max(held_until, sim.time() + seconds)
            await checkpoint()

    await together(
        a=lambda: work("a"),
        hold=hold,
        victim=lambda: victim(work, "victim"),
        b=lambda: work("b"),
        c=lambda: work("c"),
    )
    assert {"a", "b", "c"} <= set(line.served)
    assert sim.time() <= 6
    assert_quiescent(limiter)
