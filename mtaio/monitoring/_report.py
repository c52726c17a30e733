"""
Health reports: each check's result, and the resulting state of the service.

Promise: a report consists of plain, immutable values, so that any thread may read it, and
``dataclasses.asdict`` turns it into what JSON can hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, final

from mtaio._internal.statistics import COUNTER, GAUGE

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CheckKind", "CheckResult", "CheckStatus", "HealthReport", "HealthStatistics"]

CheckKind: TypeAlias = Literal["live", "ready", "startup"]
"""The kind of a check: whether to restart the process, whether it can take requests, whether it has
started."""

CheckStatus: TypeAlias = Literal["passing", "degraded", "failing", "unknown"]
"""The state of a check; ``"unknown"`` before its first result."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The state of one check."""

    name: str
    """The name it was added under."""
    kind: CheckKind
    """``"live"``, ``"ready"`` or ``"startup"``."""
    status: CheckStatus
    """
    ``"passing"``, also while it has failed fewer times in a row than allowed; ``"failing"``; or,
    for a check that is not critical, ``"degraded"``.
    """
    critical: bool
    """Whether the service is not ready (or not live) when it fails, or only degraded."""
    seconds: float
    """How long its last run took; 0 before the first has ended."""
    error: str | None
    """The type and message of the last run's error, at most 200 characters; None if it passed."""
    timestamp: float | None
    """When its last run ended or was given up, in seconds since the epoch; None if it has not
    run."""
    failures: int
    """How many times in a row it has failed."""
    hung_seconds: float
    """How long a run that was given up has been running; 0 if there is none."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """The state of a service, according to its checks."""

    healthy: bool
    """Whether the service is live and ready."""
    live: bool
    """Whether no critical check of kind ``"live"`` is failing, so that a restart is not needed."""
    ready: bool
    """
    Whether it has started, is not draining, and all critical checks of kind ``"ready"`` pass.
    """
    started: bool
    """Whether all critical checks of kind ``"startup"`` have passed once."""
    draining: bool
    """Whether `HealthRegistry.set_ready` was called with False."""
    degraded: bool
    """Whether a check that is not critical is failing."""
    timestamp: float
    """When the report was made, in seconds since the epoch."""
    checks: tuple[CheckResult, ...]
    """All checks, in the order in which they were added."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HealthStatistics:
    """The state of a `HealthRegistry`, and what it has done so far."""

    checks: int = field(metadata=GAUGE)
    """Checks added."""
    passing: int = field(metadata=GAUGE)
    """Checks whose status is passing."""
    failing: int = field(metadata=GAUGE)
    """Critical checks that are failing."""
    degraded: int = field(metadata=GAUGE)
    """Failing checks that are not critical."""
    draining: bool = field(metadata=GAUGE)
    """Whether readiness fails because of ``set_ready(False)``."""
    waiting: int = field(metadata=GAUGE)
    """Calls of `HealthRegistry.report` in progress."""
    in_flight: int = field(metadata=GAUGE)
    """Checks that are running, including those that hang."""
    hung: int = field(metadata=GAUGE)
    """Checks with a run that was given up and is still running."""
    runs: int = field(metadata=COUNTER)
    """Runs started, and runs that could not start because the one before is still running."""
    failed: int = field(metadata=COUNTER)
    """Runs that failed, including those that timed out."""
    timed_out: int = field(metadata=COUNTER)
    """Runs that did not end in time."""
    cancelled: int = field(metadata=COUNTER)
    """Runs that were cancelled, because no caller waited for them any more or the event loop
    ended."""


def report_of(results: Iterable[CheckResult], *, draining: bool, timestamp: float) -> HealthReport:
    """Return what ``results`` mean for the service."""
    checks = tuple(results)
    live = all(each.status != "failing" for each in checks if each.kind == "live")
    started = _all_pass(checks, "startup")
    ready = started and not draining and _all_pass(checks, "ready")
    return HealthReport(
        healthy=live and ready,
        live=live,
        ready=ready,
        started=started,
        draining=draining,
        degraded=any(each.status == "degraded" for each in checks),
        timestamp=timestamp,
        checks=checks,
    )


def _all_pass(checks: tuple[CheckResult, ...], kind: CheckKind) -> bool:
    """Return whether every critical check of a kind passes; one without an answer does not."""
    return all(each.status == "passing" for each in checks if each.critical and each.kind == kind)
