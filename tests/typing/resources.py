"""What type checkers make of limiters: checked by mypy and pyright, and not run."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import assert_type

from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
    ResourceLimiter,
    time_left,
)

assert_type(RateLimiter.window(100, per=60), RateLimiter)

limiter = RateLimiter(100, burst=60)
keyed = KeyedRateLimiter(100, burst=60)
RateLimiter(100, 60)  # type: ignore[call-arg] # the second number has no name
KeyedRateLimiter(100, 60)  # type: ignore[call-arg] # as above
ConcurrencyLimiter(2, 5)  # type: ignore[call-arg] # as above
ResourceLimiter(5)  # type: ignore[call-arg] # nor has the first

limiter.reset()
keyed.reset()
keyed.reset(None)


@keyed(key=str)
async def greet(user: str) -> str:
    """The signature stays."""
    return user


slots = ConcurrencyLimiter(2, max_waiting=5)
assert_type(slots.limit, int)
slots.limit = 3


@slots
async def length(text: str) -> int:
    """The signature stays."""
    return len(text)


hosts = KeyedConcurrencyLimiter(2, max_keys=None)
KeyedConcurrencyLimiter(2, 5)  # type: ignore[call-arg] # as above
assert_type(KeyedRateLimiter.window(100, per=60), KeyedRateLimiter)
assert_type(time_left(10), float)


@hosts(key=str, timeout=5)
async def fetch(host: str) -> str:
    """The signature stays."""
    return host


class Turnstile:
    """A rate of somebody else's."""

    rate = 3.0

    async def acquire(self) -> None:
        """Let one pass."""


async def use() -> None:
    """Each makes one call, whose arguments are checked, and is entered by a stack."""
    assert_type(await length("a"), int)
    assert_type(await limiter.run(length, "a"), int)
    assert_type(await keyed.run(length, "a", key="ada"), int)
    assert_type(await slots.run(greet("ada")), str)
    await slots.run(length, 5)  # type: ignore[arg-type] # no str
    await limiter.run(length, text="a")  # type: ignore[call-arg, arg-type] # partial takes keywords
    await keyed.run(length, "a")  # type: ignore[call-arg] # no key
    both = ResourceLimiter(rate=Turnstile(), concurrency=slots)
    async with AsyncExitStack() as stack:
        for each in (limiter, slots, both):
            await stack.enter_async_context(each)
        await stack.enter_async_context(hosts.slot("a.example", timeout=5))
    assert_type(await hosts.run(length, "a", key="a.example"), int)
    assert_type(await fetch("a.example"), str)
    ResourceLimiter(rate=keyed)  # type: ignore[arg-type] # acquires for a key


class Mine(RateLimiter):  # type: ignore[misc] # is final
    """What nothing here would call."""


async def misuse() -> None:
    """What is refused when it runs is refused before."""
    if await limiter.acquire():  # type: ignore[func-returns-value] # returns None
        pass
    limiter.has_capacity()  # type: ignore[attr-defined] # of another library
    keyed["ada"]  # type: ignore[index] # hands out no limiters
    with limiter:  # type: ignore[attr-defined] # cannot wait
        pass
    async with keyed:  # type: ignore[attr-defined] # names no key
        pass
    async with hosts:  # type: ignore[attr-defined] # as above
        pass
    await hosts.run(length, "a")  # type: ignore[call-arg] # no key
    keyed(greet)  # type: ignore[call-arg, arg-type] # no key
    keyed(tokens=2)  # type: ignore[call-arg] # no key
