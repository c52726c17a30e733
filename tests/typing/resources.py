"""What type checkers make of limiters: checked by mypy and pyright, and not run."""

from __future__ import annotations

from typing import assert_type

from mtaio.resources import ConcurrencyLimiter, KeyedRateLimiter, RateLimiter, ResourceLimiter

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
    keyed(greet)  # type: ignore[call-arg, arg-type] # no key
    keyed(tokens=2)  # type: ignore[call-arg] # no key
