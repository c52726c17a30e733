"""
Resilience: what each part adds to a call that succeeds, beside other libraries.

A pipeline with one part is to cost no more than nopanic's policy, but for one with a timeout:
nopanic uses ``asyncio.timeout``, which does not know of AnyIO's scopes; ours needs one, and is to
cost at most 0.8 of ``anyio.fail_after``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import aiobreaker
import anyio
import purgatory
import stamina
import tenacity
from anyio.lowlevel import checkpoint
from hyx import circuitbreaker as hyx_breaker
from hyx import fallback as hyx_fallback
from hyx import retry as hyx_retry
from hyx import timeout as hyx_timeout

from benchmarks._harness import OURS, Contest, Figure, maybe
from mtaio.resilience import (
    AdaptiveLimiter,
    Breaker,
    Budget,
    Call,
    Fallback,
    Hedge,
    Pipeline,
    Retry,
    Timeout,
)
from mtaio.resources import ConcurrencyLimiter, RateLimiter
from mtaio.types import Next

nopanic = maybe("nopanic")

CALLS = 100
"""In one turn, after which the event loop turns, as it does in life: it throws old timers away."""
TURNS = 200
MOST = 1.5
"""Microseconds that a part may add."""

FAIL_AFTER = "anyio.fail_after"
ASYNCIO_TIMEOUT = "asyncio.timeout"

Function = Callable[[], Awaitable[int]]


class Nothing:
    """A part that does nothing, beside which the others are measured."""

    def wrap(self, then: Next) -> Next:
        async def run(call: Call) -> Any:
            return await then(call)

        return run


async def answer() -> int:
    return 1


async def each(fn: Function) -> float:
    """Return the microseconds that a call takes, at the best of several times."""
    best = float("inf")
    for _ in range(TURNS):
        await checkpoint()
        started = time.perf_counter()
        for _ in range(CALLS):
            await fn()
        best = min(best, time.perf_counter() - started)
    return best / CALLS * 1e6


def added_by(make: Callable[[], Any]) -> Callable[[], Awaitable[float]]:
    """Return what measures the microseconds that a part adds to a pipeline."""

    async def measure() -> float:
        without = Pipeline(Nothing())
        # What it adds to another part, which has its coroutine already.
        part = make()
        beside = Pipeline(Nothing(), part)
        key = "host" if getattr(part, "needs_key", False) else None
        fastest = {without: float("inf"), beside: float("inf")}
        for _ in range(TURNS):
            for pipeline, so_far in fastest.items():
                call = pipeline.run
                await checkpoint()
                started = time.perf_counter()
                for _ in range(CALLS):
                    await call(answer, key=key)
                taken = time.perf_counter() - started
                fastest[pipeline] = min(so_far, taken)
        return (fastest[beside] - fastest[without]) / CALLS * 1e6

    return measure


def contender(make: Callable[[], Function]) -> Callable[[], Awaitable[float]]:
    """Return what measures the calls of the function that ``make`` returns."""

    async def measure() -> float:
        return await each(make())

    return measure


def ours(*parts: Any) -> Callable[[], Awaitable[float]]:
    return contender(lambda: Pipeline(*parts)(answer))


def run_ours() -> Function:
    run = Pipeline(Retry(3)).run
    return lambda: run(answer)


def run_nopanic() -> Function:
    run = nopanic.retry(3).acall
    return lambda: run(answer)


def purgatory_breaker() -> Function:
    breakers = purgatory.AsyncCircuitBreakerFactory(default_threshold=5, default_ttl=30)

    async def called() -> int:
        async with await breakers.get_breaker("api"):
            return await answer()

    return called


def aiobreaker_breaker() -> Function:
    breaker = aiobreaker.CircuitBreaker(fail_max=5, timeout_duration=timedelta(seconds=30))
    called: Function = breaker(answer)
    return called


async def no_answer(result: object, *_: Any, **__: Any) -> int:  # noqa: ARG001 - hyx names it
    return 0


def hyx_with_breaker() -> Function:
    called: Function = hyx_breaker.consecutive_breaker()(answer)
    return called


async def with_fail_after() -> int:
    with anyio.fail_after(5):
        return await answer()


async def with_asyncio_timeout() -> int:
    async with asyncio.timeout(5):
        return await answer()


PARTS: dict[str, Callable[[], Any]] = {
    "Fallback": lambda: Fallback(lambda _: 0),
    "Retry": lambda: Retry(3),
    "Retry with a Budget": lambda: Retry(3, budget=Budget(0.1)),
    "AdaptiveLimiter": AdaptiveLimiter,
    "Breaker": lambda: Breaker(0.5, last=20),
    "Breaker with max_keys": lambda: Breaker(max_keys=100),
    "ConcurrencyLimiter": lambda: ConcurrencyLimiter(10),
    "RateLimiter": lambda: RateLimiter(float("inf")),
}

SCOPED: dict[str, Callable[[], Any]] = {
    "Timeout, which needs a cancel scope": lambda: Timeout(5),
    "Hedge, which needs a task group": lambda: Hedge(5),
    'Hedge("p95")': lambda: Hedge("p95"),
}

EVENTS = [
    Figure(title="a Pipeline of a part that does nothing", measure=ours(Nothing()), unit="µs"),
    *(
        Figure(title=f"{title} in a pipeline", measure=added_by(make), unit="µs", most=MOST)
        for title, make in PARTS.items()
    ),
    *(
        Figure(title=f"{title}, in a pipeline", measure=added_by(make), unit="µs")
        for title, make in SCOPED.items()
    ),
    Contest(
        title="@pipeline with a Retry",
        contenders={
            OURS: ours(Retry(3)),
            "tenacity": contender(
                lambda: tenacity.retry(stop=tenacity.stop_after_attempt(3))(answer)
            ),
            "stamina": contender(lambda: stamina.retry(on=OSError, attempts=3)(answer)),
            "hyx": contender(lambda: hyx_retry.retry(attempts=3)(answer)),
            "nopanic": contender(lambda: nopanic.retry(3)(answer)),
        },
        targets={"tenacity": 0.5, "stamina": 0.5, "nopanic": 1.0},
    ),
    Contest(
        title="pipeline.run with a Retry",
        contenders={OURS: contender(run_ours), "nopanic": contender(run_nopanic)},
        targets={"nopanic": 1.0},
    ),
    Contest(
        title="@pipeline with a RateLimiter",
        contenders={
            OURS: ours(RateLimiter(1e9, burst=1e9)),
            "nopanic": contender(lambda: nopanic.rate_limit(1e9)(answer)),
        },
        targets={"nopanic": 1.0},
    ),
    Contest(
        title="@pipeline with a Breaker",
        contenders={
            OURS: ours(Breaker(0.5, last=20)),
            "purgatory": contender(purgatory_breaker),
            "aiobreaker": contender(aiobreaker_breaker),
            "hyx": contender(hyx_with_breaker),
            "nopanic": contender(lambda: nopanic.circuit_breaker()(answer)),
        },
        targets={"purgatory": 1.0, "aiobreaker": 1.0},
        asyncio_only=frozenset({"aiobreaker", "hyx", "purgatory"}),
    ),
    Contest(
        title="@pipeline with a ConcurrencyLimiter",
        contenders={
            OURS: ours(ConcurrencyLimiter(10)),
            "nopanic": contender(lambda: nopanic.bulkhead(10)(answer)),
        },
    ),
    Contest(
        title="@pipeline with a Fallback",
        contenders={
            OURS: ours(Fallback(lambda _: 0)),
            "hyx": contender(lambda: hyx_fallback.fallback(no_answer)(answer)),
        },
    ),
    Contest(
        title="@pipeline with a Timeout",
        contenders={
            OURS: ours(Timeout(5)),
            FAIL_AFTER: contender(lambda: with_fail_after),
            ASYNCIO_TIMEOUT: contender(lambda: with_asyncio_timeout),
            "hyx": contender(lambda: hyx_timeout.timeout(5)(answer)),
            "nopanic": contender(lambda: nopanic.timeout(5)(answer)),
        },
        targets={FAIL_AFTER: 0.8},
        asyncio_only=frozenset({ASYNCIO_TIMEOUT, "hyx"}),
    ),
]
