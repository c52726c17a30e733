"""Limiters that are closed while tasks wait, and slots per key, under many schedules."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.exceptions import LimitClosedError, LimitTimeoutError
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedConcurrencyLimiter,
    RateLimiter,
    TimeoutManager,
)
from mtaio.testing import Simulation, Victim, assert_quiescent
from tests.explored.searches import explored, together
from tests.resources.timers import live_timers


class Closed:
    """What came of those who asked, and when the limiter was closed."""

    def __init__(self, sim: Simulation, limiter: Any) -> None:
        self.limiter = limiter
        self.was_closed = False
        self.inside = 0
        self.got: list[str] = []
        self.refused: list[str] = []
        self._timers = live_timers()
        sim.always(lambda: self.inside <= 1)

    async def work(self, name: str, block: Any) -> None:
        """Enter, be inside for a moment, and leave; or be refused."""
        late = self.was_closed
        try:
            async with block:
                assert not late, f"{name} was let in"
                self.inside += isinstance(self.limiter, ConcurrencyLimiter)
                try:
                    await checkpoint()
                    self.got.append(name)
                finally:
                    self.inside -= isinstance(self.limiter, ConcurrencyLimiter)
        except LimitClosedError:
            assert self.was_closed
            self.refused.append(name)

    async def close(self) -> None:
        """Close it, a moment later."""
        await checkpoint()
        self.was_closed = True
        self.limiter.close()

    def ends(self, victim: Victim) -> None:
        """Make sure that each was let in or refused, unless it was cancelled; nothing is left."""
        ended = Counter(self.got + self.refused)
        assert set(ended) | {"victim"} == {"a", "b", "c", "victim"}
        assert set(ended.values()) == {1}
        assert victim.cancelled or "victim" in ended
        assert self.limiter.statistics().rejected == len(self.refused)
        assert live_timers() == self._timers
        assert_quiescent(self.limiter)


@explored
async def test_slots_are_closed(victim: Victim, sim: Simulation) -> None:
    """Who has a slot goes on, the others are refused, and a cancelled one changes nothing."""
    limiter = ConcurrencyLimiter(1)
    closed = Closed(sim, limiter)
    await together(
        a=lambda: closed.work("a", limiter),
        victim=lambda: victim(closed.work, "victim", limiter),
        close=closed.close,
        b=lambda: closed.work("b", limiter),
        c=lambda: closed.work("c", limiter),
    )
    closed.ends(victim)


@explored
async def test_a_rate_is_closed(victim: Victim, sim: Simulation) -> None:
    """The same of a rate: who waits for a token does not sleep on."""
    limiter = RateLimiter(1)
    closed = Closed(sim, limiter)
    await together(
        a=lambda: closed.work("a", limiter),
        victim=lambda: victim(closed.work, "victim", limiter),
        close=closed.close,
        b=lambda: closed.work("b", limiter),
        c=lambda: closed.work("c", limiter),
    )
    closed.ends(victim)
    assert sim.time() == 0


@explored
async def test_keys_are_closed(victim: Victim, sim: Simulation) -> None:
    """The same for keys, which are forgotten when the last of those inside has gone."""
    limiter = KeyedConcurrencyLimiter(1)
    closed = Closed(sim, limiter)
    await together(
        a=lambda: closed.work("a", limiter.slot("x")),
        victim=lambda: victim(closed.work, "victim", limiter.slot("x")),
        close=closed.close,
        b=lambda: closed.work("b", limiter.slot("y")),
        c=lambda: closed.work("c", limiter.slot("x")),
    )
    closed.ends(victim)
    assert limiter.statistics().keys == 0


@explored
async def test_keys_come_and_go(victim: Victim, sim: Simulation) -> None:
    """Never more at once for a key than may be, and a key is held while somebody uses it."""
    limiter = KeyedConcurrencyLimiter(1, max_keys=2)
    inside: Counter[str] = Counter()
    asking: Counter[str] = Counter()

    def holds() -> bool:
        now = limiter.statistics()
        keys = [key for key in "xy" if limiter.statistics_for(key).in_use]
        return max(inside.values(), default=0) <= 1 and len(keys) <= now.keys <= len(+asking)

    sim.always(holds)

    async def work(keys: str) -> None:
        for key in keys:
            asking[key] += 1
            try:
                async with limiter.slot(key):
                    inside[key] += 1
                    try:
                        await checkpoint()
                    finally:
                        inside[key] -= 1
            finally:
                asking[key] -= 1

    await together(
        a=lambda: work("xy"),
        victim=lambda: victim(work, "xx"),
        b=lambda: work("yx"),
        c=lambda: work("xy"),
    )
    now = limiter.statistics()
    assert (now.keys, now.in_use, now.waiting, now.rejected_keys) == (0, 0, 0, 0)
    assert now.acquired + victim.cancelled >= 7
    assert_quiescent(limiter)


@explored
async def test_a_deadline_is_seen_in_the_queue(victim: Victim, sim: Simulation) -> None:
    """Who cannot be in time never joins; those who wait are served in time, cancelled or not."""
    limiter, timeouts = RateLimiter(1, slack=0), TimeoutManager(2.5)
    timers = live_timers()
    moments: dict[str, float] = {}

    async def work(name: str) -> None:
        try:
            with timeouts():
                await limiter.acquire()
        except LimitTimeoutError:
            moments[name] = -1
        else:
            moments[name] = sim.time()

    await together(
        a=lambda: work("a"),
        victim=lambda: victim(work, "victim"),
        b=lambda: work("b"),
        c=lambda: work("c"),
    )
    if not victim.cancelled:
        assert sorted(moments.values()) == [-1, 0, 1, 2]
    assert all(moments[name] in {-1, 0, 1, 2} for name in "abc")
    assert timeouts.statistics().timed_out == 0
    with anyio.CancelScope(deadline=0), pytest.raises(LimitTimeoutError):
        await limiter.acquire(timeout=0.5)
    assert live_timers() == timers
    assert_quiescent(limiter)
