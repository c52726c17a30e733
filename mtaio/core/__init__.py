"""
Run async and plain functions concurrently under limits: the executor, sources, external pools.

Each name is imported on first use. `Retry` and `Budget`, which belong to `mtaio.resilience`, do not
load the executor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio._internal.ticks import Cron
    from mtaio.core._executor import Outcome, TaskExecutor
    from mtaio.core._intake import Intake
    from mtaio.core._journal import Journal
    from mtaio.core._merge import merge
    from mtaio.core._periodic import PeriodicTask
    from mtaio.core._stream import Stream
    from mtaio.core._tasks import TaskHandle, TaskStatus
    from mtaio.core._via import ExternalPool
    from mtaio.resilience import Budget, Retry

__all__ = [
    "Budget",
    "Cron",
    "ExternalPool",
    "Intake",
    "Journal",
    "Outcome",
    "PeriodicTask",
    "Retry",
    "Stream",
    "TaskExecutor",
    "TaskHandle",
    "TaskStatus",
    "merge",
]

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.core._executor": ("Outcome", "TaskExecutor"),
            "mtaio.core._intake": ("Intake",),
            "mtaio.core._journal": ("Journal",),
            "mtaio.core._merge": ("merge",),
            "mtaio.core._periodic": ("PeriodicTask",),
            "mtaio.core._stream": ("Stream",),
            "mtaio.core._tasks": ("TaskHandle", "TaskStatus"),
            "mtaio._internal.ticks": ("Cron",),
            "mtaio.core._via": ("ExternalPool",),
            "mtaio.resilience": ("Budget", "Retry"),
        },
    )
