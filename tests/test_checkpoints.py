"""
Law 5 over all operations: which of them let others run now and then, and which never do.

What may wait for its object yields on one call in 64, also where it never has to wait or is refused
each time. What only calls the user's function, and a cache's hit, suspend as that does: not at all.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.cache import TTLCache, cached
from mtaio.core import TaskExecutor
from mtaio.events import EventEmitter
from mtaio.exceptions import MTAIOError
from mtaio.resilience import AdaptiveLimiter, Breaker, Fallback, Keyed, Pipeline, Retry, Timeout
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
    ResourceLimiter,
    TimeoutManager,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CALLS = 640


async def turns_during(call: Callable[[], Awaitable[object]]) -> int:
    """Make many calls in a row; return how often another task ran in the meantime."""
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await anyio.lowlevel.checkpoint()
        turns = 0
        for _ in range(CALLS):
            with suppress(MTAIOError, OSError):
                await call()
        seen = turns
        group.cancel_scope.cancel()
    return seen


async def at_once(*_: object) -> int:
    """Return without suspending."""
    return 1


async def down(*_: object) -> int:
    """Fail without suspending."""
    raise OSError("down")


async def open_breaker(*outside: Any) -> Callable[[], Awaitable[object]]:
    """Return a call that an open breaker refuses."""
    pipeline = Pipeline(*outside, Breaker(last=1, min_calls=1, open_for=300))
    with suppress(OSError):
        await pipeline.run(down)
    return partial(pipeline.run, at_once)


async def taken(limiter: Any, **options: Any) -> Callable[[], Awaitable[object]]:
    """Return a call of ``acquire`` that is refused, because all was taken."""
    await limiter.acquire()
    return partial(limiter.acquire, **options)


async def key_taken(key: str) -> Callable[[], Awaitable[object]]:
    """Return a refused call of a keyed limiter whose only place has the key "a"."""
    limiter = KeyedRateLimiter(0.001, burst=1, max_keys=1)
    await limiter.acquire("a")
    return partial(limiter.acquire, key, timeout=0)


async def no_place() -> Callable[[], Awaitable[object]]:
    """Return a call that a keyed part refuses, whose only place is taken."""
    keyed = Keyed(lambda _: Breaker(), max_keys=1)
    keyed.part("a").force_open()
    return partial(keyed.run, at_once, key="b")


async def slots_taken(key: str) -> Callable[[], Awaitable[object]]:
    """Return a refused call of a keyed limiter whose only key "a" has its only slot taken."""
    limiter = KeyedConcurrencyLimiter(1, max_keys=1)
    await limiter.acquire("a")
    return partial(limiter.acquire, key, timeout=0)


async def closed(limiter: Any, *key: str) -> Callable[[], Awaitable[object]]:
    """Return a call of a limiter that is closed."""
    limiter.close()
    return partial(limiter.acquire, *key)


async def late() -> Callable[[], Awaitable[object]]:
    """Return a call that is refused, since it would have to wait for longer than it may."""
    limiter, timeouts = RateLimiter(0.001), TimeoutManager(9)
    await limiter.acquire()

    async def ask() -> None:
        with timeouts():
            await limiter.acquire()

    return ask


async def adaptive_full() -> Callable[[], Awaitable[object]]:
    """Return a call that a full adaptive limiter refuses."""
    limiter = AdaptiveLimiter(initial=1, max_limit=1, max_waiting=0)
    await limiter.__aenter__()  # held to the end of the run
    return partial(Pipeline(limiter).run, at_once)


async def load_each_time() -> Callable[[], Awaitable[object]]:
    """Return a call that loads each time, and keeps nothing."""
    cache: TTLCache[int] = TTLCache(0)
    return partial(cache.get_or_set, "key", at_once)


YIELDING: dict[str, Callable[[], Any]] = {
    "RateLimiter, free": lambda: ready(RateLimiter(1e12).acquire),
    "RateLimiter, refused": lambda: taken(RateLimiter(0.001, burst=1), timeout=0),
    "window, refused": lambda: taken(RateLimiter.window(1, per=1000), timeout=1),
    "KeyedRateLimiter, refused": lambda: key_taken("a"),
    "KeyedRateLimiter, no place": lambda: key_taken("b"),
    "ConcurrencyLimiter, no waiters": lambda: taken(ConcurrencyLimiter(1, max_waiting=0)),
    "ConcurrencyLimiter, refused": lambda: taken(ConcurrencyLimiter(1), timeout=0),
    "KeyedConcurrencyLimiter, free": lambda: ready(KeyedConcurrencyLimiter(1).run, at_once, key=1),
    "KeyedConcurrencyLimiter, refused": lambda: slots_taken("a"),
    "KeyedConcurrencyLimiter, no place": lambda: slots_taken("b"),
    "RateLimiter, no time left": late,
    "RateLimiter, closed": lambda: closed(RateLimiter(1)),
    "ConcurrencyLimiter, closed": lambda: closed(ConcurrencyLimiter(1)),
    "KeyedRateLimiter, closed": lambda: closed(KeyedRateLimiter(1), "a"),
    "KeyedConcurrencyLimiter, closed": lambda: closed(KeyedConcurrencyLimiter(1), "a"),
    "ResourceLimiter": lambda: ready(ResourceLimiter(concurrency=2).run, at_once),
    "breaker, open": open_breaker,
    "breaker, open, in a fallback": lambda: open_breaker(Fallback(at_once)),
    "Keyed, no place": no_place,
    "AdaptiveLimiter, full": adaptive_full,
    "executor.run": lambda: ready(TaskExecutor(2).run, at_once),
    "executor.map of nothing": lambda: ready(TaskExecutor(2).map, at_once, ()),
    "executor.gather of nothing": lambda: ready(TaskExecutor(2).gather),
    "emit": lambda: ready(EventEmitter().emit, "nobody listens"),
    "load": load_each_time,
}


async def ready(fn: Callable[..., Awaitable[object]], *args: Any, **options: Any) -> Any:
    """Return a call that needs nothing prepared."""
    return partial(fn, *args, **options)


async def hit() -> Callable[[], Awaitable[object]]:
    """Return a call of a cached function that always finds its result."""
    fetch = cached(ttl=60)(at_once)
    await fetch()
    return fetch


async def cached_error() -> Callable[[], Awaitable[object]]:
    """Return a call that finds a cached error."""
    cache: TTLCache[int] = TTLCache(60, error_ttl=60)
    call = partial(cache.get_or_set, "key", down)
    with suppress(OSError):
        await call()
    return call


SUSPEND_AS_THE_FUNCTION: dict[str, Callable[[], Any]] = {
    "Pipeline(Fallback)": lambda: ready(Pipeline(Fallback(at_once)).run, down),
    "Pipeline(Timeout)": lambda: ready(Pipeline(Timeout(5)).run, at_once),
    "Pipeline(Retry)": lambda: ready(Pipeline(Retry(2)).run, at_once),
    "Pipeline(Breaker)": lambda: ready(Pipeline(Breaker()).run, at_once),
    "Pipeline(Keyed)": lambda: ready(
        Pipeline(Keyed(lambda _: Breaker()), key=lambda *_: "a").run, at_once
    ),
    "Pipeline(AdaptiveLimiter)": lambda: ready(Pipeline(AdaptiveLimiter()).run, at_once),
    "Retry.run": lambda: ready(Retry(2).run, at_once),
    "TimeoutManager.run": lambda: ready(TimeoutManager(5).run, at_once),
    "a hit": hit,
    "a cached error": cached_error,
}


@pytest.mark.parametrize("name", YIELDING)
async def test_what_may_wait_yields_on_one_call_in_64(name: str) -> None:
    """A loop over it lets others run, and can be cancelled, though it never waits."""
    assert await turns_during(await YIELDING[name]()) >= CALLS // 64 - 1


@pytest.mark.parametrize("name", SUSPEND_AS_THE_FUNCTION)
async def test_what_only_calls_a_function_suspends_as_that_does(name: str) -> None:
    """It adds no checkpoint of its own, so a loop over functions that never suspend adds none."""
    assert await turns_during(await SUSPEND_AS_THE_FUNCTION[name]()) == 0
