"""Breaker under many schedules, cancelled everywhere."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from mtaio.exceptions import BreakerOpenError
from mtaio.resilience import Breaker, BreakerState
from tests.explored.searches import explored, together
from tests.resilience.calls import fail, succeed, through

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mtaio.testing import Simulation, Victim


class Watched:
    """
    A breaker that is about to be half-open, and how many calls are inside.

    Args:
        sim: Where it is watched.
        half_open: How many may probe.
    """

    def __init__(self, sim: Simulation, half_open: int) -> None:
        self.breaker = Breaker(0.5, last=1, open_for=1, half_open=half_open)
        self.call = through(self.breaker)
        self.half_open = half_open
        self.inside = 0
        self.answered = 0
        sim.always(self.holds)

    def holds(self) -> bool:
        """Return whether no more are inside than may be, before an answer has closed it."""
        is_closed = self.breaker.state is BreakerState.CLOSED
        return is_closed or self.inside + self.answered <= self.half_open

    async def open(self) -> None:
        """Open it, and wait until it lets the next call through."""
        with suppress(ConnectionError):
            await self.call(fail)
        await anyio.sleep(1)

    async def work(self, then: Callable[[], Awaitable[object]] = succeed) -> None:
        """Call, if it lets this call through."""
        with suppress(BreakerOpenError, ConnectionError):
            await self.call(partial(self._inside, then))

    async def _inside(self, then: Callable[[], Awaitable[object]]) -> None:
        self.inside += 1
        try:
            await checkpoint()
            await then()
            self.answered += 1
        finally:
            self.inside -= 1


@explored
async def test_probes_race(victim: Victim, sim: Simulation) -> None:
    """As many get through as may; a cancelled one takes no place, and its end is no outcome."""
    watched = Watched(sim, 2)
    await watched.open()
    work = watched.work
    await together(victim=partial(victim, work), b=work, c=work, d=work)
    assert watched.inside == 0
    # One of the two may have been cancelled, and those after it may have taken its place, or not.
    while watched.breaker.state is BreakerState.HALF_OPEN:
        before = watched.answered
        await work()
        assert watched.answered == before + 1
    assert watched.breaker.state is BreakerState.CLOSED
    assert watched.breaker.statistics().failed == 1


@explored
async def test_probe_fails_beside_the_victim(victim: Victim, sim: Simulation) -> None:
    """A probe that fails opens it again, whatever becomes of the other."""
    watched = Watched(sim, 2)
    await watched.open()
    await together(victim=partial(victim, watched.work), b=partial(watched.work, fail))
    assert watched.breaker.statistics().open == 1
    watched.answered = 0
    await anyio.sleep(1)
    await watched.work()
    await watched.work()
    assert watched.breaker.state is BreakerState.CLOSED


@explored
async def test_blocks_race(victim: Victim, sim: Simulation) -> None:
    """Blocks that probe are as many as may, and one that is cancelled gives its place back."""
    watched = Watched(sim, 2)
    await watched.open()

    async def block(seconds: float = 0) -> None:
        with suppress(BreakerOpenError):
            async with watched.breaker:
                watched.inside += 1
                try:
                    await anyio.sleep(seconds)
                    watched.answered += 1
                finally:
                    watched.inside -= 1

    await together(victim=partial(victim, block), b=block, c=watched.work, d=block)
    assert watched.inside == 0
    while watched.breaker.state is BreakerState.HALF_OPEN:
        before = watched.answered
        await block()
        assert watched.answered == before + 1
    assert watched.breaker.state is BreakerState.CLOSED


@explored
async def test_slow_probe_beside_the_victim(victim: Victim, sim: Simulation) -> None:
    """A probe that is slow opens it again, whatever becomes of the other, and before it ends."""
    breaker = Breaker(0.5, last=1, slow=1, open_for=1, half_open=2, half_open_ratio=0)
    call = through(breaker)
    sim.always(lambda: breaker.statistics().recent_calls <= 2)
    with suppress(ConnectionError):
        await call(fail)
    await anyio.sleep(1)

    async def work(seconds: float) -> None:
        with suppress(BreakerOpenError):
            await call(partial(anyio.sleep, seconds))

    await together(victim=partial(victim, work, 2), b=partial(work, 1))
    assert (breaker.state, breaker.statistics().opened) == (BreakerState.OPEN, 2)
