"""
Loads in progress: one for each key and event loop, whoever asks.

Promise: a flight is taken from the table only if it is the one in it; one that was disowned answers
those who wait for it, is joined by nobody else, and stores nothing.
Why callers wait as they do: docs/en/design/caching.md.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from mtaio._internal import loops

if TYPE_CHECKING:
    from collections.abc import Hashable
    from types import TracebackType

    import anyio

__all__ = ["LOADING", "Flight", "Flights", "State"]


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
    One load.

    Args:
        cache: The cache that it is for.
        key: The key that it is for.
        tags: What the value will be tagged with.
        kept: Whether it goes on when nobody waits for it.
    """

    __slots__ = (
        "cache",
        "company",
        "error",
        "event",
        "kept",
        "key",
        "outer",
        "scope",
        "state",
        "tags",
        "traceback",
        "value",
        "waiters",
        "wanted",
    )

    def __init__(
        self,
        cache: object,
        key: Hashable,
        tags: frozenset[Hashable],
        *,
        kept: bool = False,
    ) -> None:
        self.cache: object = cache
        self.key: Hashable = key
        self.tags: frozenset[Hashable] = tags
        self.scope: anyio.CancelScope | None = None
        """What cancels it; None if a caller runs it."""
        self.kept: bool = kept
        self.outer: Flight | None = None if kept else LOADING.get()
        """The load in whose course it began, and which waits for it."""
        self.company: set[Flight] | None = None
        """The flights of the block in which it runs, if it runs in one."""
        self.event: anyio.Event | None = None  # until somebody waits
        self.waiters: int = 0
        self.state: State = State.RUNNING
        self.wanted: bool = True
        """Whether what it loads is to be stored."""
        self.value: Any = None
        self.error: Exception | None = None
        self.traceback: TracebackType | None = None

    def fail(self, error: Exception) -> None:
        """Note what the loader raised."""
        self.state = State.FAILED
        self.error = error
        self.traceback = error.__traceback__


LOADING: Final[ContextVar[Flight | None]] = ContextVar("mtaio.cache.loading", default=None)
"""The innermost load in whose course the running code runs."""


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

    def add(self, loop: object, flight: Flight) -> None:
        """Take in a new flight; there is none for its key."""
        table = self.tables.get(loop)
        if table is None:
            for other in [each for each in self.tables if loops.is_over(each)]:
                del self.tables[other]
            table = self.tables[loop] = {}
        table[flight.key] = flight

    def discard(self, loop: object, flight: Flight) -> None:
        """Let nobody join a flight any more."""
        table = self.tables.get(loop)
        if table is not None and table.get(flight.key) is flight:
            del table[flight.key]
            if not table:
                del self.tables[loop]

    def disown(self, key: Hashable) -> None:
        """Let nobody join the flights for ``key``, nor what they load be stored."""
        for loop in [*self.tables]:
            flight = self.tables[loop].get(key)
            if flight is not None:
                flight.wanted = False
                self.discard(loop, flight)

    def disown_all(self, tag: Hashable | None = None) -> None:
        """Do so with every flight, or with those whose value would carry ``tag``."""
        for table in [*self.tables.values()]:
            for flight in [*table.values()]:
                if tag is None or tag in flight.tags:
                    self.disown(flight.key)
