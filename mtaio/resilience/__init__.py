"""Calling what fails, is slow or is overloaded: a pipeline of retry, timeout, breaker and more."""

from __future__ import annotations

from mtaio.core import Retry
from mtaio.resilience._breaker import Breaker, BreakerChange, BreakerStatistics
from mtaio.resilience._circuit import BreakerState
from mtaio.resilience._hedge import Hedge, HedgeStatistics
from mtaio.resilience._part import Call, Next, Part

__all__ = [
    "Breaker",
    "BreakerChange",
    "BreakerState",
    "BreakerStatistics",
    "Call",
    "Hedge",
    "HedgeStatistics",
    "Next",
    "Part",
    "Retry",
]
