"""
What runs here: a loop, a task, a clock, be it asyncio's or trio's.

Promise: a backend that nobody has imported runs nowhere, and is not imported to ask it.
Cost: a look into the table of loaded modules for each question.

A module without the expected name is being imported by another thread, and no loop of it runs
anywhere yet.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "in_event_loop",
    "is_cancelled_natively",
    "is_guest_of_asyncio",
    "known_loop",
    "note_loop",
    "running_clock",
    "task_name",
]

_modules: Final[dict[str, Any]] = sys.modules


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


def running_clock() -> tuple[object, Callable[[], float] | None]:
    """
    Return the loop that runs here, or what stands for it, and what tells its time.

    The latter is None if the loop keeps monotonic time, and both are if no loop runs here.
    """
    loop = _asyncio_loop()
    if loop is not None:
        return loop, None if _is_monotonic(loop) else loop.time
    try:
        clock = _modules["trio"].lowlevel.current_clock()
    except (KeyError, AttributeError, RuntimeError):  # it is not there, half imported, or not here
        return None, None
    kept = type(clock).__module__.startswith("trio._core.")  # SystemClock, which trio keeps private
    return clock, None if kept else clock.current_time


_known: Final[ContextVar[tuple[object, Callable[[], object], bool] | None]] = ContextVar(
    "mtaio.loop", default=None
)
"""A loop that ran in this context, a function that returns it if it runs, whether it is trio's."""

_known_here: Final = _known.get


def known_loop() -> object:
    """Return the loop that runs here if it was noted in this context, else None. For hot paths."""
    known = _known_here()
    if known is not None:
        loop, ask, is_trio = known
        try:
            # Without trio nobody is its guest: that costs one look into a dict.
            if ask() is loop and (is_trio or "trio" not in _modules or not is_guest_of_asyncio()):
                return loop
        except RuntimeError:  # it is trio's, and this is not trio
            pass
    return None


def note_loop(loop: object) -> None:
    """Note the loop that runs here, for `known_loop`."""
    if hasattr(loop, "is_closed"):
        _known.set((loop, _modules["asyncio"]._get_running_loop, False))  # noqa: SLF001 - see `_asyncio`
    else:
        _known.set((loop, _modules["trio"].lowlevel.current_trio_token, True))


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
    lowlevel = getattr(_modules.get("trio"), "lowlevel", None)
    ask: Callable[[], bool] | None = getattr(lowlevel, question, None)
    return ask is not None and ask()
