"""
One load: what was asked for, who waits for it, and its state.

Cost: nineteen slots, and one more where several load together, which `mtaio.cache._loads` sets by
hand and looks after.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable

    import anyio

    from mtaio.cache._config import Lifetime
    from mtaio.cache._cycles import Asker

__all__ = [
    "ABORTED",
    "ABSENT",
    "CLOSED",
    "FAILED",
    "LOADED",
    "RUNNING",
    "JointLoad",
    "Load",
    "State",
    "together",
]


class State(Enum):
    """The state of a load."""

    RUNNING = "running"
    LOADED = "loaded"
    FAILED = "failed"
    ABORTED = "aborted"
    """The caller that ran it was cancelled: another one has to load."""
    CLOSED = "closed"
    """The cache in whose task group it ran was left."""
    ABSENT = "absent"
    """The loader of several keys left this one out."""


# Under names that cost less to look up.
RUNNING: Final = State.RUNNING
LOADED: Final = State.LOADED
FAILED: Final = State.FAILED
ABORTED: Final = State.ABORTED
CLOSED: Final = State.CLOSED
ABSENT: Final = State.ABSENT


class Load:
    """One load; at first only a request, whose caller may join another load in flight."""

    __slots__ = (
        "askers",
        "call",
        "coroutine",
        "event",
        "factory",
        "in_block",
        "kept",
        "key",
        "loop",
        "other",
        "owner",
        "result",
        "scope",
        "started",
        "state",
        "tags",
        "ttl",
        "waiters",
        "wanted",
    )

    # Set in `Loads.fetch`, where an __init__ would take as long as the rest of a load's start.
    owner: object
    """The cache."""
    key: Hashable
    ttl: Lifetime
    tags: frozenset[Hashable]
    loop: object
    """The event loop; None once the load is counted as ended."""
    state: State
    call: Awaitable[Any] | None
    """What the factory returned, while the load is in progress."""
    event: anyio.Event | None
    """Set at its end; there as soon as a caller waits for that."""
    other: Load | None
    """The next load of the same key, of another event loop."""
    waiters: int
    """How many tasks need it, including the caller that runs it."""
    askers: dict[Asker, None] | None
    """Those of them that may be part of another load."""
    in_block: bool
    """Whether it has a task of its own, in the cache's block."""
    kept: bool
    """Whether nobody has waited for it so far: it then goes on by itself."""
    wanted: bool
    """Whether the value it loads is to be stored."""

    started: float
    """When it started."""
    result: Any
    """The value it loaded, or a `Failure`: once it is over, if somebody waits."""

    siblings: tuple[Load, ...] = ()
    """The loads of one call of a loader, including this one; none if it loads alone."""

    # In a block alone.
    factory: Callable[..., Awaitable[Any]]
    scope: anyio.CancelScope
    """What cancels it."""
    coroutine: Coroutine[Any, Any, None]
    """What runs it; closed by us if its task is cancelled before its first step."""

    def is_over(self) -> bool:
        """Return whether it can no longer be waited for."""
        return self.state is not RUNNING


class JointLoad(Load):
    """
    The load of one of several keys that one call of a loader brings.

    They share event, scope, call and coroutine, and end in the same step; each has a result and
    callers of its own, and can be joined by itself.
    """

    __slots__ = ("siblings",)


def together(load: Load) -> tuple[Load, ...]:
    """Return the loads that end with ``load``, including itself."""
    return load.siblings or (load,)
