"""
Limits on how often work starts, how much runs at once, and how long it may take.

Promise: every object can be created at module level and used by one event loop after another, on
either backend; tasks are served in the order in which they asked; a cancelled waiter leaves no
trace.
Cost: each name is imported on first use, so a program that needs one limiter loads no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio.resources._combined import ResourceLimiter
    from mtaio.resources._concurrency import ConcurrencyLimiter
    from mtaio.resources._each import LimitedItems
    from mtaio.resources._keyed import KeyedRateLimiter
    from mtaio.resources._keyed_concurrency import KeyedConcurrencyLimiter
    from mtaio.resources._keyed_quota import KeyedQuota
    from mtaio.resources._quota import Quota
    from mtaio.resources._quota_part import QuotaPart
    from mtaio.resources._rate import RateLimiter
    from mtaio.resources._taken import Taken
    from mtaio.resources._timeout import TimeoutManager, TimeoutScope, time_left

__all__ = [
    "ConcurrencyLimiter",
    "KeyedConcurrencyLimiter",
    "KeyedQuota",
    "KeyedRateLimiter",
    "LimitedItems",
    "Quota",
    "QuotaPart",
    "RateLimiter",
    "ResourceLimiter",
    "Taken",
    "TimeoutManager",
    "TimeoutScope",
    "time_left",
]

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.resources._combined": ("ResourceLimiter",),
            "mtaio.resources._concurrency": ("ConcurrencyLimiter",),
            "mtaio.resources._each": ("LimitedItems",),
            "mtaio.resources._keyed": ("KeyedRateLimiter",),
            "mtaio.resources._keyed_concurrency": ("KeyedConcurrencyLimiter",),
            "mtaio.resources._keyed_quota": ("KeyedQuota",),
            "mtaio.resources._quota": ("Quota",),
            "mtaio.resources._quota_part": ("QuotaPart",),
            "mtaio.resources._rate": ("RateLimiter",),
            "mtaio.resources._taken": ("Taken",),
            "mtaio.resources._timeout": ("TimeoutManager", "TimeoutScope", "time_left"),
        },
    )
