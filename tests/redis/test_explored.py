"""The queue of `RedisRateLimiter` under many schedules, cancelled anywhere."""

from __future__ import annotations

import anyio

from mtaio.redis import RedisRateLimiter
from mtaio.testing import Victim, explore
from tests.redis.reserving import reserving_store


@explore(seeds=100, exhaustive=1)
async def test_cancelled_and_served() -> None:
    """Tasks that give up take nothing from those that stay, and nobody waits for ever."""
    async with reserving_store(latency=0.002) as store:
        limiter = RedisRateLimiter(store, "key", 50, burst=2)
        moments: list[float] = []

        async def work(patience: float) -> None:
            with anyio.move_on_after(patience):
                await limiter.acquire()
                moments.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            for patience in (10, 0.002, 0.021, 10, 0.05, 10):
                group.start_soon(work, patience)
        assert len(moments) >= 3
        for number, moment in enumerate(sorted(moments)):
            assert number + 1 <= 2 + 50 * (moment + limiter.slack)
        statistics = limiter.statistics()
        assert statistics.granted == len(moments)
        assert statistics.granted + statistics.cancelled == 6
        assert statistics.waiting == 0
        with anyio.fail_after(1):
            await limiter.acquire()


@explore(seeds=100, exhaustive=1, inject=("checkpoint", "step", "native"))
async def test_cancelled_anywhere(victim: Victim) -> None:
    """A task that is cancelled between any two steps leaves the others what they need."""
    async with reserving_store(latency=0.002) as store:
        limiter = RedisRateLimiter(store, "key", 50, burst=2)

        async def cancelled() -> None:
            await victim(limiter.acquire)

        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire)
            group.start_soon(cancelled)
            group.start_soon(limiter.acquire)
            group.start_soon(limiter.acquire)
        assert limiter.statistics().waiting == 0
        with anyio.fail_after(1):
            await limiter.acquire()
