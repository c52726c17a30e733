"""
Which event loop am I on, and is the one I knew still there?

Promise: an object that holds waiters can be made anywhere and used by one loop after another, on
either backend; two loops at once are an error that says what to do.
"""

from __future__ import annotations

import sys
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
from anyio import NoEventLoopError
from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context


def current_loop() -> object:
    """Return the native token of the running loop, one and the same object for one loop."""
    return current_token().native_token


def is_asyncio(loop: object) -> bool:
    """Return whether a loop returned by `current_loop` is asyncio's, or uvloop's, not trio's."""
    return hasattr(loop, "is_closed")


def asker_of(loop: object) -> Callable[[], object]:
    """
    Return a function that tells fast whether ``loop``, returned by `current_loop`, runs here.

    It returns ``loop`` if so. Else it returns another, None, or raises ``RuntimeError``.
    """
    asks: Callable[[], object]
    if is_asyncio(loop):
        asks = sys.modules["asyncio"]._get_running_loop  # noqa: SLF001 - public in all but its name
    else:
        asks = sys.modules["trio"].lowlevel.current_trio_token
    return asks


def runs_here(loop: object) -> bool:
    """Return whether ``loop`` runs in this thread, also in a callback without any context."""
    try:
        return asker_of(loop)() is loop
    except RuntimeError:  # trio's answer where it does not run
        return False


def in_event_loop() -> bool:
    """Return whether this thread is running an event loop, be it in a callback without a task."""
    return _asyncio_runs() or _answer("in_trio_run")


def task_name() -> str | None:
    """Return the name of the running task, None outside of tasks."""
    if _asyncio_runs():
        task = _asyncio_task()
        return None if task is None else str(task.get_name())
    if _answer("in_trio_task"):
        name: str = sys.modules["trio"].lowlevel.current_task().name
        return name
    return None


def is_cancelled_natively() -> bool:
    """Return whether ``Task.cancel()`` was called for the running task; False on trio."""
    task = _asyncio_task() if _asyncio_runs() else None
    return task is not None and task.cancelling() > 0


def _asyncio_task() -> Any:
    return sys.modules["asyncio"].current_task()


# A module without the expected name is being imported by another thread, and no loop of that module
# runs anywhere yet.


def _asyncio_runs() -> bool:
    running: Callable[[], object] | None = getattr(
        sys.modules.get("asyncio"), "_get_running_loop", None
    )
    return running is not None and running() is not None


def _answer(question: str) -> bool:
    lowlevel = getattr(sys.modules.get("trio"), "lowlevel", None)
    ask: Callable[[], bool] | None = getattr(lowlevel, question, None)
    return ask is not None and ask()


def is_current(loop: object) -> bool:
    """Return whether ``loop``, returned by `current_loop`, is running here."""
    try:
        return current_loop() is loop
    except NoEventLoopError:
        return False


def is_over(loop: Any) -> bool:
    """Return whether a loop returned by `current_loop` can never run again."""
    closed: Callable[[], bool] | None = getattr(loop, "is_closed", None)
    if closed is not None:
        return closed()  # asyncio, uvloop
    if is_current(loop):
        return False
    try:  # trio says so only to those who try
        loop.run_sync_soon(_nothing, idempotent=True)
    except RuntimeError:  # trio.RunFinishedError
        return True
    return False


def is_running(loop: Any) -> bool:
    """Return whether a loop returned by `current_loop` runs, maybe in another thread."""
    running: Callable[[], bool] | None = getattr(loop, "is_running", None)
    return not is_over(loop) if running is None else running()


def count_tasks(loop: Any) -> int:
    """Return how many tasks there are in ``loop``, which is running here. O(n) on asyncio."""
    if is_asyncio(loop):
        return len(sys.modules["asyncio"].all_tasks(loop))
    living: int = sys.modules["trio"].lowlevel.current_statistics().tasks_living
    return living


def call_in(loop: Any, fn: Callable[[], object]) -> bool:
    """
    Have ``fn`` called in the thread of ``loop``, from any thread, without waiting for it.

    ``from_thread.run_sync`` would wait for an answer, and for ever when the loop ends meanwhile.

    Returns:
        False if that loop is over. Even if it is not, it may end before it calls ``fn``.
    """
    schedule = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
    try:
        schedule(fn)
    except RuntimeError:  # asyncio: the loop is closed; trio: RunFinishedError
        return False
    return True


def exit_from(loop: Any, code: int) -> None:
    """
    Have ``loop`` end, as `sys.exit` in one of its tasks does; called in its thread.

    That is asyncio's: `asyncio.run` then cancels all tasks. On trio, where only a task can end its
    own, this does nothing.
    """

    def leave() -> NoReturn:
        raise SystemExit(code)

    if is_asyncio(loop):
        loop.call_soon(leave)


def call_at(loop: Any, moment: float, fn: Callable[[], object]) -> None:
    """
    Have ``fn`` called at ``moment``, on the clock of ``loop``, which is running here.

    It cannot be taken back: ``fn`` has to look whether it is still wanted. It is not called if the
    loop ends before. On trio, which has no timers but those of tasks, a task of the loop's waits.
    """
    schedule: Callable[..., object] | None = getattr(loop, "call_at", None)
    if schedule is not None:
        schedule(moment, fn)
        return

    async def wait() -> None:
        await anyio.sleep_until(moment)
        fn()

    start_task(loop, wait, copy_context())


def _nothing() -> None:
    pass


def two_loops_error(owner: object) -> RuntimeError:
    """Return what is raised when ``owner`` is used by two running loops at once."""
    return RuntimeError(
        f"{owner!r} has tasks of another running event loop using it. One loop at a time may "
        f"use it: give each loop an object of its own, or hand the work to one loop with "
        f"anyio.from_thread.run()."
    )


def start_task(
    loop: Any,
    fn: Callable[[], Coroutine[Any, Any, None]],
    context: Context,
    ended: Callable[[], object] = _nothing,
) -> None:
    """
    Start a task that belongs to the loop and to no task group; called in the thread of ``loop``.

    For what lasts from a ``start()`` to a ``stop()``. It is cancelled when the loop ends; ``fn``
    raises nothing else. ``ended`` is called when it has ended, even if it was cancelled before it
    could begin.
    """
    create = getattr(loop, "create_task", None)
    if create is None:

        async def run() -> None:
            try:
                await fn()
            finally:
                ended()

        try:
            sys.modules["trio"].lowlevel.spawn_system_task(run, context=context)
        except RuntimeError:  # the loop is ending: it takes no new task
            ended()
        return

    def done(task: object) -> None:
        _tasks.discard(task)
        ended()

    task = context.run(create, fn())  # not every task factory takes a context
    _tasks.add(task)  # asyncio itself holds its tasks weakly
    task.add_done_callback(done)


_tasks: set[object] = set()
