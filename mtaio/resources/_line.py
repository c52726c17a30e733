"""
The tasks that wait for a rate limiter, first come, first served.

Promise: joining, leaving from anywhere and finding the head cost the same however long the line
is, and nobody in it but the head needs a timer: the head watches the others' deadlines too.
Cost: an entry in a linked dict and an event for each waiter; one in a heap for each deadline.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from mtaio._internal.loops import LoopBound

if TYPE_CHECKING:
    import anyio

__all__ = ["Line", "Waiter"]

_STALE: Final = 64
"""Deadlines of waiters that have left, beyond which the heap is made anew."""


class Waiter:
    """
    One task in the line.

    Args:
        line: The line it stands in until it is served or gives up.
        tokens: How many it asks for.
        joined: When it asked.
        timeout: The most seconds it waits, None for ever.
    """

    # Invariant: the task acts on what it finds (is it the head, has it expired?), never on having
    # been woken, so that a bell too many does no harm and one unheard loses nothing.
    __slots__ = ("bell", "deadline", "expired", "joined", "line", "timeout", "tokens")

    def __init__(self, line: Line, tokens: float, joined: float, timeout: float | None) -> None:
        self.line = line
        self.tokens = tokens
        self.joined = joined
        self.timeout = timeout
        self.deadline = math.inf if timeout is None else joined + timeout
        self.expired = False
        self.bell: anyio.Event | None = None

    def ring(self) -> None:
        """Let the task look again; one that does not sleep yet will do so anyway."""
        if self.bell is not None:
            self.bell.set()


class Line(OrderedDict[Waiter, None]):
    """A line of waiters, those of one event loop at a time."""

    # Invariants:
    # - tokens is the sum of what the waiters ask for;
    # - every waiter with a deadline is in _deadlines, beside not many more that have left;
    # - whoever becomes the head has been rung.
    __slots__ = ("_deadlines", "_ordinal", "loop", "tokens")

    def __init__(self) -> None:
        super().__init__()
        self.loop = LoopBound()
        self.drop()

    def drop(self) -> None:
        """Forget every waiter, without a word to them: their event loop is over."""
        self.clear()
        self.tokens: float = 0
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._ordinal = 0

    def head(self) -> Waiter | None:
        """Return the waiter whose turn it is."""
        return next(iter(self), None)

    def join(self, waiter: Waiter) -> None:
        """Take a waiter in, behind all others."""
        self[waiter] = None
        self.tokens += waiter.tokens
        if waiter.deadline < math.inf:
            if len(self._deadlines) > 2 * len(self) + _STALE:
                self._deadlines = [entry for entry in self._deadlines if entry[2] in self]
                heapq.heapify(self._deadlines)
            self._ordinal += 1
            heapq.heappush(self._deadlines, (waiter.deadline, self._ordinal, waiter))

    def leave(self, waiter: Waiter) -> None:
        """Let a waiter go, and ring for the head if that is now another."""
        was_head = self.head() is waiter
        del self[waiter]
        self.tokens -= waiter.tokens
        if not self:
            self.tokens = 0  # what rounding left there
        elif was_head:
            self.rouse_head()

    def first_deadline(self) -> float:
        """Return the earliest deadline of those in the line who have not expired."""
        while self._deadlines:
            deadline, _, waiter = self._deadlines[0]
            if waiter in self and not waiter.expired:
                return deadline
            heapq.heappop(self._deadlines)
        return math.inf

    def expire(self, moment: float) -> None:
        """Mark those whose deadline has come, and ring for them."""
        while self.first_deadline() <= moment:
            waiter = self._deadlines[0][2]
            waiter.expired = True
            waiter.ring()

    def rouse_head(self) -> None:
        """Ring for the head of a line that is not empty."""
        next(iter(self)).ring()

    def rouse_beyond(self, most: float) -> None:
        """Ring for those who ask for more than they can ever get."""
        for waiter in self:
            if waiter.tokens > most:
                waiter.ring()
