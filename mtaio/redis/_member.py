"""
This process, as the server knows it.

Promise: it has another name in each event loop, and so in each fork of a process too; what other
threads change is noted in that loop.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from mtaio._internal import loops

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Member"]


class Member:
    """
    One of the processes that share a limit.

    Attributes:
        name: What the server calls it; empty before `attach`.
    """

    # Invariant: _ask returns _loop if that runs here.
    __slots__ = ("_ask", "_loop", "name")

    def __init__(self) -> None:
        self.name = ""
        self._loop: object = None
        self._ask: Callable[[], object]

    def attach(self, owner: object, *, busy: bool) -> bool:
        """
        Belong to the running event loop.

        Args:
            owner: The limiter, for the message.
            busy: Whether tasks of the loop before this one may still use it.

        Returns:
            Whether this is another loop than before: what was held in that one is gone.

        Raises:
            RuntimeError: The other loop is running too, and has tasks that use the limiter.
        """
        loop = loops.current_loop()
        if loop is self._loop:
            return False
        if busy and not loops.is_over(self._loop):
            raise loops.two_loops_error(owner)
        self._loop, self._ask = loop, loops.asker_of(loop)
        self.name = uuid4().hex  # not before: a fork would have it too
        return True

    def call_there(self, fn: Callable[[], object]) -> None:
        """
        Call ``fn`` where tasks may be woken: here at once, or else soon, in their loop.

        From any thread. If their loop is over it is not called: `attach` will have all forgotten.
        """
        if self._loop is None or self._runs_here():
            fn()
        else:  # by the time that it is called there, the member may belong to another loop
            loops.call_in(self._loop, partial(self.call_there, fn))

    def _runs_here(self) -> bool:
        """Return whether the loop runs in this thread, also in a callback without any context."""
        try:
            return self._ask() is self._loop
        except RuntimeError:  # trio's answer where it does not run
            return False

    def is_here(self, name: str) -> bool:
        """
        Return whether the running loop is the one that gave this name.

        Not so for a task that is closed, by the garbage collector, after its loop has been: what it
        would tidy up may be in use by the next loop.
        """
        return name == self.name and loops.is_current(self._loop)
