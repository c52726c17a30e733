"""
The event loops of this process that have connected to a server.

Promise: a loop that valkey-glide cannot serve beside another is refused, in place of calls that are
never answered and a trio that dies.
Why: glide has one pipe for each process. The loop that connected first reads it, and hands on the
answers of the others, until it ends. Two loops on trio would both read.
"""

from __future__ import annotations

import os
from threading import Lock
from typing import Final

from mtaio._internal import loops
from mtaio._internal.backend import is_asyncio

__all__ = ["CONNECTED", "ConnectedLoops"]


class ConnectedLoops:
    """The loops of one process that have connected and are not over; for all threads."""

    # Invariant: _reader is the loop that reads the pipe, in _loops unless it is over.
    __slots__ = ("_lock", "_loops", "_reader")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Know no loops: this process has just been forked."""
        self._lock = Lock()
        self._loops: list[object] = []
        self._reader: object = None

    def join(self, name: str) -> None:
        """
        Add the running loop, before it connects.

        Args:
            name: To what it connects, for the message.

        Raises:
            RuntimeError: Another loop is there, and one of the two is trio's.
        """
        loop = loops.current_loop()
        with self._lock:
            others = [each for each in self._loops if each is not loop and not loops.is_over(each)]
            if others and not all(map(is_asyncio, (loop, *others))):
                msg = (
                    f"{name} cannot be reached from this event loop: another one of this process "
                    f"has connected to a server and still runs, and valkey-glide serves several "
                    f"only if all are asyncio's. Hand the work to one event loop with "
                    f"anyio.from_thread.run(), or give each a process of its own."
                )
                raise RuntimeError(msg)
            if self._reader is None or loops.is_over(self._reader):
                self._reader = loop
            self._loops = [*others, loop]

    def is_unread(self) -> bool:
        """Return whether the pipe is read by no loop, until one connects."""
        return self._reader is not None and loops.is_over(self._reader)


CONNECTED: Final = ConnectedLoops()
"""Those of this process."""

if hasattr(os, "register_at_fork"):  # pragma: no branch - there is no fork on Windows
    os.register_at_fork(after_in_child=CONNECTED.forget)
