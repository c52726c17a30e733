"""
The arithmetic of a sliding window. It knows no waiters, and calls are given the time.

Promise: never more than ``limit`` tokens are granted in any ``per`` seconds: when the next one may
follow is when the one ``limit`` places before it is ``per`` seconds old.
Cost: 16 bytes for each moment at which tokens were granted, for the latest ``limit`` tokens, and at
most as much again and 1 KiB; how many tokens a request is for makes no difference.
Why there are two kinds of limits: docs/en/design/rate-limiting.md.

It has the interface of a `Bucket`, and takes its place in a limiter. To the fast paths of the
limiter it always looks empty, so that each call comes to `due` and `take`.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from typing import Final

from mtaio._internal import checks
from mtaio._internal.clock import REAL, Tells
from mtaio.resources._bucket import TICK

__all__ = ["Window"]

_WAY_OUT: Final = "Pass how many tokens may be granted in any `per` seconds, at least 1."

_MOST: Final = 2**60
"""Sums of tokens have to fit into 64 bits."""
_SPARE: Final = 64
"""So many entries may be out of date before they are looked for."""


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
    # - _grants are the moments of the latest grants, in the order of granting (so ascending, but
    #   for a timer that fired a tick early and was counted as in time), and how many tokens had
    #   been granted at the end of each; both begin with what is forgotten, as of -inf and 0;
    # - they hold the latest _kept tokens: those of the limit, and those younger than `per` of a
    #   larger limit that was lowered;
    # - both only grow, the sums first, until they are replaced: so another thread may look at them;
    # - _first is the entry of the token `most` places before the next: the first one whose sum is
    #   more than all but `most` tokens.
    __slots__ = (
        "_first",
        "_grants",
        "_kept",
        "_room",
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
        if limit > _MOST:
            msg = f"limit={limit!r} is not a limit. {_WAY_OUT}"
            raise ValueError(msg)
        way_out = "Pass the seconds in which no more than `limit` tokens are to be granted."
        if not 0 < checks.number("per", per, way_out=way_out) < math.inf:
            msg = f"per={per!r} is not a finite number greater than 0. {way_out}"
            raise ValueError(msg)
        self.rate: float = limit
        self.burst: float = limit
        self.most: int = limit
        self.per: float = per
        self.interval: float = 0.0
        self.full_at: float = math.inf
        self.reach: float = 0.0
        self.timed_by: Tells = REAL
        self._kept = limit
        self._grants: tuple[array[float], array[int]]
        self._hold(array("d", [-math.inf]), array("q", [0]))

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
            msg = f"burst={burst!r} does not apply to {self}, which has only a rate. Set the rate."
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
        new._kept = max(limit, self._within(moment))
        moments, sums = self._grants
        left = bisect_right(moments, moment - self.per + TICK)
        new._hold(moments[left - 1 :], sums[left - 1 :])
        return new

    def emptied(self, moment: float) -> Window:  # noqa: ARG002 - a bucket needs it
        """Return the window itself: what it has room for follows from what was granted."""
        return self

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        moments, sums = self._grants
        self._grants = array("d", [at + seconds for at in moments]), sums

    def _hold(self, moments: array[float], sums: array[int]) -> None:
        """Remember these grants but for the first, and no others."""
        gone = sums[0]
        moments[0] = -math.inf
        self._grants = moments, array("q", [each - gone for each in sums])
        self._room = 2 * len(moments) + _SPARE
        self._first = bisect_right(self._grants[1], sums[-1] - gone - self.most)

    def _within(self, moment: float) -> int:
        """Return how many tokens were granted less than ``per`` seconds ago; from any thread."""
        moments, sums = self._grants
        entries = len(moments)
        left = bisect_right(moments, moment - self.per + TICK, 0, entries)
        return sums[entries - 1] - sums[left - 1]

    def tokens(self, moment: float) -> float:
        """Return how many tokens may be granted at ``moment``."""
        return max(0, self.most - self._within(moment)) if self.rate else 0

    def idle_from(self, moment: float) -> float:  # noqa: ARG002 - a bucket needs it
        """Return when the window, left alone, is as good as new: also while it is paused."""
        return self._grants[0][-1] + self.per

    def due(self, tokens: float, moment: float) -> float:
        """
        Return when ``tokens`` may be granted, ``moment`` or later.

        More than the limit may be asked about, for requests one after another: then it is when
        they may be granted at the earliest, as requests of several tokens can come out later.
        """
        if not self.rate:
            return math.inf
        moments, sums = self._grants
        entry, windows = self._first, 0
        if tokens > 1:
            windows, place = divmod(int(tokens) - 1, self.most)
            entry = bisect_right(sums, sums[-1] - self.most + place, entry)
        after = max(moments[entry] + self.per, moment) + windows * self.per
        return after if after - moment > TICK else moment

    def take(self, tokens: float, since: float) -> None:
        """Take tokens that are due at ``since``."""
        moments, sums = self._grants
        if not tokens:
            return
        total = sums[-1] + int(tokens)
        if moments[-1] == since:
            sums[-1] = total
        else:
            sums.append(total)
            moments.append(since)
        before = total - self.most
        while sums[self._first] <= before:
            self._first += 1
        if len(sums) >= self._room or total > _MOST:
            gone = bisect_right(sums, max(total - self._kept, 0)) - 1
            self._hold(moments[gone:], sums[gone:])

    def correct(self, tokens: float, moment: float) -> None:
        """
        Count fewer tokens as granted at ``moment``: ``tokens`` of those that were, if they were.

        Fewer than 0 are counted as granted then, also if there is no room for them. What was
        granted later is numbered anew, so this takes as long as there were grants since.
        """
        moments, sums = self._grants
        place = bisect_right(moments, moment)
        known = place > 1 and moments[place - 1] == moment
        if not known:
            moments = moments[:place] + array("d", [moment]) + moments[place:]
            sums = sums[:place] + sums[place - 1 :]
            place += 1
        more = max(math.ceil(-tokens), sums[place - 2] - sums[place - 1])
        sums = sums[: place - 1] + array("q", [each + more for each in sums[place - 1 :]])
        self._kept = max(self._kept, sums[-1])
        self._hold(moments[:], sums)

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
