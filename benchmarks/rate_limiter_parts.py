"""
What a call of `RateLimiter.acquire` without a wait costs, part by part.

Each contender has one thing more than the one before: the coroutine, the clock, a turn of the event
loop on one call in 64, the same by way of AnyIO, the counter and the arithmetic of a full bucket.
What is left to ours is what it may be asked besides, and the place in the queue that the call which
yields must hold.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from benchmarks._harness import OURS, Contest
from benchmarks.rate_limiter import (
    AIOLIMITER,
    CALLS,
    PLENTY,
    acquire_ours,
    acquire_theirs,
    await_each,
    work_per_call,
)
from mtaio._internal import clock
from mtaio._internal.checkpoints import FAST_CALLS
from mtaio.resources._bucket import Bucket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Nothing:
    async def acquire(self, tokens: float = 1, *, timeout: float | None = None) -> None:
        pass


class ReadsClock:
    async def acquire(self, tokens: float = 1, *, timeout: float | None = None) -> None:  # noqa: ARG002 - as ours
        clock.reader()()


class Takes:
    """The least that a limiter has to do: it takes one token, never waits, and keeps no order."""

    __slots__ = ("_bucket", "_left")

    def __init__(self) -> None:
        self._bucket = Bucket(PLENTY, PLENTY)
        self._left = FAST_CALLS - 1

    async def acquire(self, tokens: float = 1, *, timeout: float | None = None) -> None:  # noqa: ARG002 - as ours
        left = self._left
        if left > 0:
            bucket = self._bucket
            moment = clock.reader()()
            if bucket.full_at <= moment:
                bucket.full_at = moment + bucket.interval
                self._left = left - 1
                return
        await checkpoint()
        self._left = FAST_CALLS - 1


async def least() -> float:
    return await await_each(Takes().acquire)


async def turn() -> None:
    await asyncio.sleep(0)


def calls_of(
    limiter: Nothing | ReadsClock, yielding: Callable[[], Awaitable[object]] | None = None
) -> Callable[[], Awaitable[float]]:
    async def measure() -> float:
        acquire = limiter.acquire
        rounds = CALLS // FAST_CALLS
        clock.now()
        started = time.process_time()
        for _ in range(rounds):
            for _ in range(FAST_CALLS - 1):
                await acquire()
            await (yielding or acquire)()
        return work_per_call(started, rounds * FAST_CALLS)

    return measure


EVENTS = [
    Contest(
        title="RateLimiter.acquire without a wait, part by part",
        contenders={
            OURS: acquire_ours,
            "a coroutine that does nothing": calls_of(Nothing()),
            "and reads the clock": calls_of(ReadsClock()),
            "and turns the loop, one call in 64": calls_of(ReadsClock(), turn),
            "the same through AnyIO": calls_of(ReadsClock(), checkpoint),
            "and counts, and takes from a full bucket": least,
            AIOLIMITER: acquire_theirs,
        },
        loops=("asyncio", "uvloop"),
    )
]
