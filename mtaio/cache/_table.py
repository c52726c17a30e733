"""
The table of a cache: what it holds, and how it is looked at.

Promise: what belongs together changes together, whatever way in or out is taken.
Cost: one lock for all that changes; reads do without, see docs/en/design/caching.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mtaio._internal.callables import close_unstarted
from mtaio.cache._entry import Entry, Failure, Laden
from mtaio.cache._expiry import Agenda
from mtaio.cache._flight import Flight, Flights
from mtaio.cache._gate import Gate
from mtaio.cache._tags import Tags

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from mtaio.cache._listeners import Notices
    from mtaio.cache._options import Options
    from mtaio.cache._policy import Policy

__all__ = ["Table"]


class Table:
    """
    What a cache holds.

    Args:
        options: The arguments of `TTLCache`, checked.
    """

    # Invariants, whenever the gate is free:
    # - an entry is in the table, in the policy, in the weight, in the agenda if it expires some
    #   day, and in the tags if it has any; or in none of them;
    # - the weight is at most max_size;
    # - fresh <= expires for each entry, and fresh is -inf for a Failure and where a read has to
    #   change more than the score;
    # - a Failure is never put into an entry that had a value: a reader may be looking at it.
    # Code of a key may raise wherever the table is asked, hence that comes before all else.
    # Whatever is removed is returned to the caller, so that its __del__ runs outside the lock.
    __slots__ = (
        "_agenda",
        "_ahead",
        "_default_ttl",
        "_entries",
        "_evictions",
        "_expirations",
        "_flights",
        "_gate",
        "_hits",
        "_idle",
        "_jitter",
        "_laden",
        "_lookup",
        "_max_size",
        "_misses",
        "_mute",
        "_name",
        "_notices",
        "_policy",
        "_score",
        "_simple",
        "_stale",
        "_swift",
        "_tags",
        "_weigher",
        "_weight",
    )

    def __init__(self, options: Options) -> None:
        self._name = options.name
        self._default_ttl = options.default_ttl
        self._max_size = options.max_size
        self._weigher = options.weigher
        self._idle = options.idle_ttl
        self._jitter = options.jitter
        self._stale = options.stale_while_revalidate
        self._ahead = options.refresh_ahead
        self._policy: Policy = options.policy()
        self._score = self._policy.score
        self._swift = self._policy.lock_free and self._idle == math.inf
        self._laden = options.laden
        self._gate = Gate()
        self._entries: dict[Hashable, Entry] = {}
        self._lookup = self._entries.get
        self._agenda = Agenda()
        self._tags = Tags()
        self._flights = Flights()
        self._notices: Notices | None = options.listener(self)
        # True while an async listener has no task that could tell it: then nothing may change.
        # Whoever knows of tasks sets it.
        self._mute: bool
        self._simple = self._weigher is None and not self._jitter and self._notices is None
        self._weight: float = 0
        # A float: it is added to in less time than an int.
        self._hits: float = 0.0
        self._misses: int = 0
        self._evictions: int = 0
        self._expirations: int = 0

    def _check_audible(self) -> None:
        if self._mute:
            msg = (
                f"{self!r} has an async on_removed, and is not entered: nobody could await it. Use "
                f"'async with cache:' around what changes the cache, or pass a plain function."
            )
            raise RuntimeError(msg)

    # Reading, within the gate.

    def _find(self, key: Hashable, moment: float) -> Entry | None:
        """Return the entry of ``key`` if it has a value whose time is not over."""
        entry = self._entries.get(key)
        return entry if entry is not None and self._is_live(entry, moment) else None

    def _is_live(self, entry: Entry, moment: float) -> bool:
        """Tell whether an entry has a value whose time is not over."""
        if moment >= entry.expires or type(entry.value) is Failure:
            return False
        return type(entry) is not Laden or moment < entry.soft

    def _use(self, entry: Entry, moment: float) -> None:
        """Note that the value of an entry was served."""
        self._hits += 1.0
        self._policy.hit(entry)
        if self._idle != math.inf and type(entry) is Laden and type(entry.value) is not Failure:
            entry.expires = min(entry.soft + self._stale, moment + self._idle)

    def _total(self) -> float:
        """Return what the entries weigh."""
        return len(self._entries) if self._weigher is None else self._weight

    # For the block of an entered cache, outside the gate.

    @property
    def notices(self) -> Notices | None:
        """What the listener has still to be told."""
        return self._notices

    def detach(self, flight: Flight) -> None:
        """Let nobody join a flight any more, nor what it may still bring be stored."""
        flight.wanted = False
        with self._gate:
            self._flights.discard(flight)

    def never_ran(self, flight: Flight) -> None:
        """Note the end of a flight whose task was cancelled natively before its first step."""
        flight.coroutine.close()
        close_unstarted(flight.call)
        self._flights.ended += 1

    def awaken_at(self, ring: Callable[[], object] | None) -> float:
        """Return when something expires; ``ring`` is called if it becomes earlier."""
        with self._gate:
            return self._agenda.awaken(ring)

    # Afterwards, outside the gate.

    def _deliver(self, _gone: object) -> None:
        """Tell the listener; ``_gone`` lived until now, and is dropped outside the lock."""
        if self._notices is not None:
            self._notices.deliver()
