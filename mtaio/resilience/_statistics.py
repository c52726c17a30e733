"""What a pipeline, its simple parts and a budget of retries have done so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, PARTS, SECONDS

__all__ = [
    "BudgetStatistics",
    "FallbackStatistics",
    "PipelineStatistics",
    "PolicyStatistics",
    "RetryStatistics",
]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackStatistics:
    """What a `Fallback` has done so far."""

    used: int = field(metadata=COUNTER)
    """Failed calls that it answered."""
    failed: int = field(metadata=COUNTER)
    """Failed calls that it could not answer, because its own function failed."""


@final
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


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatistics:
    """What all calls under a `Retry` have done so far, wherever they were made."""

    retried: int = field(metadata=COUNTER)
    """Attempts beyond the first."""
    throttled: int = field(metadata=COUNTER)
    """Attempts that the service refused, as ``throttled`` says."""
    failed: int = field(metadata=COUNTER)
    """Calls that failed all the same, also with an error that ``on`` does not accept, or ended with
    a result that ``until`` did not accept."""
    errors: dict[str, int] = field(metadata=COUNTER | {"label": "error"})
    """
    Attempts that failed, by the type of the error; ``"result"`` for those that ``until`` did not
    accept. Types beyond the first 32 are counted as ``"other"``.
    """
    budget: BudgetStatistics | None
    """Those of the budget, which may be shared; None without one."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RetryStatistics:
    """What a `Retry` has done so far in one pipeline."""

    calls: int = field(metadata=COUNTER)
    """Calls, however many attempts each took."""
    retried: int = field(metadata=COUNTER)
    """Attempts beyond the first."""
    throttled: int = field(metadata=COUNTER)
    """Attempts that the service refused, as ``throttled`` says."""
    failed: int = field(metadata=COUNTER)
    """Calls that failed all the same, also with an error that ``on`` does not accept, or ended with
    a result that ``until`` did not accept."""
    errors: dict[str, int] = field(metadata=COUNTER | {"label": "error"})
    """Attempts that failed, by the type of the error: see `PolicyStatistics`."""
    budget: BudgetStatistics | None
    """Those of the budget, which may be shared; None without one."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStatistics:
    """What a `Pipeline` and its parts have done so far."""

    calls: int = field(metadata=COUNTER)
    """Calls that were started."""
    succeeded: int = field(metadata=COUNTER)
    """Calls that returned, including those answered by a `Fallback`."""
    failed: int = field(metadata=COUNTER)
    """Calls that raised an error, also one that no part's ``on`` accepts."""
    cancelled: int = field(metadata=COUNTER)
    """Calls that were cancelled from outside."""
    in_flight: int = field(metadata=GAUGE)
    """Calls that have not ended."""
    call_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """
    How long each call took that ended since ``record_durations()``, however it did, with all that
    its parts did, such as waits between attempts; of a stream until its block ended. None before.
    """
    attempt_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """
    How long the function itself took, each time it was called, until its result, an error, or a
    cancellation, as by a timeout; of a stream until its first item. None before.
    """
    parts: dict[str, Any] = field(metadata=PARTS)
    """
    The statistics of each part that has some, outermost first, under its kind: ``"retry"``,
    ``"timeout"``. A second of a kind is ``"timeout_2"``, and a timeout of all attempts is
    ``"total_timeout"``.
    """
