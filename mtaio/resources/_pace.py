"""
How much a server allows in truth, learnt from its refusals.

When a server refuses, one of its limits has just been used up. So what it granted between two
refusals is what it allowed in that time, whatever it says. A client that goes by what it says would
be refused again and again, at every second request if the server allows half of that.

Promise: the pace is never more than 1, is lowered to what was measured and at most by half at a
time, and rises by a twentieth in each period without a refusal, so that it finds its way back. It
is left alone where tasks hardly waited: then what was granted is what was wanted. It is for limits
of one period, the shortest of a quota: a burst says nothing about a limit for a day.
Cost: one comparison for each grant; a few numbers.

Source: additive increase and multiplicative decrease, after Chiu and Jain, "Analysis of the
Increase and Decrease Algorithms for Congestion Avoidance in Computer Networks", 1989; but the
decrease is measured here, and not a fixed factor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["Pace", "Sums"]

_ENOUGH: Final = 10
"""Grants between two refusals; fewer say little about the time between them."""

_LONG: Final = 0.25
"""The share of a period that a server asks to wait if it counts in windows, not in a bucket."""

_LEAST: Final = 1 / 16
_STEP: Final = 1 / 20
_RISE: Final = 60.0
"""The most seconds from one step to the next."""
_BUSY: Final = 0.25
"""The share of the time for which some task has to have waited."""


class Sums(NamedTuple):
    """What a quota has counted until a moment."""

    moment: float
    granted: int
    """Requests granted."""
    refused: int
    """Requests that the server has refused."""
    waited: float
    """Seconds that tasks have waited for the quota."""
    used: Sequence[float]
    """What was used of each limit."""


class Pace:
    """
    The share of what the server says that it allows.

    Args:
        per: The period of the limits, in seconds.

    Attributes:
        share: The share, from 1/16 to 1.
        rises_at: When it rises, if the server does not refuse until then; ``inf`` while it is 1.
    """

    # Invariants:
    # - _since are the sums at the last refusal from which it was measured, or could be;
    # - _ended are the sums with which the last window of the server began and ended, if it has
    #   any; after the first of its refusals the second still grow, by those of what was under way.
    __slots__ = ("_ended", "_since", "per", "rises_at", "share")

    def __init__(self, per: float) -> None:
        self.per: float = per
        self._since: Sums | None = None
        self._ended: tuple[Sums | None, Sums | None] = (None, None)
        self.share: float = 1.0
        self.rises_at: float = math.inf

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        self.rises_at += seconds
        self._since, *ended = [
            sums and sums._replace(moment=sums.moment + seconds)
            for sums in (self._since, *self._ended)
        ]
        self._ended = ended[0], ended[1]

    def refused(self, now: Sums, limits: Sequence[float], seconds: float) -> None:
        """
        Learn from a refusal.

        Args:
            now: What was counted until now.
            limits: What the server says that it allows of each limit in a second.
            seconds: How long it asks to wait. If that is long, it counts in windows: it may grant
                all of one in an instant, and then nothing. So what counts is the whole of it.
        """
        if seconds >= _LONG * self.per:
            self._since = None
            begun = self._window(now)
            if begun is not None:  # of the first one it is not known when it began
                self._learn(begun, now, limits, self.per)
            return
        before = self._since
        # Several requests that were under way are refused one after another: that is one refusal.
        if before is None or now.granted == before.granted:
            self._since = now
        elif now.granted - before.granted >= _ENOUGH:
            self._since = now
            self._learn(before, now, limits, now.moment - before.moment)

    def _window(self, now: Sums) -> Sums | None:
        """Return the sums with which the window began that is used up now: where the last ended."""
        begun, ended = self._ended
        if ended is None or now.granted != ended.granted:
            begun = ended
        self._ended = begun, now
        return begun

    def _learn(self, before: Sums, now: Sums, limits: Sequence[float], seconds: float) -> None:
        """Go by what was granted between two moments, which is what is allowed in so long."""
        granted = now.granted - before.granted
        waited = now.waited - before.waited
        if granted < _ENOUGH or seconds <= 0 or waited < _BUSY * (now.moment - before.moment):
            return
        # What was refused was not used, and of each limit that is the same share of what was taken.
        served = max(0.0, 1 - (now.refused - before.refused) / granted)
        allowed = max(
            (after - first) * served / seconds / limit
            for after, first, limit in zip(now.used, before.used, limits, strict=True)
        )
        self.share = min(self.share, max(allowed, self.share / 2, _LEAST))
        self.rises_at = now.moment + min(self.per, _RISE) if self.share < 1 else math.inf

    def rise(self, moment: float) -> None:
        """Try a little more, since the server has not refused for a while."""
        self.share = min(1.0, self.share + _STEP)
        self.rises_at = moment + min(self.per, _RISE) if self.share < 1 else math.inf
