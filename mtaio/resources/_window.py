"""
The arithmetic of a sliding window. It knows no waiters, and calls are given the time.

Promise: never more than ``limit`` tokens are granted in any ``per`` seconds: when the next one may
follow is when the one ``limit`` places before it is ``per`` seconds old.
Cost: a float for each token granted, ``limit`` of them at most.
Why there are two kinds of limits: docs/en/design/rate-limiting.md.

It has the interface of a `Bucket`, and takes its place in a limiter. To the fast paths of the
limiter it always looks empty, so that each call comes to `due` and `take`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from itertools import repeat
from typing import Final

from mtaio._internal import checks
from mtaio._internal.clock import REAL, Tells
from mtaio.resources._bucket import TICK

__all__ = ["Window"]

_WAY_OUT: Final = "Pass how many tokens may be granted in any `per` seconds, at least 1."


class Window:
    """
    At most ``limit`` tokens in any ``per`` seconds.

    A grant leaves the window when it is ``per`` seconds old, so that the next may follow in that
    moment.

    Args:
        limit: Tokens, 1 or more.
        per: Seconds, more than 0.

    Attributes:
        rate: The limit; 0 while paused.
        burst: The limit.
        most: The limit, for a request cannot be larger.
        per: As given.
        size: What to call the limit in messages.
        interval, full_at, reach: Those of a bucket that never holds a token.
        timed_by: The clock of the grants.
    """

    # Invariants:
    # - _grants holds the moments of the latest grants, one for each token, in the order of granting
    #   (so ascending, but for a timer that fired a tick early and was counted as in time);
    # - it holds at least those that are younger than `per`, also of a larger limit that was
    #   lowered, and never shrinks: so another thread may look at it.
    __slots__ = (
        "_grants",
        "burst",
        "full_at",
        "interval",
        "most",
        "per",
        "rate",
        "reach",
        "timed_by",
    )

    size: Final = "limit"

    def __init__(self, limit: int, per: float) -> None:
        checks.count("limit", limit, way_out=_WAY_OUT)
        way_out = "Pass the seconds in which no more than `limit` tokens are to be granted."
        if not 0 < checks.number("per", per, way_out=way_out) < math.inf:
            msg = f"per={per!r} is not a finite number greater than 0. {way_out}"
            raise ValueError(msg)
        self.rate: float = limit
        self.burst: float | None = limit
        self.most: int = limit
        self.per: float = per
        self.interval: float = 0.0
        self.full_at: float = math.inf
        self.reach: float = 0.0
        self.timed_by: Tells = REAL
        self._grants: deque[float] = deque(maxlen=limit)

    def __str__(self) -> str:
        paused = "" if self.rate else " paused"
        return f"window {self.most!r}/{self.per!r} s{paused}"

    def copy(self) -> Window:
        """Return a window with the same limit in which nothing was granted."""
        copy = Window(self.most, self.per)
        copy.rate = self.rate
        copy.timed_by = self.timed_by
        return copy

    def reshaped(self, rate: float | None, burst: float | None, moment: float) -> Window:
        """
        Return a window with another limit in which the same was granted.

        None leaves the limit as it is; 0 pauses, even if tokens are left.
        """
        if burst is not None:
            msg = f"burst={burst!r} means nothing to {self}, whose limit is its rate. Set the rate."
            raise ValueError(msg)
        limit = self.most
        if rate is None:
            rate = self.rate
        else:
            checks.count("rate", rate, least=0, way_out=f"{_WAY_OUT} 0 pauses.")
            limit = int(rate) or limit
        new = Window(limit, self.per)
        new.rate = rate
        new.timed_by = self.timed_by
        within = self._within(moment)
        recent = list(self._grants)[-within:] if within else []
        new._grants = deque(recent, maxlen=max(limit, within))
        return new

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        self._grants = deque([at + seconds for at in self._grants], maxlen=self._grants.maxlen)

    def _within(self, moment: float) -> int:
        """Return how many grants are younger than ``per``."""
        grants = self._grants
        return len(grants) - bisect_right(grants, moment - self.per + TICK)

    def tokens(self, moment: float) -> float:
        """Return how many tokens may be granted at ``moment``."""
        return max(0, self.most - self._within(moment)) if self.rate else 0

    def due(self, tokens: float, moment: float) -> float:
        """
        Return when ``tokens`` may be granted, ``moment`` or later.

        More than the limit may be asked about, for requests one after another: then it is when
        they may be granted at the earliest, as requests of several tokens can come out later.
        """
        if not self.rate:
            return math.inf
        grants = self._grants
        windows, place = divmod(tokens - 1, self.most) if tokens > 1 else (0, 0)
        before = len(grants) - self.most + int(place)
        after = moment
        if before >= 0:
            after = max(grants[before] + self.per, moment)
        after += windows * self.per
        return after if after - moment > TICK else moment

    def take(self, tokens: float, since: float) -> None:
        """Take tokens that are due at ``since``."""
        self._grants.extend(repeat(since, int(tokens)))

    def check(self, tokens: float) -> None:
        """Raise unless ``tokens`` could be granted at some time."""
        checks.at_least("tokens", tokens, 0, way_out="Pass how many tokens to take, 0 or more.")
        if tokens > self.most:
            msg = (
                f"cannot acquire {tokens!r} tokens: the window never has room for more than "
                f"limit={self.most!r}. Raise the limit, or acquire in smaller parts."
            )
            raise ValueError(msg)
        if tokens % 1:
            msg = (
                f"cannot acquire {tokens!r} tokens: a window counts whole ones. Pass a whole "
                f"number, or use a RateLimiter with a burst, whose tokens can be divided."
            )
            raise ValueError(msg)
