"""
The tokens that a process has reserved and not granted yet, each with the time in which it may be.

Promise: no token is granted before it is due or after its time is over; those that are too late are
counted as lost.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Stock"]


class Stock:
    """
    Reserved tokens, in the order in which they fall due.

    Attributes:
        lost: How many were not used in time.
    """

    __slots__ = ("_tokens", "lost")

    def __init__(self) -> None:
        self._tokens: deque[tuple[float, float]] = deque()
        self.lost = 0

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, seconds: Iterable[float], since: float, until: float) -> None:
        """
        Add tokens to the end.

        Args:
            seconds: For each token, how long after both moments it falls due.
            since: From when the first of them could be granted.
            until: When it would be lost.
        """
        self._tokens.extend([(since + after, until + after) for after in seconds])

    def due(self, count: int) -> float:
        """Return when the first ``count`` tokens may be granted; ``inf`` if there are fewer."""
        return self._tokens[count - 1][0] if count <= len(self._tokens) else math.inf

    def take(self, count: int) -> None:
        """Remove the first ``count`` tokens: they are granted."""
        for _ in range(count):
            self._tokens.popleft()

    def drop(self, now: float) -> bool:
        """Remove the tokens whose time is over; return whether there were any."""
        tokens = self._tokens
        if not tokens or tokens[0][1] >= now:
            return False
        while tokens and tokens[0][1] < now:
            tokens.popleft()
            self.lost += 1
        return True

    def clear(self) -> None:
        """Forget every token."""
        self._tokens.clear()
