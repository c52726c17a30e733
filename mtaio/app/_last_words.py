"""
Last words: what a process that is ended by force still says, and what SIGUSR1 has written.

Promise: the process ends within `_LAST_WORDS` seconds, whether anybody reads what is said or not.
Another thread says it, since a pipe may be full, and a lock of a log held for ever.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from contextlib import suppress
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Speaker", "end_process", "say_last", "write_tasks"]

_LAST_WORDS: Final = 1.0
"""Seconds for stacks and logs before the process is ended by force."""
_FLUSH: Final = 0.5

_STDERR: Final = 2
"""Its file descriptor: the object ``sys.stderr`` has a lock, which may be held."""

_MOST_FRAMES: Final = 100
"""Of each thread."""

logger: Final = logging.getLogger("mtaio.app")


class Speaker:
    """A thread that speaks for another, which does not wait for ever: speaking may hang."""

    def __init__(self) -> None:
        self._calls: Final[SimpleQueue[Callable[[], None]]] = SimpleQueue()
        self._thread: Final = threading.Thread(
            target=self._speak, name="mtaio.app last words", daemon=True
        )
        self._thread.start()

    def _speak(self) -> None:
        self._calls.get()()

    def say(self, call: Callable[[], None]) -> None:
        """Make a call, and wait for it, for a second at most."""
        self._calls.put(call)
        self._thread.join(_LAST_WORDS)

    def dismiss(self) -> None:
        """End the thread without a word."""
        self.say(lambda: None)


def end_process(
    code: int,
    reason: str,
    *,
    tasks: Callable[[], Iterable[bytes]] | None = None,
    speaker: Speaker | None = None,
) -> NoReturn:
    """End the process after last words; with ``tasks``, those and all stacks are among them."""
    with suppress(RuntimeError):  # there can be no more threads
        (speaker or Speaker()).say(lambda: say_last(f"{reason}; exit {code}", tasks))
    os._exit(code)


def say_last(reason: str, tasks: Callable[[], Iterable[bytes]] | None) -> None:
    """Log why the process ends, write the logs, and with ``tasks`` those and all stacks."""
    logger.critical("%s", reason)
    if tasks is not None:
        _write_stacks()
    from mtaio.logging import flush_all  # noqa: PLC0415 - slow, and signals are to be heard before

    flush_all(_FLUSH)
    if tasks is not None:
        write_tasks(tasks)  # the last, as it takes longest


def _write_stacks() -> None:
    """
    Write where each thread stands to the standard error.

    faulthandler writes while it holds the interpreter's lock: if nobody reads the pipe, no thread
    runs any more, and the process stays for ever.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines: list[str] = []
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - documented
        name = names.get(ident, "not Python's")
        lines += [f"Thread 0x{ident:016x} [{name}] (most recent call first):\n"]
        lines += [
            f'  File "{each.f_code.co_filename}", line {line} in {each.f_code.co_name}\n'
            for each, line in islice(traceback.walk_stack(frame), _MOST_FRAMES)
        ]
    _write(["".join(lines).encode("utf-8", "backslashreplace")])


def write_tasks(tasks: Callable[[], Iterable[bytes]]) -> None:
    """Write the tree of tasks to the standard error."""
    try:
        _write(tasks())
    except Exception as error:  # noqa: BLE001 - a thread has nobody to raise it to
        _write([f"the tasks cannot be read: {error!r}\n".encode("utf-8", "backslashreplace")])


def _write(pieces: Iterable[bytes]) -> None:
    if sys.__stderr__ is None:
        return
    with suppress(OSError):  # nobody will ever read it
        os.write(_STDERR, b"")  # which fails before much is made for nothing
        for piece in pieces:
            left = piece
            while left:
                left = left[os.write(_STDERR, left) :]
