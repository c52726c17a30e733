"""
Loads in progress: one for each key and event loop, whoever asks.

Promise: a flight is taken from the table only if it is the one in it; one that was disowned answers
those who wait for it, is joined by nobody else, and stores nothing.
Why callers wait as they do: docs/en/design/caching.md.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import Enum
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from mtaio._internal import loops

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    import anyio

__all__ = ["LOADING", "Flight", "Flights", "State", "probable_loop"]


class State(Enum):
    """Where a load stands."""

    RUNNING = "running"
    LANDED = "landed"
    FAILED = "failed"
    ABORTED = "aborted"
    """Its leader was cancelled: another caller has to lead."""
    CLOSED = "closed"
    """The cache in whose task group it ran was left."""


class Flight:
    """
    One load: first what a caller asked for, then, unless another is in progress, its course.

    Args:
        cache: The cache that it is for.
        key: The key.
        factory: The loader.
        ttl: Seconds to live.
        tags: The tags of the value.
    """

    __slots__ = (
        "began",
        "cache",
        "company",
        "event",
        "factory",
        "kept",
        "key",
        "loop",
        "outer",
        "result",
        "scope",
        "state",
        "tags",
        "ttl",
        "waiters",
        "wanted",
    )

    if TYPE_CHECKING:
        # Set when it begins.
        began: float
        loop: object
        outer: Flight | None
        """The load in whose course it began, and which waits for it."""
        event: anyio.Event | None
        """What is set at its end, as soon as somebody waits for that."""
        company: set[Flight] | None
        """The flights of the block in which it runs; None if a caller runs it."""
        state: State
        wanted: bool
        """Whether what it loads is to be stored."""
        result: Any
        """What it loaded, or a `Failure`, once it is over."""
        # Set if it runs in a block, or is waited for.
        scope: anyio.CancelScope
        """What cancels it."""
        kept: bool
        """Whether it goes on when nobody waits for it."""

    def __init__(
        self,
        cache: object,
        key: Hashable,
        factory: Callable[[], Awaitable[Any]],
        ttl: float,
        tags: frozenset[Hashable],
    ) -> None:
        self.cache: object = cache
        self.key: Hashable = key
        self.factory: Callable[[], Awaitable[Any]] = factory
        self.ttl: float = ttl
        self.tags: frozenset[Hashable] = tags
        self.waiters: int = 0


LOADING: Final[ContextVar[Flight | None]] = ContextVar("mtaio.cache.loading", default=None)
"""The innermost load in whose course the running code runs."""


_HERE: Final[ContextVar[tuple[int, object] | None]] = ContextVar("mtaio.cache.here", default=None)
"""The thread and the event loop in which this context was when it first began a load."""


def probable_loop() -> object:
    """
    Return the running event loop, for a tenth of what `loops.current_loop` costs.

    It is another one of the same thread only if a loop was started within a task of another, or in
    a context that came from there. So whoever wants to wait for a flight asks `loops.current_loop`;
    a flight with the wrong loop is one that nobody joins.
    """
    here = _HERE.get()
    if here is not None and here[0] == get_ident():
        return here[1]
    loop = loops.current_loop()
    _HERE.set((get_ident(), loop))
    return loop


class Flights:
    """
    The loads of one cache.

    Invariant: a table is there only while there is a flight in it.
    """

    __slots__ = ("failures", "loads", "running", "seconds", "tables", "waiting")

    def __init__(self) -> None:
        self.tables: dict[object, dict[Hashable, Flight]] = {}
        """The flights that may be joined, by event loop and key."""
        self.loads: int = 0
        self.failures: int = 0
        self.seconds: float = 0.0
        self.running: int = 0
        self.waiting: int = 0

    def find(self, loop: object, key: Hashable) -> Flight | None:
        """Return the flight that a caller in ``loop`` may join."""
        table = self.tables.get(loop)
        return None if table is None else table.get(key)

    def begin(self, flight: Flight, loop: object, moment: float) -> None:
        """Take in a flight that begins; there is none for its key."""
        flight.began = moment
        flight.loop = loop
        flight.outer = LOADING.get()
        flight.event = flight.company = None
        flight.state = State.RUNNING
        flight.wanted = True
        self.loads += 1
        self.running += 1
        table = self.tables.get(loop)
        if table is None:
            if self.tables:
                self._prune()
            self.tables[loop] = {flight.key: flight}
        else:
            table[flight.key] = flight

    def discard(self, flight: Flight) -> None:
        """Let nobody join a flight any more."""
        table = self.tables.get(flight.loop)
        key = flight.key
        if table is not None and table.get(key) is flight:
            del table[key]
            if not table:
                del self.tables[flight.loop]

    def disown(self, key: Hashable) -> None:
        """Let nobody join the flights for ``key``, nor what they load be stored."""
        for table in [*self.tables.values()]:
            flight = table.get(key)
            if flight is not None:
                flight.wanted = False
                self.discard(flight)

    def disown_all(self) -> None:
        """Do so with every flight."""
        for flight in self._all():
            self.disown(flight.key)

    def disown_tagged(self, tag: Hashable) -> None:
        """Do so with those whose value would carry ``tag``."""
        for flight in self._all():
            if tag in flight.tags:
                self.disown(flight.key)

    def _all(self) -> list[Flight]:
        return [flight for table in self.tables.values() for flight in table.values()]

    def _prune(self) -> None:
        """Forget the flights of loops that are over, which can never end."""
        for loop in [each for each in self.tables if loops.is_over(each)]:
            self.running -= len(self.tables.pop(loop))
