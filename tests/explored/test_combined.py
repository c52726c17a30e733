"""ResourceLimiter, and limiters inside limiters, under many schedules, cancelled everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from mtaio import exceptions
from mtaio.resources import ConcurrencyLimiter, RateLimiter, ResourceLimiter
from mtaio.testing import Simulation, Victim, assert_quiescent
from tests.explored.refilled import Refilled
from tests.explored.searches import Task, explored, together
from tests.resources.timers import live_timers

if TYPE_CHECKING:
    from mtaio.statistics import ResourceStatistics


class Watched:
    """
    A limiter of everything, with what must hold after every step.

    Args:
        sim: Where it is watched.
        limiter: The limiter, whose rate has no slack.
    """

    def __init__(self, sim: Simulation, limiter: ResourceLimiter) -> None:
        rate = limiter.statistics().rate
        assert rate is not None
        self.limiter = limiter
        self.bucket = Refilled(rate.rate, rate.burst)
        self.inside = 0
        self.started: dict[str, float] = {}
        self.done: list[str] = []
        self.failed: dict[str, exceptions.TimeoutError] = {}
        self._sim = sim
        self._timers = live_timers()
        sim.always(self.holds)

    def holds(self) -> bool:
        """Return whether the limiter keeps its promise at this moment."""
        now = self.limiter.statistics()
        assert now.rate is not None
        assert now.concurrency is not None
        return (
            now.in_flight == self.inside <= now.concurrency.in_use <= now.concurrency.limit
            # A task that has a token has started: none holds one and waits for something else.
            and now.rate.acquired == now.entered == len(self.started)
            # A task that waits for a token has a slot.
            and now.rate.waiting <= now.concurrency.in_use - self.inside
        )

    async def work(self, name: str, body: Task = checkpoint) -> None:
        """Do something under the limits; a timeout is noted."""
        try:
            async with self.limiter:
                self.bucket.take(1)
                self.started[name] = self._sim.time()
                self.inside += 1
                try:
                    await body()
                finally:
                    self.inside -= 1
            self.done.append(name)
        except exceptions.TimeoutError as error:
            self.failed[name] = error

    def ends(self, *done: str) -> ResourceStatistics:
        """Make sure that nothing is left, and that the tasks not cancelled are done."""
        assert set(done) <= set(self.done)
        assert live_timers() == self._timers
        now = self.limiter.statistics()
        assert (self.inside, now.in_flight) == (0, 0)
        assert_quiescent(self.limiter)
        return now


@explored
async def test_all_three(victim: Victim, sim: Simulation) -> None:
    """Slot, token and time: all or nothing, at every step, whatever is cancelled where."""
    watched = Watched(
        sim,
        ResourceLimiter(rate=RateLimiter(1, burst=1, slack=0), concurrency=2, timeout=5),
    )
    await together(
        a=lambda: watched.work("a"),
        victim=lambda: victim(watched.work, "victim"),
        b=lambda: watched.work("b"),
        c=lambda: watched.work("c"),
    )
    watched.ends("a", "b", "c")
    assert list(watched.started.values()) == list(range(len(watched.started)))


@explored
async def test_time_is_for_the_work_alone(victim: Victim, sim: Simulation) -> None:
    """However long the wait, the work has its own time, and a timeout gives everything back."""
    watched = Watched(
        sim,
        ResourceLimiter(rate=RateLimiter(1, burst=1, slack=0), concurrency=1, timeout=3),
    )
    await together(
        a=lambda: watched.work("a", lambda: anyio.sleep(2)),
        victim=lambda: victim(watched.work, "victim", anyio.sleep_forever),
        b=lambda: watched.work("b", lambda: anyio.sleep(2)),
    )
    now = watched.ends("a", "b")
    assert now.timeout is not None
    assert now.timeout.timed_out == len(watched.failed)
    assert victim.cancelled or list(watched.failed) == ["victim"]


@explored
async def test_time_for_everything(victim: Victim, sim: Simulation) -> None:
    """Deadlines come while tasks wait for a slot, wait for a token, and work: nothing is kept."""
    watched = Watched(
        sim,
        ResourceLimiter(
            rate=RateLimiter(0.5, slack=0, name="api"), concurrency=2, timeout_total=2, name="api"
        ),
    )
    await together(
        a=lambda: watched.work("a", lambda: anyio.sleep(1)),
        victim=lambda: victim(watched.work, "victim"),
        b=lambda: watched.work("b", lambda: anyio.sleep(1)),
        c=lambda: watched.work("c", lambda: anyio.sleep(2)),
    )
    now = watched.ends()
    assert now.timeout_total is not None
    assert now.rate is not None
    # Who cannot have its token in time is told so at once, by the rate.
    assert now.timeout_total.timed_out + now.rate.timed_out == len(watched.failed)
    assert all(error.deadline == 2 and error.name == "api" for error in watched.failed.values())
    assert len(watched.done) + len(watched.failed) + victim.cancelled == 4


@explored
async def test_shared_parts(victim: Victim, sim: Simulation) -> None:
    """Two limiters share slots and tokens, and both are changed while tasks wait."""
    slots, tokens = ConcurrencyLimiter(1), RateLimiter(1, burst=1, slack=0)
    one = ResourceLimiter(rate=tokens, concurrency=slots)
    two = ResourceLimiter(rate=tokens, concurrency=slots, timeout=10)
    bucket = Refilled(1, 1)
    started = inside = 0

    def holds() -> bool:
        entered = one.statistics().entered + two.statistics().entered
        return entered == tokens.statistics().acquired == started and inside <= 2

    sim.always(holds)

    async def work(limiter: ResourceLimiter) -> None:
        nonlocal started, inside
        async with limiter:
            bucket.take(1)
            started += 1
            inside += 1
            try:
                await checkpoint()
            finally:
                inside -= 1

    async def operator() -> None:
        slots.limit = 2
        await checkpoint()
        bucket.change(rate=2)
        tokens.rate = 2
        await checkpoint()
        slots.limit = 1

    await together(
        a=lambda: work(one),
        victim=lambda: victim(work, two),
        b=lambda: work(two),
        operator=operator,
    )
    assert started >= 2
    assert_quiescent(one, two, slots, tokens)


@explored
async def test_one_inside_another(victim: Victim, sim: Simulation) -> None:
    """Entries nest, of one limiter and of two, and are left in order whatever happens."""
    outer = ResourceLimiter(concurrency=3, timeout_total=5)
    inner = ResourceLimiter(rate=RateLimiter(1, burst=2, slack=0), concurrency=1)
    inside: list[str] = []

    def holds() -> bool:
        there = outer.statistics().concurrency
        assert there is not None
        return len(inside) <= 1 and len(inside) <= there.in_use <= 3

    sim.always(holds)

    async def work(name: str) -> None:
        async with outer, inner:
            inside.append(name)
            try:
                await checkpoint()
            finally:
                inside.remove(name)

    async def twice() -> None:
        async with outer, outer:
            await checkpoint()

    await together(
        a=lambda: work("a"),
        twice=lambda: victim(twice),
        b=lambda: work("b"),
        run=lambda: inner.run(checkpoint),
    )
    assert inner.statistics().entered == 3
    assert_quiescent(outer, inner)


@explored
async def test_one_slot_in_hand_while_waiting_for_another(victim: Victim, sim: Simulation) -> None:
    """The victim holds a slot of one limiter while it waits for a slot of another."""
    outer, inner = ConcurrencyLimiter(2), ConcurrencyLimiter(1)
    inside = 0
    sim.always(lambda: inside <= inner.statistics().in_use <= 1)
    sim.always(lambda: outer.statistics().in_use <= 2)
    done: list[str] = []

    async def work(name: str) -> None:
        nonlocal inside
        async with outer, inner:
            inside += 1
            try:
                await checkpoint()
            finally:
                inside -= 1
        done.append(name)

    await together(
        a=lambda: work("a"),
        victim=lambda: victim(work, "victim"),
        b=lambda: work("b"),
        c=lambda: work("c"),
    )
    assert {"a", "b", "c"} <= set(done)
    assert_quiescent(outer, inner)
