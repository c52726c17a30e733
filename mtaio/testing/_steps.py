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
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import ref

from mtaio.testing._trace import Place, Step, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import CodeType

    from mtaio.testing._schedule import Schedule

KEPT: Final = 10_000
"""How many steps the trace of a run goes back."""

YOUNGEST: Final = math.inf
"""The place, among candidates that were woken together, of what is no task."""


_UNNAMED: Final = re.compile(r"Task-\d+")
"""What asyncio calls a task to which nobody gave a name."""

_Known: TypeAlias = tuple[int, str, str | None]
"""Of a task: how old it is among those seen, its name, and the name of its function."""

_Entry: TypeAlias = "tuple[float, _Known | str, tuple[CodeType, int] | None]"
"""Of a step: when, whose or what blow it was, and where the task waits after it."""


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
    # - stepping is the coroutine of the task whose step began last, None once that was noted;
    # - known has the order in which tasks were first seen, from 1, which is the task of the code
    #   under test; those that were there before it, the event loop's own, have the age 0.
    __slots__ = (
        "_condemn",
        "_guarded",
        "_invariants",
        "_known",
        "_seen",
        "_task",
        "_time",
        "_trace",
        "number",
        "schedule",
        "stepping",
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
        self.stepping: Any = None
        self._task: Any = None
        self._trace: deque[_Entry] = deque(maxlen=KEPT)
        self._guarded = False
        self._seen = 1
        self._known: dict[ref[Any], _Known] = {}

    def know(self, tasks: Iterable[Any]) -> None:
        """Get to know tasks that are not of the code under test, before that begins."""
        for task in tasks:
            self._meet(task)

    def guard_begins(self, host: Any, running: Any) -> None:
        """
        Begin to choose and to note afresh.

        ``host`` is the task of the code under test, and ``running`` the one that takes a step now.
        """
        self._guarded = True
        self._seen = 1
        self._trace.clear()
        self.forget_invariants()
        for known, who in tuple(self._known.items()):  # tasks may be collected meanwhile
            self._known[known] = 0, who[1], who[2]
        self._known[ref(host, self._known.__delitem__)] = _met(1, host)
        self._task = running
        self.stepping = running.get_coro() if hasattr(running, "get_coro") else running.coro

    def guard_ends(self) -> None:
        """Let the event loop have its own way again; called in the task of the code under test."""
        self.between(ended=True)
        self._guarded = False

    def key(self, task: Any) -> tuple[int, float]:
        """Return the place of a task that is woken now among the candidates for the next step."""
        who = self._who(task)
        return self.number if who[0] and self._guarded else -1, who[0]

    def _who(self, task: Any) -> _Known:
        return self._known.get(ref(task)) or self._meet(task)

    def _meet(self, task: Any) -> _Known:
        self._seen += 1
        who = self._known[ref(task, self._known.__delitem__)] = _met(self._seen, task)
        return who

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
        self.stepping = coroutine
        self._task = task
        if self.strikes and self._who(task)[0]:
            for strike in self.strikes:
                strike(task)

    def between(self, *, ended: bool = False) -> None:
        """Note that the step that began last is over, and look at the invariants."""
        coroutine = self.stepping
        if coroutine is None:
            return
        self.stepping = None
        who = self._who(self._task)
        if who[2] is not None and self._task.get_name() != who[1]:  # it got one after it was made
            who = self._known[ref(self._task)] = who[0], self._task.get_name(), who[2]
        self._trace.append((self._time(), who, None if ended else place_of(coroutine)))
        for invariant in self._invariants:
            failure = invariant()
            if failure is not None:
                self._condemn(failure)  # which forgets the others
                return

    def trace(self) -> tuple[Step, ...]:
        """Return the steps that are over, at most the `KEPT` last ones, but for the loop's own."""
        return tuple(
            Step(time, who, None, struck=True)
            if isinstance(who, str)
            else Step(time, _label(*who), place and Place.of(*place))
            for time, who, place in self._trace
            if who[0] != 0
        )

    def plays(self, task: Any, function: object) -> None:
        """Note which function a victim's task runs, if it was named after the victim."""
        age, name, started = self._who(task)
        if name.endswith("._inject") or started == "Victim.__call__":
            part = getattr(function, "__qualname__", type(function).__qualname__)
            self._known[ref(task, self._known.__delitem__)] = age, part, None

    def label(self, task: Any) -> str:
        """Return what a task is called in the trace."""
        return _label(*self._who(task))

    def struck(self, what: str) -> None:
        """Note a blow that is dealt now: a victim is struck, or the run is broken off."""
        self._trace.append((self._time(), what, None))

    def always(self, invariant: Callable[[], BaseException | None]) -> None:
        """Call ``invariant`` after every step; what it returns ends the run."""
        self._invariants.append(invariant)

    def forget_invariants(self) -> None:
        """Look at none of them any more, until there are new ones."""
        self._invariants.clear()


def _met(age: int, task: Any) -> _Known:
    """Return what the trace needs to know of a task when it is gone."""
    if hasattr(task, "get_name"):
        # One that is eager and over already has none; CPython 3.12.1 crashes at the question.
        coroutine = None if task.done() else task.get_coro()
        return age, task.get_name(), getattr(coroutine, "__qualname__", None)
    return age, task.name, None


def _label(age: int, name: str, function: str | None) -> str:
    """Return the last part of a task's name, or of its function's if it has got only a number."""
    if function is not None and _UNNAMED.fullmatch(name):
        name = function
    return f"{name.rpartition('.')[2]}#{age}"
