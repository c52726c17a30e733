"""
trio's half of the backend layer: see `mtaio._internal.backend.Backend`.

The token of a loop is trio's own, which outlives its run.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context


def asker() -> Callable[[], object]:
    """Return what returns the running loop's token, or raises ``RuntimeError``."""
    return trio.lowlevel.current_trio_token


def is_over(loop: trio.lowlevel.TrioToken) -> bool:
    """Return whether the run has ended, which trio says only to those who try."""
    try:
        if trio.lowlevel.current_trio_token() is loop:
            return False
    except RuntimeError:  # no run of trio's is here
        pass
    try:
        loop.run_sync_soon(_nothing, idempotent=True)
    except trio.RunFinishedError:
        return True
    return False


def is_running(loop: trio.lowlevel.TrioToken) -> bool:
    """Return whether the run goes on: a run of trio's begins once."""
    return not is_over(loop)


def count_tasks(_loop: trio.lowlevel.TrioToken) -> int:
    """Return trio's own count."""
    return trio.lowlevel.current_statistics().tasks_living


def call_in(loop: trio.lowlevel.TrioToken, fn: Callable[[], object]) -> None:
    """Schedule ``fn`` from any thread."""
    loop.run_sync_soon(fn)


def call_at(loop: trio.lowlevel.TrioToken, moment: float, fn: Callable[[], object]) -> None:
    """Let a task wait: trio has no timers but those of tasks."""

    async def wait() -> None:
        await trio.sleep_until(moment)
        fn()

    start_task(loop, wait, copy_context(), _nothing)


def start_task(
    _loop: trio.lowlevel.TrioToken,
    fn: Callable[[], Coroutine[Any, Any, None]],
    context: Context,
    ended: Callable[[], object],
) -> None:
    """Start a system task, which trio cancels when the main task has ended."""

    async def run() -> None:
        try:
            await fn()
        finally:
            ended()

    try:
        trio.lowlevel.spawn_system_task(run, context=context)
    except RuntimeError:  # the run is ending: it takes no new task
        ended()


def _nothing() -> None:
    pass
