"""
Choices by priority: a task is kept waiting not for one step but for as long as others can run.

Promise: of n tasks and k choices, a bug that takes d conditions on who comes first is hit with a
probability of about 1 / (n * k ** (d - 1)), however many steps lie between them. No task waits for
ever for one that spins.
Source: Burckhardt, Kothari, Musuvathi and Nagarakatte, "A randomized scheduler with probabilistic
guarantees of finding bugs" (2010). What it finds: docs/en/design/exploration.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

PATIENCE: Final = 8
"""For how many times the horizon priorities decide at most."""


class Priorities:
    """
    Chooses the task of the highest priority among those that could run.

    Each task has a random priority from the moment at which it could run first. At ``depth - 1``
    of the choices, the task that would run is put behind all others instead. Priorities decide
    until a moment between once and `PATIENCE` times the horizon, which is drawn; from there each
    choice is made at random. That keeps a task that spins from going on for ever, and finds what
    takes both: one that waits for long, and then a close race.

    Args:
        draw: Returns random numbers from 0 to 1.
        depth: The number of conditions on who comes first; 1 for fixed priorities.
        horizon: How many choices the run is thought to have.
    """

    __slots__ = ("_draw", "_end", "_of", "_puts_back")

    def __init__(self, draw: Callable[[], float], depth: int, horizon: int) -> None:
        self._draw = draw
        self._end = int(horizon * PATIENCE ** draw())
        self._of: dict[float, float] = {}
        # Below all that are drawn, and in an order of their own, which has nothing to do with that
        # in which the moments come.
        self._puts_back = {int(draw() * horizon): -float(n) for n in range(1, depth)}

    def pick(self, at: int, ages: Sequence[float]) -> int:
        """Return which of the tasks, known by their ages, runs next, at that number of a choice."""
        if at >= self._end:
            return int(self._draw() * len(ages))
        for age in ages:
            if age not in self._of:
                self._of[age] = self._draw()
        first = self._first(ages)
        low = self._puts_back.get(at)
        if low is None:
            return first
        self._of[ages[first]] = low
        return self._first(ages)

    def _first(self, ages: Sequence[float]) -> int:
        of = [self._of[age] for age in ages]
        return of.index(max(of))
