"""
Event loop delays: a histogram over a sliding window.

Promise: `p50`, `p99` and the longest of the last half minute to minute, each at most a fifth above
what was measured, from a fixed number of buckets however many delays are added.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["Delays"]

WINDOW: Final = 30.0
"""Seconds after which the older half is forgotten."""

_LEAST: Final = 1e-6
_PER_OCTAVE: Final = 4
_BUCKETS: Final = 128
"""From a microsecond, four for each doubling, to an hour."""


class Delays:
    """
    The delays of the last ``WINDOW`` seconds, and those of the ``WINDOW`` before.

    Args:
        now: The moment at which the first window opens.
    """

    __slots__ = ("_counts", "_longest", "_old", "_old_longest", "_opened")

    def __init__(self, now: float) -> None:
        self._counts = [0] * _BUCKETS
        self._longest = 0.0
        self._old = [0] * _BUCKETS
        self._old_longest = 0.0
        self._opened = now

    def add(self, seconds: float, now: float) -> None:
        """Add one delay."""
        if now - self._opened >= WINDOW:
            recent = now - self._opened < 2 * WINDOW
            self._old = self._counts if recent else [0] * _BUCKETS
            self._old_longest = self._longest if recent else 0.0
            self._counts = [0] * _BUCKETS
            self._longest = 0.0
            self._opened = now
        above = math.log2(seconds / _LEAST) * _PER_OCTAVE if seconds > _LEAST else 0.0
        self._counts[min(math.ceil(above), _BUCKETS - 1)] += 1
        self._longest = max(self._longest, seconds)

    def read(self) -> tuple[float, float, float]:
        """Return p50, p99 and the longest, in seconds; all 0.0 before the first delay."""
        counts = [new + old for new, old in zip(self._counts, self._old, strict=True)]
        total = sum(counts)
        longest = max(self._longest, self._old_longest)
        p50, p99 = (min(_quantile(counts, total * share), longest) for share in (0.5, 0.99))
        return p50, p99, longest


def _quantile(counts: list[int], rank: float) -> float:
    """Return the upper end of the bucket in which the delay of this rank lies."""
    seen = 0
    index = 0
    while (seen := seen + counts[index]) < rank:
        index += 1
    return float(_LEAST * 2 ** (index / _PER_OCTAVE))
