"""
The tests below: not one run each, but some thousand.

How to read them. A test here is a scenario: a few tasks that fight over one object, one of them the
victim. `explored` runs it on both backends under every schedule that departs from the oldest task
at most twice, under 100 schedules at random, and with the victim cancelled at each
checkpoint, between any two steps of any task, and, on asyncio, by ``Task.cancel()`` itself. What
must hold at any time stands in ``sim.always``, what must hold afterwards at the end, where
``assert_quiescent`` has the last word.

How to write one. Make all objects inside, afresh for each run. Few tasks with few checkpoints: the
schedules grow with the square of the steps, and a search that is broken off is a warning, hence a
failure. Never assert on what is up to the schedule, but on what no schedule may change. Then break
the code under test in the ways in which it could be wrong, and see that each is found: a scenario
that finds nothing where something is wrong is worth nothing.

A failure prints the run to repeat: ``pytest --mtaio-replay PLAN -k NAME``. More seeds for a long
search: ``pytest tests/explored --mtaio-seeds 100000``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias

import anyio

from mtaio.testing import explore

__all__ = ["EXHAUSTIVE", "SEEDS", "Line", "Task", "explored", "together"]

Task: TypeAlias = Callable[[], Coroutine[Any, Any, object]]
"""What a task of a scenario does."""

SEEDS: Final = 100
"""The schedules at random on each backend."""

EXHAUSTIVE: Final = 2
"""How often the other schedules pass over the oldest task."""

explored = explore(seeds=SEEDS, exhaustive=EXHAUSTIVE)


class Line:
    """
    Who stands in line: in the order of asking, until served or gone.

    It knows what its callers tell it, and nothing of how the object under test sees it.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.served: list[str] = []
        self.left: list[str] = []

    def __len__(self) -> int:
        return len(self.names)

    def asks(self, name: str) -> None:
        """Note that somebody is about to ask, in the same step."""
        self.names.append(name)

    def gets(self, name: str) -> int:
        """Note that somebody is served, and return how many asked before and still wait."""
        before = self.names.index(name)
        self.names.remove(name)
        self.served.append(name)
        return before

    def leaves(self, name: str) -> None:
        """Note that somebody goes without."""
        self.names.remove(name)
        self.left.append(name)


async def together(**tasks: Task) -> None:
    """Run tasks side by side to their end, in their order as far as the schedule minds it."""
    async with anyio.create_task_group() as group:
        for name, task in tasks.items():
            group.start_soon(task, name=name)
