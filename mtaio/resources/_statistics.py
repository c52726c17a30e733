"""
What the limits tell of themselves.

Promise: a picture of one moment; it does not change afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ConcurrencyStatistics",
    "KeyStatistics",
    "KeyedRateLimiterStatistics",
    "RateLimiterStatistics",
    "ResourceStatistics",
    "TimeoutStatistics",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimiterStatistics:
    """What a `RateLimiter` holds and has done."""

    tokens: float
    """Tokens in the bucket now; ``inf`` without a limit. Those who wait come first."""
    waiters: int
    """Tasks waiting."""
    granted: int
    """Requests granted so far, whatever their tokens."""
    cancelled: int
    """Requests cancelled while they waited."""
    rejected: int
    """Requests refused so far: not at once, not within their timeout, or no longer possible."""
    next_grant_in: float
    """Estimated seconds until the first who waits is served, or a newcomer could be with one token
    if nobody waits; ``inf`` while paused without the tokens for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedRateLimiterStatistics:
    """What a `KeyedRateLimiter` holds and has done, all keys together."""

    keys: int
    """Keys held now."""
    max_keys: int
    """Keys that may be held."""
    forgotten: int
    """Keys forgotten so far, because nobody had used them."""
    refused: int
    """Requests refused so far because ``max_keys`` were held and none could be forgotten."""
    waiters: int
    """Tasks waiting."""
    granted: int
    """Requests granted so far."""
    cancelled: int
    """Requests cancelled while they waited."""
    rejected: int
    """Requests refused so far because their key had not got the tokens, or not in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatistics:
    """What a `KeyedRateLimiter` holds for one key."""

    tokens: float
    """Tokens in the bucket now; ``inf`` without a limit. Those who wait come first."""
    waiters: int
    """Tasks waiting."""
    next_grant_in: float
    """Estimated seconds until the first who waits is served, or a newcomer could be with one token
    if nobody waits; ``inf`` while paused without the tokens for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyStatistics:
    """The state of a `ConcurrencyLimiter`, and what it has done so far."""

    limit: int
    """Slots there are now."""
    in_use: int
    """Slots taken; for a moment more than `limit` after the capacity was lowered."""
    waiting: int
    """Tasks in the queue."""
    high_water: int
    """The most slots that were taken at once."""
    acquired: int
    """Slots given out, with or without a wait."""
    rejected: int
    """Calls refused at once: by ``acquire_nowait``, or because the queue was full."""
    timed_out: int
    """Calls that ended in a timeout of their own."""
    cancelled: int
    """Waits that were cancelled."""
    wait_seconds_total: float
    """Seconds that those who got a slot waited for it, all together."""
    wait_seconds_max: float
    """Seconds that the longest of those waits took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutStatistics:
    """What a `TimeoutManager` has done so far."""

    default_timeout: float | None
    """Seconds allowed where none are given; None for no limit."""
    entered: int
    """Blocks entered, calls run and bounded clean-ups included."""
    timed_out: int
    """Those of them that ended in `mtaio.exceptions.TimeoutError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceStatistics:
    """The state of a `ResourceLimiter`'s parts, and what they have done so far."""

    entered: int
    """Times the work inside was begun."""
    active: int
    """Entries that have begun and not yet ended."""
    concurrency: ConcurrencyStatistics | None
    """The slots; None if their number is not limited."""
    rate: RateLimiterStatistics | None
    """The tokens; None if the rate is not limited."""
    timeout: TimeoutStatistics | None
    """The limit of the work; None if there is none."""
    timeout_total: TimeoutStatistics | None
    """The limit of waiting and work together; None if there is none."""
