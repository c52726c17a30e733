"""close(): waiters and later callers are refused at once, and holders go on."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from threading import Thread
from typing import Any, TypeAlias

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint

from mtaio._internal.wait_queue import WaitQueue
from mtaio.exceptions import LimitClosedError
from mtaio.resilience import Breaker, Pipeline, Retry
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
)

Limiter: TypeAlias = Any
MESSAGE = r"^<.*> is closed, and grants nothing more\. End the work"

MAKE: dict[str, tuple[Callable[[], Limiter], tuple[str, ...]]] = {
    "rate": (lambda: RateLimiter(1, name="it"), ()),
    "endless": (lambda: RateLimiter(math.inf, name="it"), ()),
    "window": (lambda: RateLimiter.window(1, name="it"), ()),
    "slots": (lambda: ConcurrencyLimiter(1, name="it"), ()),
    "keyed": (lambda: KeyedRateLimiter(1, max_keys=1, name="it"), ("a",)),
    "keyed window": (lambda: KeyedRateLimiter.window(1, max_keys=1, name="it"), ("a",)),
    "keyed slots": (lambda: KeyedConcurrencyLimiter(1, max_keys=1, name="it"), ("a",)),
}


def held(limiter: RateLimiter) -> RateLimiter:
    """Return a limiter that is held."""
    limiter.hold(60)
    return limiter


MAKE["held"] = lambda: held(RateLimiter(1, name="it")), ()

WAITED = {name: made for name, made in MAKE.items() if name not in {"endless", "held"}}
each_limiter = pytest.mark.parametrize(("make", "key"), MAKE.values(), ids=MAKE)
each_that_waits = pytest.mark.parametrize(("make", "key"), WAITED.values(), ids=WAITED)


async def at_once() -> int:
    """Do nothing."""
    return 1


async def refused(ask: Callable[[], Awaitable[object]]) -> None:
    """Check that a call is refused, in the time of a few checkpoints."""
    before = anyio.current_time()
    with pytest.raises(LimitClosedError, match=MESSAGE) as caught:
        await ask()
    assert (caught.value.name, caught.value.retry_after) == ("it", math.inf)
    assert anyio.current_time() == before


def block_of(limiter: Limiter, key: tuple[str, ...]) -> Any:
    """Return what ``async with`` takes."""
    return limiter.slot(*key) if isinstance(limiter, KeyedConcurrencyLimiter) else limiter


@each_limiter
async def test_every_way_in_is_refused(make: Callable[[], Limiter], key: tuple[str, ...]) -> None:
    """Whichever way a later caller takes, and whatever the key, it is refused; for good."""
    limiter = make()
    limiter.close()
    limiter.close()
    options = {"key": key[0]} if key else {}

    async def enter() -> None:
        async with block_of(limiter, key):
            pytest.fail("entered")

    async def now() -> None:
        limiter.acquire_nowait(*key)

    async def perhaps() -> None:
        limiter.try_acquire(*key)

    ways: list[Callable[[], Awaitable[object]]] = [
        partial(limiter.acquire, *key),
        partial(limiter.acquire, *key, timeout=5),
        partial(limiter.run, at_once, **options),
        (limiter(key=lambda: "a") if key else limiter)(at_once),
        now,
        perhaps,
    ]
    if not isinstance(limiter, KeyedRateLimiter):
        ways.append(enter)
    if key:
        ways.append(partial(limiter.acquire, "another"))
    for way in ways:
        await refused(way)
    if hasattr(limiter, "limit"):
        limiter.limit = 9
        assert limiter.limit == 0
    else:
        limiter.reset()
        limiter.rate = 9
        assert limiter.rate == 0
    for _ in range(70):  # also where the call has to yield
        await refused(ways[0])
    now_ = limiter.statistics()
    assert now_.acquired == 0
    assert now_.rejected == len(ways) + 70
    assert getattr(now_, "keys", 0) == 0
    if isinstance(limiter, RateLimiter):
        assert (now_.tokens, now_.next_grant_seconds) == (0, math.inf)


@each_that_waits
@pytest.mark.parametrize("where", ["here", "a thread"])
async def test_waiters_are_refused_at_once(
    make: Callable[[], Limiter], key: tuple[str, ...], where: str
) -> None:
    """Those in the queue leave it with the error, also one with a timeout; none is served."""
    limiter = make()
    await limiter.acquire(*key)
    async with anyio.create_task_group() as group:
        for options in ({}, {}, {"timeout": 9}, {}):
            group.start_soon(refused_later, partial(limiter.acquire, *key, **options))
            await checkpoint()
        await anyio.sleep(0.5)
        assert limiter.statistics().waiting == 4
        if where == "here":
            limiter.close()
        else:
            await to_thread.run_sync(limiter.close)
    assert anyio.current_time() == 0.5
    now = limiter.statistics()
    assert (now.waiting, now.rejected, now.acquired, now.cancelled) == (0, 4, 1, 0)


async def refused_later(ask: Callable[[], Awaitable[object]]) -> None:
    """Wait to be refused."""
    with pytest.raises(LimitClosedError, match=MESSAGE):
        await ask()


@pytest.mark.parametrize("kind", ["slots", "keyed slots"])
async def test_holders_go_on(kind: str) -> None:
    """Who has a slot, or was just handed one, keeps it and gives it back as always."""
    make, key = MAKE[kind]
    limiter = make()
    ended: list[str] = []

    async def work(name: str, seconds: float) -> None:
        try:
            async with block_of(limiter, key):
                await anyio.sleep(seconds)
                ended.append(name)
        except LimitClosedError:
            ended.append(f"{name} refused")

    async with anyio.create_task_group() as group:
        for number, name in enumerate(["first", "handed", "waits"]):
            group.start_soon(work, name, 1 + number)
            await anyio.sleep(0.01)
        limiter.limit = 2  # the second is let in, but has not run yet
        limiter.close()
        assert limiter.statistics().in_use == 2
        await anyio.sleep(0.5)
        assert ended == ["waits refused"]
    assert ended == ["waits refused", "first", "handed"]
    now = limiter.statistics()
    assert (now.in_use, now.waiting, now.acquired, now.rejected) == (0, 0, 2, 1)
    with pytest.raises(RuntimeError, match=r"^cannot release a slot of "):
        limiter.release(*key)


@pytest.mark.parametrize("timeout", [None, 5])
async def test_closed_by_a_thread_as_a_task_joins(
    timeout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that found the limiter open, and joins after it was closed, does not wait."""
    limiter = ConcurrencyLimiter(1, name="it")
    await limiter.acquire()
    join = WaitQueue[None].join

    def close_first(queue: WaitQueue[None], payload: None) -> Any:
        thread = Thread(target=limiter.close)
        thread.start()
        thread.join()
        return join(queue, payload)

    monkeypatch.setattr(WaitQueue, "join", close_first)
    await refused(partial(limiter.acquire, timeout=timeout))
    assert limiter.statistics().waiting == 0


@each_that_waits
async def test_cancelled_as_it_is_closed(make: Callable[[], Limiter], key: tuple[str, ...]) -> None:
    """A waiter that was cancelled just before stays so, and nothing is left."""
    limiter = make()
    await limiter.acquire(*key)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(limiter.acquire, *key))
            await anyio.sleep(0.25)
            scope.cancel()
            limiter.close()
    assert scope.cancelled_caught
    assert limiter.statistics().waiting == 0


async def test_closed_is_neither_retried_nor_a_failure() -> None:
    """A retry does not wait for a limiter that is closed, and a breaker does not count it."""
    limiter, breaker = RateLimiter(1, name="it"), Breaker(0.5, last=2, min_calls=1)
    limiter.close()
    pipeline = Pipeline(Retry(3), breaker, limiter)
    await refused(partial(pipeline.run, at_once))
    assert breaker.statistics().failed == 0
