"""
The arithmetic of a token bucket, without a word about waiting.

Promise: the bucket is known by one moment, when it would be full again if nobody took anything;
what it holds follows from the clock, so no refill is ever computed, late or twice.
Cost: two comparisons and one addition for a take.
Why a moment and not a counter: docs/en/design/rate-limiting.md.

A rate of 0 or infinity has no moment. Both are told by an interval of 0: at infinity the bucket is
full at any time, and at 0, where it never fills, what it holds is kept beside it as a number.
"""

from __future__ import annotations

import math
import sys
from typing import Final

from mtaio._internal import checks
from mtaio._internal.clock import now

__all__ = ["TICK", "Bucket"]

TICK: Final = 1e-9
"""Seconds. Sums of floats are less exact, and event loops fire their timers up to so much early."""

_LARGEST: Final = sys.float_info.max


class Bucket:
    """
    A bucket of ``burst`` tokens into which ``rate`` tokens flow every ``per`` seconds.

    Args:
        rate: Tokens per ``per`` seconds, 0 or more; ``inf`` for no limit.
        burst: The tokens that the full bucket holds, 1 or more; None for ``rate`` rounded down,
            or 1 if that is more.
        per: Seconds, more than 0.
    """

    # Invariants:
    # - _full_at is when the bucket, left alone, is full: in the past once it is full, -inf while
    #   the rate is infinite, inf while it is 0. Only a reconfiguration moves it back;
    # - _interval is the seconds for one token, 0 while the rate is infinite or 0;
    # - _most is the most tokens that can ever be taken at once;
    # - _reach is _most * _interval and a tick: full_at may lie so far in the future;
    # - _held is what the bucket holds while the rate is 0, and means nothing otherwise;
    # - _last is the latest moment the clock has shown.
    __slots__ = (
        "_burst",
        "_full_at",
        "_held",
        "_interval",
        "_last",
        "_most",
        "_per",
        "_rate",
        "_reach",
    )

    def __init__(self, rate: float, burst: float | None = None, *, per: float = 1.0) -> None:
        way_out = "Pass the seconds in which `rate` tokens become available."
        if not 0 < checks.number("per", per, way_out=way_out) <= _LARGEST:
            msg = f"per={per!r} is not a finite number greater than 0. {way_out}"
            raise ValueError(msg)
        self._per = per
        self._last = -math.inf
        self._shape(rate, burst)
        self._fill(math.inf, -math.inf)

    def _shape(self, rate: float, burst: float | None) -> None:
        """Take over a rate and a burst, or raise and leave everything as it was."""
        way_out = "Pass tokens >= 0, 0 to pause, or math.inf for no limit."
        checks.at_least("rate", rate, 0, way_out=way_out)
        interval = 0.0
        if 0 < rate <= _LARGEST:
            interval = self._per / rate
            if not 0 < interval <= _LARGEST:
                msg = f"rate={rate!r} every {self._per!r} s is beyond what can be timed. {way_out}"
                raise ValueError(msg)
        if burst is not None:
            way_out = "Pass the tokens that may be taken at once after a rest, at least 1."
            checks.at_least("burst", burst, 1, way_out=way_out)
            if burst > _LARGEST:
                msg = f"burst={burst!r} is no limit. {way_out} Pass rate=math.inf for no limit."
                raise ValueError(msg)
        elif rate <= _LARGEST:
            burst = max(1, math.floor(rate))
        self._rate = rate
        self._burst = burst  # None until a finite rate tells
        self._interval = interval
        self._most = _LARGEST if burst is None or rate > _LARGEST else burst
        self._reach = interval * self._most + TICK

    def _reshape(self, rate: float, burst: float | None) -> None:
        """Take over a rate and a burst, and keep the tokens as far as they fit."""
        moment = self._moment()
        held = self._tokens(moment)
        before = self._rate, self._most
        self._shape(rate, burst)
        if before != (self._rate, self._most):  # or else it would only round
            self._fill(held, moment)

    def _fill(self, tokens: float, moment: float) -> None:
        """Let the bucket hold ``tokens``, or as many as it can, at ``moment``."""
        held = min(tokens, self._most)
        self._held = held
        if self._interval:
            self._full_at = moment + (self._most - held) * self._interval
        else:
            self._full_at = math.inf if self._rate == 0 else -math.inf

    def _moment(self) -> float:
        """
        Return the current moment.

        A monotonic clock that goes back is another clock: a virtual one that starts at 0, or the
        real one after it. Taken at its word it would empty the bucket for as long as the old clock
        had run, so the bucket moves along, and holds what it held when it was last looked at.
        """
        moment = now()
        if moment < self._last:
            self._full_at -= self._last - moment
        self._last = moment
        return moment

    def _tokens(self, moment: float) -> float:
        """Return what the bucket holds at ``moment``; after a take a tick early, less than 0."""
        if self._interval:
            return self._most - max(0.0, self._full_at - moment) / self._interval
        return self._held if self._rate == 0 else math.inf

    def _due(self, tokens: float, moment: float) -> float:
        """
        Return when ``tokens`` more than were taken so far have flowed, ``moment`` or later.

        More than the bucket can hold at once are told too, for those who queue one after another.
        """
        if self._interval:
            after = max(self._full_at, moment) + (tokens - self._most) * self._interval
            return after if after - moment > TICK else moment
        return moment if self._rate or tokens <= self._held else math.inf

    def _take(self, tokens: float, since: float) -> None:
        """Take tokens that are due, as if at ``since``."""
        if self._rate == 0:
            self._held -= tokens
        else:
            self._full_at = max(self._full_at, since) + tokens * self._interval

    def _check(self, tokens: float) -> None:
        """Raise unless ``tokens`` could be granted at some time."""
        checks.at_least("tokens", tokens, 0, way_out="Pass how many tokens to take, 0 or more.")
        if tokens > self._most:
            msg = (
                f"cannot acquire {tokens!r} tokens: the bucket never holds more than "
                f"burst={self._most!r}. Raise burst, or acquire in smaller parts."
            )
            raise ValueError(msg)
