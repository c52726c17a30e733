"""
The table of a cache: what is in it, and what leaves it.

Promise: an entry leaves the table, its queue, the agenda, the tags and the weight together, and
what has left is dropped by the caller, outside the lock.
Cost: one lock for all that changes; reads do without, see docs/en/design/caching.md.
"""

from __future__ import annotations

import math
import reprlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mtaio._internal import clock
from mtaio._internal.coroutines import close_unstarted
from mtaio.cache._entry import Entry, Failure, Laden
from mtaio.cache._expiry import Agenda
from mtaio.cache._flight import Flight, Flights
from mtaio.cache._gate import Gate
from mtaio.cache._listeners import AsyncNotices, Notices, RemovalCause
from mtaio.cache._tags import Tags

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from mtaio.cache._options import Options
    from mtaio.cache._policy import Policy

__all__ = ["SLICE", "Table", "scatter"]

SLICE: Final = 256
"""How many the task of an entered cache looks at before it lets others run."""


class Table:
    """
    What a cache holds, and the ways out of it.

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
        self._mute = isinstance(self._notices, AsyncNotices)
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

    def _read(self, key: Hashable, default: Any) -> Any:
        """Do what a read does that cannot do without the lock."""
        moment = clock.read()
        gate = self._gate
        if gate.within():
            entry = self._find(key, moment)  # a change is being made: this must not be another
            return default if entry is None else entry.value
        gone: Entry | None = None
        gate.acquire()
        gate.free = False
        try:
            entry = self._find(key, moment)
            if entry is not None:
                self._use(entry, moment)
                default = entry.value
            else:
                self._misses += 1
                gone = self._expire_key(key, moment)
        finally:
            gate.free = True
            gate.release()
            if gate.later:
                gate.catch_up()
        if gone is not None:
            self._deliver(gone)
        return default

    def _expire_key(self, key: Hashable, moment: float) -> Entry | None:
        """Remove the entry of ``key`` if its time is over, and return it."""
        entry = self._entries.get(key)
        if entry is None or moment < entry.expires or self._mute:
            return None
        return self._remove(entry, RemovalCause.EXPIRED)

    # Leaving, within the gate.

    def _total(self) -> float:
        """Return what the entries weigh."""
        return len(self._entries) if self._weigher is None else self._weight

    def _make_room(self, weight: float) -> list[Entry]:
        """Give up entries until there is room for ``weight``, and return them."""
        room = self._max_size - weight
        gone: list[Entry] = []
        while self._entries and self._total() > room:
            try:
                gone.append(self._evict())
            except Exception:
                if not self._purge():
                    raise
        return gone

    def _evict(self) -> Entry:
        entry = self._policy.evict()
        try:
            self._let_go(entry)
        except BaseException:
            self._policy.restore(entry)
            raise
        self._leave(entry, RemovalCause.EVICTED)
        return entry

    def _expire(self, moment: float, most: int) -> list[object]:
        """Look at some of the entries whose bucket is over; return those that had to go."""
        agenda = self._agenda
        gone: list[object] = []
        for _ in range(0 if self._mute else most):
            entry = agenda.next_due(moment)
            if entry is None:
                break
            if entry.expires <= moment:
                gone.append(self._remove(entry, RemovalCause.EXPIRED))
                continue
            agenda.unfile(entry)
            if entry.expires != math.inf:
                agenda.file(entry)
        return gone

    def _take(self, entries: Iterable[Entry]) -> tuple[list[Entry], int]:
        """Remove entries; return them, and how many of them were live."""
        moment = clock.read()
        gone: list[Entry] = []
        live = 0
        for entry in entries:
            alive = self._is_live(entry, moment)
            over = moment >= entry.expires
            self._remove(entry, RemovalCause.EXPIRED if over else RemovalCause.DELETED)
            gone.append(entry)
            live += alive
        return gone, live

    def _take_all(self) -> list[Entry]:
        """Remove everything, and return it."""
        gone = [*self._entries.values()]
        self._entries.clear()
        self._policy = type(self._policy)()
        self._agenda.clear()
        self._tags.clear()
        self._weight = 0
        if self._notices is not None:
            for entry in gone:
                if type(entry.value) is not Failure:
                    self._notices.add(entry.key, entry.value, RemovalCause.CLEARED)
        return gone

    def _remove(self, entry: Entry, cause: RemovalCause | None) -> Entry:
        """Take an entry out of everything it is in; None is for one that is reported elsewhere."""
        try:
            self._let_go(entry)
        except Exception:
            if entry not in self._purge():
                raise
            return entry
        self._policy.remove(entry)
        self._leave(entry, cause)
        return entry

    def _let_go(self, entry: Entry) -> None:
        """Take an entry out of the table, where its key may be another's by now."""
        found = self._entries.pop(entry.key)
        if found is not entry:
            self._entries[found.key] = found
            raise KeyError(entry.key)

    def _purge(self) -> list[Entry]:
        """
        Take out the entries whose keys were changed, and return them.

        The table does not find them by their hash, so they are all looked for. A reader that takes
        no lock may meanwhile miss what is there.
        """
        kept: dict[Hashable, Entry] = {}
        lost: list[Entry] = []
        for entry in self._entries.values():
            try:
                if self._entries.get(entry.key) is entry:
                    kept[entry.key] = entry
                    continue
            except Exception:  # noqa: BLE001, S110 - it cannot be hashed any more
                pass
            lost.append(entry)
        if lost:
            self._entries.clear()
            self._entries.update(kept)
            moment = clock.read()
            for entry in lost:
                over = moment >= entry.expires
                self._policy.remove(entry)
                self._leave(entry, RemovalCause.EXPIRED if over else RemovalCause.DELETED)
            self._gate.later.append(partial(self._warn_of, [entry.key for entry in lost]))
        return lost

    def _warn_of(self, keys: list[Hashable]) -> None:
        from logging import getLogger  # noqa: PLC0415 - hardly anybody needs it

        getLogger("mtaio.cache").error(
            "%r gave up %d values whose keys were changed while they were in it, such as key=%s. "
            "Pass keys that stay as they are.",
            self,
            len(keys),
            reprlib.repr(keys[0]),
        )

    def _leave(self, entry: Entry, cause: RemovalCause | None) -> None:
        """Take an entry out of what is left, and report it."""
        if entry.after is not None:
            self._agenda.unfile(entry)
        if type(entry) is Laden:
            # Floats add up to what is not quite 0 again.
            self._weight = self._weight - entry.weight if self._entries else 0
        if cause is RemovalCause.EVICTED:
            self._evictions += 1
        elif cause is RemovalCause.EXPIRED:
            self._expirations += 1
        if self._notices is not None and cause is not None and type(entry.value) is not Failure:
            self._notices.add(entry.key, entry.value, cause)
        if self._tags.marked:
            self._tags.forget(entry)

    def _replaced(self, entry: Entry, old: object, moment: float) -> None:
        """Report that another value comes in the place of ``old``."""
        expired = moment >= entry.expires
        if expired:
            self._expirations += 1
        if self._notices is not None and type(old) is not Failure:
            cause = RemovalCause.EXPIRED if expired else RemovalCause.REPLACED
            self._notices.add(entry.key, old, cause)

    def _pass_through(self, key: Hashable, value: object, *, expired: bool) -> None:
        """Report a value that came and went at once."""
        if expired:
            self._expirations += 1
        else:
            self._evictions += 1
        if self._notices is not None:
            cause = RemovalCause.EXPIRED if expired else RemovalCause.EVICTED
            self._notices.add(key, value, cause)

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

    def expire_slice(self, moment: float, most: int) -> bool:
        """Remove some of what has expired; tell whether there may be more."""
        with self._gate:
            gone = self._expire(moment, most)
            more = self._agenda.due <= moment
        self._deliver(gone)
        return more

    # Afterwards, outside the gate.

    def _deliver(self, _gone: object) -> None:
        """Tell the listener; ``_gone`` lived until now, and is dropped outside the lock."""
        if self._notices is not None:
            self._notices.deliver()


def scatter(gone: list[Entry]) -> None:
    """Cut the links of entries that left together, which would keep each other alive."""
    for entry in gone:
        prev, following, after = entry.prev, entry.next, entry.after
        prev.next = following
        following.prev = prev
        del entry.prev, entry.next
        if after is not None:
            before = entry.before
            before.after = after
            after.before = before
            entry.after = None
            del entry.before
