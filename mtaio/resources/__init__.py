"""
Limits: how often work starts, how much runs at once, how long it may take.

Promise: every object can be made at module level and used by one event loop after another, on
either backend; whoever asks first is served first; a cancelled waiter leaves no trace.
"""

from mtaio.resources._combined import ResourceLimiter
from mtaio.resources._concurrency import ConcurrencyLimiter
from mtaio.resources._keyed import KeyedRateLimiter
from mtaio.resources._rate import RateLimiter
from mtaio.resources._scope import TimeoutScope
from mtaio.resources._statistics import (
    ConcurrencyStatistics,
    KeyedRateLimiterStatistics,
    KeyStatistics,
    RateLimiterStatistics,
    ResourceStatistics,
    TimeoutStatistics,
)
from mtaio.resources._timeout import TimeoutManager

__all__ = [
    "ConcurrencyLimiter",
    "ConcurrencyStatistics",
    "KeyStatistics",
    "KeyedRateLimiter",
    "KeyedRateLimiterStatistics",
    "RateLimiter",
    "RateLimiterStatistics",
    "ResourceLimiter",
    "ResourceStatistics",
    "TimeoutManager",
    "TimeoutScope",
    "TimeoutStatistics",
]
