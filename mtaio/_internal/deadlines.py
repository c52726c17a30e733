"""
Limits of time: what they leave to the running code, and one timer for those of many calls.

Promise: `remaining` follows every limit that mtaio set around the running code: also inside a
shield, in the children of inner task groups, in worker threads that anyio started, and after a
limit was moved while they ran.
Cost: setting and taking back a limit is one small object and two writes of a context variable; an
`Alarm`, which acts on moments that are seldom reached, an entry in an ordered dict.

A cancel scope's deadline cannot be seen from inside a shield, and a float in a context variable
would be copied into child tasks and go stale when the limit is moved. Hence the variable holds
the innermost limit, an object that knows the one around it.

To limit a piece of code: ``limit = deadlines.enter(clock.now() + seconds)``, then
``deadlines.leave(limit)`` in the same context. To limit one piece after another in one context,
keep the limit and assign its ``moment`` for each.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from contextvars import ContextVar
from typing import Final, Protocol

import anyio

from mtaio._internal import backend, loops
from mtaio._internal.clock import loop_deadline, now

__all__ = [
    "Alarm",
    "Alarms",
    "Deadline",
    "Overdue",
    "current",
    "enter",
    "leave",
    "logical",
    "remaining",
]

_TICK: Final = 1e-6
"""Seconds by which a timer may be early: two clocks need not agree to the last digit."""


class Deadline:
    """
    One limit around the running code.

    Args:
        moment: When the code should be done, in `clock.now`'s seconds; ``inf`` for no limit.
        outer: The limit around this one.

    Attributes:
        alone: Whether it takes the place of the limits around it, as bounded clean-up does.
    """

    # Invariants:
    # - the limits that apply are those of the chain from `current` outwards, up to and including
    #   the first that stands alone;
    # - only the owner writes `moment`; it may do so at any time, also for tasks begun before.
    __slots__ = ("alone", "moment", "outer")

    def __init__(self, moment: float, outer: Deadline | None) -> None:
        self.moment: float = moment
        self.outer: Deadline | None = outer
        self.alone: bool = False


current: Final[ContextVar[Deadline | None]] = ContextVar("mtaio.deadline", default=None)
"""The innermost limit around the running code."""


def enter(moment: float, *, alone: bool = False) -> Deadline:
    """Limit the code that follows in this context, until `leave`."""
    limit = Deadline(moment, current.get())
    limit.alone = alone
    current.set(limit)
    return limit


def leave(limit: Deadline) -> None:
    """Take back the limit that `enter` returned; what it limited is limited no longer."""
    # A task that outlives the block by means other than ours still has the limit in its context.
    limit.moment = math.inf
    current.set(limit.outer)


def logical() -> float:
    """Return when the running code should be done, in `clock.now`'s seconds; ``inf`` if never."""
    nearest = math.inf
    limit = current.get()
    while limit is not None:
        nearest = min(nearest, limit.moment)
        limit = None if limit.alone else limit.outer
    return nearest


def remaining() -> float:
    """
    Return the seconds left to the running code.

    The nearest of mtaio's limits and of the deadlines of anyio's cancel scopes; 0 when it has
    passed or the scope around was cancelled, ``inf`` when there is none. Outside an event loop
    (a worker thread) mtaio's limits alone.
    """
    left = logical() - now()
    try:
        effective = anyio.current_effective_deadline()
    except anyio.NoEventLoopError:
        pass
    else:
        if effective != math.inf:
            left = min(left, effective - anyio.current_time())
    return max(left, 0.0)


class Overdue(Protocol):
    """An entry that can wait for its moment."""

    def overdue(self) -> None:
        """Act on the moment; called in a callback of the event loop."""
        ...


class Alarm:
    """
    One timer for all moments of one event loop, the one that runs here.

    Each entry is called when its moment has come, unless it was discarded before. A timer is set
    for the first of them only, and stays when that one is discarded; when it fires, it is set for
    the next that is left. So there are as many timers as fit into the waits one after another, not
    one for each call.

    Attributes:
        loop: The event loop.
        waiting: What waits, with its moment.
    """

    # Invariants:
    # - the moments in `waiting` are in order: each is at least that of the one before it;
    # - while anything waits, _is_set.
    __slots__ = ("_is_set", "_latest", "_running_loop", "loop", "waiting")

    def __init__(self) -> None:
        self.loop: object = loops.current_loop()
        self.waiting: OrderedDict[Overdue, float] = OrderedDict()
        self._running_loop = backend.of(self.loop).running_loop
        self._latest = 0.0
        self._is_set = False

    def is_here(self) -> bool:
        """Return whether its event loop is the one that runs here."""
        return self._running_loop() is self.loop

    def add(self, entry: Overdue, moment: float) -> None:
        """Call ``entry`` at ``moment``, by `clock.now`, or later, after those before it."""
        if self.waiting:
            moment = max(moment, self._latest)
        self._latest = self.waiting[entry] = moment
        if not self._is_set:
            self._set(moment)

    def discard(self, entry: Overdue) -> None:
        """Do not call ``entry``, if it waits."""
        self.waiting.pop(entry, None)

    def _set(self, moment: float) -> None:
        self._is_set = True
        loops.call_at(self.loop, loop_deadline(moment), self._ring)

    def _ring(self) -> None:
        self._is_set = False
        reached = now() + _TICK
        while self.waiting:
            entry, moment = next(iter(self.waiting.items()))
            if moment > reached:
                self._set(moment)
                return
            del self.waiting[entry]
            entry.overdue()


class Alarms:
    """
    An alarm for each number of seconds: moments as far away when they are added are in order.

    Few numbers are used over and over; when there were `_MOST`, all alarms are made afresh. Those
    that somebody has go on.
    """

    # Invariant: _alarms are all of one event loop.
    __slots__ = ("_alarms",)

    def __init__(self) -> None:
        self._alarms: dict[float, Alarm] = {}

    def of(self, seconds: float) -> Alarm:
        """Return the alarm, of the event loop that runs here, for moments so far away."""
        alarm = self._alarms.get(seconds)
        if alarm is None or not alarm.is_here():
            alarm = Alarm()
            known = self._alarms if len(self._alarms) < _MOST else {}
            kept = {each: other for each, other in known.items() if other.loop is alarm.loop}
            self._alarms = {**kept, seconds: alarm}
        return alarm


_MOST: Final = 8
"""Alarms of an `Alarms`."""
