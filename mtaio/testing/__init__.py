"""
Tests in virtual time on asyncio and trio: no waiting, and deadlocks fail.

Promise: a test under virtual time sleeps for a year in microseconds and wakes up at the exact
moment; worker threads, sockets and subprocesses stay real; a test in which no task can ever wake
up fails with the stacks of its tasks. Needs neither pytest nor, for asyncio, trio.

Everything here is imported on first use: pytest loads the plugin before coverage measurement
begins, and must not import the library under test with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtaio.testing._assertions import (
        assert_checkpoints,
        assert_no_checkpoints,
        assert_quiescent,
    )
    from mtaio.testing._check_cache import check_cache
    from mtaio.testing._check_limiter import check_limiter
    from mtaio.testing._contract import ContractError
    from mtaio.testing._diagnostics import Deadlock, Livelock, Place, Stack, Step
    from mtaio.testing._explore import explore
    from mtaio.testing._inject import Victim, injections
    from mtaio.testing._schedule import Schedule, exhaustive, schedules, shrink
    from mtaio.testing._search import ExplorationWarning
    from mtaio.testing._simulation import (
        InvariantError,
        Simulation,
        current_simulation,
        run,
        settle,
        virtual_backend,
    )

__all__ = [
    "ContractError",
    "Deadlock",
    "ExplorationWarning",
    "InvariantError",
    "Livelock",
    "Place",
    "Schedule",
    "Simulation",
    "Stack",
    "Step",
    "Victim",
    "assert_checkpoints",
    "assert_no_checkpoints",
    "assert_quiescent",
    "check_cache",
    "check_limiter",
    "current_simulation",
    "exhaustive",
    "explore",
    "injections",
    "run",
    "schedules",
    "settle",
    "shrink",
    "virtual_backend",
]

_HOMES = {
    "ContractError": "_contract",
    "Deadlock": "_diagnostics",
    "ExplorationWarning": "_search",
    "InvariantError": "_simulation",
    "Livelock": "_diagnostics",
    "Place": "_diagnostics",
    "Schedule": "_schedule",
    "Simulation": "_simulation",
    "Stack": "_diagnostics",
    "Step": "_diagnostics",
    "Victim": "_inject",
    "assert_checkpoints": "_assertions",
    "assert_no_checkpoints": "_assertions",
    "assert_quiescent": "_assertions",
    "check_cache": "_check_cache",
    "check_limiter": "_check_limiter",
    "current_simulation": "_simulation",
    "exhaustive": "_schedule",
    "explore": "_explore",
    "injections": "_inject",
    "run": "_simulation",
    "schedules": "_schedule",
    "settle": "_simulation",
    "shrink": "_schedule",
    "virtual_backend": "_simulation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
