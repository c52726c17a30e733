"""
The last figures of every metric.

Promise: at most ``size`` samples, eight bytes for each figure. A metric that comes later or goes
has gaps where it was not there, and is forgotten once it has nothing but gaps.
"""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["History"]


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
        """For how many samples a metric has not been there."""

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

    def times(self, points: int | None = None) -> list[float]:
        """Return when the samples were taken, the oldest first; the last ``points`` of them."""
        return self._last(self._times, points)

    def values(self, name: str, points: int | None = None) -> list[float]:
        """Return the figures of one metric, one for each of `times`; NaN where there is none."""
        column = self._values.get(name)
        if column is None:
            return [math.nan] * len(self.times(points))
        return self._last(column, points)

    def names(self) -> list[str]:
        """Return the metrics of which there are figures."""
        return list(self._values)

    def _forget(self, values: Mapping[str, float]) -> None:
        """Drop the metrics that have been absent for as long as there is history."""
        if len(values) == len(self._values):
            self._gaps.clear()
            return
        absent = self._values.keys() - values.keys()
        self._gaps = {name: self._gaps.get(name, 0) + 1 for name in absent}
        for name, gap in self._gaps.items():
            if gap >= self.size:
                del self._values[name]

    def _last(self, column: array[float], points: int | None) -> list[float]:
        if len(column) == self.size:
            column = column[self._next :] + column[: self._next]
        return (
            column.tolist() if points is None else column[max(0, len(column) - points) :].tolist()
        )
