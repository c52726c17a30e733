"""The queue of `RedisRateLimiter` under many schedules, cancelled anywhere."""

from __future__ import annotations

from functools import partial

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


async def _try(limiter: RedisRateLimiter, granted: list[int], tokens: int) -> None:
    if await limiter.try_acquire(tokens):
        granted.append(tokens)


async def _wait(limiter: RedisRateLimiter, granted: list[int]) -> None:
    await limiter.acquire()
    granted.append(1)


@explore(seeds=30, exhaustive=1, inject=("checkpoint", "step", "native"))
async def test_tries_and_waits(victim: Victim) -> None:
    """Those that try and those that wait share the tokens, whoever is cancelled and when."""
    async with reserving_store(latency=0.002) as store:
        limiter = RedisRateLimiter(store, "key", 50, burst=3)
        granted: list[int] = []
        tries = partial(_try, limiter, granted)
        waits = partial(_wait, limiter, granted)

        async with anyio.create_task_group() as group:
            for tokens in (1, 2, 1):
                group.start_soon(tries, tokens)
            group.start_soon(victim, tries, 1)
            group.start_soon(waits)
            group.start_soon(tries, 1)
        moment = anyio.current_time()
        assert 1 <= sum(granted) <= 3 + 50 * (moment + limiter.slack)
        statistics = limiter.statistics()
        assert statistics.granted >= len(granted)
        # A task that is cancelled when all is decided is not counted.
        assert statistics.granted + statistics.rejected + statistics.cancelled in {5, 6}
        assert statistics.waiting == 0
        with anyio.fail_after(1):
            await limiter.acquire()
            assert await limiter.try_acquire() in {True, False}


@explore(seeds=30, exhaustive=1, inject=("checkpoint", "step", "native"))
async def test_tries_and_waits_without_the_server(victim: Victim) -> None:
    """When the server fails while they ask, the process's part of the limit holds for all."""
    async with reserving_store(latency=0.002, timeout=0.01) as store:
        limiter = RedisRateLimiter(store, "key", 50, burst=2, on_failure="local")
        store.fail()
        granted: list[int] = []
        tries = partial(_try, limiter, granted)
        waits = partial(_wait, limiter, granted)

        async with anyio.create_task_group() as group:
            group.start_soon(tries, 1)
            group.start_soon(victim, tries, 2)
            group.start_soon(waits)
            group.start_soon(tries, 1)
            group.start_soon(waits)
        assert 2 <= sum(granted) <= 2 + 50 * (anyio.current_time() + 0.02)
        statistics = limiter.statistics()
        assert statistics.granted + statistics.rejected + statistics.cancelled in {4, 5}
        assert statistics.waiting == 0
        store.recover()
        await anyio.sleep(3)
        with anyio.fail_after(1):
            await limiter.acquire()
            assert await limiter.try_acquire()
