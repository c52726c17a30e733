"""
Calling services that fail, are slow or overloaded: a pipeline of retry, timeout, breaker and more.

Promise: a cancellation is not an outcome. No part counts, retries or hedges it.
Cost: each name is imported on first use, so a program that needs only `Retry` loads nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio.resilience._adaptive import AdaptiveLimiter, AdaptiveSlot, AdaptiveStatistics
    from mtaio.resilience._breaker import Breaker, BreakerChange, BreakerState, BreakerStatistics
    from mtaio.resilience._budget import Budget
    from mtaio.resilience._fallback import Fallback
    from mtaio.resilience._hedge import Hedge, HedgeStatistics
    from mtaio.resilience._order import OrderWarning
    from mtaio.resilience._part import Call, Next, Part, StandalonePart
    from mtaio.resilience._pipeline import Pipeline
    from mtaio.resilience._retry import Retry
    from mtaio.resilience._statistics import (
        BudgetStatistics,
        FallbackStatistics,
        PipelineStatistics,
        RetryStatistics,
    )
    from mtaio.resilience._timeout import Timeout

__all__ = [
    "AdaptiveLimiter",
    "AdaptiveSlot",
    "AdaptiveStatistics",
    "Breaker",
    "BreakerChange",
    "BreakerState",
    "BreakerStatistics",
    "Budget",
    "BudgetStatistics",
    "Call",
    "Fallback",
    "FallbackStatistics",
    "Hedge",
    "HedgeStatistics",
    "Next",
    "OrderWarning",
    "Part",
    "Pipeline",
    "PipelineStatistics",
    "Retry",
    "RetryStatistics",
    "StandalonePart",
    "Timeout",
]

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.resilience._adaptive": ("AdaptiveLimiter", "AdaptiveSlot", "AdaptiveStatistics"),
            "mtaio.resilience._breaker": (
                "Breaker",
                "BreakerChange",
                "BreakerState",
                "BreakerStatistics",
            ),
            "mtaio.resilience._budget": ("Budget",),
            "mtaio.resilience._fallback": ("Fallback",),
            "mtaio.resilience._hedge": ("Hedge", "HedgeStatistics"),
            "mtaio.resilience._order": ("OrderWarning",),
            "mtaio.resilience._part": ("Call", "Next", "Part", "StandalonePart"),
            "mtaio.resilience._pipeline": ("Pipeline",),
            "mtaio.resilience._retry": ("Retry",),
            "mtaio.resilience._statistics": (
                "BudgetStatistics",
                "FallbackStatistics",
                "PipelineStatistics",
                "RetryStatistics",
            ),
            "mtaio.resilience._timeout": ("Timeout",),
        },
    )
