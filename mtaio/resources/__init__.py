"""
Limits: how often work starts, how much runs at once, how long it may take.

Promise: every object can be made at module level and used by one event loop after another, on
either backend; tasks are served in the order they asked; a cancelled waiter leaves no trace.
"""

from mtaio.resources._combined import ResourceLimiter, ResourceStatistics
from mtaio.resources._concurrency import ConcurrencyLimiter, ConcurrencyStatistics
from mtaio.resources._keyed import KeyedRateLimiter, KeyedRateLimiterStatistics, KeyStatistics
from mtaio.resources._rate import RateLimiter, RateLimiterStatistics
from mtaio.resources._timeout import TimeoutManager, TimeoutScope, TimeoutStatistics

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
