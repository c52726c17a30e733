"""
One load: what is asked for, who waits for it, and its state.

A load begins as a request of one call. Under the lock of the cache the call finds a value, or a
load of the key in flight, which it joins, and then its request is dropped. Otherwise its load
starts: it is put into the table, is `RUNNING`, and can be joined. It ends once, in one of these
ways:

- `LOADED`: its value was stored, and those who waited return it;
- `FAILED`: the error is raised by those who waited;
- `ABSENT`: it was one of several keys, and the loader left this one out;
- `ABORTED`: it was cancelled, with the caller in whose task it ran or because nobody waited for it
  any more. Those who wait for it all the same start again;
- `CLOSED`: the block in which it ran was left, so those who wait get a `CacheClosedError` at once.
  Its task is then cancelled, and may take its time to clean up.

Across these there are two more changes. It is no longer ``wanted`` once its key was changed: then
it is not in the table, so nobody joins it; it still answers those who wait, but stores nothing. And
its ``loop`` becomes None when its end was counted, which happens once.

At its end a load first has its result, then leaves the table, and then wakes those who wait. Each
of these steps is a method of `mtaio.cache._loads.Loads`.

Cost: twenty-one slots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from mtaio._internal import loops

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable

    import anyio

    from mtaio.cache._config import Lifetime
    from mtaio.cache._cycles import Dependent

__all__ = [
    "ABORTED",
    "ABSENT",
    "CLOSED",
    "FAILED",
    "LOADED",
    "RUNNING",
    "Load",
    "NoLoop",
    "State",
    "is_over",
    "request",
    "together",
]


State: TypeAlias = Literal["running", "loaded", "failed", "aborted", "closed", "absent"]
"""The state of a load: see above."""

RUNNING: Final = "running"
LOADED: Final = "loaded"
FAILED: Final = "failed"
ABORTED: Final = "aborted"
CLOSED: Final = "closed"
ABSENT: Final = "absent"


class _Waiter(Protocol):
    """Who waits for the end of a load."""

    def wake(self) -> object:
        """Have it go on."""
        ...


class Load:
    """One load; made by `request`."""

    __slots__ = (
        "call",
        "coroutine",
        "dependents",
        "in_block",
        "kept",
        "key",
        "loader",
        "loop",
        "other",
        "owner",
        "result",
        "scope",
        "siblings",
        "started",
        "state",
        "tags",
        "thread",
        "ttl",
        "waiters",
        "waiting",
        "wanted",
    )

    owner: object
    """The cache."""
    key: Hashable
    ttl: Lifetime
    tags: frozenset[Hashable]
    loop: object
    """The event loop, or what is `NoLoop` in its place; None once the load is counted as ended."""
    state: State
    call: Awaitable[Any] | None
    """What the loader returned, while the load is in progress."""
    waiting: dict[_Waiter, None] | None
    """The tasks or threads to wake at its end; there as soon as one waits."""
    other: Load | None
    """The next load of the same key, of another event loop."""
    waiters: int
    """How many tasks need it, including the caller that runs it."""
    dependents: dict[Dependent, None] | None
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

    siblings: tuple[Load, ...]
    """
    The loads of one call of a loader of several keys, including this one; none if it loads alone.

    They share scope, call, coroutine and the tasks to wake, and end in the same step; each has a
    result and callers of its own, and can be joined by itself.
    """

    # In a block alone.
    loader: Callable[..., Awaitable[Any]]
    scope: anyio.CancelScope
    """What cancels it."""
    coroutine: Coroutine[Any, Any, None]
    """What runs it; closed by us if its task is cancelled before its first step."""

    # In a thread alone.
    thread: int
    """The thread that runs it."""

    def is_over(self) -> bool:
        """Return whether it can no longer be waited for."""
        return self.state is not RUNNING


class NoLoop:
    """What loads belong to in place of an event loop: the threads of a process."""

    __slots__ = ()

    if TYPE_CHECKING:

        def is_over(self) -> bool:
            """Return whether its loads will never end."""
            ...


def is_over(loop: object) -> bool:
    """Return whether what loads belong to can never run again."""
    return loop.is_over() if isinstance(loop, NoLoop) else loops.is_over(loop)


def request(
    owner: object, key: Hashable, ttl: Lifetime, tags: frozenset[Hashable], loop: object
) -> Load:
    """Return a load that may join another one or start; an ``__init__`` would take longer."""
    load = Load()
    load.owner = owner
    load.key = key
    load.ttl = ttl
    load.tags = tags
    load.loop = loop
    load.state = RUNNING
    load.call = load.waiting = load.other = load.dependents = None
    load.waiters = 1
    load.in_block = False
    load.wanted = True
    load.siblings = ()
    return load


def together(load: Load) -> tuple[Load, ...]:
    """Return the loads that end with ``load``, including itself."""
    return load.siblings or (load,)
