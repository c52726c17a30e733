"""
A place in the line of a full stream.

Promise: events get in in the order in which they came; one whose emit was cancelled before that
leaves no trace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio

if TYPE_CHECKING:
    from collections import OrderedDict

    from mtaio.events._event import Event

__all__ = ["IGNORED", "Room"]

IGNORED: Final = object()
"""What a stream or waiter returns for an event that it did not take, and has dealt with."""


class Room:
    """
    An event that waits for room in a stream. Falls out of a plain call; `wait` is its other half.

    Invariant: it is in the line, or was ``taken``, or the stream was closed, or it has withdrawn.
    """

    __slots__ = ("_line", "_turn", "event", "taken")

    def __init__(self, line: OrderedDict[Room, None], event: Event[Any]) -> None:
        self.event: Event[Any] = event
        self.taken: bool = False
        self._line = line
        self._turn: anyio.Event | None = None
        line[self] = None

    def leave(self, *, taken: bool) -> None:
        """Note that the stream took the event, or never will (the stream calls this)."""
        del self._line[self]
        self.taken = taken
        if self._turn is not None:
            self._turn.set()

    async def wait(self) -> None:
        """Wait until it has left the line. A checkpoint unless it has."""
        if self in self._line:
            self._turn = anyio.Event()
            await self._turn.wait()

    def withdraw(self) -> None:
        """Leave the line, if it still stands there."""
        self._line.pop(self, None)
