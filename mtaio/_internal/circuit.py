"""
The state machine of a circuit breaker: closed, open, half-open, closed.

Promise: half-open, exactly ``half_open`` calls get through, however many come. An outcome counts
only in the period in which its call was let through; each change of the state begins another, so
that an answer from before says nothing about the service now. Nothing is awaited and nobody is
called but ``changed``: who asks before a call, and tells how it ended, decides what a failure is.
Cost: a call that succeeds asks `Circuit.state` and `Circuit.clean`, and that is all while none of
the remembered calls failed. The outcomes of the last calls are the bits of one int, and so are
those that were slow.

A call through it, step by step::

    if circuit.state is not CLOSED and not circuit.admit():
        ...                                   # refused
    period = circuit.period                   # after admit(), which may begin another
    ...                                       # the call
    circuit.succeed(period, seconds)          # not needed if circuit.clean and it was not slow
    circuit.fail(period, error, seconds)
    circuit.give_back(period)                 # cancelled or refused inside: no outcome

A circuit whose state comes from elsewhere is moved by `Circuit.open` and `Circuit.close`; what it
decides itself is told to ``changed``.

What counts as an outcome, and why it counts calls, not seconds: docs/en/design/resilience.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from enum import StrEnum
from typing import Final, NamedTuple

from mtaio._internal import checks, clock

__all__ = ["BreakerState", "Circuit", "Rules", "checked_rules"]

_TICK: Final = 1e-6


class BreakerState(StrEnum):
    """The state of a breaker."""

    CLOSED = "closed"
    """It lets all calls through."""
    OPEN = "open"
    """It refuses all calls."""
    HALF_OPEN = "half-open"
    """It lets a few calls through, whose outcomes decide whether it closes."""
    DISABLED = "disabled"
    """It lets all calls through and counts no outcomes."""


class Rules(NamedTuple):
    """When a circuit opens, and how it closes again: see `checked_rules`."""

    failure_ratio: float
    last: int
    min_calls: int
    consecutive: int | None
    slow: float
    """Seconds from which a call is slow; ``inf`` for never."""
    slow_ratio: float
    open_for: float
    half_open: int
    half_open_ratio: float
    slow_from: float
    """``slow``, less what the difference of two moments may be wrong by."""


def checked_rules(
    failure_ratio: float,
    *,
    last: int,
    min_calls: int | None,
    consecutive: int | None,
    slow: float | None,
    slow_ratio: float,
    open_for: float,
    half_open: int,
    half_open_ratio: float | None,
) -> Rules:
    """Return the rules that a breaker's arguments mean, or refuse them."""
    _ratio("failure_ratio", failure_ratio, "Pass the share of the calls that must fail")
    checks.count("last", last, way_out="Pass how many calls to remember, at least 1.")
    if min_calls is None:
        min_calls = (last + 1) // 2
    way_out = "Pass how many calls must have ended before it may open."
    if checks.count("min_calls", min_calls, way_out=way_out) > last:
        msg = (
            f"min_calls={min_calls!r} would never be reached: only last={last!r} calls are "
            f"remembered. Raise last, or lower min_calls."
        )
        raise ValueError(msg)
    if consecutive is not None:
        way_out = "Pass how many calls must fail in a row, or None for no such rule."
        if checks.count("consecutive", consecutive, way_out=way_out) > last:
            msg = (
                f"consecutive={consecutive!r} would never be reached: only last={last!r} calls are "
                f"remembered, and if all of them fail it opens before that. Raise last, or lower "
                f"consecutive."
            )
            raise ValueError(msg)
    if slow is None:
        slow = math.inf
    else:
        way_out = "Pass seconds > 0, or None if no call counts as slow."
        if not checks.at_least("slow", slow, 0, way_out=way_out):
            msg = f"slow={slow!r} would make every call slow. {way_out}"
            raise ValueError(msg)
    _ratio("slow_ratio", slow_ratio, "Pass the share of the calls that must be slow")
    checks.at_least("open_for", open_for, 0, way_out="Pass seconds >= 0.")
    checks.count(
        "half_open", half_open, way_out="Pass how many probe calls to let through, at least 1."
    )
    if half_open_ratio is None:
        half_open_ratio = failure_ratio
    else:
        way_out = (
            "Pass the share of the probe calls that must fail to open it again, from 0 (any one of "
            "them) to 1, or None to use failure_ratio."
        )
        checks.at_least("half_open_ratio", half_open_ratio, 0, way_out=way_out)
        if half_open_ratio > 1:
            msg = f"half_open_ratio={half_open_ratio!r} is not a ratio. {way_out}"
            raise ValueError(msg)
    return Rules(
        failure_ratio,
        last,
        min_calls,
        consecutive,
        slow,
        slow_ratio,
        open_for,
        half_open,
        half_open_ratio,
        slow - _TICK,
    )


def _ratio(name: str, value: float, way_out: str) -> None:
    way_out = f"{way_out}, more than 0 and at most 1."
    checks.number(name, value, way_out=way_out)
    if not 0 < value <= 1:
        msg = f"{name}={value!r} is not a ratio. {way_out}"
        raise ValueError(msg)


class Circuit:
    """
    The state for one service, or one key.

    Args:
        rules: When it opens and closes.
        key: The key, for ``changed``.
        changed: Called with the circuit, the state before and the error after each change.
    """

    # Invariants:
    # - _failures and _slow have a bit for each of the last `_seen` calls of this period, 1 for a
    #   failure and for a slow call, the lowest for the latest; they are `_most` at most: `last`,
    #   or what may probe;
    # - each change of the state begins another period, in which no earlier call's outcome counts;
    # - half-open, _free + calls under way + outcomes == half_open: hence all have been seen when
    #   _seen has come to _most;
    # - `clean` says that a success would change nothing, unless it is slow: closed, and none of the
    #   `last` failed or was slow; or disabled.
    __slots__ = (
        "_changed",
        "_failures",
        "_free",
        "_most",
        "_rules",
        "_seen",
        "_slow",
        "clean",
        "key",
        "period",
        "reason",
        "state",
        "timed_by",
        "until",
    )

    def __init__(
        self,
        rules: Rules,
        key: Hashable,
        changed: Callable[[Circuit, BreakerState, Exception | None], object],
    ) -> None:
        self._rules = rules
        self._changed = changed
        self._failures = 0
        self._slow = 0
        self._seen = 0
        self._most = rules.last
        self._free = 0
        self.key = key
        self.state: BreakerState = BreakerState.CLOSED
        self.period: int = 0
        self.clean: bool = False
        self.until: float = math.inf
        """When an open circuit lets a call through again."""
        self.timed_by: clock.Tells = clock.REAL
        """The clock of ``until``."""
        self.reason: str = ""
        """Why it was opened last, for messages."""

    @property
    def seen(self) -> int:
        """How many outcomes are remembered."""
        return self._seen

    @property
    def failures(self) -> int:
        """How many of the remembered calls failed."""
        return self._failures.bit_count()

    @property
    def slow(self) -> int:
        """How many of the remembered calls were slow."""
        return self._slow.bit_count()

    @property
    def limits(self) -> bool:
        """Whether it would treat the next call otherwise than a new circuit: open, or by hand."""
        if self.state is BreakerState.OPEN:
            return self.left() > 0
        return self.state is BreakerState.DISABLED

    def admit(self) -> bool:
        """Return whether a call may go through, and give it a place; not called while closed."""
        state = self.state
        if state is BreakerState.DISABLED:
            return True
        if state is BreakerState.OPEN:
            if clock.catch_up(self) < self.until:
                return False
            self._free = self._rules.half_open
            self._change(BreakerState.HALF_OPEN)
        if not self._free:
            return False
        self._free -= 1
        return True

    def succeed(self, period: int, seconds: float = 0.0) -> None:
        """Count a success, after so many seconds, of a call that was let through in ``period``."""
        if period == self.period:
            self._count(None, seconds, failed=False)

    def fail(self, period: int, error: Exception | None, seconds: float = 0.0) -> None:
        """
        Count a failure, after so many seconds, of a call that was let through in ``period``.

        Args:
            period: What `period` was after the call was admitted.
            error: What it raised; None if its result says that it failed.
            seconds: How long it took; 0 if nobody minds.
        """
        if period == self.period:
            self._count(error, seconds, failed=True)

    def give_back(self, period: int) -> None:
        """Give back the place of a call that was let through in ``period``: it has no outcome."""
        if period == self.period and self.state is BreakerState.HALF_OPEN:
            self._free += 1

    def open(self, seconds: float, reason: str, error: Exception | None = None) -> None:
        """
        Let no call through for ``seconds``.

        Args:
            seconds: For how long; ``inf`` until it is closed.
            reason: Why, as the beginning of a sentence without a full stop.
            error: The failure, if one has opened it.
        """
        self.until = clock.catch_up(self) + seconds
        self.reason = reason
        self._change(BreakerState.OPEN, error)

    def close(self) -> None:
        """Close it, and forget every outcome."""
        self._change(BreakerState.CLOSED)

    def disable(self) -> None:
        """Let every call through and count none, until it is opened or closed."""
        self._change(BreakerState.DISABLED)

    def left(self) -> float:
        """Return in how many seconds an open circuit lets a call through again."""
        return max(self.until - clock.now_by(self.timed_by), 0.0)

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        self.until += seconds

    def retire(self) -> None:
        """Let no outcome count any more: the circuit is forgotten."""
        self.period += 1

    def _count(self, error: Exception | None, seconds: float, *, failed: bool) -> None:
        """Remember an outcome of this period, and change the state if it decides."""
        state = self.state
        if state is BreakerState.DISABLED:
            return
        rules, most = self._rules, self._most
        mask = (1 << most) - 1
        slow = seconds >= rules.slow_from
        self._failures = failures = (self._failures << 1 | failed) & mask
        self._slow = late = (self._slow << 1 | slow) & mask
        self._seen = seen = min(self._seen + 1, most)
        is_closed = state is BreakerState.CLOSED
        self.clean = is_closed and not failures and not late and seen == most
        reason = ""
        if failed or slow:
            reason = self._reason_to_open(failed, slow) if is_closed else self._reason_to_reopen()
        if reason:
            how = "by its result" if error is None else f"with {type(error).__name__}"
            latest = how if failed else f"after {seconds:.3g} s"
            self.open(rules.open_for, f"{reason}, the latest {latest}", error)
        elif state is BreakerState.HALF_OPEN and seen == most:
            self.close()

    def _reason_to_open(self, failed: bool, slow: bool) -> str:  # noqa: FBT001 - private
        """Return why a closed circuit opens now, "" if it does not, after a call that ended so."""
        rules, seen = self._rules, self._seen
        if rules.consecutive is not None:
            row = (1 << rules.consecutive) - 1
            if self._failures & row == row:
                return f"{rules.consecutive} calls in a row failed"
        if seen >= rules.min_calls:
            if failed and self.failures / seen >= rules.failure_ratio:
                return f"{self.failures} of the last {seen} calls failed"
            if slow and self.slow / seen >= rules.slow_ratio:
                return f"{self.slow} of the last {seen} calls took {rules.slow:.3g} s or longer"
        return ""

    def _reason_to_reopen(self) -> str:
        """Return why a half-open circuit opens again, "" if it does not, after a bad probe."""
        rules = self._rules
        bad = (self._failures | self._slow).bit_count()
        if bad / rules.half_open < rules.half_open_ratio:
            return ""
        what = "failed or were slow" if self._slow else "failed"
        return f"{bad} of {self._seen} probe calls {what}"

    def _change(self, state: BreakerState, error: Exception | None = None) -> None:
        before, self.state = self.state, state
        self.period += 1
        self._failures = self._slow = self._seen = 0
        probing = state is BreakerState.HALF_OPEN
        self._most = self._rules.half_open if probing else self._rules.last
        self.clean = state is BreakerState.DISABLED
        self._changed(self, before, error)
