"""
One event for one task that waits for it.

Promise: it listens from the first step of the wait to its end, whichever way that ends; an event
that came is returned even if the timeout ran out in the same moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from mtaio._internal import loops
from mtaio.events._room import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.events._event import Event

__all__ = ["Waiter"]


class Waiter:
    """
    What `EventEmitter.wait_for` registers.

    Invariant: ``_turn`` is set when ``found`` or ``error`` is there, and not before.
    """

    __slots__ = ("_loop", "_predicate", "_turn", "error", "found")

    def __init__(self, predicate: Callable[[Event[Any]], object] | None) -> None:
        self.found: Event[Any] | None = None
        self.error: Exception | None = None
        self._predicate = predicate
        self._loop = loops.current_loop()
        self._turn = anyio.Event()

    def take(self, event: Event[Any]) -> object:
        """Look at an event (the emitter calls this)."""
        if self._turn.is_set():
            return IGNORED
        if not loops.is_current(self._loop):
            if loops.is_over(self._loop):
                return IGNORED
            msg = (
                f"a task of another event loop waits for {event.name!r}. One loop at a time may "
                f"use an emitter: emit there, with anyio.from_thread.run()."
            )
            raise RuntimeError(msg)
        try:
            if self._predicate is not None and not self._predicate(event):
                return IGNORED
        except Exception as error:  # noqa: BLE001 - raised where the task waits: it is its own
            self.error = error
            self._turn.set()
            return IGNORED
        self.found = event
        self._turn.set()
        return None

    async def wait(self, timeout: float | None) -> Event[Any] | None:
        """Wait for the event; None if it did not come in time."""
        with anyio.move_on_after(timeout):
            await self._turn.wait()
        if self.error is not None:
            raise self.error
        return self.found
