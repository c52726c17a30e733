"""
The queue in which tasks wait to be handed something, in the order in which they came.

Promise: joining, leaving from anywhere in the queue, and handing over cost the same however long
it is; those who wait in an event loop that is over are forgotten, and nobody is ever woken from
the wrong loop.
Cost: one event for each task that waits.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import get_ident

import anyio

from mtaio._internal.loops import LoopBound

__all__ = ["TurnQueue"]


class TurnQueue(OrderedDict[anyio.Event, None]):
    """
    Tasks that wait, each for an event of its own, which is set when its turn has come.

    Invariants:
    - an event is in the queue, or set, or its task has given up; never two of these;
    - all in the queue wait in the loop that is bound, which runs in the thread _thread.
    """

    __slots__ = ("_bound", "_thread")

    def __init__(self) -> None:
        super().__init__()
        self._bound = LoopBound()
        self._thread = 0

    def open_for(self, what: object) -> None:
        """
        Make ready for a task of the running loop that is about to wait.

        Args:
            what: The object that the queue belongs to, for the message.

        Raises:
            RuntimeError: Tasks of another loop, which is still alive, wait here.
        """
        if self._bound.bind(what, waiting=bool(self)):
            self.clear()

    def reach(self, what: object) -> None:
        """
        Make sure that those who wait can be woken from here.

        Args:
            what: The object that the queue belongs to, for the message.

        Raises:
            RuntimeError: They wait in another loop, which is still alive.
        """
        if not self:
            return
        try:
            self.open_for(what)
        except anyio.NoEventLoopError:
            # No task runs here: this is another thread, a callback of the loop itself (which may
            # wake its tasks), or a coroutine that is thrown away after its loop.
            if self._bound.is_over():
                self.clear()
            elif get_ident() != self._thread:
                raise

    def join(self) -> anyio.Event:
        """Return the event of a newcomer, who waits behind all others."""
        self._thread = get_ident()
        turn = anyio.Event()
        self[turn] = None
        return turn

    def leave(self, turn: anyio.Event) -> None:
        """Take out somebody who gave up, if the queue has not forgotten him."""
        self.pop(turn, None)

    def call_first(self) -> None:
        """Wake whoever came first."""
        turn, _ = self.popitem(last=False)
        turn.set()
