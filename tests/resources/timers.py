"""What the running loop has yet to do; no backend tells, so look behind."""

from __future__ import annotations

import asyncio
import sys
from typing import Any


def _trio() -> Any:
    """Return trio if it is what runs here."""
    trio = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_run() else None


def live_timers() -> int:
    """Return how many timers the running loop holds."""
    trio = _trio()
    if trio is not None:
        timers: int = trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines._active
        return timers
    scheduled: list[asyncio.TimerHandle] = vars(asyncio.get_running_loop())["_scheduled"]
    return sum(not timer.cancelled() for timer in scheduled)


def pending_calls() -> int:
    """Return how many calls wait for the loop to turn."""
    trio = _trio()
    if trio is not None:
        calls: int = trio.lowlevel.current_statistics().run_sync_soon_queue_size
        return calls
    return len(vars(asyncio.get_running_loop())["_ready"])
