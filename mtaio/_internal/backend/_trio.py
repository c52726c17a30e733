"""
trio's half of the backend layer: see `mtaio._internal.backend.Backend`.

The token of a loop is trio's own, which outlives its run.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

import trio

from mtaio._internal.backend._here import Scopes, is_in_asyncio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context


def running_loop() -> object:
    """Return the token of the run that is here, or None."""
    # A run that is a guest of asyncio's is there for its host's tasks too: trio tells them its
    # token, but wakes no task that they reschedule.
    if _in_trio_task() or not is_in_asyncio():
        try:
            return _current_token()
        except RuntimeError:  # trio does not run here
            return None
    return None


_in_trio_task: Final = trio.lowlevel.in_trio_task
_current_token: Final = trio.lowlevel.current_trio_token


def task_id() -> int:
    """Return what AnyIO takes for the id of a task."""
    return id(trio.lowlevel.current_task())


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


def may_be_eager(_loop: trio.lowlevel.TrioToken) -> bool:
    """Return False: a task runs when its turn comes."""
    return False


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


def mark(_context: Context) -> None:
    """Do nothing: trio says so itself wherever it runs."""


def exit_from(_loop: trio.lowlevel.TrioToken, _code: int) -> None:
    """Do nothing: on trio only a task can end its own."""


def end_sigint(_handler: object) -> None:
    """Do nothing: trio's handler ends with its main task, which nothing stops before."""


def new_waiter(_loop: trio.lowlevel.TrioToken) -> Waiter:
    """Return a waiter, which belongs to the task that waits."""
    return Waiter()


def scopes(_loop: trio.lowlevel.TrioToken) -> Scopes:
    """Return trio's own class, which AnyIO wraps; it does for every run."""
    new: Any = trio.CancelScope
    return Scopes(new, trio.current_time, _in_trio_task)


class Waiter:
    """A task that trio's scheduler leaves out until it is put back."""

    # Invariant: _task is there while it waits.
    __slots__ = ("_cancelled", "_task", "woken")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._cancelled = False
        self.woken = False

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait until `wake`."""
        self._task = trio.lowlevel.current_task()
        self._cancelled = self.woken = False
        return trio.lowlevel.wait_task_rescheduled(self._abort).__await__()  # noqa: ASYNC105 - by who waits

    def wake(self) -> bool:
        """Wake the task."""
        if self._task is not None:
            task, self._task = self._task, None
            self.woken = True
            trio.lowlevel.reschedule(task)
        return not self._cancelled

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        self._cancelled = True
        return trio.lowlevel.Abort.SUCCEEDED


def innermost_scope() -> object:
    """Return the task's cancel status, which is private to trio; each scope makes one."""
    return getattr(trio.lowlevel.current_task(), "_cancel_status", None)
