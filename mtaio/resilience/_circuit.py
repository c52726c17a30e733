"""
The state of a circuit breaker: closed, open or half-open, and the reason.

Promise: an outcome counts only in the state in which its call was let through, so that an answer
from before says nothing about the service now; half-open, exactly as many calls get through as the
breaker allows, and a call that ends without an outcome gives its place to another.
Cost: the outcomes of the last calls are the bits of one int; time is compared, never waited for.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from mtaio._internal import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["BreakerState", "Circuit", "Rules"]


class BreakerState(StrEnum):
    """Whether a breaker lets calls through."""

    CLOSED = "closed"
    """All of them."""
    OPEN = "open"
    """None."""
    HALF_OPEN = "half-open"
    """A few, whose outcomes decide."""


class Rules(NamedTuple):
    """When a circuit opens, and how it closes again."""

    failure_ratio: float
    window: int
    min_calls: int
    open_for: float
    half_open: int


class Circuit:
    """
    The state for one key.

    Args:
        rules: When it opens and closes.
        key: The key, for `changed`.
        changed: Called with the circuit, the state before and the error after each change.
    """

    # Invariants:
    # - _outcomes has a bit for each of the last `_seen` calls of this period, 1 for a failure, the
    #   lowest for the latest; they are `_most` at most: the window, or what may probe;
    # - each change of the state begins another period, in which no earlier call's outcome counts;
    # - half-open, _free + calls under way + outcomes == half_open: hence all have been seen when
    #   _seen has come to _most;
    # - `clean` says that a success would change nothing: closed, and a full window without failure.
    __slots__ = (
        "_changed",
        "_free",
        "_most",
        "_outcomes",
        "_rules",
        "_seen",
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
        self._outcomes = 0
        self._seen = 0
        self._most = rules.window
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
        """Why it is open, for messages."""

    def admit(self) -> bool:
        """Return whether a call may go through, and give it a place; not called while closed."""
        if self.state is BreakerState.OPEN:
            if clock.catch_up(self) < self.until:
                return False
            self._free = self._rules.half_open
            self._change(BreakerState.HALF_OPEN)
        if not self._free:
            return False
        self._free -= 1
        return True

    def succeed(self, period: int) -> None:
        """Count a success of a call that was let through in ``period``."""
        if period != self.period:
            return
        self._count(failed=0)
        if self.state is BreakerState.HALF_OPEN and self._seen == self._most:
            self.close()

    def fail(self, period: int, error: Exception) -> None:
        """Count a failure of a call that was let through in ``period``."""
        if period != self.period:
            return
        self._count(failed=1)
        rules = self._rules
        failures = self._outcomes.bit_count()
        if self.state is BreakerState.CLOSED:
            calls, due = self._seen, self._seen >= rules.min_calls
            text = f"{failures} of the last {calls} calls failed"
        else:
            calls, due = rules.half_open, True
            text = f"{failures} of {self._seen} calls that were to probe it failed"
        if due and failures / calls >= rules.failure_ratio:
            self._open(rules.open_for, f"{text}, the latest with {type(error).__name__}", error)
        elif self.state is BreakerState.HALF_OPEN and self._seen == self._most:
            self.close()

    def give_back(self, period: int) -> None:
        """Give back the place of a call that was let through in ``period``: it has no outcome."""
        if period == self.period and self.state is BreakerState.HALF_OPEN:
            self._free += 1

    def force_open(self) -> None:
        """Open it until it is closed by hand."""
        self._open(math.inf, "open() was called", None)

    def close(self) -> None:
        """Close it, and forget every outcome."""
        self._change(BreakerState.CLOSED)

    def left(self) -> float:
        """Return in how many seconds an open circuit lets a call through again."""
        return max(self.until - clock.now_by(self.timed_by), 0.0)

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        self.until += seconds

    def retire(self) -> None:
        """Let no outcome count any more: the circuit is forgotten."""
        self.period += 1

    def _count(self, *, failed: int) -> None:
        most = self._most
        self._outcomes = (self._outcomes << 1 | failed) & ((1 << most) - 1)
        self._seen = min(self._seen + 1, most)
        self.clean = not self._outcomes and self._seen == most and self.state is BreakerState.CLOSED

    def _open(self, seconds: float, reason: str, error: Exception | None) -> None:
        self.until = clock.catch_up(self) + seconds
        self.reason = reason
        self._change(BreakerState.OPEN, error)

    def _change(self, state: BreakerState, error: Exception | None = None) -> None:
        before, self.state = self.state, state
        self.period += 1
        self._outcomes = self._seen = 0
        probing = state is BreakerState.HALF_OPEN
        self._most = self._rules.half_open if probing else self._rules.window
        self.clean = False
        self._changed(self, before, error)
