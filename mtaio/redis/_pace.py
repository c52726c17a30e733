"""
When a process calls the server that lends it slots.

Promise: as soon as something has changed, unless the last call failed; three times in each lease
while slots are held; and while tasks wait once a second, more often if no message would wake them.
"""

from __future__ import annotations

import math
from typing import Final

from mtaio._internal import clock
from mtaio.redis._backoff import Backoff
from mtaio.redis._slots import PROMISE, Answer
from mtaio.redis._wakeup import Wakeup

__all__ = ["Pace"]

_BEAT: Final = 1 / 3
"""The part of the lease after which it is renewed."""

_LOOK: Final = 1.0
"""Seconds after which a process that waits calls again, although it was sent no message."""

_DEAF: Final = (0.02, 0.32)
"""The same while it hears no messages: at first, and at most."""

_RETRY: Final = (0.05, 1.0)
"""Seconds after a call that failed: at first, and at most."""

_ROUNDING: Final = 0.001
"""Seconds added to a time at which something ends at the server."""


class Pace:
    """
    When to call next.

    Args:
        lease: Seconds for which slots are lent.

    Attributes:
        changed: Whether the server has to be told of a change.
        wakeup: Where the task that makes the calls sleeps until one is due.
    """

    __slots__ = (
        "_deaf",
        "_due",
        "_hears",
        "_kept_until",
        "_lease",
        "_not_before",
        "_retry",
        "changed",
        "wakeup",
    )

    def __init__(self, lease: float) -> None:
        self.changed = False
        self._lease = lease
        self.wakeup = Wakeup()
        self._due: float = math.inf
        self._not_before: float = -math.inf
        self._kept_until: float = -math.inf
        self._retry = Backoff(*_RETRY)
        self._hears = False
        self._deaf = Backoff(*_DEAF)

    def change(self) -> None:
        """Have the server told of a change."""
        self.changed = True
        self.wakeup.wake()

    def hurry(self) -> None:
        """Have it told at once, even if the last call failed just now."""
        self._not_before = -math.inf

    def due(self) -> float:
        """Return when to call."""
        return self._not_before if self.changed else self._due

    def hear(self, *, hears: bool) -> None:
        """Note whether messages of the server are heard from here on."""
        self._hears = hears
        self._deaf.reset()

    def answered(self, sent: float, answer: Answer, *, holds: bool, waits: bool) -> None:
        """
        Plan the next call after one that was answered.

        Args:
            sent: When the call was made.
            answer: What the server said.
            holds: Whether this process holds slots.
            waits: Whether tasks of it wait.
        """
        self._retry.reset()
        self._not_before = -math.inf
        now = clock.now()
        due = math.inf
        if holds:
            due = sent + self._lease * _BEAT
        if answer.ask_again:
            due = min(due, now + answer.ask_again / 1e6 + _ROUNDING)
        if answer.kept:
            self._kept_until = now + PROMISE + _ROUNDING
        if self._kept_until > now:
            due = min(due, self._kept_until)
        if waits:
            due = min(due, sent + min(self._lease * _BEAT, _LOOK))
            if not self._hears:
                due = min(due, sent + self._deaf.next())
        self._due = due

    def failed(self) -> None:
        """Plan the next call after one that failed."""
        self.changed = True
        self._not_before = clock.now() + min(self._retry.next(), self._lease / 20)
