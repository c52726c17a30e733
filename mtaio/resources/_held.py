"""
The arithmetic of a hold: for some time nothing is granted, then a bucket or window goes on.

Promise: nothing is due before the hold ends; what flows into a bucket meanwhile is there then.
Cost: none while nothing is held: this takes the place of the bucket in a limiter, and the bucket
comes back with the first slow call after the hold.

To the fast paths of the limiter it always looks empty, as a window does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from mtaio._internal import clock
from mtaio.resources._bucket import TICK

if TYPE_CHECKING:
    from mtaio.resources._bucket import Bucket
    from mtaio.resources._window import Window

__all__ = ["Held"]


class Held:
    """
    A bucket or window from which nothing is granted until a moment.

    Args:
        inner: The bucket or window.
        until: The moment, by the clock of ``inner``.

    Attributes:
        rate, burst, most, per, size: Those of ``inner``.
        interval, full_at, reach: Those of a bucket that never holds a token.
        timed_by: The clock of ``until``.
    """

    __slots__ = (
        "burst",
        "full_at",
        "inner",
        "interval",
        "most",
        "per",
        "rate",
        "size",
        "timed_by",
        "until",
    )

    reach: Final = 0.0

    def __init__(self, inner: Bucket | Window, until: float) -> None:
        self.inner: Bucket | Window = inner
        self.until: float = until
        self.rate: float = inner.rate
        self.burst: float = inner.burst
        self.most: float = inner.most
        self.per: float = inner.per
        self.size: str = inner.size
        self.interval: float = 0.0
        self.full_at: float = math.inf
        self.timed_by: clock.Tells = inner.timed_by

    def __str__(self) -> str:
        return f"{self.inner} held"

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        self.until += seconds
        clock.catch_up(self.inner)  # which may have gone over already

    def seconds(self, moment: float) -> float:
        """Return for how long after ``moment`` nothing is granted; 0 when the hold is over."""
        left = self.until - moment
        return left if left > TICK else 0.0

    def copy(self) -> Bucket | Window:
        """Return what is as good as new, without the hold."""
        return self.inner.copy()

    def emptied(self, moment: float) -> Bucket | Window:
        """Return what is in here without its tokens: see `Bucket.emptied`."""
        return self.inner.emptied(moment)

    def reshaped(self, rate: float | None, burst: float | None, moment: float) -> Held:
        """Return a hold of the same length with other limits in it."""
        return Held(self.inner.reshaped(rate, burst, moment), self.until)

    def tokens(self, moment: float) -> float:
        """Return what can be taken at ``moment``."""
        tokens = self.inner.tokens(moment)
        return min(0.0, tokens) if self.seconds(moment) else tokens

    def idle_from(self, moment: float) -> float:
        """Return when it is as good as new: see `Bucket.idle_from`."""
        return max(self.inner.idle_from(moment), self.until)

    def due(self, tokens: float, moment: float) -> float:
        """Return when ``tokens`` will be there, ``moment`` or later."""
        return self.inner.due(tokens, self.until if self.seconds(moment) else moment)

    def take(self, tokens: float, since: float) -> None:
        """Take tokens that are due, as if at ``since``, but not before the hold ended."""
        self.inner.take(tokens, max(since, self.until))

    def check(self, tokens: float) -> None:
        """Raise unless ``tokens`` could be granted at some time."""
        self.inner.check(tokens)
