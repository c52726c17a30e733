"""
How many calls a service can take at once, estimated from how long calls take.

Promise: a pure function of the samples it is given. It reads no clock, knows no event loop and
draws no random numbers, so that a run can be repeated exactly. Where traffic uses less than half of
the limit, the limit stands still.
Cost: a few additions for each sample; some arithmetic once in a window, at most twice a second.

The limit follows a gradient: it is scaled by how far latency is above ``TOLERANCE`` times the
baseline, the latency without a queue. That keeps a queue short for as long as the baseline is
right, and everything else here is about keeping it right:

- while traffic leaves room, the baseline follows latency;
- while the limit is in use it only falls, for latency then contains a queue, and a baseline that
  learns a queue lets the limit grow, which makes the queue longer, and so on until nothing is
  answered in time;
- if the service itself becomes slower, latency rises though no more calls are in flight. That is
  confirmed in a second window, at the same limit; then the limit is lowered in steps until latency
  no longer falls with it, which is the new baseline, and goes back up. The same is done if the
  service becomes faster.

The simulations behind the constants, and what other algorithms do there:
docs/en/design/adaptive-limit.md.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Final

from mtaio._internal.clock import REAL, Tells

__all__ = ["LimitEstimator"]

WINDOW: Final = 0.5
"""Seconds that a window lasts at least."""
PRECISION: Final = 0.2
"""A window has as many samples as make the standard error of its mean this part of the mean."""
LEAST_SAMPLES: Final = 10
MOST_SAMPLES: Final = 200
SHORTEST: Final = 1e-9
"""Seconds that a call takes at least: on a virtual clock it may take none."""

TOLERANCE: Final = 1.4
"""Latency may be this many times the baseline before the limit falls."""
SMOOTHING: Final = 0.5
"""Which part of the way the limit falls in one window."""
LEAST_GRADIENT: Final = 0.5
"""The factor towards which the limit falls in one window at most."""
GROWTH: Final = 1.25
"""The factor by which it grows in one window at most."""
FAST_GROWTH: Final = 1.5
"""The same where latency is within `NO_QUEUE` times the baseline."""
NO_QUEUE: Final = 1.2
SLACK: Final = 0.4
"""This times its root is added to the limit in each window: what makes small shares grow."""

BORNE: Final = 0.05
"""If more than this part of the calls fails, the limit does not grow for its latency."""
MOSTLY: Final = 0.5
"""If more than this part is, latency is that of the caller's timeout, not a baseline."""

IN_USE: Final = 0.5
"""The limit is in use if this part of it was in flight at once; else it does not change."""
FULL: Final = 0.8
"""It may grow if this part was."""

FALL: Final = 0.1
"""Which part of the way the baseline falls in one window, to a lower latency."""
RISE: Final = 0.05
"""Which part of the way it rises in one window, while the limit is not in use."""

SUSPICION: Final = 1.4
"""Latency this many times what the calls in flight explain may be a slower service."""
CONFIRMATION: Final = 1.8
"""It is one, if a second window with twice the samples shows this."""
FASTER: Final = 0.5
"""Two windows with latency below this part of what it was are a faster service."""
STEP: Final = 0.6
"""The factor of each step by which the limit is lowered to find the new baseline."""
FALLING: Final = 0.75
"""Latency falls with the limit if a step makes it this times what it was, or less."""
MEMORY: Final = 0.15
"""The weight of the newest window in the latency that is compared with."""

COLLAPSE: Final = 0.4
"""The limit has collapsed if it has fallen to this part of itself without growing again,"""
STUCK: Final = 20
"""and has been there for so many windows."""
REGROWN: Final = 1.25
"""It has grown again if it is this many times its lowest."""


class Phase(Enum):
    """What the windows are used for."""

    FOLLOW = "follow"
    """The limit follows the gradient."""
    CONFIRM = "confirm"
    """The limit stands still for a window, to see whether the service has really changed."""
    PROBE = "probe"
    """The limit is lowered step by step, to see latency without a queue."""


class LimitEstimator:
    """
    Estimates a limit from samples.

    Args:
        initial: The limit to begin with.
        least: What it never falls below.
        most: What it never exceeds.
    """

    # Invariants:
    # - a window is of samples that came since _opens, which is at or after the moment when the last
    #   window ended;
    # - baseline is 0 until it is known, and so is _usual while there is nothing to compare with;
    # - _top and _slower mean something only while the phase is PROBE.
    __slots__ = (
        "_closes",
        "_collapsed",
        "_count",
        "_failed",
        "_in_flight",
        "_least",
        "_low",
        "_most",
        "_need",
        "_opens",
        "_outcomes",
        "_peak",
        "_phase",
        "_previous",
        "_slower",
        "_smooth",
        "_squares",
        "_start",
        "_top",
        "_total",
        "_usual",
        "_usual_in_flight",
        "_variance",
        "_worst",
        "baseline",
        "estimate",
        "latency",
        "limit",
        "probes",
        "timed_by",
    )

    def __init__(self, initial: int, least: int, most: int) -> None:
        self._least = least
        self._most = most
        self.limit = initial
        """The limit now."""
        self.estimate = float(initial)
        """The same before rounding down."""
        self.baseline = 0.0
        """Seconds that a call takes without a queue; 0 until known."""
        self.latency = 0.0
        """Seconds that a call took in the last window; 0 before there was one."""
        self.probes = 0
        """How often the limit was lowered to find the baseline."""
        self.timed_by: Tells = REAL
        """The clock of the moments."""
        self._phase = Phase.FOLLOW
        self._variance = 1.0
        self._usual = self._usual_in_flight = 0.0
        self._top = (0.0, 0.0)
        self._previous = self._slower = 0.0
        self._start = self._low = self._worst = self._smooth = 0.0
        self._opens = self._closes = -math.inf
        self._need = 0.0
        self._collapsed = 0
        self._peak = 0
        self._open(-math.inf, 0.0)

    def sample(
        self, moment: float, latency: float, in_flight: int, *, failed: bool = False
    ) -> bool:
        """
        Take the outcome of a call into account.

        Args:
            moment: When it ended.
            latency: Seconds that it took.
            in_flight: Calls in flight when it began, itself included.
            failed: It was not answered, but timed out or was refused for overload. ``latency`` is
                then less than an answer would have taken, and says nothing if it is small.

        Returns:
            Whether a window has ended, so that the limit may have changed.
        """
        if in_flight > self._peak:  # noqa: PLR1730 - max() would cost a tenth of the whole
            self._peak = in_flight
        if moment < self._opens:
            return False
        self._outcomes += 1
        if failed:
            self._failed += 1
        if not failed or latency > self.baseline:
            self._count += 1
            self._total += latency
            self._squares += latency * latency
            self._in_flight += in_flight
        if self._outcomes < self._need or moment < self._closes:
            if self._closes == -math.inf:
                self._closes = moment + WINDOW
            return False
        self._close(moment)
        return True

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        self._opens += seconds
        self._closes += seconds

    def _open(self, moment: float, settle: float) -> None:
        """Begin a window, when calls that began under another limit have had time to end."""
        self._opens = moment + settle
        self._closes = self._opens + WINDOW
        self._count = 0
        self._total = 0.0
        self._squares = 0.0
        self._in_flight = 0
        self._outcomes = 0
        self._failed = 0
        self._peak = 0
        need = min(max(self._variance / PRECISION**2, LEAST_SAMPLES), MOST_SAMPLES)
        self._need = 2 * need if self._phase is Phase.CONFIRM else need

    def _close(self, moment: float) -> None:
        """Draw the conclusions of a window."""
        failed = self._failed / self._outcomes
        if not self._count:  # every call failed at once
            self._phase = Phase.FOLLOW
            self._set(self.estimate * (1 - failed / 2))
            self._open(moment, 0.0)
            return
        latency = max(self._total / self._count, SHORTEST)
        in_flight = self._in_flight / self._count
        variance = max(0.0, self._squares / self._count / latency**2 - 1)
        self._variance += 0.1 * (variance - self._variance)
        self.latency = latency
        settles = True
        if self._phase is Phase.PROBE:
            self._probe(latency, failed)
        elif not self.baseline and self._peak >= IN_USE * self.estimate:
            self._begin_probe(latency, math.inf)
        else:
            slower = self._slower_by(latency, in_flight)
            if self._phase is Phase.CONFIRM and slower > CONFIRMATION:
                self._begin_probe(latency, slower)
            elif self._phase is Phase.CONFIRM and self._faster(latency, in_flight):
                self.baseline = 0.0
                self._begin_probe(latency, math.inf)
            else:
                settles = self._follow(latency, in_flight, failed)
        self._open(moment, latency if settles else 0.0)

    def _slower_by(self, latency: float, in_flight: float) -> float:
        """Return by which factor latency is above what a longer queue explains."""
        if not self._usual or latency <= TOLERANCE * self.baseline:
            return 0.0
        return latency / (self._usual * max(1.0, in_flight / self._usual_in_flight))

    def _faster(self, latency: float, in_flight: float) -> bool:
        """Return whether latency is below what a shorter queue explains."""
        expected = self.baseline
        if self._usual:
            queued = self._usual * min(1.0, in_flight / self._usual_in_flight)
            expected = max(expected, queued)
        return latency < FASTER * expected

    def _follow(self, latency: float, in_flight: float, failed: float) -> bool:
        """Adjust baseline and limit to a window; return whether to wait before the next."""
        in_use = self._peak >= IN_USE * self.estimate
        confirmed, self._phase = self._phase is Phase.CONFIRM, Phase.FOLLOW
        if in_use and not confirmed and self._faster(latency, in_flight):
            self._phase = Phase.CONFIRM
            return True
        if latency < self.baseline:
            self.baseline += FALL * (latency - self.baseline)
        elif failed < MOSTLY and not in_use:
            self.baseline += (RISE if self.baseline else 1) * (latency - self.baseline)
        if not in_use:
            self._usual = self._start = 0.0
            return False
        if confirmed or not self._usual:
            self._usual, self._usual_in_flight = latency, in_flight
        elif self._suspicious(latency, in_flight):
            self._phase = Phase.CONFIRM
            return True
        if failed < MOSTLY:
            self._undo_collapse(latency)
        self._move(latency, failed)
        return False

    def _suspicious(self, latency: float, in_flight: float) -> bool:
        """Return whether the service seems to have become slower; if not, note what is usual."""
        # Here a smaller number in flight counts too: a false suspicion costs but a window.
        expected = max(self.baseline, self._usual * in_flight / self._usual_in_flight)
        if latency > SUSPICION * expected and latency > TOLERANCE * self.baseline:
            return True
        self._usual += MEMORY * (latency - self._usual)
        self._usual_in_flight += MEMORY * (in_flight - self._usual_in_flight)
        return False

    def _move(self, latency: float, failed: float) -> None:
        """Move the limit along the gradient."""
        limit = self.estimate
        gradient = TOLERANCE * self.baseline / latency
        if gradient < 1:
            new = limit * (1 + SMOOTHING * (max(gradient, LEAST_GRADIENT) - 1))
        elif failed > BORNE:
            new = limit
        else:
            fast = latency < NO_QUEUE * self.baseline
            new = limit * min(gradient, FAST_GROWTH if fast else GROWTH)
        new += SLACK * math.sqrt(limit) - limit * failed / 2
        if new < limit or self._peak >= FULL * int(limit):
            self._set(new)

    def _undo_collapse(self, latency: float) -> None:
        """
        Raise the baseline if the limit has fallen far, and latency has not fallen with it.

        Then it is not the queue that makes it high: the service has become slower so gradually
        that no window showed it. Other clients with too high limits look the same from here.
        So the baseline rises just far enough for the limit not to fall any more.
        """
        limit = self.estimate
        if not self._start:
            self._start = self._low = limit
            self._smooth = self._worst = latency
            self._collapsed = 0
        self._smooth += 0.25 * (latency - self._smooth)
        if limit > REGROWN * self._low:
            self._start = self._low = limit
            self._worst = self._smooth
        self._low = min(self._low, limit)
        self._worst = max(self._worst, self._smooth)
        self._collapsed = self._collapsed + 1 if limit <= COLLAPSE * self._start else 0
        fits = self._smooth / TOLERANCE
        if (
            self._collapsed >= STUCK
            and self._smooth > FALLING * self._worst
            and self.baseline < 0.9 * fits
        ):
            self.baseline = fits
            self._start = 0.0

    def _begin_probe(self, latency: float, slower: float) -> None:
        """Begin to lower the limit, to find out how long calls take without a queue."""
        self.probes += 1
        self._phase = Phase.PROBE
        self._top = self.estimate, latency
        self._slower = slower
        self._previous = latency
        self._set(self.estimate * STEP)

    def _probe(self, latency: float, failed: float) -> None:
        """Lower the limit further if that has helped; else take the baseline from here."""
        queued = latency < FALLING * self._previous and latency > 1.1 * self.baseline
        if queued and self.estimate > self._least:
            self._previous = latency
            self._set(self.estimate * STEP)
            return
        self._phase = Phase.FOLLOW
        self._usual = self._start = 0.0
        if failed < MOSTLY:
            known = self.baseline
            self.baseline = max(known, min(latency, known * self._slower)) if known else latency
        # At the top the service ended top / top_latency calls a second: with a queue, all it can.
        top, top_latency = self._top
        fits = TOLERANCE * self.baseline * top / top_latency
        self._set(min(top, max(self.estimate, fits)))

    def _set(self, estimate: float) -> None:
        self.estimate = min(max(estimate, float(self._least)), float(self._most))
        self.limit = int(self.estimate)
