"""Limiters in forms that cannot work: each is told the form that does."""

from __future__ import annotations

from typing import Any

import pytest

from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
    ResourceLimiter,
    TimeoutManager,
)


def limiters() -> list[Any]:
    """Return a limiter of each kind."""
    return [
        RateLimiter(1),
        RateLimiter.window(1, 1),
        KeyedRateLimiter(1),
        ConcurrencyLimiter(1),
        ResourceLimiter(rate=1),
    ]


@pytest.mark.parametrize("cls", [RateLimiter, KeyedRateLimiter])
def test_second_number_needs_a_name(cls: Any) -> None:
    """Those who know ``AsyncLimiter(100, 60)`` learn what it is here, which is that."""
    message = (
        rf"^{cls.__name__}\(100, 60\) takes one number without a name, the rate\. Write .*burst=60"
        rf".*; or {cls.__name__}\(100, per=60\), the same as {cls.__name__}\(100 / 60, burst=100\)"
        r", for what aiolimiter calls AsyncLimiter\(100, 60\)\.$"
    )
    with pytest.raises(TypeError, match=message):
        cls(100, 60)
    with pytest.raises(TypeError, match=r"\(1, 2, 3\) takes one number"):
        cls(1, 2, 3)
    same, too = cls(100, per=60), cls(100 / 60, burst=100)
    assert (same.burst, same.rate / same.per) == (too.burst, too.rate / too.per)


@pytest.mark.parametrize("limiter", limiters(), ids=lambda each: type(each).__name__)
def test_plain_with(limiter: Any) -> None:
    """``with`` cannot wait; what is named is ``async with``, or the way to pass a key."""
    right = "cannot wait in a 'with' block. Write 'async with'."
    if isinstance(limiter, KeyedRateLimiter):
        right = (
            "cannot be entered, because a block names no key. Write 'await limiter.acquire(key)'"
        )
    with pytest.raises(TypeError, match=r"^<") as error, limiter:
        pass  # pragma: no cover - not reached
    assert right in str(error.value)


async def test_timeouts_that_are_not_called() -> None:
    """A manager makes a block for each use, and is not one."""
    timeouts: Any = TimeoutManager(2)
    message = r"^<TimeoutManager of 2 s> is not a context manager, but makes one\. Call it: '"
    with pytest.raises(TypeError, match=message), timeouts:
        pass  # pragma: no cover - not reached
    with pytest.raises(TypeError, match=message):
        async with timeouts:
            pass  # pragma: no cover - not reached


async def test_block_without_a_key() -> None:
    """``async with`` has no place for a key."""
    limiter: Any = KeyedRateLimiter(1)
    message = (
        r"^<KeyedRateLimiter 1/s burst=1 keys=0> cannot be entered, .* or @limiter\.limit\(key"
    )
    with pytest.raises(TypeError, match=message):
        async with limiter:
            pass  # pragma: no cover - not reached


def test_acquire_nowait_is_not_a_question() -> None:
    """``if limiter.acquire_nowait()`` would always see a refusal, were it None."""
    rate: Any = RateLimiter(1, burst=2)
    keyed: Any = KeyedRateLimiter(1)
    slots: Any = ConcurrencyLimiter(1)
    for error, result in (
        ("RateLimitError", rate.acquire_nowait()),
        ("RateLimitError", rate.acquire_nowait(0.5)),
        ("RateLimitError", keyed.acquire_nowait("key")),
        ("ConcurrencyLimitError", slots.acquire_nowait()),
    ):
        message = rf"^acquire_nowait\(\) returns nothing to test: .* raises {error}\. Write"
        with pytest.raises(TypeError, match=message):
            bool(result)
        assert repr(result) == "<acquired>"


async def test_acquire_is_not_a_question() -> None:
    """``if await limiter.acquire()``, right for asyncio's semaphore, would never run its body."""
    rate: Any = RateLimiter(2, burst=1)
    keyed: Any = KeyedRateLimiter(1)
    slots: Any = ConcurrencyLimiter(2)
    window: Any = RateLimiter.window(1, 1)
    tokens, slot = "RateLimitError", "TimeoutError or ConcurrencyLimitError"
    for errors, result in (
        (tokens, await rate.acquire()),
        (tokens, await rate.acquire()),  # which waits
        (tokens, await rate.acquire(0)),
        (tokens, await rate.acquire(timeout=1)),
        (tokens, await window.acquire()),
        (tokens, await keyed.acquire("key")),
        (slot, await slots.acquire()),
        (slot, await slots.acquire(timeout=1)),
    ):
        message = (
            rf"^acquire\(\) returns nothing to test: it acquires, or it raises {errors}\. Leave "
            r"out the 'if': what follows runs only once it has acquired\.$"
        )
        with pytest.raises(TypeError, match=message):
            bool(result)
    slots.release()
    slots.release()
    for _ in range(64):  # one of which yields
        with pytest.raises(TypeError, match=r"^acquire\(\) returns nothing"):
            bool(await slots.acquire())
        slots.release()


def test_number_that_needs_a_name() -> None:
    """One number can be told without a name, or none."""
    slots: Any = ConcurrencyLimiter
    message = (
        r"^ConcurrencyLimiter\(2, 5\) takes one number without a name, the limit\. Write "
        r"ConcurrencyLimiter\(2, max_waiters=5\)\.$"
    )
    with pytest.raises(TypeError, match=message):
        slots(2, 5)
    every: Any = ResourceLimiter
    message = (
        r"^ResourceLimiter\(5, 10\) takes no number without a name\. Write "
        r"ResourceLimiter\(rate=5\) for 5 a second, or ResourceLimiter\(concurrency=5\) for 5 at"
    )
    with pytest.raises(TypeError, match=message):
        every(5, 10)


def test_key_in_brackets() -> None:
    """``limiter[key]`` is told where the key is to be passed."""
    limiter: Any = KeyedRateLimiter(1)
    message = (
        r"^<KeyedRateLimiter .*> cannot be indexed, .* Write 'await limiter\.acquire\(key\)'\.$"
    )
    with pytest.raises(TypeError, match=message):
        limiter["ada"]


def test_decorator_without_a_key() -> None:
    """``KeyedRateLimiter.limit`` shows how to pass what it cannot do without."""
    limiter: Any = KeyedRateLimiter(1)

    async def greet(user: str) -> str:
        return user  # pragma: no cover - not called

    with pytest.raises(
        TypeError, match=r"^KeyedRateLimiter\.limit has no key for <function .*gree"
    ):
        limiter.limit(greet)
    with pytest.raises(
        TypeError, match=r"^KeyedRateLimiter\.limit has no key for the calls\. Writ"
    ):
        limiter.limit(tokens=1)
