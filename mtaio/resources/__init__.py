"""
Limits: how often work starts, how much runs at once, how long it may take.

Promise: every object can be made at module level and used by one event loop after another, on
either backend; tasks are served in the order they asked; a cancelled waiter leaves no trace.
Cost: each name is imported on first use, so a program that needs one limiter loads no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
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

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.resources._combined": ("ResourceLimiter", "ResourceStatistics"),
            "mtaio.resources._concurrency": ("ConcurrencyLimiter", "ConcurrencyStatistics"),
            "mtaio.resources._keyed": (
                "KeyStatistics",
                "KeyedRateLimiter",
                "KeyedRateLimiterStatistics",
            ),
            "mtaio.resources._rate": ("RateLimiter", "RateLimiterStatistics"),
            "mtaio.resources._timeout": ("TimeoutManager", "TimeoutScope", "TimeoutStatistics"),
        },
    )
