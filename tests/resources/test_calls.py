"""What the calls of the limiters return, and which of their arguments have names."""

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
)


@pytest.mark.parametrize(
    ("cls", "numbers"),
    [
        (RateLimiter, (100, 60)),
        (KeyedRateLimiter, (100, 60)),
        (ConcurrencyLimiter, (2, 5)),
        (ResourceLimiter, (5,)),
    ],
)
def test_second_number_needs_a_name(cls: Any, numbers: tuple[int, ...]) -> None:
    """It could be a burst, or the seconds that other libraries have in its place."""
    with pytest.raises(TypeError, match=r"takes \d positional arguments? but \d were given$"):
        cls(*numbers)


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
