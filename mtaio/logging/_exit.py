"""
How a process ends, or becomes two: the moments at which queued records would be lost.

Promise: what was logged before the interpreter's normal end is written, as long as the files can
be within `PATIENCE` seconds for all handlers together; a forked child has nothing of its parent's
in its queue, and is complete from the fork on, also as a child of multiprocessing, which ends by
``os._exit``.
Why there is nothing to do before a fork, and why no thread is started any more once the end has
begun: docs/en/design/logging.md.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mtaio.logging._writer import Writer

__all__ = ["PATIENCE", "ending", "patience", "started", "watch"]

PATIENCE: Final = 5.0
"""Seconds that closing waits for a file that takes nothing."""

_LAST: Final = -1_000_000
"""The priority among multiprocessing's finalizers: after those of the user, which may log."""


class _Process:
    """What is known of this process's end."""

    def __init__(self) -> None:
        self.watched: dict[int, weakref.ref[Writer]] = {}
        self.ends_by: float | None = None
        self.told_multiprocessing = False


_process = _Process()


def watch(writer: Writer) -> None:
    """See to it that ``writer`` is closed at the end, and survives a fork."""
    watched, key = _process.watched, id(writer)
    watched[key] = weakref.ref(writer, lambda _: watched.pop(key, None))


def ending() -> bool:
    """Tell whether the interpreter is about to end, so that no thread can be started any more."""
    return _process.ends_by is not None


def patience(seconds: float) -> float:
    """Return how long to wait for a file now, if ``seconds`` are wanted: the end is shared."""
    if _process.ends_by is None:
        return seconds
    return max(0.0, min(seconds, _process.ends_by - monotonic()))


def started() -> None:
    """Note that a writer's thread was started: a child of multiprocessing has its own end."""
    util: Any = sys.modules.get("multiprocessing.util")
    if not hasattr(util, "Finalize"):
        # Not imported, or another thread is just at it: no child is there yet, and each asks again.
        return
    process: Any = sys.modules["multiprocessing.process"]
    # A child forgets at its beginning the finalizers that were there, and calls what was registered
    # for after a fork, whatever the method it was started by.
    if not _process.told_multiprocessing:
        _process.told_multiprocessing = True
        util.register_after_fork(_process, _close_when_child_ends)
        if process.parent_process() is not None:
            _close_when_child_ends(_process)


def _close_when_child_ends(_: object) -> None:
    util: Any = sys.modules["multiprocessing.util"]
    util.Finalize(None, _close_all, args=(PATIENCE,), exitpriority=_LAST)


def _close_all(seconds: float) -> None:
    """Close all writers, which are given ``seconds`` together."""
    until = monotonic() + seconds
    for writer, mark in [(writer, writer.ask_to_close()) for writer in _writers()]:
        writer.wait_closed(mark, until)


def _writers() -> list[Writer]:
    """Return those that are still there; other threads may make and drop some meanwhile."""
    return [writer for each in list(_process.watched.values()) if (writer := each()) is not None]


def _at_exit() -> None:
    _process.ends_by = monotonic() + PATIENCE
    _close_all(PATIENCE)


def _in_child() -> None:
    for writer in _writers():
        writer.forget()


atexit.register(_at_exit)
if sys.platform != "win32":  # pragma: no branch - the suite is measured where there are forks
    os.register_at_fork(after_in_child=_in_child)
