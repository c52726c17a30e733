"""
Pauses that double, for whatever is tried again and again.

Promise: the first pause follows `reset`; each one after it is twice as long, up to the longest.
"""

from __future__ import annotations

__all__ = ["Backoff"]


class Backoff:
    """
    Growing pauses.

    Args:
        first: Seconds of the first pause.
        longest: Seconds that no pause exceeds.
    """

    __slots__ = ("_first", "_longest", "_seconds")

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._seconds = first

    def next(self) -> float:
        """Return the seconds to pause now; the next pause is twice as long."""
        seconds = self._seconds
        self._seconds = min(2 * seconds, self._longest)
        return seconds

    def reset(self) -> None:
        """Start with the first pause again."""
        self._seconds = self._first
