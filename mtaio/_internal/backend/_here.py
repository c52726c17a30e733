"""
What runs here: a loop, a task, a clock, be it asyncio's or trio's.

Promise: a backend that nobody has imported runs nowhere, and is not imported to ask it.
Cost: a look into the table of loaded modules for each question.

A module without the expected name is being imported by another thread, and no loop of it runs
anywhere yet.
"""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio import CancelScope

__all__ = [
    "Scopes",
    "in_event_loop",
    "is_cancelled_natively",
    "is_guest_of_asyncio",
    "is_in_asyncio",
    "running_clock",
    "task_name",
]

_modules: Final[dict[str, Any]] = sys.modules


class Scopes(NamedTuple):
    """
    How cancel scopes are made in an event loop.

    To have AnyIO find that out for each scope costs as much as half a scope.
    """

    new: Callable[..., CancelScope]
    """Makes one, from ``deadline`` and ``shield`` by keyword. To AnyIO it is as one of its own."""
    time: Callable[[], float]
    """Tells the loop's time, which deadlines are of."""
    is_here: Callable[[], bool]
    """Returns whether they can be made here. For hot paths."""


def in_event_loop() -> bool:
    """Return whether this thread is running an event loop, be it in a callback without a task."""
    return _asyncio_loop() is not None or _trio_says("in_trio_run")


def task_name() -> str | None:
    """Return the name of the running task, None outside of tasks."""
    if _asyncio_loop() is not None:
        task = _asyncio_task()
        return None if task is None else str(task.get_name())
    if _trio_says("in_trio_task"):
        name: str = _modules["trio"].lowlevel.current_task().name
        return name
    return None


def is_cancelled_natively() -> bool:
    """Return whether ``Task.cancel()`` was called for the running task; False on trio."""
    task = _asyncio_task() if _asyncio_loop() is not None else None
    return task is not None and task.cancelling() > 0


def running_clock() -> tuple[object, Callable[[], float]]:
    """
    Return the loop that runs here, or what stands for it, and what tells its time.

    The latter is `time.monotonic` if the loop keeps that. If no loop runs, it is so too, and the
    former None.
    """
    loop = _asyncio_loop()
    if loop is not None:
        return loop, monotonic if _is_monotonic(loop) else loop.time
    if not _trio_says("in_trio_run"):
        return None, monotonic
    clock = _modules["trio"].lowlevel.current_clock()
    kept = type(clock).__module__.startswith("trio._core.")  # SystemClock, which trio keeps private
    return clock, monotonic if kept else clock.current_time


def is_guest_of_asyncio() -> bool:
    """Return whether this is a task of trio's, even where a loop of asyncio's runs: a guest."""
    # Where trio runs a task it says so to sniffio. Asking trio itself costs ten times as much
    # where it does not run: it raises an error internally.
    try:
        if _modules["sniffio"].thread_local.name != "trio":
            return False
    except (KeyError, AttributeError):  # pragma: no cover - it is there, or being imported
        pass
    return _trio_says("in_trio_task")


def is_in_asyncio() -> bool:
    """Return whether a loop of asyncio's runs in this thread, be it the host of a trio."""
    return _asyncio_loop() is not None


def _asyncio_loop() -> Any:
    """Return the loop of asyncio's that runs in this thread, or None."""
    running = getattr(_modules.get("asyncio"), "_get_running_loop", None)
    return None if running is None else running()


def _asyncio_task() -> Any:
    return _modules["asyncio"].current_task()


def _is_monotonic(loop: Any) -> bool:
    """Return whether a loop of asyncio's has the clock of ``time.monotonic``."""
    method = getattr(loop.time, "__func__", None)  # None for a loop that is compiled, as uvloop is
    if method is _modules["asyncio"].BaseEventLoop.time:
        return True
    return type(loop).__module__.startswith("uvloop")


def _trio_says(question: str) -> bool:
    trio = _modules.get("trio")
    if trio is None:
        return False
    ask: Callable[[], bool] | None = getattr(getattr(trio, "lowlevel", None), question, None)
    return ask is not None and ask()
