"""
trio's half of the backend layer: see `mtaio._internal.backend.Backend`.

The token of a loop is trio's own, which outlives its run.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, Literal
from weakref import WeakKeyDictionary, ref

import trio

from mtaio._internal.backend._here import Scopes, is_in_asyncio
from mtaio._internal.backend._seen import SeenTask
from mtaio._internal.frames import frames_of_others, local, slot
from mtaio._internal.gil import has_gil

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


def time(_loop: trio.lowlevel.TrioToken) -> float | None:
    """Return trio's time, which it tells in its own thread alone."""
    try:
        return trio.current_time()
    except RuntimeError:
        return None


def runs_in_this_thread(loop: trio.lowlevel.TrioToken) -> bool:
    """Return whether it is the token of the run in this thread, also while its host runs."""
    try:
        return _current_token() is loop
    except RuntimeError:
        return False


GROUP: Final = "nursery"
"""trio's own word."""


def loop_name(_loop: trio.lowlevel.TrioToken) -> Literal["trio"]:
    """Return trio's name."""
    return "trio"


def tasks(loop: trio.lowlevel.TrioToken) -> list[SeenTask]:
    """Walk down from the first task, trio's own, through nurseries."""
    root: Any
    if runs_in_this_thread(loop):
        root = trio.lowlevel.current_root_task()
        _roots[loop] = ref(root)
    else:
        root = _root_of(loop)
    seen: list[SeenTask] = []
    todo: list[trio.lowlevel.Task] = [] if root is None else [root]
    while todo:
        task = todo.pop()
        nursery = task.parent_nursery
        coroutine: Any = task.coro
        waits = getattr(task, "_next_send_fn", None) is None
        state: Literal["running", "ready", "waiting", "cancelled"] = "waiting"
        if slot(coroutine, "cr_running") is True:
            state = "running"
            waits = False
        elif _is_cancelled(task, nursery):
            state = "cancelled"
        elif not waits:
            state = "ready"
        starter = None if nursery is None else id(nursery.parent_task)
        name = task.name[:_LONGEST]
        seen.append(SeenTask(id(task), name, coroutine, state, waits, None, starter, nursery))
        for each in reversed(task.child_nurseries):
            todo += sorted(each.child_tasks, key=_number, reverse=True)
    return seen


_roots: Final[WeakKeyDictionary[trio.lowlevel.TrioToken, ref[trio.lowlevel.Task]]] = (
    WeakKeyDictionary()
)
"""The first task of each run that was read in its own thread."""

_LONGEST: Final = 1000
"""Characters of a name."""


def _is_cancelled(task: trio.lowlevel.Task, nursery: trio.Nursery | None) -> bool:
    """Return whether its nursery or a scope of its own was cancelled, also if it has a shield."""
    status: Any = getattr(task, "_cancel_status", None)
    last = getattr(nursery, "_cancel_status", None)
    while status is not None:
        if status.effectively_cancelled:
            return True
        status = None if status is last else getattr(status, "_parent", None)
    return False


def _number(task: trio.lowlevel.Task) -> int:
    """Return trio's own count of tasks when this one was started, which is private."""
    return getattr(task, "_counter", 0)


def _root_of(loop: trio.lowlevel.TrioToken) -> trio.lowlevel.Task | None:
    """
    Find the run of a token in the frames of other threads: trio lets only its own thread ask.

    None if it is over, or where no lock makes it safe to look at them. A guest of another loop has
    no frame between two of its turns: then this raises ``LookupError``, unless its tasks have been
    read in its own thread before.
    """
    if not has_gil() or is_over(loop):
        return None
    known = _roots.get(loop)
    if known is not None:
        return known()
    for frames in frames_of_others().values():
        for frame in reversed(frames):
            if frame.f_globals.get("__name__") == "trio._core._run":
                held = local(frame, "runner") or getattr(local(frame, "self"), "runner", None)
                if getattr(held, "trio_token", None) is loop:
                    root: trio.lowlevel.Task | None = getattr(held, "init_task", None)
                    return root
    raise LookupError


def group_depth(group: trio.Nursery) -> int:
    """Return its place among those of its task, the outermost first."""
    nurseries = group.parent_task.child_nurseries
    return nurseries.index(group) if group in nurseries else len(nurseries)


def held_by(_awaited: Any) -> list[Any]:
    """Return nothing: trio has no futures."""
    return []


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
