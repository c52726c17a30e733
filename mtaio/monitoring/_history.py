"""
The last figures of every metric.

Promise: at most ``size`` samples, eight bytes for each figure. A metric that appears later or
disappears has gaps, and is forgotten once it has nothing but gaps. Of metrics that have
disappeared, at most the last ``MOST_ABSENT`` are kept.
"""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MOST_ABSENT", "History"]

MOST_ABSENT: Final = 200


class History:
    """
    A ring of samples.

    Args:
        size: How many are kept.

    Invariant: every array is as long as ``_times``, and its figure at an index was taken at the
    time at that index; ``_next`` is where the next sample goes, and the oldest is, once full.
    """

    __slots__ = ("_gaps", "_next", "_times", "_values", "size")

    def __init__(self, size: int) -> None:
        self.size: int = size
        self._next = 0
        self._times = array("d")
        self._values: dict[str, array[float]] = {}
        self._gaps: dict[str, int] = {}
        """For how many samples each absent metric has not been there; the first went first."""

    def add(self, timestamp: float, values: Mapping[str, float]) -> None:
        """Keep one sample; drop the oldest if there are too many."""
        index, full = self._next, len(self._times) == self.size
        if full:
            self._times[index] = timestamp
        else:
            self._times.append(timestamp)
        for name in values:
            if name not in self._values:
                self._values[name] = array("d", [math.nan]) * (len(self._times) - (not full))
        for name, column in self._values.items():
            value = values.get(name, math.nan)
            if full:
                column[index] = value
            else:
                column.append(value)
        self._forget(values)
        self._next = (index + 1) % self.size

    def times(self, points: int | None = None) -> array[float]:
        """Return when the samples were taken, the oldest first; the last ``points`` of them."""
        return self._last(self._times, points)

    def values(self, name: str, points: int | None = None) -> array[float]:
        """Return the figures of one metric, one for each of `times`; NaN where there is none."""
        column = self._values.get(name)
        if column is None:
            return array("d", [math.nan]) * len(self.times(points))
        return self._last(column, points)

    def names(self) -> list[str]:
        """Return the metrics of which there are figures."""
        return list(self._values)

    def _forget(self, values: Mapping[str, float]) -> None:
        """Drop metrics that have been absent as long as there is history, or are too many."""
        if len(values) == len(self._values):
            self._gaps.clear()
            return
        gaps = {name: gap + 1 for name, gap in self._gaps.items() if name not in values}
        gaps.update((name, 1) for name in self._values if name not in values and name not in gaps)
        too_many = len(gaps) - MOST_ABSENT
        self._gaps = {}
        for index, (name, gap) in enumerate(gaps.items()):
            if gap >= self.size or index < too_many:
                del self._values[name]
            else:
                self._gaps[name] = gap

    def _last(self, column: array[float], points: int | None) -> array[float]:
        if len(column) == self.size:
            column = column[self._next :] + column[: self._next]
        return column[0 if points is None else max(0, len(column) - points) :]
