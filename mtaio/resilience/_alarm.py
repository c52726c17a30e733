"""
One timer for all deadlines of one event loop, few of which are ever reached.

Promise: each entry is called when its moment has come, unless it was discarded before.
Cost: an entry in an ordered dict. A timer is set for the first of them only, and stays when that
one is discarded; when it fires, it is set for the next that is left. So there are as many timers as
fit into the waits one after another, not one for each call.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

from mtaio._internal import clock, loops

__all__ = ["Alarm", "Overdue"]

_TICK: Final = 1e-6
"""Seconds by which a timer may be early: two clocks need not agree to the last digit."""


class Overdue(Protocol):
    """An entry that can wait for its moment."""

    def overdue(self) -> None:
        """Act on the moment; called in a callback of the event loop."""
        ...


class Alarm:
    """
    The timer of one event loop, the one that runs here.

    Attributes:
        loop: The event loop.
        waiting: What waits, with its moment.
    """

    # Invariants:
    # - the moments in `waiting` are in order: each is at least that of the one before it;
    # - while anything waits, _is_set.
    __slots__ = ("_ask", "_is_set", "_latest", "loop", "waiting")

    def __init__(self) -> None:
        self.loop: object = loops.current_loop()
        self.waiting: OrderedDict[Overdue, float] = OrderedDict()
        self._ask = loops.asker_of(self.loop)
        self._latest = 0.0
        self._is_set = False

    def is_here(self) -> bool:
        """Return whether its event loop is the one that runs here."""
        try:
            return self._ask() is self.loop
        except RuntimeError:  # it is trio's, and another backend's runs
            return False

    def add(self, entry: Overdue, moment: float) -> None:
        """Call ``entry`` at ``moment``, by `clock.now`, or later, after those before it."""
        if self.waiting:
            moment = max(moment, self._latest)
        self._latest = self.waiting[entry] = moment
        if not self._is_set:
            self._set(moment)

    def discard(self, entry: Overdue) -> None:
        """Do not call ``entry``, if it waits."""
        self.waiting.pop(entry, None)

    def _set(self, moment: float) -> None:
        self._is_set = True
        loops.call_at(self.loop, clock.loop_deadline(moment), self._ring)

    def _ring(self) -> None:
        self._is_set = False
        now = clock.now() + _TICK
        while self.waiting:
            entry, moment = next(iter(self.waiting.items()))
            if moment > now:
                self._set(moment)
                return
            del self.waiting[entry]
            entry.overdue()
