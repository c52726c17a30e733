"""A rate limiter whose timers outlive the waiters that they were for."""

from dataclasses import dataclass
from math import inf

import anyio
import pytest
from anyio.abc import TaskGroup

from mtaio.testing import Victim, assert_quiescent, explore


@dataclass(frozen=True)
class Statistics:
    """How many timers are set."""

    pending: int


class WrongLimiter:
    """Lets one task start per interval."""

    def __init__(self, group: TaskGroup, every: float) -> None:
        self._group = group
        self._every = every
        self._next = -inf
        self._timers = 0

    # --8<-- [start:wrong]
    async def acquire(self) -> None:
        """Wait until this task may start."""
        now = anyio.current_time()
        start = max(now, self._next)
        self._next = start + self._every
        if start > now:
            woken = anyio.Event()
            self._timers += 1
            self._group.start_soon(self._ring, start, woken)
            await woken.wait()

    async def _ring(self, moment: float, woken: anyio.Event) -> None:
        try:
            await anyio.sleep_until(moment)
        finally:
            self._timers -= 1
        woken.set()

    # --8<-- [end:wrong]
    def statistics(self) -> Statistics:
        """Return how many timers are set."""
        return Statistics(pending=self._timers)


class RightLimiter(WrongLimiter):
    """Lets each waiter sleep itself, so that its timer ends with it."""

    async def acquire(self) -> None:
        """Wait until this task may start."""
        start = max(anyio.current_time(), self._next)
        self._next = start + self._every
        self._timers += 1
        try:
            await anyio.sleep_until(start)
        finally:
            self._timers -= 1


# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongLimiter, RightLimiter])
@explore()
async def test_no_timer_is_left(
    kind: type[WrongLimiter], victim: Victim
) -> None:
    async with anyio.create_task_group() as group:
        limiter = kind(group, every=0.01)
        await limiter.acquire()
        await victim(limiter.acquire)
        assert_quiescent(limiter)


# --8<-- [end:test]
