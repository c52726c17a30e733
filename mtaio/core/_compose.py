"""
From a function and a call's options to what is done for each item.

Promise: slot → rate → timeout → function, for each attempt: whoever holds a token never waits for
a slot, and the timeout covers the work alone. Without options the function itself is called.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from mtaio._internal import checks
from mtaio.core._call import CoroutineFunction, in_loop, is_async
from mtaio.core._retry import Retry, attempts
from mtaio.core._threads import WorkerLimiter, run_in_thread
from mtaio.resources import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mtaio.core._statistics import Counters
    from mtaio.core._timing import Timing


def as_limiter(rate: float | RateLimiter | None) -> RateLimiter | None:
    """Return what ``rate=`` means: a number is items per second, evenly spaced."""
    if rate is None or isinstance(rate, RateLimiter):
        return rate
    way_out = "Pass items per second, or a mtaio.resources.RateLimiter to share or to allow bursts."
    if checks.number("rate", rate, way_out=way_out) <= 0:
        msg = f"rate={rate!r} would never start an item. {way_out}"
        raise ValueError(msg)
    return RateLimiter.smooth(rate)


def compose(
    fn: Callable[..., Any],
    *,
    timing: Timing,
    rate: RateLimiter | None,
    retry: Retry | None,
    threads: WorkerLimiter,
    counters: Counters,
) -> tuple[CoroutineFunction, float | None]:
    """
    Return what to call for each item, and the timeout that is left for the pool to watch over.

    The pool's watch is ten times cheaper than a scope of its own for each item, but it counts
    from the start of the item: with retries, a rate or a wait for a thread that is too early. Nor
    can it be in time for a timeout of 0, which cancels at the first checkpoint.
    """
    if is_async(fn) and rate is None and retry is None and timing.timeout != 0:
        return in_loop(fn), timing.timeout
    attempt = one_attempt(fn, timing, threads, rate)
    if retry is None:
        return in_loop(attempt), None

    def count_retry() -> None:
        counters.retried += 1

    def call(*args: Any, **kwargs: Any) -> Any:
        return attempts(retry, partial(attempt, *args, **kwargs), count_retry)

    return call, None


def one_attempt(
    fn: Callable[..., Any], timing: Timing, threads: WorkerLimiter, rate: RateLimiter | None = None
) -> Callable[..., Awaitable[Any]]:
    """Return what calls ``fn`` once, within its timeout; a plain function in a worker thread."""
    if not is_async(fn):
        return _threaded(fn, timing, threads, rate)
    if rate is None and timing.timeout is None:
        return fn
    return _awaited(fn, timing, rate)


def _awaited(fn: Callable[..., Any], timing: Timing, rate: RateLimiter | None) -> CoroutineFunction:
    async def attempt(*args: Any, **kwargs: Any) -> Any:
        if rate is not None:
            await rate.acquire()
        with timing.limit():
            return await fn(*args, **kwargs)

    return attempt


def _threaded(
    fn: Callable[..., Any], timing: Timing, threads: WorkerLimiter, rate: RateLimiter | None
) -> CoroutineFunction:
    async def attempt(*args: Any, **kwargs: Any) -> Any:
        if rate is not None:
            await rate.acquire()
        return await run_in_thread(threads, partial(fn, *args, **kwargs), timing)

    return attempt
