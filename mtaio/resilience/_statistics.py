"""What a pipeline, its simple parts and a budget of retries have done so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtaio._internal.statistics import COUNTER, GAUGE, LIMIT, PARTS

__all__ = ["BudgetStatistics", "FallbackStatistics", "PipelineStatistics", "RetryStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackStatistics:
    """What a `Fallback` has done so far."""

    used: int = field(metadata=COUNTER)
    """Failed calls that it answered."""
    failed: int = field(metadata=COUNTER)
    """Failed calls that it could not answer, because its own function failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStatistics:
    """What a `Budget` has allowed so far."""

    ratio: float = field(metadata=LIMIT)
    """Retries allowed for each call."""
    calls: int = field(metadata=COUNTER)
    """Calls, retries not counted."""
    retried: int = field(metadata=COUNTER)
    """Retries that were allowed, including those cancelled before they were made."""
    rejected: int = field(metadata=COUNTER)
    """Retries that were refused."""
    available: int = field(metadata=GAUGE)
    """Retries that would be allowed now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryStatistics:
    """What a `Retry` has done so far in one pipeline."""

    calls: int = field(metadata=COUNTER)
    """Calls, however many attempts each took."""
    retried: int = field(metadata=COUNTER)
    """Attempts beyond the first."""
    failed: int = field(metadata=COUNTER)
    """Calls that failed all the same."""
    budget: BudgetStatistics | None
    """Those of the budget, which may be shared; None without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStatistics:
    """What a `Pipeline` and its parts have done so far."""

    calls: int = field(metadata=COUNTER)
    """Calls that were started."""
    succeeded: int = field(metadata=COUNTER)
    """Calls that returned, including those answered by a `Fallback`."""
    failed: int = field(metadata=COUNTER)
    """Calls that raised an error."""
    cancelled: int = field(metadata=COUNTER)
    """Calls that were cancelled from outside."""
    in_flight: int = field(metadata=GAUGE)
    """Calls that have not ended."""
    parts: Mapping[str, Any] = field(metadata=PARTS)
    """
    The statistics of each part that has some, outermost first, under its kind: ``"retry"``,
    ``"timeout"``. A second of a kind is ``"timeout_2"``, and a timeout of all attempts is
    ``"total_timeout"``.
    """
