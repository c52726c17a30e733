"""
Timeouts: what it costs to enter and leave a limited block, and to be interrupted in one.

A block is to cost at most 0.8 of ``anyio.fail_after``.
"""

from __future__ import annotations

import asyncio
import builtins
import time
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from benchmarks._harness import OURS, Contest, expect
from benchmarks.rate_limiter import per_call
from mtaio.resources import TimeoutManager

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 20_000
TURN = 100
"""Blocks after which the event loop may clear away its cancelled timers."""

FAIL_AFTER = "anyio.fail_after"
ASYNCIO_TIMEOUT = "asyncio.timeout"

timeouts = TimeoutManager(30.0)


async def enter_each(limit: Callable[[], Any]) -> float:
    """Return the microseconds to enter and leave a block, without those of the turns between."""
    taken = 0.0
    for _ in range(CALLS // TURN):
        started = time.perf_counter()
        for _ in range(TURN):
            with limit():
                pass
        taken += time.perf_counter() - started
        await checkpoint()
    return taken / CALLS * 1e6


async def block_ours() -> float:
    return await enter_each(lambda: timeouts(5.0))


async def block_default() -> float:
    return await enter_each(timeouts)


async def block_fail_after() -> float:
    return await enter_each(lambda: anyio.fail_after(5.0))


async def async_block_ours() -> float:
    taken = 0.0
    for _ in range(CALLS // TURN):
        started = time.perf_counter()
        for _ in range(TURN):
            async with timeouts(5.0):
                pass
        taken += time.perf_counter() - started
        await checkpoint()
    return taken / CALLS * 1e6


async def async_block_asyncio() -> float:
    taken = 0.0
    for _ in range(CALLS // TURN):
        started = time.perf_counter()
        for _ in range(TURN):
            async with asyncio.timeout(5.0):  # noqa: ASYNC100 - what it costs by itself
                pass
        taken += time.perf_counter() - started
        await checkpoint()
    return taken / CALLS * 1e6


async def interrupt_each(limit: Callable[[], Any]) -> float:
    """Return the microseconds for a block that its deadline ends at the first checkpoint."""
    interrupted = 0
    started = time.perf_counter()
    for _ in range(CALLS // 10):
        try:
            with limit():
                await anyio.sleep(1)
        except builtins.TimeoutError:
            interrupted += 1
    taken = per_call(started, CALLS // 10)
    expect(interrupted == CALLS // 10, "ended every block")
    return taken


async def interrupt_ours() -> float:
    return await interrupt_each(lambda: timeouts(0.0))


async def interrupt_fail_after() -> float:
    return await interrupt_each(lambda: anyio.fail_after(0.0))


async def remaining_ours() -> float:
    with timeouts(5.0), timeouts(3.0):
        started = time.perf_counter()
        for _ in range(CALLS):
            timeouts.remaining()
        return per_call(started, CALLS)


async def remaining_anyio() -> float:
    with anyio.fail_after(5.0), anyio.fail_after(3.0):  # noqa: ASYNC100 - to be asked for
        started = time.perf_counter()
        for _ in range(CALLS):
            anyio.current_effective_deadline() - anyio.current_time()
        return per_call(started, CALLS)


EVENTS = [
    Contest(
        title="with timeouts(5.0)",
        contenders={OURS: block_ours, FAIL_AFTER: block_fail_after},
        targets={FAIL_AFTER: 0.8},
    ),
    Contest(
        title="with timeouts()",
        contenders={OURS: block_default, FAIL_AFTER: block_fail_after},
        targets={FAIL_AFTER: 0.8},
    ),
    Contest(
        title="async with timeouts(5.0)",
        contenders={
            OURS: async_block_ours,
            FAIL_AFTER: block_fail_after,
            ASYNCIO_TIMEOUT: async_block_asyncio,
        },
        targets={FAIL_AFTER: 1.0},
        asyncio_only=frozenset({ASYNCIO_TIMEOUT}),
    ),
    Contest(
        title="a block that times out",
        contenders={OURS: interrupt_ours, FAIL_AFTER: interrupt_fail_after},
    ),
    Contest(
        title="timeouts.remaining(), beside anyio's deadline less its time",
        contenders={OURS: remaining_ours, FAIL_AFTER: remaining_anyio},
    ),
]
