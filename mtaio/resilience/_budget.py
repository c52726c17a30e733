"""
How many retries all calls together may make: a share of the calls.

Promise: in the long run there are at most ``ratio`` retries for each call, however many callers
there are and however long the failure lasts; with few calls, up to ``min_per_second``.
Cost: reading the clock and one addition for each call; ten pairs of numbers.

A limit on the attempts of each call does not bound their sum: when everything fails, three attempts
each are three times the load, on a service that has just failed under the load. After Finagle's
RetryBudget and the chapter "Addressing Cascading Failures" of Google's "Site Reliability
Engineering".
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, final

import mtaio
from mtaio._internal import checks, clock
from mtaio._internal.copies import uncopied

if TYPE_CHECKING:
    import mtaio.statistics

__all__ = ["Budget", "give_back", "record_call", "take"]

_SLICES = 10
"""Parts of the window; the oldest is forgotten as a whole."""

_ALMOST = 1e-9
"""Ten calls at a tenth have to make one retry, however floats are rounded."""


class _Slice:
    __slots__ = ("begin", "calls", "end", "retries")

    def __init__(self, begin: float, width: float) -> None:
        self.begin = begin
        self.end = begin + width
        self.calls = 0
        self.retries = 0


class _Window:
    """The parts of the time in which calls and retries are counted."""

    __slots__ = ("slices", "timed_by")

    def __init__(self) -> None:
        self.slices: deque[_Slice] = deque()
        self.timed_by: clock.Tells = clock.REAL

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        for each in self.slices:
            each.begin += seconds
            each.end += seconds


@final
@uncopied
class Budget:
    """
    A limit on the retries of all calls together, for `Retry`.

    Within ``window`` seconds it allows ``ratio`` retries for each call made in that time, or
    ``min_per_second * window`` retries if that is more. Beyond that, a call fails at once with the
    error of its last attempt. Share one budget among all callers of the same service. It counts as
    Finagle's retry budget does.

    It can be created at module level and used by one event loop after another, on either backend.
    No method is a checkpoint.

    Args:
        ratio: Number of retries per call, from 0 to 1, such as 0.1.
        min_per_second: Number of retries per second that are allowed however few calls there are.
            The default is one in ten seconds.
        window: Seconds over which calls and retries are counted.
        name: Name shown in messages and metrics.

    Raises:
        ValueError: A number is negative or NaN, ``ratio`` is more than 1, or ``window`` is 0 or
            infinite.
        TypeError: An argument is not a number.

    Example:
        ```python
        from mtaio import Retry
        from mtaio.resilience import Budget

        patient = Retry(3, budget=Budget(0.1))
        ```
    """

    # Invariants:
    # - the slices are in the order of time and cover the window, the last of them the present;
    # - _calls and _retries are the sums over them.
    __slots__ = (
        "__weakref__",
        "_all_calls",
        "_all_retries",
        "_calls",
        "_last",
        "_least",
        "_name",
        "_ratio",
        "_rejected",
        "_retries",
        "_width",
        "_window",
    )

    def __init__(
        self,
        ratio: float,
        *,
        min_per_second: float = 0.1,
        window: float = 10.0,
        name: str | None = None,
    ) -> None:
        way_out = "Pass the retries per call, such as 0.1."
        self._ratio = checks.at_least("ratio", ratio, 0, way_out=way_out)
        if ratio > 1:
            msg = f"ratio={ratio!r} is more than one retry per call. {way_out}"
            raise ValueError(msg)
        way_out = "Pass retries each second, 0 for none beyond the ratio."
        least = checks.at_least("min_per_second", min_per_second, 0, way_out=way_out)
        checks.at_least("window", window, 0, way_out="Pass seconds > 0.")
        if not 0 < window < math.inf:
            msg = f"window={window!r} is not a finite number greater than 0. Pass seconds > 0."
            raise ValueError(msg)
        self._least = least * window
        self._width = window / _SLICES
        self._name = name
        self._window = _Window()
        self._last = _Slice(-math.inf, 0)
        self._calls = 0
        self._retries = 0
        self._all_calls = 0
        self._all_retries = 0
        self._rejected = 0

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return (
            f"<Budget{name} of {self._ratio:g}: {self._retries} retries, {self._calls} calls in "
            f"{self._width * _SLICES:g} s>"
        )

    def __str__(self) -> str:
        return f"Budget({self._ratio:g})"

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def ratio(self) -> float:
        """Number of retries per call."""
        return self._ratio

    def _record_call(self) -> None:
        """Count a call: its first attempt."""
        window, tells = self._window, clock.reader()
        moment = tells() if tells is window.timed_by else clock.catch_up(window)
        last = self._last
        if not last.begin <= moment < last.end:
            last = self._advance(moment)
        last.calls += 1
        self._calls += 1
        self._all_calls += 1

    def _take(self) -> bool:
        """Take one retry, and return whether there was one."""
        window, tells = self._window, clock.reader()
        moment = tells() if tells is window.timed_by else clock.catch_up(window)
        last = self._last
        if not last.begin <= moment < last.end:
            last = self._advance(moment)
        if self._left(self._calls, self._retries) < 1:
            self._rejected += 1
            return False
        last.retries += 1
        self._retries += 1
        self._all_retries += 1
        return True

    def _give_back(self) -> None:
        """Return a retry that was taken and will not be made."""
        if self._last.retries:  # otherwise it is left to the window to forget it
            self._last.retries -= 1
            self._retries -= 1

    def statistics(self) -> mtaio.statistics.BudgetStatistics:
        """
        Return a snapshot of the budget.

        Not a checkpoint. It can be called from any thread.
        """
        from mtaio.resilience._statistics import BudgetStatistics  # noqa: PLC0415 - dear to import

        return BudgetStatistics(
            ratio=self._ratio,
            calls=self._all_calls,
            retried=self._all_retries,
            rejected=self._rejected,
            available=max(0, int(self._available())),
        )

    def _available(self) -> float:
        """Return how many retries would be allowed now, without a change: from any thread."""
        oldest = clock.now_by(self._window.timed_by) - self._width * (_SLICES - 1)
        current = [each for each in tuple(self._window.slices) if each.end > oldest]
        calls = sum(each.calls for each in current)
        return self._left(calls, sum(each.retries for each in current))

    def _left(self, calls: int, retries: int) -> float:
        return max(self._ratio * calls, self._least) - retries + _ALMOST

    def _advance(self, moment: float) -> _Slice:
        """Begin a new slice at ``moment``, and forget those that have left the window."""
        slices = self._window.slices
        oldest = moment - self._width * (_SLICES - 1)
        while slices and slices[0].end <= oldest:
            left = slices.popleft()
            self._calls -= left.calls
            self._retries -= left.retries
        self._last = _Slice(moment, self._width)
        slices.append(self._last)
        return self._last


give_back, record_call, take = Budget._give_back, Budget._record_call, Budget._take  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
"""What retries and hedges do with a budget, and users do not."""
