"""The concurrency limiter: what an entry costs, alone and in a queue, and what giving up costs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from benchmarks._harness import OURS, Contest, Figure, expect
from benchmarks.rate_limiter import cancel_crowd, enter_each, per_call
from mtaio.resources import ConcurrencyLimiter

CROWD = 10_000
SLOTS = 10

SEMAPHORE = "asyncio.Semaphore"
ANYIO_SEMAPHORE = "anyio.Semaphore, fast"
CAPACITY = "anyio.CapacityLimiter"


async def alone_ours() -> float:
    return await enter_each(ConcurrencyLimiter(SLOTS))


async def alone_semaphore() -> float:
    return await enter_each(asyncio.Semaphore(SLOTS))


async def alone_anyio_semaphore() -> float:
    return await enter_each(anyio.Semaphore(SLOTS, fast_acquire=True))


async def alone_capacity() -> float:
    return await enter_each(anyio.CapacityLimiter(SLOTS))


async def acquire_nowait_ours() -> float:
    limiter = ConcurrencyLimiter(SLOTS)
    calls = 100_000
    started = time.perf_counter()
    for _ in range(calls):
        limiter.acquire_nowait()
        limiter.release()
    return per_call(started, calls)


async def crowd_through(limiter: Any) -> float:
    """Return the microseconds for each of many tasks that queue, work and hand over."""
    inside = most = 0

    async def work() -> None:
        nonlocal inside, most
        async with limiter:
            inside += 1
            most = max(most, inside)
            await checkpoint()
            inside -= 1

    started = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(CROWD):
            group.start_soon(work)
    taken = per_call(started, CROWD)
    expect(most == SLOTS, "let as many in as it has slots")
    return taken


async def crowd_ours() -> float:
    return await crowd_through(ConcurrencyLimiter(SLOTS))


async def crowd_semaphore() -> float:
    return await crowd_through(asyncio.Semaphore(SLOTS))


async def crowd_capacity() -> float:
    return await crowd_through(anyio.CapacityLimiter(SLOTS))


async def cancel_beyond_sleepers() -> float:
    """Return what cancelling a waiter costs beyond cancelling a task that sleeps."""
    limiter = ConcurrencyLimiter(1)
    limiter.acquire_nowait()

    async def sleep() -> None:
        await anyio.sleep(3600)

    asleep = await cancel_crowd(sleep)
    queued = await cancel_crowd(limiter.acquire)
    statistics = limiter.statistics()
    expect((statistics.waiting, statistics.cancelled) == (0, CROWD), "forgotten who gave up")
    return queued - asleep


EVENTS = [
    Contest(
        title="async with ConcurrencyLimiter without a wait",
        contenders={
            OURS: alone_ours,
            SEMAPHORE: alone_semaphore,
            ANYIO_SEMAPHORE: alone_anyio_semaphore,
            CAPACITY: alone_capacity,
        },
        targets={SEMAPHORE: 1.0, CAPACITY: 0.1},
        asyncio_only=frozenset({SEMAPHORE}),
    ),
    Contest(
        title="acquire_nowait and release, beside a semaphore's block",
        contenders={OURS: acquire_nowait_ours, SEMAPHORE: alone_semaphore},
        asyncio_only=frozenset({SEMAPHORE}),
    ),
    Contest(
        title=f"{CROWD:,} tasks, each through a queue for {SLOTS} slots",
        contenders={OURS: crowd_ours, SEMAPHORE: crowd_semaphore, CAPACITY: crowd_capacity},
        asyncio_only=frozenset({SEMAPHORE}),
    ),
    Figure(
        title=f"{CROWD:,} waiters cancelled, each beyond a sleeping task",
        measure=cancel_beyond_sleepers,
        unit="µs",
        most=5.0,
    ),
]
