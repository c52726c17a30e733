"""A token bucket as one would write it at first, for a limiter to be held to."""

from __future__ import annotations

from typing import Final

from mtaio._internal.clock import now

__all__ = ["TICK", "Refilled"]

TICK: Final = 1e-6
"""Tokens that floats may be wrong by."""


class Refilled:
    """
    A bucket kept the simple way: what it holds is counted up as time passes.

    Args:
        rate: Tokens a second.
        burst: What it holds at most, and at first.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._then = now()
        self.rate = rate
        self.burst = burst
        self.tokens = burst

    def look(self) -> float:
        """Return what it holds now."""
        moment = now()
        self.tokens = min(self.burst, self.tokens + self.rate * (moment - self._then))
        self._then = moment
        return self.tokens

    def take(self, tokens: float) -> None:
        """Take tokens, which must be there."""
        assert tokens <= self.look() + TICK, f"{tokens} taken of {self.tokens} at {self._then}"
        self.tokens -= tokens

    def change(self, *, rate: float | None = None, burst: float | None = None) -> None:
        """Change the limits; what it holds stays, as far as it fits."""
        held = self.look()
        self.rate = self.rate if rate is None else rate
        self.burst = self.burst if burst is None else burst
        self.tokens = min(held, self.burst)
