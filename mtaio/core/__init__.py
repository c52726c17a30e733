"""Run functions, async and plain, many at once: the executor, retries and external pools."""

from __future__ import annotations

from mtaio.core._budget import Budget, BudgetStatistics
from mtaio.core._executor import Outcome, TaskExecutor
from mtaio.core._retry import Retry
from mtaio.core._statistics import ExecutorStatistics
from mtaio.core._stream import Stream
from mtaio.core._tasks import TaskHandle, TaskStatus
from mtaio.core._via import ExternalPool, ExternalPoolStatistics

__all__ = [
    "Budget",
    "BudgetStatistics",
    "ExecutorStatistics",
    "ExternalPool",
    "ExternalPoolStatistics",
    "Outcome",
    "Retry",
    "Stream",
    "TaskExecutor",
    "TaskHandle",
    "TaskStatus",
]
