"""Limiters: one for each loop, and what other threads may do to them meanwhile."""

from __future__ import annotations

import sys
import threading
from functools import partial

import anyio
import pytest

from mtaio.resources import ConcurrencyLimiter, RateLimiter
from tests.hammer.hammer import HAS_GIL, at_once, rounds, watched

LOOPS = 3
TASKS = 20

TRACED = sys.gettrace() is not None or (
    sys.version_info >= (3, 12) and sys.monitoring.get_tool(sys.monitoring.COVERAGE_ID) is not None
)
"""Whether coverage runs code of its own at each line, where other threads then run too: they see a
slot that has been counted, and not yet been looked at whether it was free. So do they without the
GIL."""


def test_a_limiter_in_each_loop(backend: str) -> None:
    """Limiters of several loops do not disturb each other, while another thread looks at all."""
    concurrency = [ConcurrencyLimiter(3) for _ in range(LOOPS)]
    rates = [RateLimiter(1e6, burst=5) for _ in range(LOOPS)]

    async def use(number: int) -> None:
        running = 0

        async def one() -> None:
            nonlocal running
            for _ in range(5):
                await rates[number].acquire()
                async with concurrency[number]:
                    running += 1
                    assert running <= 3
                    await anyio.lowlevel.checkpoint()
                    running -= 1

        async with anyio.create_task_group() as group:
            for _ in range(TASKS):
                group.start_soon(one)

    def look() -> None:
        for limiter, rate in zip(concurrency, rates, strict=True):
            limiter.limit = 3
            rate.reconfigure(rate=1e6)
            now = limiter.statistics()
            assert now.peak <= 3
            assert 0 <= now.in_use <= (4 if TRACED or not HAS_GIL else now.peak)
            assert 0 <= now.waiting <= TASKS
            assert rate.statistics().tokens <= 5

    def work() -> None:
        for turn in rounds(2):
            at_once(partial(anyio.run, use, each, backend=backend) for each in range(LOOPS))
            now = [limiter.statistics() for limiter in concurrency]
            assert {(each.in_use, each.waiting) for each in now} == {(0, 0)}
            assert {each.acquired for each in now} == {(turn + 1) * TASKS * 5}

    watched(look, work)


@pytest.mark.skipif(not HAS_GIL, reason="there a limiter belongs to the thread of its loop")
def test_slots_taken_in_threads() -> None:
    """Slots that threads take and give back without a loop are within the limit, and come back."""
    limiter = ConcurrencyLimiter(3)
    running = 0
    most = 0
    counting = threading.Lock()

    def work() -> None:
        nonlocal running, most
        for _ in range(100):
            if limiter.try_acquire():
                with counting:
                    running += 1
                    most = max(most, running)
                with counting:
                    running -= 1
                limiter.release()

    for _ in rounds(3):
        at_once([work] * 4)
        assert most <= 3
        assert limiter.statistics().in_use == 0
