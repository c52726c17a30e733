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

    # Invariant: _since are the sums at the last refusal from which it was measured, or could be.
    __slots__ = ("_since", "per", "rises_at", "share")

    def __init__(self, per: float) -> None:
        self.per: float = per
        self._since: Sums | None = None
        self.share: float = 1.0
        self.rises_at: float = math.inf

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        self.rises_at += seconds
        if self._since is not None:
            self._since = self._since._replace(moment=self._since.moment + seconds)

    def refused(self, now: Sums, limits: Sequence[float], seconds: float) -> None:
        """
        Learn from a refusal.

        Args:
            now: What was counted until now.
            limits: What the server says that it allows of each limit in a second.
            seconds: How long it asks to wait. If that is long, it counts in windows: all of one may
                have been granted in an instant, and then nothing. That says nothing of the rate.
        """
        if seconds >= _LONG * self.per:
            self._since = None
            return
        before = self._since
        # Several requests that were under way are refused one after another: that is one refusal.
        if before is None or now.granted == before.granted:
            self._since = now
            return
        granted = now.granted - before.granted
        if granted < _ENOUGH:
            return
        self._since = now
        span = now.moment - before.moment
        if span <= 0 or now.waited - before.waited < _BUSY * span:
            return
        # What was refused was not used, and of each limit that is the same share of what was taken.
        served = max(0.0, 1 - (now.refused - before.refused) / granted)
        allowed = max(
            (after - first) * served / span / limit
            for after, first, limit in zip(now.used, before.used, limits, strict=True)
        )
        self.share = min(self.share, max(allowed, self.share / 2, _LEAST))
        self.rises_at = now.moment + min(self.per, _RISE) if self.share < 1 else math.inf

    def rise(self, moment: float) -> None:
        """Try a little more, since the server has not refused for a while."""
        self.share = min(1.0, self.share + _STEP)
        self.rises_at = moment + min(self.per, _RISE) if self.share < 1 else math.inf
