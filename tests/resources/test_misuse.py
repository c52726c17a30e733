"""Limiters in forms that cannot work: each is told the form that does."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from mtaio.core import TaskExecutor
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


async def test_what_acquires_returns_nothing() -> None:
    """It acquires or raises, and `try_acquire` is what an ``if`` asks."""
    rate: Any = RateLimiter(1, burst=2)
    keyed: Any = KeyedRateLimiter(1)
    slots: Any = ConcurrencyLimiter(1)
    window: Any = RateLimiter.window(1, 1)
    assert [
        await rate.acquire(),
        rate.acquire_nowait(),
        await rate.acquire(),  # which waits
        await rate.acquire(0),
        await window.acquire(),
        await keyed.acquire("key"),
        keyed.acquire_nowait("other"),
        await slots.acquire(),
        await TaskExecutor(1).gather(partial(rate.acquire, timeout=9)),
    ] == [None] * 8 + [(None,)]
    slots.release()


def test_whether_there_was_one() -> None:
    """`try_acquire` takes what is there and says so, or takes nothing and says that."""
    rate = RateLimiter(1, burst=2)
    assert [rate.try_acquire(), rate.try_acquire(2), rate.try_acquire(), rate.try_acquire()] == [
        True,
        False,
        True,
        False,
    ]
    keyed = KeyedRateLimiter(1, burst=2)
    assert [keyed.try_acquire("a", 2), keyed.try_acquire("a"), keyed.try_acquire("b")] == [
        True,
        False,
        True,
    ]
    slots = ConcurrencyLimiter(1)
    assert [slots.try_acquire(), slots.try_acquire()] == [True, False]
    slots.release()
    assert slots.try_acquire()
    assert slots.statistics().rejected == 1
    with pytest.raises(ValueError, match=r"^cannot acquire 3 tokens"):
        rate.try_acquire(3)


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
