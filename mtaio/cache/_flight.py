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
    from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable

    import anyio

__all__ = [
    "ABORTED",
    "CLOSED",
    "FAILED",
    "LANDED",
    "LOADING",
    "RUNNING",
    "Flight",
    "Flights",
    "State",
    "probable_loop",
]


class State(Enum):
    """Where a load stands."""

    RUNNING = "running"
    LANDED = "landed"
    FAILED = "failed"
    ABORTED = "aborted"
    """Its leader was cancelled: another caller has to lead."""
    CLOSED = "closed"
    """The cache in whose task group it ran was left."""


# Under names that cost less to look up.
RUNNING: Final = State.RUNNING
LANDED: Final = State.LANDED
FAILED: Final = State.FAILED
ABORTED: Final = State.ABORTED
CLOSED: Final = State.CLOSED


class Flight:
    """One load: first what a caller asked for, then, unless one is in progress, its course."""

    __slots__ = (
        "args",
        "began",
        "cache",
        "call",
        "company",
        "coroutine",
        "event",
        "factory",
        "kept",
        "key",
        "kwargs",
        "loop",
        "other",
        "outer",
        "result",
        "scope",
        "sharers",
        "state",
        "tags",
        "ttl",
        "waiters",
        "wanted",
    )

    # Set by whoever makes one: an __init__ would take as long as the rest of a load's beginning.
    cache: object
    key: Hashable
    ttl: float
    tags: frozenset[Hashable]
    waiters: int
    outer: Flight | None
    """The load in whose course it began, and which waits for it."""
    other: Flight | None
    """The next flight for the same key, of another event loop."""
    event: anyio.Event | None
    """What is set at its end, as soon as somebody waits for that."""
    company: set[Flight] | None
    """The flights of the block in which it runs; None if a caller runs it."""
    state: State
    wanted: bool
    """Whether what it loads is to be stored."""

    # Set when it begins.
    began: float
    loop: object
    """The event loop; None for one that was given up because its loop is over."""

    # Set unless it begins at once.
    factory: Callable[..., Awaitable[Any]]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    # Set at its end, if somebody waits.
    result: Any
    """What it loaded, or a `Failure`, once it is over."""

    # Set if it runs in a block.
    call: Awaitable[Any]
    """What the factory has returned, in its caller's task, and at once."""
    coroutine: Coroutine[Any, Any, None]
    """What runs there, until it has begun."""
    scope: anyio.CancelScope
    """What cancels it."""
    sharers: int
    """How many wait for it in the course of ``outer``: when none does, ``outer`` is forgotten."""
    kept: bool
    """Whether it began with nobody who waits: it goes on until somebody has waited, and left."""


LOADING: Final[ContextVar[Flight | None]] = ContextVar("mtaio.cache.loading", default=None)
"""The innermost load in whose course the running code runs."""


_HERE: Final[ContextVar[tuple[object, Callable[[], object]] | None]] = ContextVar(
    "mtaio.cache.here", default=None
)
"""The event loop in which this context was when it last asked, and what tells whether it is."""


def probable_loop() -> object:
    """
    Return the running event loop, for a fifth of what `loops.current_loop` costs.

    It is another one only if a loop runs as a guest of another, in a context that came from there.
    So whoever wants to wait for a flight asks `loops.current_loop`; a flight with the wrong loop is
    one that nobody joins.
    """
    here = _HERE.get()
    if here is not None:
        loop, ask = here
        try:
            if ask() is loop:
                return loop
        except RuntimeError:  # it is trio's, and this is not trio
            pass
    loop = loops.current_loop()
    _HERE.set((loop, loops.asker_of(loop)))
    return loop


def _disown(flight: Flight | None) -> None:
    while flight is not None:
        flight.wanted = False
        flight = flight.other


class Flights:
    """The loads of one cache."""

    # The table is changed within the gate, but for one thing that may come at any moment, from any
    # thread: a flight that `setdefault` adds for a key that has none.
    # Invariants:
    # - table has the flights that may be joined, by key; those for one key, of several event loops,
    #   form a chain;
    # - whatever is in a chain is RUNNING, unless taking it out has failed: a key's own code may
    #   raise.
    __slots__ = (
        "ended",
        "failures",
        "last",
        "loads",
        "look_again",
        "seconds",
        "table",
        "waiting",
    )

    def __init__(self) -> None:
        self.table: dict[Hashable, Flight] = {}
        self.last: int = 0
        """
        The id of the event loop in which a flight began last, 0 if that was not looked at; flights
        keep theirs alive.
        """
        self.loads: int = 0
        self.look_again: int = 0
        """How many loads there have to be before it is looked again for loops that are over."""
        self.ended: int = 0
        """How many loads are over, or were given up."""
        self.failures: int = 0
        self.seconds: float = 0.0
        self.waiting: int = 0

    def find(self, loop: object, key: Hashable) -> Flight | None:
        """Return the flight that a caller in ``loop`` may join."""
        flight = self.table.get(key)
        while flight is not None and not (flight.loop is loop and flight.state is RUNNING):
            flight = flight.other
        return flight

    def begin(self, flight: Flight, loop: object, moment: float) -> list[Flight]:
        """Take in a flight that begins, and return those that were given up for good."""
        table = self.table
        lost = self._prune() if id(loop) != self.last and table else []
        key = flight.key
        flight.began = moment
        flight.loop = loop
        other: Flight | None = table.setdefault(key, flight)
        if other is not flight:
            while other is not None and other.state is not RUNNING:  # left in by a key's code
                other = other.other
            flight.other = other
            table[key] = flight
        self.last = id(loop)
        self.loads += 1
        return lost

    def discard(self, flight: Flight) -> None:
        """Let nobody join a flight any more."""
        table, key = self.table, flight.key
        first = table.get(key)
        if first is flight:
            if flight.other is None:
                del table[key]
            else:
                table[key] = flight.other
            return
        while first is not None:
            if first.other is flight:
                first.other = flight.other
                return
            first = first.other

    def disown(self, key: Hashable) -> None:
        """Let nobody join the flights for ``key``, nor what they load be stored."""
        _disown(self.table.pop(key, None))

    def disown_all(self) -> None:
        """Do so with every flight."""
        while self.table:
            _disown(self.table.popitem()[1])

    def disown_tagged(self, tag: Hashable) -> None:
        """Do so with those whose value would carry ``tag``."""
        for flight in self._all():
            if tag in flight.tags:
                self.disown(flight.key)

    def _all(self) -> list[Flight]:
        flights: list[Flight] = []
        for flight in list(self.table.values()):
            each: Flight | None = flight
            while each is not None:
                flights.append(each)
                each = each.other
        return flights

    def _prune(self) -> list[Flight]:
        """Give up the flights of loops that are over, which can never end."""
        if self.loads < self.look_again:
            return []
        flights = self._all()
        self.look_again = self.loads + len(flights)  # loops that take turns must not pay each time
        over = {loop for loop in {flight.loop for flight in flights} if loops.is_over(loop)}
        lost = [flight for flight in flights if flight.loop in over]
        self.give_up(lost)
        return lost

    def give_up(self, lost: Iterable[Flight]) -> None:
        """Count flights no more whose loop is over: neither they nor who waits for them can end."""
        for flight in lost:
            if flight.loop is not None:
                self.ended += 1
                self.waiting -= flight.waiters
                flight.loop = None
                self.discard(flight)
