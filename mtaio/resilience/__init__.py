"""
Retries, timeouts, breakers and more around calls to services that fail, are slow or overloaded.

Promise: a cancellation is not an outcome; no part counts, retries or hedges it.
Cost: each name is imported on first use, so a program that needs only `Retry` loads nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio.resilience._adaptive import AdaptiveLimiter, AdaptiveSlot
    from mtaio.resilience._breaker import Breaker, BreakerBlock, BreakerChange, BreakerState
    from mtaio.resilience._budget import Budget
    from mtaio.resilience._events import (
        FellBack,
        GaveUp,
        Hedged,
        PartEvent,
        Refused,
        Retried,
        Throttled,
        TimedOut,
        forward_to,
        subscribe,
    )
    from mtaio.resilience._fallback import Fallback
    from mtaio.resilience._hedge import Hedge
    from mtaio.resilience._keyed import Keyed
    from mtaio.resilience._order import OrderWarning
    from mtaio.resilience._part import Call, Part, StandalonePart
    from mtaio.resilience._pipeline import Pipeline
    from mtaio.resilience._retry import Retry
    from mtaio.resilience._retry_block import Attempt
    from mtaio.resilience._stream import CallStream, OpenStream
    from mtaio.resilience._timeout import Timeout

__all__ = [
    "AdaptiveLimiter",
    "AdaptiveSlot",
    "Attempt",
    "Breaker",
    "BreakerBlock",
    "BreakerChange",
    "BreakerState",
    "Budget",
    "Call",
    "CallStream",
    "Fallback",
    "FellBack",
    "GaveUp",
    "Hedge",
    "Hedged",
    "Keyed",
    "OpenStream",
    "OrderWarning",
    "Part",
    "PartEvent",
    "Pipeline",
    "Refused",
    "Retried",
    "Retry",
    "StandalonePart",
    "Throttled",
    "TimedOut",
    "Timeout",
    "forward_to",
    "subscribe",
]

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.resilience._adaptive": ("AdaptiveLimiter", "AdaptiveSlot"),
            "mtaio.resilience._breaker": (
                "Breaker",
                "BreakerBlock",
                "BreakerChange",
                "BreakerState",
            ),
            "mtaio.resilience._budget": ("Budget",),
            "mtaio.resilience._events": (
                "FellBack",
                "GaveUp",
                "Hedged",
                "PartEvent",
                "Refused",
                "Retried",
                "Throttled",
                "TimedOut",
                "forward_to",
                "subscribe",
            ),
            "mtaio.resilience._fallback": ("Fallback",),
            "mtaio.resilience._hedge": ("Hedge",),
            "mtaio.resilience._keyed": ("Keyed",),
            "mtaio.resilience._order": ("OrderWarning",),
            "mtaio.resilience._part": ("Call", "Part", "StandalonePart"),
            "mtaio.resilience._pipeline": ("Pipeline",),
            "mtaio.resilience._retry": ("Retry",),
            "mtaio.resilience._retry_block": ("Attempt",),
            "mtaio.resilience._stream": ("CallStream", "OpenStream"),
            "mtaio.resilience._timeout": ("Timeout",),
        },
    )
