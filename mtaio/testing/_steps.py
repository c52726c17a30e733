"""
Between two steps of tasks: invariants are looked at, the next is chosen, faults strike.

Promise: candidates are put in one canonical order, by the step that woke them and then by when they
were made, since anyio cancels tasks in the order of a set, which differs from run to run. Nothing
here raises into the event loop. A run that nobody watches pays nothing.

Private hooks, which canary tests watch: asyncio's ``loop._ready`` and trio's ``runner.runq``.
"""

from __future__ import annotations

import math
import re
from collections import deque
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from mtaio.testing._trace import Place, Step, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType

    from mtaio.testing._schedule import Schedule

KEPT: Final = 10_000
"""How many steps the trace of a run goes back."""

YOUNGEST: Final = math.inf
"""The place, among candidates that were woken together, of what is no task."""


_ENDED: Final = object()
"""What stands for a coroutine that is about to end: it waits nowhere."""

_UNNAMED: Final = re.compile(r"Task-\d+")
"""What asyncio calls a task to which nobody gave a name."""


class Steps:
    """
    The steps of the tasks of one event loop.

    Args:
        schedule: Who chooses the next; None leaves that to the event loop.
        time: Returns the virtual time in seconds.
        condemn: Called with the error that ends the run, when an invariant does not hold.
    """

    # Invariants:
    # - number counts the steps that have begun under guard;
    # - running is the coroutine of the task whose step began last, None once that was noted;
    # - ages holds the order in which tasks were first seen, from 1, which is the task of the code
    #   under test; those that were there before it, the event loop's own, have the age 0.
    __slots__ = (
        "_ages",
        "_condemn",
        "_guarded",
        "_invariants",
        "_labels",
        "_running",
        "_seen",
        "_task",
        "_time",
        "_trace",
        "number",
        "schedule",
        "strikes",
    )

    def __init__(
        self,
        schedule: Schedule | None,
        time: Callable[[], float],
        condemn: Callable[[BaseException], object],
    ) -> None:
        self.schedule: Schedule | None = schedule
        self.number: int = 0
        self.strikes: list[Callable[[Any], None]] = []
        self._time = time
        self._condemn = condemn
        self._invariants: list[Callable[[], BaseException | None]] = []
        self._running: Any = None
        self._task: Any = None
        self._trace: deque[tuple[float, float | str, tuple[CodeType, int] | None]]
        self._trace = deque(maxlen=KEPT)
        self._guarded = False
        self._seen = 1
        self._ages: dict[ref[Any], int] = {}
        self._labels: dict[float, str] = {}

    def guard_begins(self, host: Any) -> None:
        """Begin to choose and to note afresh; ``host`` is the task of the code under test."""
        self._guarded = True
        self._seen = 1
        self._trace.clear()
        self._labels.clear()
        self.forget_invariants()
        for known in tuple(self._ages):  # a copy, because tasks may be collected meanwhile
            self._ages[known] = 0
        self._ages[ref(host, self._ages.__delitem__)] = 1

    def guard_ends(self) -> None:
        """Let the event loop have its own way again; called in the task of the code under test."""
        if self._running is not None:
            self._running = _ENDED
            self.between()
        self._guarded = False

    def key(self, task: Any) -> tuple[int, float]:
        """Return the place of a task that is woken now among the candidates for the next step."""
        age = self._ages.get(ref(task))
        if age is None:
            self._seen += 1
            age = self._ages[ref(task, self._ages.__delitem__)] = self._seen
        return self.number if age else -1, age

    def choose(self, candidates: Sequence[tuple[tuple[int, float], *tuple[Any, ...]]]) -> int:
        """Return which of the candidates, whose keys come first and are in order, is next."""
        if len(candidates) == 1 or not self._guarded or candidates[0][0][0] < 0:
            return 0
        assert self.schedule is not None  # noqa: S101 - it is for a schedule that queues ask
        return self.schedule.pick(len(candidates))

    def begin(self, task: Any, coroutine: Any) -> None:
        """Note that a step of ``task`` begins, and let what waits for this moment strike."""
        if not self._guarded:
            return
        self.number += 1
        self._running = coroutine
        self._task = task
        for strike in self.strikes:
            strike(task)

    def between(self) -> None:
        """Note that the step that began last is over, and look at the invariants."""
        coroutine = self._running
        if coroutine is None:
            return
        self._running = None
        age = self.key(self._task)[1]
        if age not in self._labels:
            self._labels[age] = f"{_short_name(self._task)}#{age}"
        self._trace.append((self._time(), age, place_of(coroutine)))
        for invariant in self._invariants:
            failure = invariant()
            if failure is not None:
                self._condemn(failure)  # which forgets the others
                return

    def trace(self) -> tuple[Step, ...]:
        """Return the steps that are over, at most the `KEPT` last ones."""
        return tuple(
            Step(time, who, None, struck=True)
            if isinstance(who, str)
            else Step(time, self._labels[who], place and Place.of(*place))
            for time, who, place in self._trace
        )

    def struck(self, victim: str) -> None:
        """Note that a victim is struck now."""
        self._trace.append((self._time(), victim, None))

    def always(self, invariant: Callable[[], BaseException | None]) -> None:
        """Call ``invariant`` after every step; what it returns ends the run."""
        self._invariants.append(invariant)

    def forget_invariants(self) -> None:
        """Look at none of them any more, until there are new ones."""
        self._invariants.clear()


def _short_name(task: Any) -> str:
    """Return the last part of a task's name, or of its coroutine's if it has got only a number."""
    name: str
    if hasattr(task, "get_name"):
        name = task.get_name()
        if _UNNAMED.fullmatch(name):
            name = getattr(task.get_coro(), "__qualname__", name)
    else:
        name = task.name
    return name.rpartition(".")[2]
