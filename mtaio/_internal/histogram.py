"""
A histogram: how often a value fell into which range.

Promise: an observation adds one to one bucket and its value to the sum, and nothing grows. Counts
are exact as long as one thread at a time observes; of two at once, one may be lost. A snapshot
may be taken in any thread and never fails; it may lack the sum of the last observation.

Cost: 0.2 µs for an observation, a search among some twenty bounds; 400 bytes for a histogram, and
for each count beyond 256 another 32.

The ranges are fixed rather than found from the values, since only counts of the same ranges can be
added up, whether over time, over labels or over processes, and since Prometheus has it so.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import isfinite
from operator import lt, sub
from typing import TYPE_CHECKING, Final, final

from mtaio._internal import checks

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DURATIONS", "SIZES", "Histogram", "HistogramStatistics", "together"]

DURATIONS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Bounds in seconds, for what takes from a tenth of a millisecond up to a minute."""

SIZES: Final = tuple(256.0 * 4**power for power in range(10))
"""Bounds in bytes, from 256 bytes to 64 MiB."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramStatistics:
    """
    Counts of values by range, and their sum.

    With the same ranges, ``a + b`` adds two histograms, and ``later - earlier`` gives the values in
    between.
    """

    bounds: tuple[float, ...]
    """The upper bounds of the ranges, ascending and inclusive. One more range, without a bound,
    follows."""
    counts: tuple[int, ...]
    """The number of values in each range; one more than there are bounds."""
    sum: float
    """The sum of all values."""

    def __post_init__(self) -> None:
        """Refuse what is no histogram."""
        known = self.bounds is DURATIONS  # those of most, each time a statistic is read
        if (
            not (known or _are_bounds(tuple(self.bounds)))
            or len(self.counts) != len(self.bounds) + 1
        ):
            msg = (
                f"bounds={self.bounds!r} and counts={self.counts!r} do not make a histogram. Pass "
                f"a tuple of finite, ascending bounds, and a tuple with one count more."
            )
            raise ValueError(msg)

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """
        Return an estimate of a quantile, such as 0.99 for p99.

        Values are assumed to be spread evenly within their range, and the first range to begin at
        0. Beyond the last bound, the estimate is that bound.

        Returns:
            The estimate; None if there were no values.

        Raises:
            ValueError: ``share`` is not from 0 to 1.
            TypeError: ``share`` is not a number.
        """
        way_out = "Pass a share from 0 to 1, such as 0.99."
        if not 0 <= checks.number("share", share, way_out=way_out) <= 1:
            msg = f"share={share!r} is not between 0 and 1. {way_out}"
            raise ValueError(msg)
        cumulative = list(accumulate(self.counts))
        if not cumulative[-1]:
            return None
        rank = share * cumulative[-1]
        # The first range up to which there are enough values, and that has one.
        index = max(bisect_left(cumulative, rank), bisect_right(cumulative, 0))
        if index >= len(self.bounds):
            return self.bounds[-1]
        upper = self.bounds[index]
        lower = self.bounds[index - 1] if index else min(0.0, upper)
        inside = self.counts[index]
        return lower + (upper - lower) * (rank - cumulative[index] + inside) / inside

    def __add__(self, other: HistogramStatistics) -> HistogramStatistics:
        """Return both together."""
        return together([self, other])

    def __sub__(self, other: HistogramStatistics) -> HistogramStatistics:
        """Return what came after ``other``, an earlier snapshot of the same histogram."""
        _check_same(self.bounds, other.bounds)
        return HistogramStatistics(
            bounds=self.bounds,
            counts=tuple(map(sub, self.counts, other.counts)),
            sum=self.sum - other.sum,
        )


def together(parts: Sequence[HistogramStatistics]) -> HistogramStatistics:
    """Return histograms of the same ranges, at least one, as one."""
    bounds = parts[0].bounds
    for each in parts:
        _check_same(bounds, each.bounds)
    return HistogramStatistics(
        bounds=bounds,
        counts=tuple(map(sum, zip(*[each.counts for each in parts], strict=True))),
        sum=sum([each.sum for each in parts]),
    )


def _check_same(bounds: tuple[float, ...], others: tuple[float, ...]) -> None:
    if bounds != others:
        msg = (
            f"histograms with the bounds {bounds} and {others} cannot be combined. Add or subtract "
            f"only histograms with the same bounds."
        )
        raise ValueError(msg)


@lru_cache(maxsize=64)
def _are_bounds(bounds: tuple[float, ...]) -> bool:
    """Return whether ``bounds`` are finite and ascending, and there is one."""
    return bool(bounds) and all(map(isfinite, bounds)) and all(map(lt, bounds, bounds[1:]))


@final
class Histogram:
    """
    Counts values by range.

    Args:
        bounds: The upper ends of the ranges: finite, ascending, and at least one.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...] = DURATIONS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value, a finite number."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def snapshot(self) -> HistogramStatistics:
        """Return what was counted so far; from any thread."""
        return HistogramStatistics(bounds=self._bounds, counts=tuple(self._counts), sum=self._sum)
