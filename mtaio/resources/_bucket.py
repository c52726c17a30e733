"""
The arithmetic of a token bucket. It knows no waiters, and calls are given the time.

Promise: the state is one moment, when the bucket would be full again if nothing more was taken;
what it holds follows from the current moment, so no refill is ever computed, late or twice.
Cost: two comparisons and one addition for a take.
Why a moment and not a counter: docs/en/design/rate-limiting.md.

A rate of 0 or infinity has no such moment. Both have an interval of 0: at infinity the bucket is
always full, and at 0, where it never fills, what it holds is kept as a number.
"""

from __future__ import annotations

import math
import sys
from typing import Final

from mtaio._internal import checks
from mtaio._internal.clock import REAL, Tells

__all__ = ["TICK", "Bucket"]

TICK: Final = 1e-9
"""Seconds. Sums of floats are less exact, and event loops fire their timers up to so much early."""

_LARGEST: Final = sys.float_info.max


class Bucket:
    """
    A full bucket of ``burst`` tokens into which ``rate`` tokens flow every ``per`` seconds.

    Args:
        rate: Tokens per ``per`` seconds, 0 or more; ``inf`` for no limit.
        burst: The tokens that the full bucket holds, 1 or more.
        per: Seconds, more than 0.

    Attributes:
        interval: The seconds for one token, 0 while the rate is infinite or 0.
        most: The most tokens that can ever be taken at once.
        size: What to call ``burst`` in messages.
        reach: Seconds by which ``full_at`` may lie in the future: ``most * interval`` and a tick.
        full_at: When the bucket, left alone, is full: in the past once it is full, ``inf`` while
            the rate is 0, meaningless while it is infinite.
        timed_by: The clock of ``full_at``.
    """

    # Invariants:
    # - full_at moves back in `move` alone, for another clock;
    # - _held is what the bucket holds while the rate is 0, and means nothing otherwise.
    __slots__ = (
        "_held",
        "burst",
        "full_at",
        "interval",
        "most",
        "per",
        "rate",
        "reach",
        "timed_by",
    )

    size: Final = "burst"

    def __init__(self, rate: float, burst: float, *, per: float = 1.0) -> None:
        way_out = "Pass the seconds in which `rate` tokens become available."
        if not 0 < checks.number("per", per, way_out=way_out) <= _LARGEST:
            msg = f"per={per!r} is not a finite number greater than 0. {way_out}"
            raise ValueError(msg)
        way_out = "Pass tokens >= 0, 0 to pause, or math.inf for no limit."
        checks.at_least("rate", rate, 0, way_out=way_out)
        interval = 0.0
        if 0 < rate <= _LARGEST:
            interval = per / rate
            if not 0 < interval <= _LARGEST:
                msg = f"rate={rate!r} every {per!r} s is beyond what can be timed. {way_out}"
                raise ValueError(msg)
        way_out = "Pass the tokens that may be taken at once after a rest, at least 1."
        checks.at_least("burst", burst, 1, way_out=way_out)
        if burst > _LARGEST:
            msg = f"burst={burst!r} is not a limit. {way_out} Pass rate=math.inf for no limit."
            raise ValueError(msg)
        self.rate: float = rate
        self.burst: float = burst
        self.per: float = per
        self.interval: float = interval
        self.most: float = _LARGEST if rate > _LARGEST else burst
        self.reach: float = interval * self.most + TICK
        self.timed_by: Tells = REAL
        self._fill(self.most, -math.inf)

    def __str__(self) -> str:
        per = "s" if self.per == 1 else f"{self.per!r} s"
        return f"{self.rate!r}/{per} burst={self.burst!r}"

    def copy(self) -> Bucket:
        """Return a full bucket with the same limits."""
        copy = Bucket.__new__(Bucket)  # the limits have been checked
        copy.rate = self.rate
        copy.burst = self.burst
        copy.per = self.per
        copy.interval = self.interval
        copy.most = self.most
        copy.reach = self.reach
        copy.timed_by = self.timed_by
        copy._fill(self.most, -math.inf)  # noqa: SLF001 - its own class
        return copy

    def reshaped(self, rate: float | None, burst: float | None, moment: float) -> Bucket:
        """
        Return a bucket with other limits that holds at ``moment`` what this one does, if it fits.

        None leaves a limit as it is.
        """
        new = Bucket(
            self.rate if rate is None else rate,
            self.burst if burst is None else burst,
            per=self.per,
        )
        if (new.rate, new.most) == (self.rate, self.most):
            return self  # another filling would only round
        new.timed_by = self.timed_by
        new._fill(min(self.tokens(moment), new.most), moment)
        return new

    def emptied(self, moment: float) -> Bucket:
        """Return a bucket with the same limits that holds nothing at ``moment``; a debt stays."""
        empty = self.copy()
        if self.rate <= _LARGEST:
            empty._fill(min(0.0, self.tokens(moment)), moment)  # noqa: SLF001 - its own class
        return empty

    def _fill(self, tokens: float, moment: float) -> None:
        """Let the bucket hold ``tokens`` at ``moment``."""
        self._held = tokens
        if self.interval:
            self.full_at = moment + (self.most - tokens) * self.interval
        else:
            self.full_at = math.inf if self.rate == 0 else -math.inf

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        self.full_at += seconds

    def tokens(self, moment: float) -> float:
        """Return what it holds at ``moment``; less than 0 is a debt, or a tick too early."""
        if self.interval:
            return self.most - max(0.0, self.full_at - moment) / self.interval
        return self._held if self.rate == 0 else math.inf

    def idle_from(self, moment: float) -> float:
        """Return when the bucket, left alone, is as good as new; seen from ``moment``, now."""
        if self.rate == 0:
            return math.inf if self.tokens(moment) < self.most else -math.inf
        return self.full_at

    def due(self, tokens: float, moment: float) -> float:
        """
        Return when ``tokens`` will be there, ``moment`` or later.

        More than the bucket can hold at once may be asked about, for requests one after another.
        """
        if self.interval:
            after = max(self.full_at, moment) + (tokens - self.most) * self.interval
            return after if after - moment > TICK else moment
        return moment if self.rate or tokens <= self._held else math.inf

    def take(self, tokens: float, since: float) -> None:
        """Take tokens that are due, as if at ``since``."""
        if self.rate == 0:
            self._held -= tokens
        else:
            self.full_at = max(self.full_at, since) + tokens * self.interval

    def correct(self, tokens: float, moment: float) -> None:
        """
        Put ``tokens`` in, at most until the bucket is full.

        Fewer than 0 are taken out, also if they are not there: then the bucket is in debt, and
        nothing is due until that has flowed in.
        """
        if self.rate == 0:
            self._held = min(self.most, self._held + tokens)
        elif self.interval:
            self.full_at = max(self.full_at, moment) - tokens * self.interval

    def check(self, tokens: float) -> None:
        """Raise unless ``tokens`` could be granted at some time."""
        checks.at_least("tokens", tokens, 0, way_out="Pass how many tokens to take, 0 or more.")
        if tokens > self.most:
            msg = (
                f"cannot acquire {tokens!r} tokens: the bucket never holds more than "
                f"burst={self.most!r}. Raise burst, or acquire in smaller parts."
            )
            raise ValueError(msg)
