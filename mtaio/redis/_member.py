"""
This process, as the server knows it.

Promise: it has another name in each event loop, and so in each fork of a process too.
"""

from __future__ import annotations

from uuid import uuid4

from mtaio._internal import loops

__all__ = ["Member"]


class Member:
    """
    One of the processes that share a limit.

    Attributes:
        name: What the server calls it; empty before `attach`.
    """

    __slots__ = ("_loop", "name")

    def __init__(self) -> None:
        self.name = ""
        self._loop: object = None

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
        self._loop = loop
        self.name = uuid4().hex  # not before: a fork would have it too
        return True

    def is_here(self, name: str) -> bool:
        """
        Return whether the running loop is the one that gave this name.

        Not so for a task that is closed, by the garbage collector, after its loop has been: what it
        would tidy up may be in use by the next loop.
        """
        return name == self.name and loops.is_current(self._loop)
