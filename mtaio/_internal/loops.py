"""
Which event loop am I on, and is the one I knew still there?

Promise: an object that holds waiters can be made anywhere and used by one loop after another, on
either backend; two loops at once are an error that says what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from anyio import NoEventLoopError

from mtaio._internal import backend, clock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context


current_loop: Final = backend.current_loop
"""Return the native token of the running loop, one and the same object for one loop."""


def look() -> object:
    """
    Return the same as `current_loop`, for a fifth of what that costs from the second time on.

    Its clock has then been looked at, so that ``clock.read`` is right in this context. The hottest
    paths write ``backend.known_loop() or loops.look()``.
    """
    loop = backend.known_loop()
    if loop is None:
        loop = current_loop()
        backend.note_loop(loop)
        clock.now()
    return loop


def scopes() -> backend.Scopes:
    """Return how cancel scopes are made here, to be kept and used while they are ``is_here()``."""
    loop = current_loop()
    return backend.of(loop).scopes(loop)


def is_current(loop: object) -> bool:
    """Return whether ``loop``, returned by `current_loop`, is running here."""
    try:
        return current_loop() is loop
    except NoEventLoopError:
        return False


def is_over(loop: object) -> bool:
    """Return whether a loop returned by `current_loop` can never run again."""
    return backend.of(loop).is_over(loop)


def is_running(loop: object) -> bool:
    """Return whether a loop returned by `current_loop` runs, maybe in another thread."""
    return backend.of(loop).is_running(loop)


def count_tasks(loop: object) -> int:
    """Return how many tasks there are in ``loop``, which is running here. O(n) on asyncio."""
    return backend.of(loop).count_tasks(loop)


def _nothing() -> None:
    pass


def two_loops_error(owner: object) -> RuntimeError:
    """Return what is raised when ``owner`` is used by two running loops at once."""
    return RuntimeError(
        f"{owner!r} is in use by tasks of another running event loop. Only one loop at a time can "
        f"use it: give each loop an object of its own, or hand the work to one loop with "
        f"anyio.from_thread.run()."
    )


def start_task(
    loop: object,
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
    backend.of(loop).start_task(loop, fn, context, ended)


def call_in(loop: object, fn: Callable[[], object]) -> bool:
    """
    Have ``fn`` called in the thread of ``loop``, from any thread, without waiting for it.

    ``from_thread.run_sync`` would wait for an answer, and for ever when the loop ends meanwhile.

    Returns:
        False if that loop is over. Even if it is not, it may end before it calls ``fn``.
    """
    try:
        backend.of(loop).call_in(loop, fn)
    except RuntimeError:  # asyncio: the loop is closed; trio: RunFinishedError
        return False
    return True


def call_at(loop: object, moment: float, fn: Callable[[], object]) -> None:
    """
    Have ``fn`` called at ``moment``, on the clock of ``loop``, which is running here.

    It cannot be taken back: ``fn`` has to look whether it is still wanted. It is not called if the
    loop ends before.
    """
    backend.of(loop).call_at(loop, moment, fn)


def mark(loop: object, context: Context) -> None:
    """
    Let AnyIO see in ``context``, used in a callback, that ``loop`` runs there.

    No task runs in a callback of asyncio's, by which AnyIO could tell. `anyio.run` has left such a
    mark in all contexts; `asyncio.run`, and the servers that use it, have not.
    """
    backend.of(loop).mark(context)


def exit_from(loop: object, code: int) -> None:
    """
    Have ``loop`` end, as `sys.exit` in one of its tasks does; called in its thread.

    That is asyncio's: `asyncio.run` then cancels all tasks. On trio, where only a task can end its
    own, this does nothing.
    """
    backend.of(loop).exit_from(loop, code)
