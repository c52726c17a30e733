"""Calling what fails, is slow or is overloaded: a pipeline of retry, timeout, breaker and more."""

from __future__ import annotations

from mtaio.core import Retry
from mtaio.resilience._part import Call, Next, Part

__all__ = [
    "Call",
    "Next",
    "Part",
    "Retry",
]
