"""
Calling services that fail, are slow or overloaded: a pipeline of retry, timeout, breaker and more.

Promise: a cancellation is not an outcome. No part counts, retries or hedges it.
"""

from __future__ import annotations

from mtaio.core import Budget, BudgetStatistics, Retry
from mtaio.resilience._adaptive import AdaptiveLimiter, AdaptiveSlot, AdaptiveStatistics
from mtaio.resilience._breaker import Breaker, BreakerChange, BreakerStatistics
from mtaio.resilience._circuit import BreakerState
from mtaio.resilience._fallback import Fallback
from mtaio.resilience._hedge import Hedge, HedgeStatistics
from mtaio.resilience._order import OrderWarning
from mtaio.resilience._part import Call, Next, Part
from mtaio.resilience._pipeline import Pipeline
from mtaio.resilience._statistics import FallbackStatistics, PipelineStatistics, RetryStatistics
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
    "Timeout",
]
