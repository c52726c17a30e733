"""
Who listens to what, and the counters of each name.

Promise: a name that was emitted before finds its listeners with one look into a dict; registering
under an exact name outdates that name alone. A removed listener is no longer called, not even by an
emit in progress. The number of names is bounded: those emitted longest ago are forgotten, and their
counters added up in one place. `Registry.snapshot` may be called from any thread.
Cost: registering and removing take a look into a dict each, however many listen to the name; an
emit in progress keeps the listeners that it found.
"""

from __future__ import annotations

import inspect
import weakref
from collections import Counter, deque
from functools import partial
from heapq import nsmallest
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from mtaio._internal import checks, clock
from mtaio._internal.callables import is_async, is_async_generator, is_generator
from mtaio._internal.durations import timed, took
from mtaio.events._event import EventKey, name_of
from mtaio.events._patterns import is_pattern, patterns_matching

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio._internal.histogram import Histogram
    from mtaio.events._statistics import EventStatistics

__all__ = [
    "IGNORED",
    "Listener",
    "Registry",
    "Tally",
    "Tier",
    "Topic",
    "check_handler",
    "check_priority",
    "timed_call",
]

Kind: TypeAlias = Literal["handler", "stream", "wait_for"]

IGNORED: Final = object()
"""Returned by a stream or waiter for an event that it did not take."""

_FORGOTTEN_AT_ONCE: Final = 8
"""One name in eight is forgotten when there are too many, since finding the oldest reads all."""

_SNAPSHOT_TRIES: Final = 3

_BY_RANK: Final = attrgetter("rank")
_BY_PRIORITY: Final = attrgetter("priority")
_BY_USE: Final = attrgetter("used")


class Listener:
    """
    A handler, stream or waiter, registered under one or more patterns.

    Args:
        registry: Where it is going to be registered.
        patterns: What it listens to.
        subject: The handler, stream or waiter, as the user knows it.
        priority: Higher ones run first.
        kind: What it is.
        call: What takes the event, if that is not the subject itself.
        once: Whether it is removed before it is called.
        weak: Whether to refer to the subject weakly.

    Invariants:
    - ``call`` is None for a subject that is not simply called each time: then ask `claim`;
    - ``active`` says that it is registered; otherwise there is no ``call``.
    """

    __slots__ = (
        "_once",
        "_registry",
        "_subject",
        "_weak",
        "active",
        "call",
        "is_async",
        "kind",
        "patterns",
        "priority",
        "rank",
    )

    def __init__(
        self,
        registry: Registry,
        patterns: tuple[str, ...],
        subject: Any,
        *,
        priority: int,
        kind: Kind = "handler",
        call: Callable[[Any], Any] | None = None,
        once: bool = False,
        weak: bool = False,
    ) -> None:
        self.patterns: tuple[str, ...] = patterns
        self.priority: int = priority
        self.kind: Kind = kind
        self.rank: tuple[int, int] = (0, 0)  # set by the registry
        self.active: bool = False
        self.is_async: bool = call is None and is_async(subject)
        self.call: Callable[[Any], Any] | None = None if weak or once else call or subject
        self._registry = registry
        self._once = once
        self._weak = weak
        self._subject = self._refer(subject) if weak else subject

    @property
    def subject(self) -> Any:
        """The handler, stream or waiter; None if it was referred to weakly and is gone."""
        return self._subject() if self._weak else self._subject

    def claim(self) -> Callable[[Any], Any] | None:
        """Return the function to call now; None for none."""
        if not self.active:
            return None
        subject: Callable[[Any], Any] | None = self.subject
        if subject is not None and self._once:
            self._registry.remove(self)
        return subject

    def _refer(self, subject: Any) -> Callable[[], Any]:
        registry = self._registry

        def note(_: object) -> None:
            registry.note_dead(self)

        try:
            if inspect.ismethod(subject) or _is_like_a_method(subject):
                return weakref.WeakMethod(subject, note)
            # A method of a builtin is a new object each time, and would be gone at once.
            bound = inspect.isbuiltin(subject) and not inspect.ismodule(subject.__self__)
            return weakref.ref(None if bound else subject, note)
        except TypeError:
            msg = (
                f"handler={subject!r} cannot be referred to weakly. Register it without weak=True, "
                f"and remove it with off() when it is no longer needed."
            )
            raise TypeError(msg) from None


def _is_like_a_method(subject: object) -> bool:
    """Return whether this is a new object each time, as a cached method of an object is."""
    kind = type(subject)
    return hasattr(kind, "__self__") and hasattr(kind, "__func__")


class Tally:
    """
    Counters that still change.

    Invariant: take the tally from the topic each time, because that of a topic that was forgotten
    is replaced by the one for all others.
    """

    __slots__ = ("dropped", "emitted", "failed", "handled")

    def __init__(self) -> None:
        self.emitted: int = 0
        self.handled: int = 0
        self.failed: int = 0
        self.dropped: int = 0

    def add(self, other: Tally) -> None:
        """Add the counts of ``other``."""
        self.emitted += other.emitted
        self.handled += other.handled
        self.failed += other.failed
        self.dropped += other.dropped


Tier: TypeAlias = tuple[bool, tuple[Listener, ...]]
"""Listeners of one priority, in their order; and whether some of them may run concurrently."""


class Topic:
    """
    What an emit needs to know about one name.

    Invariants:
    - ``only_async`` or ``only_plain`` is what to call when there is just one listener, which can
      simply be called; otherwise both are None;
    - ``used`` is the time of the last emit of this name;
    - ``key`` is an `EventKey` under which it is in ``ready`` too.
    """

    __slots__ = ("key", "name", "only_async", "only_plain", "tally", "tiers", "used")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.key: EventKey[Any] | None = None
        self.tally: Tally = Tally()
        self.used: float = 0.0
        self.outdate()

    def outdate(self) -> None:
        """Let go of the listeners: before the next emit it must be updated."""
        self.tiers: tuple[Tier, ...] = ()
        self.only_async: Callable[[Any], Any] | None = None
        self.only_plain: Callable[[Any], Any] | None = None

    def update(
        self, listeners: list[Listener], *, concurrent: bool, durations: Histogram | None
    ) -> None:
        """Note the listeners, and where to record how long a single one runs."""
        self.outdate()
        tiers = [tuple(group) for _, group in groupby(listeners, key=_BY_PRIORITY)]
        self.tiers = tuple(
            (concurrent and sum(each.is_async for each in tier) > 1, tier) for tier in tiers
        )
        if len(listeners) == 1:
            (only,) = listeners
            call = only.call
            if call is not None and durations is not None:
                call = timed_call(durations, only, call)
            if only.is_async:
                self.only_async = call
            else:
                self.only_plain = call


class Registry:
    """
    The listeners and the counters of one emitter.

    Args:
        max_names: How many names are kept; None for all.

    Invariants:
    - ``ready`` holds the topics whose listeners are up to date, by name and by key;
    - every listener in ``_handlers`` and ``_streams``, which has the waiters too, is active, and
      counted in ``count``; no dict in them is empty;
    - ``_forgetting`` is odd while counters are moved from names to the others.
    """

    __slots__ = (
        "__weakref__",
        "_dead",
        "_forgetting",
        "_handlers",
        "_last",
        "_other",
        "_serial",
        "_streams",
        "_topics",
        "count",
        "max_names",
        "ready",
        "timed_by",
    )

    def __init__(self, max_names: int | None) -> None:
        self.timed_by: clock.Tells = clock.REAL
        """The clock by which each topic was used."""
        self.max_names: int | None = max_names
        self.ready: dict[object, Topic] = {}
        self.count: Counter[Kind] = Counter()
        self._topics: dict[str, Topic] = {}
        self._handlers: dict[str, dict[Listener, None]] = {}
        self._streams: dict[str, dict[Listener, None]] = {}
        self._serial = 0
        self._dead: deque[Listener] = deque()
        self._other = Tally()
        self._forgetting = 0
        clock.hasten(self)
        self._last: tuple[dict[str, EventStatistics], EventStatistics] | None = None

    # ---- listeners -------------------------------------------------------------------------------

    def add(self, listener: Listener) -> None:
        """Register a listener behind those of its priority."""
        self._remove_dead()
        self._serial += 1
        listener.rank = (-listener.priority, self._serial)
        listener.active = True
        self.count[listener.kind] += 1
        table = self._table(listener)
        for pattern in listener.patterns:
            table.setdefault(pattern, {})[listener] = None
            self._outdate(pattern)

    def remove(self, listener: Listener) -> None:
        """Remove a listener, which is registered."""
        listener.active = False
        listener.call = None
        self.count[listener.kind] -= 1
        table = self._table(listener)
        for pattern in listener.patterns:
            listeners = table[pattern]
            if len(listeners) > 1:
                del listeners[listener]
            else:
                del table[pattern]
            self._outdate(pattern)

    def note_dead(self, listener: Listener) -> None:
        """Remember a listener whose object is gone. Called from any thread, at any moment."""
        if listener.active:
            self._dead.append(listener)

    def handlers(self) -> int:
        """Return how many handlers are registered. From any thread."""
        table = self._handlers.copy()  # in one step, whatever other threads do; as below
        return sum(
            each.subject is not None for listeners in table.values() for each in listeners.copy()
        )

    def under(self, pattern: str) -> dict[Listener, None]:
        """Return the handlers registered under exactly this name or pattern; not to be changed."""
        self._remove_dead()
        return self._handlers.get(pattern, {})

    def patterns(self) -> list[str]:
        """Return the names and patterns that have handlers, in the order of their first."""
        self._remove_dead()
        return [*self._handlers]

    def matching(self, name: str) -> list[Listener]:
        """Return all that listen to the name, in their order."""
        self._remove_dead()
        found: dict[Listener, None] = {}
        for pattern in (name, *patterns_matching(name)):
            found.update(self._handlers.get(pattern, {}))
            found.update(self._streams.get(pattern, {}))
        return sorted(found, key=_BY_RANK)

    def _table(self, listener: Listener) -> dict[str, dict[Listener, None]]:
        return self._handlers if listener.kind == "handler" else self._streams

    def _remove_dead(self) -> None:
        while self._dead:
            listener = self._dead.popleft()
            if listener.active:  # it may have been removed since its object went
                self.remove(listener)

    def _outdate(self, pattern: str) -> None:
        if is_pattern(pattern):
            for topic in tuple(self.ready.values()):
                topic.outdate()
            self.ready.clear()
            return
        outdated = self.ready.pop(pattern, None)
        if outdated is not None:
            outdated.outdate()
            if outdated.key is not None:
                self.ready.pop(outdated.key, None)

    # ---- topics ----------------------------------------------------------------------------------

    def topic(self, name: object, *, concurrent: bool, durations: Histogram | None) -> Topic:
        """
        Return the topic of a name that is about to be emitted, with its listeners up to date.

        Args:
            name: A name or key, checked here.
            concurrent: Whether async listeners of one tier may run concurrently.
            durations: Where to record how long handlers run, if that is recorded.
        """
        checked = name_of(name)
        topic = self.ready.get(checked)
        if topic is None:
            topic = self._topics.get(checked)
            if topic is None:
                most = self.max_names
                if most is not None and len(self._topics) >= most:
                    self._forget_oldest(-(-most // _FORGOTTEN_AT_ONCE))
                topic = self._topics[checked] = Topic(checked)
            topic.update(self.matching(checked), concurrent=concurrent, durations=durations)
            self.ready[checked] = topic
        if isinstance(name, EventKey):
            topic.key = name
            self.ready[name] = topic
        return topic

    def unsettle(self) -> None:
        """Have every emit look up its topic again: see `clock.Hasty`."""
        self.ready.clear()

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        for topic in self._topics.values():
            topic.used += seconds

    def _forget_oldest(self, number: int) -> None:
        oldest = nsmallest(number, self._topics.values(), key=_BY_USE)
        self._forgetting += 1
        try:
            for topic in oldest:
                del self._topics[topic.name]
                self._outdate(topic.name)
                self._other.add(topic.tally)
                topic.tally = self._other  # an emit in progress goes on counting
        finally:
            self._forgetting += 1

    # ---- counters --------------------------------------------------------------------------------

    def tally(self, name: str) -> Tally:
        """Return where to count for ``name``."""
        topic = self._topics.get(name)
        return self._other if topic is None else topic.tally

    def snapshot(self) -> tuple[dict[str, EventStatistics], EventStatistics]:
        """
        Return the counters of each name that is kept, and of all others together.

        From any thread. If names are being forgotten in another one, which would count them
        twice, the last snapshot is returned.
        """
        from mtaio.events._statistics import counts_of  # noqa: PLC0415 - takes 1 ms to make

        for _ in range(_SNAPSHOT_TRIES):  # pragma: no branch - the tries run out in a race alone
            before = self._forgetting
            topics = self._topics.copy()  # in one step, whatever other threads do
            names = {name: counts_of(topic.tally) for name, topic in topics.items()}
            other = counts_of(self._other)
            if before == self._forgetting and not before % 2:
                self._last = names, other
                break
        names, other = self._last or ({}, counts_of(Tally()))
        return names.copy(), other


def timed_call(
    durations: Histogram, listener: Listener, call: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Return ``call``, made for a listener, so that it records how long it takes a handler."""
    if listener.kind != "handler":  # it has only passed the event on
        return call
    return partial(timed if listener.is_async else _time_plain, durations, call)


def _time_plain(durations: Histogram, call: Callable[[Any], Any], event: Any) -> Any:
    began = clock.now()
    try:
        result: object = call(event)
    except BaseException as error:
        took(durations, began, error)
        raise
    if result is not None and inspect.isawaitable(result):
        return timed(durations, lambda: result, began=began)
    durations.observe(clock.now() - began)
    return result


def check_handler(name: str, value: object, *, way_out: str) -> None:
    """Refuse a handler that cannot be called, or that would do nothing when called."""
    checks.callable_(name, value, way_out=way_out)
    if is_async_generator(value) or is_generator(value):
        msg = (
            f"{name}={value!r} is a generator function: calling it would run none of it. {way_out}"
        )
        raise TypeError(msg)


def check_priority(priority: object) -> None:
    """Refuse a priority that cannot be compared with an `EventPriority`."""
    if isinstance(priority, bool) or not isinstance(priority, int):
        msg = (
            f"priority={priority!r} is {checks.type_of(priority)}, not an int. Pass an "
            f"EventPriority, or any int: higher ones run first."
        )
        raise TypeError(msg)
