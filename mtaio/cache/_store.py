"""
What a cache holds: entries with their time, weight and tags, and which of them are evicted.

Promise: a refused change has changed nothing; an entry enters and leaves the table, its queue, the
buckets of what expires, the tags and the weight together; expired entries make room before others
are evicted, and never more than ``max_size`` is held.
Cost: storing a value that evicts another is some sixty bytecodes around a dict's; a tag, about two
hundred bytes for each entry that carries it.
It knows no event loop, and takes no lock: its owner calls it under one.
"""

from __future__ import annotations

import math
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from mtaio._internal import checks, clock
from mtaio._internal.gil import has_gil
from mtaio.cache._config import NO_TAGS
from mtaio.cache._entry import DetailedEntry, Entry, Failure, entry_of
from mtaio.cache._expiry import ExpiryBuckets

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from mtaio.cache._config import Config
    from mtaio.cache._listeners import Notifier
    from mtaio.cache._policy import Policy

__all__ = ["RemovalCause", "Store", "unlink"]

FEW: Final = 4
"""How many entries that may have expired one change looks at."""

NEVER: Final = -math.inf
"""The ``fresh`` of a value that must not be read without the lock."""

_GET_LOCKS: bool = not has_gil() and sys.version_info[:2] == (3, 13)
"""Whether `dict.get` locks the dict, as in the first Python that has no GIL: see `_lookup_in`."""


class RemovalCause(StrEnum):
    """Why a value left a cache."""

    EXPIRED = "expired"
    """The value expired."""
    EVICTED = "evicted"
    """The value made room for others."""
    REPLACED = "replaced"
    """Another value was set for its key."""
    DELETED = "deleted"
    """Its key was deleted, or one of its tags was invalidated."""
    CLEARED = "cleared"
    """The cache was cleared."""


class Tag:
    """
    One tag, and the entries that carry it.

    Args:
        name: What the user calls it.
    """

    __slots__ = ("entries", "name")

    def __init__(self, name: Hashable) -> None:
        self.name: Hashable = name
        self.entries: dict[Entry, None] = {}


NO_MEMBERSHIP: Final[tuple[Tag, ...]] = ()


class Tags:
    """
    The tags of the entries of one cache.

    A tag that no entry carries, and an entry that has none, cost nothing.
    """

    # Invariants:
    # - entry is in tag.entries exactly if tag is in of_entries[entry], and neither is ever empty;
    # - a name is compared and hashed before anything changes: its own code may raise.
    __slots__ = ("_by_name", "of_entries")

    def __init__(self) -> None:
        self.of_entries: dict[Entry, tuple[Tag, ...]] = {}
        """The tags of each entry that has any."""
        self._by_name: dict[Hashable, Tag] = {}

    def membership(self, names: frozenset[Hashable]) -> tuple[Tag, ...]:
        """Return the tags for `put`, which has to come before any other change."""
        by_name = self._by_name
        return tuple([by_name.get(each) or by_name.setdefault(each, Tag(each)) for each in names])

    def put(self, entry: Entry, tags: tuple[Tag, ...]) -> None:
        """Let an entry carry these tags, and no other."""
        before = self.of_entries.pop(entry, NO_MEMBERSHIP)
        if tags:
            self.of_entries[entry] = tags
            for tag in tags:
                tag.entries[entry] = None
        for tag in before:
            if tag not in tags:
                del tag.entries[entry]
        for tag in before:
            if not tag.entries:
                self._by_name.pop(tag.name, None)

    def forget(self, entry: Entry) -> None:
        """Take its tags from an entry, if it has any."""
        self.put(entry, NO_MEMBERSHIP)

    def entries(self, name: Hashable) -> list[Entry]:
        """Return the entries that carry a tag."""
        tag = self._by_name.get(name)
        return [] if tag is None else [*tag.entries]

    def clear(self) -> None:
        """Forget everything."""
        self.of_entries.clear()
        self._by_name.clear()


class Store:
    """
    The entries of one cache.

    Args:
        config: The arguments of `TTLCache`, checked.
        notifier: Reports removals to the listener; None without one.
    """

    # Invariants between changes:
    # - tells is timed_by, which is clock.read, or it makes every entry look expired to a hit;
    # - an entry is in the table, in the policy, in the weight, among what expires if it does, and
    #   in the tags if it has any; or in none of them;
    # - the weight is at most max_size;
    # - fresh <= expires for each entry, and fresh is -inf for a Failure and where a read has to
    #   change more than the score;
    # - a Failure is never put into an entry that had a value: a reader may be looking at it.
    # The __eq__ and __hash__ of a key may raise where the table is asked, so that comes first.
    # What is removed is returned to the caller, so that its __del__ runs outside the lock.
    __slots__ = (
        "__weakref__",
        "_ahead",
        "_detailed",
        "_idle",
        "_jitter",
        "_max_size",
        "_notifier",
        "_policy",
        "_score",
        "_served",
        "_stale",
        "_tags",
        "_weigher",
        "_weight",
        "entries",
        "evictions",
        "expirations",
        "expiry",
        "hits",
        "lock_free",
        "lookup",
        "misses",
        "plain",
        "tells",
        "timed_by",
    )

    def __init__(self, config: Config, notifier: Notifier | None) -> None:
        self._max_size = config.max_size
        self._weigher = config.weigher
        self._idle = config.idle_ttl
        self._jitter = config.jitter
        self._served = config.stale_while_revalidate
        self._stale = max(config.stale_while_revalidate, config.stale_if_error)
        self._ahead = config.refresh_ahead
        self._detailed = config.detailed
        self._notifier = notifier
        self._policy: Policy = config.new_policy()
        self._score = self._policy.score
        self._tags = Tags()
        self._weight: float = 0
        self.entries: dict[Hashable, Entry] = {}
        """The table, which readers look at without a lock."""
        self.lookup: Callable[[Hashable], Entry | None] = _lookup_in(self.entries)
        self.expiry: ExpiryBuckets = ExpiryBuckets()
        self.lock_free: bool = self._policy.lock_free and self._idle == math.inf
        """Whether a hit changes nothing but the score."""
        self.plain: bool = self._weigher is None and not self._jitter and notifier is None
        """Whether there is no weigher, no jitter and no listener to use when storing a value."""
        self.timed_by: clock.Tells = clock.REAL
        """The clock of all moments in the entries."""
        self.tells: clock.Tells
        """The time for a hit: `timed_by`, or the end of time if that may be the wrong clock."""
        self.hits: float = 0.0
        """A float, because adding to it takes less time than to an int."""
        self.misses: int = 0
        self.evictions: int = 0
        self.expirations: int = 0
        clock.hasten(self)
        self.tells = self.timed_by if clock.read is clock.REAL else _end_of_time  # as in `now`

    @property
    def weight(self) -> float:
        """What the entries weigh."""
        return len(self.entries) if self._weigher is None else self._weight

    # Before a change, outside the lock.

    def spread(self, ttl: float) -> float:
        """Return ``ttl`` less a random part, so that values stored together expire apart."""
        if not self._jitter:
            return ttl
        from random import random  # noqa: PLC0415 - dear to import, and most caches have no jitter

        return ttl * (1 - self._jitter * random())  # noqa: S311 - not a secret

    def weigh(self, key: Hashable, value: Any) -> float:
        """Ask the weigher."""
        weigher = self._weigher
        if weigher is None:
            return 1
        way_out = f"The weigher {weigher!r} has to return a finite number >= 0."
        weight = checks.at_least("weight", weigher(key, value), 0, way_out=way_out)
        if weight == math.inf:
            msg = f"weight={weight!r} is infinite. {way_out}"
            raise ValueError(msg)
        return weight

    # Reading.

    def find(self, key: Hashable, moment: float) -> Entry | None:
        """Return the entry of ``key`` if it is live."""
        entry = self.entries.get(key)
        return entry if entry is not None and self.is_live(entry, moment) else None

    def is_live(self, entry: Entry, moment: float) -> bool:
        """Return whether an entry has a value whose time is not over."""
        if moment >= entry.expires or type(entry.value) is Failure:
            return False
        return type(entry) is not DetailedEntry or moment < entry.soft

    def is_due(self, entry: Entry, moment: float) -> bool:
        """Return whether the value of an entry is to be renewed."""
        if type(entry) is not DetailedEntry or type(entry.value) is Failure:
            return False
        return moment >= entry.renew

    def is_spare(self, entry: Entry, moment: float) -> bool:
        """Return whether a value that is still held is only kept in case a load fails."""
        if type(entry) is not DetailedEntry or type(entry.value) is Failure:
            return False
        return moment >= entry.soft + self._served

    def live_items(self, moment: float) -> list[tuple[Any, Any]]:
        """Return the keys that have a value, with their values."""
        return [
            (key, entry.value) for key, entry in self.entries.items() if self.is_live(entry, moment)
        ]

    def use(self, entry: Entry, moment: float) -> None:
        """Note that the value of an entry was served."""
        self.hits += 1.0
        self._policy.hit(entry)
        if self._idle != math.inf and type(entry.value) is not Failure:
            self._restart_idle(entry, moment)

    def tagged(self, tag: Hashable) -> list[Entry]:
        """Return the entries that carry ``tag``."""
        return self._tags.entries(tag)

    # Storing.

    def put(  # noqa: C901, PLR0917 - each set does it; its steps are explained below
        self,
        key: Hashable,
        value: Any,
        ttl: float,
        moment: float,
        weight: float = 1,
        tags: frozenset[Hashable] = NO_TAGS,
    ) -> object:
        """
        Store a value, make room for it, and return what had to go.

        Written out for an entry that remembers no more than its value and its expiry: a call in
        each step would cost as much as the step. What may raise, because a key's or tag's own code
        does, comes before what it would leave half done, or is undone.

        1. If a bucket of entries may have expired, look at a few: this is how they leave a cache
           that is not entered. The key's own entry may be among them.
        2. An entry with more to remember, a value that is not kept, and one in the place of an
           error are for `_put_detailed`.
        3. If the key has a value, the new one takes its place in the same entry.
        4. If there is room, a new entry is inserted.
        5. Otherwise one has to leave. The tags are looked up first, then the policy replaces one
           entry by the other, then the table; if that raises, the policy takes it back.
        6. The new entry goes to the place of the old one among what expires, if that is early
           enough, which saves finding the bucket; else to a bucket of its own.
        7. The old entry is reported and loses its tags. It is returned, not dropped here: the end
           of its value may run code of a user's, which has to wait for the end of the change.
        """
        entries = self.entries
        entry = self.lookup(key)
        gone: object = None
        if self.expiry.due <= moment:
            gone = self.expire(moment, FEW)
            entry = self.lookup(key)
        if self._detailed or not ttl or (entry is not None and type(entry.value) is Failure):
            return self._put_detailed(key, value, ttl, weight, tags=tags, moment=moment), gone
        expires = moment + ttl
        fresh = expires if self.lock_free else NEVER
        if entry is not None:
            return self._overwrite(entry, value, fresh, expires, tags=tags, moment=moment), gone
        entry = Entry()
        entry.key = key
        entry.value = value
        entry.fresh = fresh
        entry.expires = expires
        entry.score = self._score
        if len(entries) < self._max_size:
            entry.after = None
            self._insert(entry, tags)
            return gone
        membership = self._tags.membership(tags) if tags else NO_MEMBERSHIP
        old = self._policy.replace(entry)
        try:
            del entries[old.key]
            entries[key] = entry
        except BaseException:
            self._undo_replacing(entry, old)
            raise
        self.evictions += 1
        after = old.after
        if after is not None and old.expires <= expires:
            # It takes the other's place in its bucket, which is early enough: see ExpiryBuckets.
            before = entry.before = old.before
            entry.after = after
            before.after = after.before = entry
        else:
            entry.after = None
            if after is not None:
                self.expiry.remove(old)
            if expires != math.inf:
                self.expiry.add(entry)
        if self._notifier is not None:
            self._report(old, RemovalCause.EVICTED)
        if membership:
            self._tags.put(entry, membership)
        if self._tags.of_entries:
            self._tags.forget(old)
        return old if gone is None else (old, gone)

    def put_failure(
        self,
        key: Hashable,
        error: Exception,
        ttl: float,
        moment: float,
        *,
        tags: frozenset[Hashable],
    ) -> object:
        """Keep an exception in the place of a value, and return what had to go."""
        gone: list[object] = []
        if self.expiry.due <= moment:
            gone.append(self.expire(moment, FEW))
        entry = self.entries.get(key)
        if entry is not None:
            gone.append(self._remove(entry, self._cause_of_replacing(entry, moment)))
        gone.extend(self._make_room(1, moment))
        self._insert(self._made(key, Failure(error), moment + ttl, 1), tags)
        return gone

    def revise(self, entry: Entry, value: Any, weight: float, moment: float) -> object:
        """Put another value into a live entry, whose time and tags stay; return what had to go."""
        if weight > self._max_size:
            self._remove(entry, RemovalCause.REPLACED)
            self._count(entry.key, value, RemovalCause.EVICTED)
            return entry
        old = entry.value
        self._count(entry.key, old, RemovalCause.REPLACED)
        entry.value = value
        self._policy.hit(entry)
        if type(entry) is not DetailedEntry:
            return old
        self._restart_idle(entry, moment)
        self._weight += weight - entry.weight
        entry.weight = weight
        return old, self._make_room(0, moment, entry)

    def touch(self, entry: Entry, ttl: float, moment: float) -> Entry | None:
        """Restart the time of an entry; return it if that is over at once."""
        if not ttl:
            return self._remove(entry, RemovalCause.EXPIRED)
        soft = moment + ttl
        expires = soft
        if type(entry) is DetailedEntry:
            expires = min(soft + self._stale, moment + self._idle)
            entry.soft = soft
            soft = entry.renew = min(moment + ttl * self._ahead, soft)
        if self.lock_free:
            entry.fresh = soft
        self._set_expiry(entry, expires)
        return None

    def postpone_renewal(self, entry: Entry, seconds: float, moment: float) -> None:
        """Note that a value could not be renewed, and is not to be retried for some seconds."""
        if type(entry) is DetailedEntry:  # pragma: no branch - for the type checkers: it is one
            entry.renew = max(entry.renew, moment + seconds)

    # Removing.

    def take(self, entries: Iterable[Entry]) -> tuple[list[Entry], int]:
        """Remove entries; return them, and how many of them were live."""
        moment = self.now()
        gone: list[Entry] = []
        live = 0
        for entry in entries:
            alive = self.is_live(entry, moment)
            over = moment >= entry.expires
            self._remove(entry, RemovalCause.EXPIRED if over else RemovalCause.DELETED)
            gone.append(entry)
            live += alive
        return gone, live

    def take_all(self) -> list[Entry]:
        """Remove everything, and return it."""
        gone = [*self.entries.values()]
        self.entries.clear()
        self._policy = type(self._policy)()
        self.expiry.clear()
        self._tags.clear()
        self._weight = 0
        for entry in gone:
            self._report(entry, RemovalCause.CLEARED)
        return gone

    def expire(self, moment: float, most: int) -> list[object]:
        """Look at some of the entries whose bucket is over; return those that had to go."""
        expiry = self.expiry
        gone: list[object] = []
        for _ in range(most):
            entry = expiry.next_due(moment)
            if entry is None:
                break
            if entry.expires <= moment:
                gone.append(self._remove(entry, RemovalCause.EXPIRED))
                continue
            expiry.remove(entry)
            if entry.expires != math.inf:
                expiry.add(entry)
        return gone

    def expire_key(self, key: Hashable, moment: float) -> Entry | None:
        """Remove the entry of ``key`` if its time is over, and return it."""
        entry = self.entries.get(key)
        if entry is None or moment < entry.expires:
            return None
        if self._notifier is not None and self._notifier.mute:
            return None
        return self._remove(entry, RemovalCause.EXPIRED)

    def now(self) -> float:
        """Return the current time, under the lock, and let hits read the same clock."""
        moment = clock.catch_up(self)
        tells = self.timed_by
        # Nothing is called between, so no other thread can begin another clock between.
        self.tells = tells if tells is clock.read else _end_of_time
        return moment

    def unsettle(self) -> None:
        """Let no hit go by the present clock: see `clock.Hasty`."""
        self.tells = _end_of_time

    def move(self, seconds: float) -> None:
        """Go over to another clock, under the lock: see `clock.Timed`."""
        self.expiry.clear()
        for entry in self.entries.values():
            entry.fresh += seconds
            entry.expires += seconds
            if type(entry) is DetailedEntry:
                entry.soft += seconds
                entry.renew += seconds
            entry.after = None
            if entry.expires != math.inf:
                self.expiry.add(entry)

    # How it is done.

    def _put_detailed(
        self,
        key: Hashable,
        value: Any,
        ttl: float,
        weight: float,
        *,
        tags: frozenset[Hashable],
        moment: float,
    ) -> object:
        """Do as `put` where there is more to remember, or nothing to be kept."""
        entry = self.entries.get(key)
        gone: list[object] = []
        kept = ttl > 0 and weight <= self._max_size
        if entry is not None and not (kept and type(entry.value) is not Failure):
            gone.append(self._remove(entry, self._cause_of_replacing(entry, moment)))
            entry = None
        if not kept:
            self._count(key, value, RemovalCause.EVICTED if ttl else RemovalCause.EXPIRED)
            return gone
        soft = moment + ttl
        expires = min(soft + self._stale, moment + self._idle)
        renew = min(moment + ttl * self._ahead, soft)
        fresh = renew if self.lock_free else NEVER
        if entry is None:
            gone.extend(self._make_room(weight, moment))
            entry = self._made(key, value, expires, weight)
            entry.fresh = fresh
            if type(entry) is DetailedEntry:
                entry.soft, entry.renew = soft, renew
            self._insert(entry, tags)
            return gone
        gone.append(self._overwrite(entry, value, fresh, expires, tags=tags, moment=moment))
        assert type(entry) is DetailedEntry  # noqa: S101 - for the type checkers: see `put`
        self._weight += weight - entry.weight
        entry.soft, entry.renew, entry.weight = soft, renew, weight
        gone.extend(self._make_room(0, moment, entry))
        return gone

    def _made(self, key: Hashable, value: object, expires: float, weight: float) -> Entry:
        """Return a new entry."""
        if not self._detailed:
            return entry_of(Entry(), key, value, expires, self._score)
        entry = entry_of(DetailedEntry(), key, value, expires, self._score)
        entry.soft = entry.renew = expires
        entry.weight = weight
        return entry

    def _insert(self, entry: Entry, tags: frozenset[Hashable]) -> None:
        """Add a new entry, for which there is room."""
        membership = self._tags.membership(tags) if tags else NO_MEMBERSHIP
        self._policy.insert(entry)
        try:
            self.entries[entry.key] = entry
        except BaseException:
            self._policy.remove(entry)
            raise
        if type(entry) is DetailedEntry:
            self._weight += entry.weight
        if entry.expires != math.inf:
            self.expiry.add(entry)
        if membership:
            self._tags.put(entry, membership)

    def _undo_replacing(self, entry: Entry, old: Entry) -> None:
        """Undo what the policy did: the old entry could not leave, or the new one not come in."""
        self._policy.remove(entry)
        if len(self.entries) >= self._max_size:
            self._policy.restore(old)
        else:
            self._leave(old, RemovalCause.EVICTED)

    def _overwrite(
        self,
        entry: Entry,
        value: object,
        fresh: float,
        expires: float,
        *,
        tags: frozenset[Hashable],
        moment: float,
    ) -> object:
        """Put a value into an entry that has one, and return the old one."""
        if tags or self._tags.of_entries:
            self._tags.put(entry, self._tags.membership(tags))
        old = entry.value
        if self._notifier is not None or moment >= entry.expires:
            self._count(entry.key, old, self._cause_of_replacing(entry, moment))
        entry.value = value
        if self.lock_free:
            entry.fresh = fresh
        if expires < entry.expires:
            self._set_expiry(entry, expires)
        else:
            entry.expires = expires
        self._policy.hit(entry)
        return old

    def _set_expiry(self, entry: Entry, expires: float) -> None:
        """Let an entry expire at another moment; a later one need not be filed at once."""
        earlier = expires < entry.expires
        entry.expires = expires
        if earlier:
            if entry.after is not None:
                self.expiry.remove(entry)
            self.expiry.add(entry)

    def _restart_idle(self, entry: Entry, moment: float) -> None:
        """Restart the time for which an entry may be idle."""
        if type(entry) is DetailedEntry:  # pragma: no branch - for the type checkers: it is one
            entry.expires = min(entry.soft + self._stale, moment + self._idle)

    def _make_room(self, weight: float, moment: float, spared: Entry | None = None) -> list[object]:
        """
        Remove what has expired, then others, until there is room; return what had to go.

        Not ``spared``, which holds what was stored just now.
        """
        room = self._max_size - weight
        gone: list[object] = []
        while self.expiry.due <= moment and self.weight > room:
            over = self.expire(moment, FEW)
            if not over:  # there may be more, but looking for it has to end
                break
            gone.extend(over)
        passed = False
        try:
            while len(self.entries) > passed and self.weight > room:
                entry = self._policy.evict()
                if entry is spared:
                    passed = True
                    continue
                try:
                    del self.entries[entry.key]
                except BaseException:
                    self._policy.restore(entry)
                    raise
                self._leave(entry, RemovalCause.EVICTED)
                gone.append(entry)
        finally:
            if passed and spared is not None:
                self._policy.restore(spared)
        return gone

    def _remove(self, entry: Entry, cause: RemovalCause) -> Entry:
        """Remove an entry from everything it is in."""
        del self.entries[entry.key]
        self._policy.remove(entry)
        self._leave(entry, cause)
        return entry

    def _leave(self, entry: Entry, cause: RemovalCause) -> None:
        """Remove an entry from all but the table and the policy, and report it."""
        if entry.after is not None:
            self.expiry.remove(entry)
        if type(entry) is DetailedEntry:
            # A sum of floats need not come back to exactly 0.
            self._weight = self._weight - entry.weight if self.entries else 0
        if self._tags.of_entries:
            self._tags.forget(entry)
        self._count(entry.key, entry.value, cause)

    def _cause_of_replacing(self, entry: Entry, moment: float) -> RemovalCause:
        return RemovalCause.EXPIRED if moment >= entry.expires else RemovalCause.REPLACED

    def _count(self, key: Hashable, value: object, cause: RemovalCause) -> None:
        """Count and report a removal."""
        if cause is RemovalCause.EVICTED:
            self.evictions += 1
        elif cause is RemovalCause.EXPIRED:
            self.expirations += 1
        if self._notifier is not None and type(value) is not Failure:
            self._notifier.add(key, value, cause)

    def _report(self, entry: Entry, cause: RemovalCause) -> None:
        if self._notifier is not None and type(entry.value) is not Failure:
            self._notifier.add(entry.key, entry.value, cause)


def _end_of_time() -> float:
    return math.inf


def _lookup_in(entries: dict[Hashable, Entry]) -> Callable[[Hashable], Entry | None]:
    """
    Return ``entries.get``, or what does the same without a lock.

    In CPython 3.13 without the GIL `dict.get` takes the dict's own lock; for a key that another
    thread has made, and that only equals the one asked for, it takes it twice, which costs
    25 µs. ``[]`` takes none where nothing is changed.
    """
    if not _GET_LOCKS:
        return entries.get

    def lookup(key: Hashable) -> Entry | None:
        try:
            return entries[key]
        except KeyError:
            return entries.get(key)  # which raises what the key's own code has raised

    return lookup


def unlink(gone: list[Entry]) -> None:
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
