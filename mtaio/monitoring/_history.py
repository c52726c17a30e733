"""
The last figures of every metric.

Promise: at most ``size`` samples, eight bytes for each figure. A metric that comes later or goes
has gaps where it was not there.
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

    __slots__ = ("_next", "_size", "_times", "_values")

    def __init__(self, size: int) -> None:
        self._size = size
        self._next = 0
        self._times = array("d")
        self._values: dict[str, array[float]] = {}

    def add(self, timestamp: float, values: Mapping[str, float]) -> None:
        """Keep one sample; drop the oldest if there are too many."""
        index, full = self._next, len(self._times) == self._size
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
        self._next = (index + 1) % self._size

    def times(self) -> list[float]:
        """Return when the samples were taken, the oldest first."""
        return self._in_order(self._times)

    def values(self, name: str) -> list[float]:
        """Return the figures of one metric, one for each of `times`; NaN where there is none."""
        column = self._values.get(name)
        return [math.nan] * len(self._times) if column is None else self._in_order(column)

    def names(self) -> list[str]:
        """Return the metrics of which there are figures."""
        return list(self._values)

    def _in_order(self, column: array[float]) -> list[float]:
        if len(column) < self._size:
            return column.tolist()
        return column[self._next :].tolist() + column[: self._next].tolist()
