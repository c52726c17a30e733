"""KeyedRateLimiter under many schedules, cancelled everywhere."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio import exceptions
from mtaio._internal.checkpoints import FAST_CALLS
from mtaio.resources import KeyedRateLimiter
from mtaio.testing import Simulation, Victim, assert_checkpoints, assert_quiescent
from tests.explored.refilled import TICK, Refilled
from tests.explored.searches import Line, explored, together
from tests.resources.timers import live_timers

if TYPE_CHECKING:
    from collections.abc import Generator


class Watched:
    """
    A limiter without slack, with a line and a bucket for each key, none of which is ever forgotten.

    Args:
        sim: Where it is watched.
        keys: All that will ever be used.
        rate: Tokens a second for each.
        burst: What each bucket holds.
        max_keys: As for the limiter.
        idle_ttl: As for the limiter.
    """

    def __init__(
        self,
        sim: Simulation,
        keys: str,
        *,
        rate: float = 1,
        burst: float = 1,
        max_keys: int = 10,
        idle_ttl: float = 60,
    ) -> None:
        self.limiter = KeyedRateLimiter(
            rate, burst=burst, max_keys=max_keys, idle_ttl=idle_ttl, slack=0
        )
        self.buckets = {key: Refilled(rate, burst) for key in keys}
        self.lines = {key: Line() for key in keys}
        self.refused = 0
        self.sleepers = 0  # tasks of the scenario that have set timers of their own
        self._timers = live_timers()
        sim.always(self.holds)

    def holds(self) -> bool:
        """Return whether the limiter keeps its promise at this moment."""
        now = self.limiter.statistics()
        waiting = 0
        for key, bucket in self.buckets.items():
            there = self.limiter.statistics_for(key)
            # A key that was forgotten is like a new one, hence it had been full.
            if abs(there.tokens - max(0.0, bucket.look())) > TICK:
                return False
            if there.waiting > len(self.lines[key]):
                return False
            waiting += there.waiting > 0
        timers = live_timers() - self._timers - self.sleepers
        return timers <= waiting and now.keys <= (now.max_keys or now.keys)

    @contextmanager
    def asking(self, key: str, name: str) -> Generator[None]:
        """Be in the queue for a key inside the block."""
        line = self.lines[key]
        line.asks(name)
        try:
            yield
        except BaseException:
            line.leaves(name)
            raise
        assert line.gets(name) == 0, line.served
        self.buckets[key].take(1)

    async def work(self, key: str, name: str) -> None:
        """Ask for a token of a key."""
        with self.asking(key, name):
            await self.limiter.acquire(key)

    async def insist(self, key: str, name: str) -> None:
        """Ask again, after the time one is told, until there is room for the key."""
        while True:
            try:
                await self.work(key, name)
            except exceptions.RateLimitError as error:
                self.refused += 1
                self.sleepers += 1
                try:
                    await anyio.sleep(error.retry_after)
                finally:
                    self.sleepers -= 1
            else:
                return

    def ends(self, *served: str) -> None:
        """Make sure that nothing is left, and that the tasks not cancelled were served."""
        now = self.limiter.statistics()
        happy = [name for line in self.lines.values() for name in line.served]
        sad = [name for line in self.lines.values() for name in line.left]
        assert set(served) <= set(happy)
        assert now.acquired == len(happy)
        assert now.rejected_keys == self.refused
        left = now.cancelled + now.rejected + now.timed_out + now.rejected_keys
        assert left == len(sad)
        assert live_timers() == self._timers
        assert_quiescent(self.limiter)


@explored
async def test_keys_are_independent(victim: Victim, sim: Simulation) -> None:
    """A task that waits for one key delays none at another, cancelled or not."""
    watched = Watched(sim, "xy")
    moments: dict[str, float] = {}

    async def work(key: str, name: str) -> None:
        await watched.work(key, name)
        moments[name] = sim.time()

    await together(
        a=lambda: work("x", "a"),
        victim=lambda: victim(work, "x", "victim"),
        b=lambda: work("y", "b"),
        c=lambda: work("x", "c"),
        d=lambda: work("y", "d"),
    )
    watched.ends("a", "b", "c", "d")
    assert {moments["b"], moments["d"]} == {0.0, 1.0}
    assert max(moments.values()) == len(watched.lines["x"].served) - 1


@explored
async def test_no_room_for_another_key(victim: Victim, sim: Simulation) -> None:
    """A key that is short of tokens makes no room; a task that is refused may come again."""
    watched = Watched(sim, "xyz", max_keys=2)
    await together(
        a=lambda: watched.insist("x", "a"),
        b=lambda: watched.insist("y", "b"),
        victim=lambda: victim(watched.insist, "x", "victim"),
        c=lambda: watched.insist("z", "c"),
    )
    watched.ends("a", "b", "c")


@explored
async def test_idle_keys_are_forgotten_while_others_wait(victim: Victim, sim: Simulation) -> None:
    """Keys are forgotten as soon as they are idle, and no task gains or loses by that."""
    watched = Watched(sim, "xyz", rate=2, idle_ttl=0)

    async def round_trip(name: str, keys: str) -> None:
        for number, key in enumerate(keys):
            await watched.work(key, f"{name}{number}")

    await together(
        a=lambda: round_trip("a", "xyx"),
        victim=lambda: victim(round_trip, "v", "xzz"),
        b=lambda: round_trip("b", "yzx"),
    )
    watched.ends("a2", "b2")


@explored
async def test_limits_change_for_all_keys(victim: Victim, sim: Simulation) -> None:
    """A new rate reaches the waiters of every key."""
    watched = Watched(sim, "xy")

    def change(rate: float) -> None:
        for bucket in watched.buckets.values():
            bucket.change(rate=rate)
        watched.limiter.rate = rate

    async def operator() -> None:
        change(0)
        await checkpoint()
        change(0.5)
        await checkpoint()
        change(4)

    await together(
        a=lambda: watched.work("x", "a"),
        b=lambda: watched.work("y", "b"),
        victim=lambda: victim(watched.work, "x", "victim"),
        operator=operator,
        c=lambda: watched.work("x", "c"),
        d=lambda: watched.work("y", "d"),
    )
    watched.ends("a", "b", "c", "d")


@explored
async def test_the_call_that_must_yield(victim: Victim, sim: Simulation) -> None:
    """The 64th call of all keys yields before it takes anything, also if it is refused."""
    watched = Watched(sim, "xyz", burst=100, max_keys=2)
    for number in range(FAST_CALLS - 1):
        key = "xy"[number % 2]
        watched.limiter.acquire_nowait(key)
        watched.buckets[key].take(1)

    calls: list[str] = []

    def first(name: str) -> AbstractContextManager[None]:
        calls.append(name)
        return nullcontext() if calls[1:] else assert_checkpoints()

    async def ask(key: str, name: str) -> None:
        with first(name):
            await watched.work(key, name)

    async def refused() -> None:
        with (
            first("z"),
            pytest.raises(exceptions.RateLimitError, match=r".* has no room for key='z': "),
        ):
            await watched.limiter.acquire("z")

    await together(
        a=lambda: victim(ask, "x", "victim"),
        refused=refused,
        b=lambda: ask("x", "b"),
        c=lambda: ask("y", "c"),
    )
    assert "b" in watched.lines["x"].served
    assert watched.lines["y"].served == ["c"]
    assert_quiescent(watched.limiter)


@explored
async def test_decorated_function(victim: Victim, sim: Simulation) -> None:
    """Each key's calls start no more often than they may."""
    limiter = KeyedRateLimiter(1, burst=1, slack=0)
    buckets = {key: Refilled(1, 1) for key in "xy"}
    started: dict[str, list[float]] = {"x": [], "y": []}

    @limiter(key=lambda key: key)
    async def begin(key: str) -> None:
        buckets[key].take(1)
        started[key].append(sim.time())
        await checkpoint()

    await together(
        a=lambda: begin("x"),
        victim=lambda: victim(begin, "x"),
        b=lambda: begin("x"),
        c=lambda: begin("y"),
    )
    assert started in ({"x": [0, 1, 2], "y": [0]}, {"x": [0, 1], "y": [0]})
    assert victim.cancelled or len(started["x"]) == 3
    assert_quiescent(limiter)
