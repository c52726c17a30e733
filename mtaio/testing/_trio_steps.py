"""
trio's queue of what can run, with the steps of tasks in our hands.

Promise: under a schedule the run loop gets one task at a time, the one that the schedule wants;
deadlines and input are looked at between any two steps.

``runner.runq`` is private, a ``deque`` since trio 0.12, of which the run loop uses ``append``,
``clear``, iteration and truth.
"""

from __future__ import annotations

import sys
from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtaio.testing._schedule import Schedule
    from mtaio.testing._steps import Steps

CONTEXT_HOME: Final = "trio._core._run"
CONTEXT: Final = "GLOBAL_RUN_CONTEXT"
RUNNER: Final = "runner"
RUNQ: Final = "runq"


def running_runner() -> Any:
    """Return the runner of the run that is on in this thread, None if the hook is not there."""
    context = getattr(sys.modules.get(CONTEXT_HOME), CONTEXT, None)
    found = getattr(context, RUNNER, None)
    return found if isinstance(getattr(found, RUNQ, None), deque) else None


class StepWatch(trio.abc.Instrument):
    """Tells of each step of each task."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Tell that a step begins."""
        self._steps.begin(task, task.coro)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - trio's signature
        """Tell that it is over."""
        self._steps.between()


_key = itemgetter(0)


class PermutedQueue:
    """The order of a schedule: a queue of which the run loop sees one task at a time."""

    # Invariants:
    # - _entries holds key, task and batch of each, in the order of arrival;
    # - _batch is the number that new entries get; a fair schedule takes the oldest batch first.
    __slots__ = ("_batch", "_entries", "_schedule", "_steps")

    def __init__(self, steps: Steps, schedule: Schedule) -> None:
        self._steps = steps
        self._schedule = schedule
        self._batch = 0
        self._entries: list[tuple[tuple[int, float], trio.lowlevel.Task, int]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, task: trio.lowlevel.Task) -> None:
        """Add a task that can run."""
        self._entries.append((self._steps.key(task), task, self._batch))

    def clear(self) -> None:
        """Keep what the run loop, which has taken one, believes to have taken."""

    def __iter__(self) -> Iterator[trio.lowlevel.Task]:
        """Take the one that the schedule wants."""
        if not self._entries:
            return
        candidates = self._entries
        if self._schedule.fair:
            oldest = candidates[0][2]
            if oldest == self._batch:
                self._batch += 1
            candidates = [entry for entry in candidates if entry[2] == oldest]
        entry = candidates[0]
        if len(candidates) > 1:
            candidates = sorted(candidates, key=_key)
            entry = candidates[self._steps.choose(candidates)]
        self._entries.remove(entry)
        yield entry[1]
