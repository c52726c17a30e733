"""
How long the running code may still take, known where no cancel scope can tell.

Promise: `remaining` follows every limit that mtaio set around the running code: also inside a
shield, in the children of inner task groups, in worker threads that anyio started, and after a
limit was moved while they ran.
Cost: setting and taking back a limit is one small object and two writes of a context variable.

A cancel scope's deadline cannot be seen from inside a shield, and a float in a context variable
would be copied into child tasks and go stale when the limit is moved. Hence the variable holds
the innermost limit, an object that knows the one around it.

To limit a piece of code: ``limit = deadlines.enter(clock.now() + seconds)``, then
``deadlines.leave(limit)`` in the same context. To limit one piece after another in one context,
keep the limit and assign its ``moment`` for each.
"""

from __future__ import annotations

import math
from contextvars import ContextVar
from typing import Final

import anyio

from mtaio._internal.clock import now

__all__ = ["Deadline", "current", "enter", "leave", "logical", "remaining"]


class Deadline:
    """
    One limit around the running code.

    Args:
        moment: When the code should be done, in `clock.now`'s seconds; ``inf`` for no limit.
        outer: The limit around this one.
        alone: Whether it takes the place of the limits around it, as bounded clean-up does.
    """

    # Invariants:
    # - the limits that apply are those of the chain from `current` outwards, up to and including
    #   the first that stands alone;
    # - only the owner writes `moment`; it may do so at any time, also for tasks begun before.
    __slots__ = ("alone", "moment", "outer")

    def __init__(self, moment: float, outer: Deadline | None, *, alone: bool = False) -> None:
        self.moment: float = moment
        self.outer: Deadline | None = outer
        self.alone: bool = alone


current: Final[ContextVar[Deadline | None]] = ContextVar("mtaio.deadline", default=None)
"""The innermost limit around the running code."""


def enter(moment: float, *, alone: bool = False) -> Deadline:
    """Limit the code that follows in this context, until `leave`."""
    limit = Deadline(moment, current.get(), alone=alone)
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
