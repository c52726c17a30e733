"""The queue of `RedisRateLimiter` under many schedules, cancelled anywhere."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from mtaio.redis import RedisRateLimiter
from mtaio.testing import Victim, explore
from tests.redis.reserving import reserving_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


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
        assert statistics.acquired == len(moments)
        assert statistics.acquired + statistics.cancelled == 6
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
        assert statistics.acquired >= len(granted)
        # A task that is cancelled when all is decided is not counted.
        assert statistics.acquired + statistics.rejected + statistics.cancelled in {5, 6}
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
        assert statistics.acquired + statistics.rejected + statistics.cancelled in {4, 5}
        assert statistics.waiting == 0
        store.recover()
        await anyio.sleep(3)
        with anyio.fail_after(1):
            await limiter.acquire()
            assert await limiter.try_acquire()


@explore(seeds=30, exhaustive=1, inject=("checkpoint", "step", "native"))
async def test_outage(victim: Victim) -> None:
    """Through an outage and after it tasks are served in the order of asking, and all of them."""
    async with reserving_store(latency=0.002, timeout=0.01) as store:
        limiter = RedisRateLimiter(store, "key", 20, burst=1, on_failure="local")
        served: list[tuple[int, float]] = []

        async def wait(number: int) -> None:
            await limiter.acquire()
            served.append((number, anyio.current_time()))

        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(victim if number == 2 else _call, wait, number)
                await anyio.sleep(0.03)
                if number == 0:
                    store.fail()
                elif number == 3:
                    store.recover()
        numbers = [number for number, _ in served]
        assert set(numbers) >= {0, 1, 3, 4, 5}
        assert numbers == sorted(numbers)
        # The server and the bucket of the process have a burst each, at each change between them.
        for first, (_, start) in enumerate(served):
            for more, (_, end) in enumerate(served[first:], 1):
                assert more <= 3 + 20 * (end - start + limiter.slack)
        statistics = limiter.statistics()
        assert statistics.acquired + statistics.cancelled in {5, 6}
        assert statistics.acquired >= len(served)
        assert statistics.waiting == 0
        await anyio.sleep(3)
        assert not limiter.statistics().down
        with anyio.fail_after(1):
            await limiter.acquire()
            assert await limiter.try_acquire() in {True, False}


async def _call(fn: Callable[[int], Awaitable[None]], number: int) -> None:
    await fn(number)


@explore(seeds=30, exhaustive=1, inject=("checkpoint", "step", "native"))
async def test_outage_that_lifts_the_limit(victim: Victim) -> None:
    """All that wait when the server fails go on, and so do those that come in that moment."""
    async with reserving_store(latency=0.002, timeout=0.01) as store:
        limiter = RedisRateLimiter(store, "key", 0.01, burst=2, on_failure="allow")
        await limiter.acquire(2)
        store.fail()
        granted: list[int] = []
        tries = partial(_try, limiter, granted)
        waits = partial(_wait, limiter, granted)

        async with anyio.create_task_group() as group:
            group.start_soon(waits)
            group.start_soon(victim, waits)
            await anyio.sleep(0.01)  # when it turns out that the server is down
            group.start_soon(waits)
            group.start_soon(tries, 2)  # refused if it comes before that, because others wait
        assert anyio.current_time() < 0.03
        assert granted.count(1) in {2, 3}
        assert limiter.statistics().waiting == 0
        store.recover()
        await anyio.sleep(3)
        assert not limiter.statistics().down
