"""
Exit and fork: the moments at which queued records would be lost.

Promise: what was logged before the interpreter's normal exit is written, as long as the files can
be within `PATIENCE` seconds for all handlers together, or within what an application's shutdown has
left. A forked child has nothing of its parent's in its queue, and loses nothing from the fork on,
also as a child of multiprocessing, which ends by ``os._exit``, and as one that was forked in a
thread, which ends with that thread and has no exit at all.
Why nothing happens before a fork, and why no thread is started during the exit:
docs/en/design/logging.md.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from mtaio._internal import ending

if TYPE_CHECKING:
    from mtaio.logging._writer import Writer

__all__ = ["PATIENCE", "process", "thread_started", "watch"]

PATIENCE: Final = 5.0
"""Seconds that closing waits for a file that takes nothing."""

_MAIN_THREAD: Final[type] = vars(threading)["_MainThread"]
"""The class of the thread in which the interpreter started; in a child it stays that of others."""

_LAST: Final = -1_000_000
"""The priority among multiprocessing's finalizers: after those of the user, which may log."""


class _Process:
    """What this process knows of its end."""

    def __init__(self) -> None:
        self.writers: dict[int, weakref.ref[Writer]] = {}
        self.ends_by: float | None = None
        """When writing has to be over, once the exit has started; no thread can be started then."""
        self.told_multiprocessing = False


process: Final = _Process()


def watch(writer: Writer) -> None:
    """Have ``writer`` closed at the exit, and emptied in a forked child."""
    writers, key = process.writers, id(writer)
    writers[key] = weakref.ref(writer, lambda _: writers.pop(key, None))


def thread_started() -> None:
    """Note that a thread was started: a child of multiprocessing has an exit of its own."""
    util: Any = sys.modules.get("multiprocessing.util")
    if not hasattr(util, "Finalize"):
        # Not imported, or being imported by another thread: no child can be there yet.
        return
    children: Any = sys.modules["multiprocessing.process"]
    # When a child starts, it forgets the finalizers that were there, and calls what was registered
    # for after a fork, whatever the start method.
    if not process.told_multiprocessing:
        process.told_multiprocessing = True
        util.register_after_fork(process, _close_when_child_ends)
        if children.parent_process() is not None:
            _close_when_child_ends(process)


def _close_when_child_ends(_: object) -> None:
    util: Any = sys.modules["multiprocessing.util"]
    util.Finalize(None, _close_all, args=(PATIENCE,), exitpriority=_LAST)


def _close_all(seconds: float) -> None:
    """Close all writers, within ``seconds`` together."""
    until = monotonic() + seconds
    for writer, request in [(writer, writer.request_close()) for writer in writers()]:
        writer.wait_closed(request, until)


def writers() -> list[Writer]:
    """Return the writers there are; other threads may make and drop some meanwhile."""
    return [writer for each in list(process.writers.values()) if (writer := each()) is not None]


def _at_exit() -> None:
    seconds = ending.patience(PATIENCE)
    process.ends_by = monotonic() + seconds
    _close_all(seconds)


class _EndOfThread:
    """What is done when the thread ends in whose locals it is."""

    def __del__(self) -> None:
        _at_exit()


_locals: Final = threading.local()


def _in_child() -> None:
    for writer in writers():
        writer.forget()
    _end_with_thread()


def _end_with_thread() -> None:
    """
    Have the end of this thread be the exit, if this is a child that was forked in it.

    Such a child ends when the thread does, without any of the interpreter's exit, unless another
    thread is left: as one that writes would be, for ever.
    """
    thread = threading.main_thread()
    if thread is threading.current_thread() and not isinstance(thread, _MAIN_THREAD):
        _locals.end = _EndOfThread()


atexit.register(_at_exit)
if sys.platform != "win32":  # pragma: no branch - coverage is measured where there are forks
    os.register_at_fork(after_in_child=_in_child)
_end_with_thread()  # this may be such a child already
