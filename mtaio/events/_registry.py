"""
Who listens to what, and what became of each name.

Promise: a name that was emitted before finds its listeners with one look into a dict; registering
under an exact name forgets that of one name alone. Names are kept within a bound: beyond it those
that were emitted longest ago are forgotten, and their counters added to the rest.
Cost: registering copies the tuple of its pattern; an emit under way keeps its own.
"""

from __future__ import annotations

from collections import deque
from heapq import nsmallest
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from mtaio.events._event import EventKey, name_in
from mtaio.events._listener import Listener
from mtaio.events._match import check_name, is_wild, wider
from mtaio.events._statistics import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.events._statistics import EventStatistics

__all__ = ["Registry", "Tier", "Topic"]

Tier = tuple[bool, tuple[Listener, ...]]
"""Listeners of one priority, in their order; and whether several of them are async."""

_FORGOTTEN_AT_ONCE: Final = 8
"""One in so many names is forgotten when there is no room: finding the oldest reads them all."""

_BY_RANK: Final = attrgetter("rank")
_BY_PRIORITY: Final = attrgetter("priority")
_BY_USE: Final = attrgetter("used")


class Topic:
    """
    What an emit needs to know of one name.

    Invariants:
    - ``only_async`` or ``only_plain`` is what to call when there is just one listener, and nothing
      is special about it; else both are None;
    - ``used`` is the time of the last emit of this name;
    - ``key`` is an `EventKey` under which it is in ``ready`` too.
    """

    __slots__ = ("key", "name", "only_async", "only_plain", "tally", "tiers", "used")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.key: EventKey[Any] | None = None
        self.tally: Tally = Tally()
        self.tiers: tuple[Tier, ...] = ()
        self.only_async: Callable[[Any], Any] | None = None
        self.only_plain: Callable[[Any], Any] | None = None
        self.used: float = 0.0

    def outdate(self) -> None:
        """Let go of those who listened; whoever emits must bring it up to date."""
        self.tiers = ()
        self.only_async = self.only_plain = None

    def bring_up_to_date(self, listeners: list[Listener], *, several: bool) -> None:
        """Note who listens."""
        self.tiers = tuple(_tiers(listeners, several=several))
        self.only_async = self.only_plain = None
        if len(listeners) == 1:
            only = listeners[0]
            if only.is_async:
                self.only_async = only.call
            else:
                self.only_plain = only.call


class Registry:
    """
    The tables of one emitter.

    Args:
        max_names: How many names are kept.

    Invariants:
    - ``ready`` holds the topics whose listeners are up to date, by name and by key;
    - every listener in ``_table`` is active, unless it is in ``_dead`` too.
    """

    __slots__ = ("_dead", "_max_names", "_other", "_serial", "_table", "_topics", "ready")

    def __init__(self, max_names: int) -> None:
        self.ready: dict[object, Topic] = {}
        self._topics: dict[str, Topic] = {}
        self._max_names = max_names
        self._other = Tally()
        self._table: dict[str, tuple[Listener, ...]] = {}
        self._serial = 0
        self._dead: deque[Listener] = deque()

    # ---- listeners -------------------------------------------------------------------------------

    def add(self, listener: Listener) -> None:
        """Put a listener behind those of its priority."""
        self._bury()
        self._serial += 1
        listener.rank = (-listener.priority, self._serial)
        listener.active = True
        for pattern in listener.patterns:
            self._table[pattern] = (*self._table.get(pattern, ()), listener)
            self._forget(pattern)

    def remove(self, listener: Listener) -> None:
        """Take a listener out; nothing happens if it is out."""
        if not listener.active:
            return
        listener.active = False
        listener.call = None
        for pattern in listener.patterns:
            before = self._table[pattern]
            at = before.index(listener)
            if len(before) > 1:
                self._table[pattern] = before[:at] + before[at + 1 :]
            else:
                del self._table[pattern]
            self._forget(pattern)

    def note_dead(self, listener: Listener) -> None:
        """Remember a listener whose object is gone. Called from any thread, at any moment."""
        self._dead.append(listener)

    def crowd(self, pattern: str) -> int:
        """Return how many listen under exactly this name or pattern, or did until just now."""
        return len(self._table.get(pattern, ()))

    def under(self, pattern: str) -> tuple[Listener, ...]:
        """Return the handlers registered under exactly this name or pattern."""
        self._bury()
        return tuple(each for each in self._table.get(pattern, ()) if each.is_handler)

    def matching(self, name: str) -> list[Listener]:
        """Return all that would take the event ``name``, in their order."""
        self._bury()
        found = dict.fromkeys(self._table.get(name, ()))
        for pattern in wider(name):
            found.update(dict.fromkeys(self._table.get(pattern, ())))
        return sorted(found, key=_BY_RANK)

    def __len__(self) -> int:
        self._bury()
        return sum(each.is_handler for listeners in self._table.values() for each in listeners)

    def _bury(self) -> None:
        while self._dead:
            self.remove(self._dead.popleft())

    def _forget(self, pattern: str) -> None:
        if is_wild(pattern):
            for topic in self.ready.values():
                topic.outdate()
            self.ready.clear()
            return
        outdated = self.ready.pop(pattern, None)
        if outdated is not None:
            outdated.outdate()
            if outdated.key is not None:
                self.ready.pop(outdated.key, None)

    # ---- topics ----------------------------------------------------------------------------------

    def topic(self, name: object, *, several: bool) -> Topic:
        """
        Return the topic of a name that is about to be emitted, brought up to date.

        Args:
            name: A name or key, checked here.
            several: Whether several async listeners of a tier run beside each other.
        """
        checked = check_name(name_in(name))
        topic = self.ready.get(checked)
        if topic is None:
            topic = self._topics.get(checked)
            if topic is None:
                if len(self._topics) >= self._max_names:
                    self._make_room()
                topic = self._topics[checked] = Topic(checked)
            topic.bring_up_to_date(self.matching(checked), several=several)
            self.ready[checked] = topic
        if isinstance(name, EventKey):
            topic.key = name
            self.ready[name] = topic
        return topic

    def _make_room(self) -> None:
        fewer = -(-self._max_names // _FORGOTTEN_AT_ONCE)
        for topic in nsmallest(fewer, self._topics.values(), key=_BY_USE):
            del self._topics[topic.name]
            self._forget(topic.name)
            self._other.add(topic.tally)
            topic.tally = self._other  # an emit under way goes on counting

    # ---- counters --------------------------------------------------------------------------------

    def tally(self, name: str) -> Tally:
        """Return where to count for ``name``."""
        topic = self._topics.get(name)
        return self._other if topic is None else topic.tally

    def total(self) -> Tally:
        """Return the sum over all names."""
        total = Tally()
        total.add(self._other)
        for topic in self._topics.values():
            total.add(topic.tally)
        return total

    def names(self) -> dict[str, EventStatistics]:
        """Return the counters of each name that is kept."""
        return {each.name: each.tally.frozen() for each in self._topics.values()}

    def other(self) -> EventStatistics:
        """Return the counters of the names that were forgotten."""
        return self._other.frozen()


def _tiers(listeners: list[Listener], *, several: bool) -> list[Tier]:
    tiers: list[Tier] = []
    for _, group in groupby(listeners, key=_BY_PRIORITY):
        tier = tuple(group)
        tiers.append((several and sum(each.is_async for each in tier) > 1, tier))
    return tiers
