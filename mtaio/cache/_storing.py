"""
What comes into the table of a cache: values, each with its time, its weight and its tags.

Promise: whatever is refused has changed nothing; expired entries make room before others are given
up; never more than ``max_size`` is held.
Cost: a set that evicts is some sixty bytecodes around a dict's; see benchmarks/cache.py.
"""

from __future__ import annotations

import math
from random import random
from typing import TYPE_CHECKING, Any, Final

from mtaio._internal import checks
from mtaio._internal.sentinel import UNSET, Unset
from mtaio.cache._entry import Entry, Failure, Laden, entry_of
from mtaio.cache._leaving import FEW, Leaving
from mtaio.cache._listeners import RemovalCause
from mtaio.cache._tags import NO_MARKS, check_tags

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

__all__ = ["NO_TAGS", "TTL_WAY_OUT", "Storing"]

NEVER: Final = -math.inf
"""Until when a value may be read without the lock that must not be."""

NO_TAGS: Final[frozenset[Hashable]] = frozenset()

TTL_WAY_OUT: Final = "Pass seconds >= 0, math.inf for no limit, or leave it out for the default."


class Storing(Leaving):
    """The ways into a cache."""

    __slots__ = ()

    # Arguments, checked before anything changes.

    def _ttl_of(self, ttl: float | Unset) -> float:
        if ttl is UNSET:
            return self._default_ttl
        return checks.at_least("ttl", ttl, 0, way_out=TTL_WAY_OUT)

    def _spread(self, ttl: float) -> float:
        """Take up to a part of ``ttl`` from it, so that what was set together expires apart."""
        if not self._jitter:
            return ttl
        return ttl * (1 - self._jitter * random())  # noqa: S311 - no secret

    def _tags_of(self, tags: Iterable[Hashable]) -> frozenset[Hashable]:
        return check_tags(tags) if tags else NO_TAGS

    def _weigh(self, key: Hashable, value: Any) -> float:
        weigher = self._weigher
        if weigher is None:
            return 1
        way_out = f"The weigher {weigher!r} has to return a number >= 0."
        weight = checks.at_least("weight", weigher(key, value), 0, way_out=way_out)
        if weight == math.inf:
            msg = f"weight={weight!r} has no end. {way_out}"
            raise ValueError(msg)
        return weight

    # Changing, within the gate.

    def _put(  # noqa: C901, PLR0912, PLR0915, PLR0917 - each set does it: calls would double it
        self,
        key: Hashable,
        value: Any,
        ttl: float,
        moment: float,
        weight: float = 1,
        tags: frozenset[Hashable] = NO_TAGS,
    ) -> object:
        """
        Store a value, and make room for it.

        Returns:
            Whatever had to go: its references are to be dropped outside the lock.
        """
        entry = self._lookup(key)
        if self._flights.table:
            self._flights.disown(key)
        gone: object = None
        if self._agenda.due <= moment:
            gone = self._expire(moment, FEW)
            entry = self._lookup(key)
        if self._laden or not ttl:
            return self._put_laden(key, value, ttl, weight, tags=tags, moment=moment), gone
        expires = moment + ttl
        fresh = expires if self._swift else NEVER
        if entry is not None:
            if type(entry.value) is Failure:
                return self._put_laden(key, value, ttl, weight, tags=tags, moment=moment), gone
            return self._overwrite(entry, value, fresh, expires, tags=tags, moment=moment), gone
        entry = Entry()
        entry.key = key
        entry.value = value
        entry.fresh = fresh
        entry.expires = expires
        entry.score = self._score
        entry.after = None
        entries = self._entries
        if len(entries) < self._max_size:
            self._insert(entry, tags)
            return gone
        marks = self._tags.marks_of(tags) if tags else NO_MARKS
        old = None
        try:
            old = self._policy.replace(entry)
            found = entries.pop(old.key)
            if found is not old:  # its key is another's by now
                entries[found.key] = found
                raise KeyError(old.key)  # noqa: TRY301 - as if there had been none
            entries[key] = entry
        except BaseException as error:
            if old is not None:
                self._take_back(entry, old)
            if isinstance(error, Exception) and self._purge():
                return self._put(key, value, ttl, moment, weight, tags)
            raise
        self._evictions += 1
        after = old.after
        if after is not None and old.expires <= expires:
            # It takes the other's place in the agenda, which is early enough: see Agenda.
            before = entry.before = old.before
            entry.after = after
            before.after = after.before = entry
        else:
            if after is not None:
                self._agenda.unfile(old)
            if expires != math.inf:
                self._agenda.file(entry)
        if self._notices is not None and type(old.value) is not Failure:
            self._notices.add(old.key, old.value, RemovalCause.EVICTED)
        if marks:
            self._tags.put(entry, marks)
        if self._tags.marked:
            self._tags.forget(old)
        return old if gone is None else (old, gone)

    def _take_back(self, entry: Entry, old: Entry) -> None:
        """Undo what the policy did: the old entry could not leave, or the new one not come in."""
        self._policy.remove(entry)
        if len(self._entries) >= self._max_size:
            self._policy.restore(old)
        else:
            self._leave(old, RemovalCause.EVICTED)

    def _put_laden(
        self,
        key: Hashable,
        value: Any,
        ttl: float,
        weight: float,
        *,
        tags: frozenset[Hashable],
        moment: float,
    ) -> object:
        """Do the same where there is more to remember, or nothing to be kept."""
        entry = self._entries.get(key)
        gone: list[object] = []
        kept = ttl > 0 and weight <= self._max_size
        if entry is not None and not (kept and type(entry.value) is not Failure):
            gone.append(self._remove(entry, None))
            self._replaced(entry, entry.value, moment)
            entry = None
        if not kept:
            self._pass_through(key, value, expired=not ttl)
            return gone
        soft = moment + ttl
        expires = min(soft + self._stale, moment + self._idle)
        renew = min(moment + ttl * self._ahead, soft)
        fresh = renew if self._swift else NEVER
        if entry is None:
            gone.extend(self._make_room(weight, moment))
            entry = self._made(key, value, expires, weight)
            entry.fresh = fresh
            if type(entry) is Laden:
                entry.soft, entry.renew = soft, renew
            self._insert(entry, tags)
            return gone
        gone.append(self._overwrite(entry, value, fresh, expires, tags=tags, moment=moment))
        assert type(entry) is Laden  # noqa: S101 - for the type checkers: others were removed above
        self._weight += weight - entry.weight
        entry.soft, entry.renew, entry.weight = soft, renew, weight
        gone.extend(self._make_room(0, moment, entry))
        return gone

    def _put_failure(
        self,
        key: Hashable,
        error: Exception,
        ttl: float,
        moment: float,
        *,
        tags: frozenset[Hashable],
    ) -> object:
        """Keep an exception in the place of a value."""
        gone: list[object] = []
        if self._agenda.due <= moment:
            gone.append(self._expire(moment, FEW))
        entry = self._entries.get(key)
        if entry is not None:
            gone.append(self._remove(entry, None))
            self._replaced(entry, entry.value, moment)
        gone.extend(self._make_room(1, moment))
        self._insert(self._made(key, Failure(error), moment + ttl, 1), tags)
        return gone

    def _made(self, key: Hashable, value: object, expires: float, weight: float) -> Entry:
        """Return a new entry."""
        if not self._laden:
            return entry_of(Entry(), key, value, expires, self._score)
        entry = entry_of(Laden(), key, value, expires, self._score)
        entry.soft = entry.renew = expires
        entry.weight = weight
        return entry

    def _insert(self, entry: Entry, tags: frozenset[Hashable]) -> None:
        """Take in a new entry, for which there is room."""
        marks = self._tags.marks_of(tags) if tags else NO_MARKS
        self._policy.insert(entry)
        try:
            self._entries[entry.key] = entry
        except BaseException:
            self._policy.remove(entry)
            raise
        if type(entry) is Laden:
            self._weight += entry.weight
        if entry.expires != math.inf:
            self._agenda.file(entry)
        if marks:
            self._tags.put(entry, marks)

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
        """Put a value into an entry that has one, and return that one."""
        if tags or self._tags.marked:
            self._tags.put(entry, self._tags.marks_of(tags))
        old = entry.value
        if self._notices is not None or moment >= entry.expires:
            self._replaced(entry, old, moment)
        entry.value = value
        if self._swift:
            entry.fresh = fresh
        if expires < entry.expires:
            self._extend(entry, expires)
        else:
            entry.expires = expires
        self._policy.hit(entry)
        return old

    def _extend(self, entry: Entry, expires: float) -> None:
        """Let an entry expire at another moment; a later one need not be filed at once."""
        earlier = expires < entry.expires
        entry.expires = expires
        if earlier:
            if entry.after is not None:
                self._agenda.unfile(entry)
            self._agenda.file(entry)

    def _touch(self, entry: Entry, ttl: float, moment: float) -> None:
        """Begin the time of an entry anew."""
        soft = moment + ttl
        expires = soft
        if type(entry) is Laden:
            expires = min(soft + self._stale, moment + self._idle)
            entry.soft = soft
            soft = entry.renew = min(moment + ttl * self._ahead, soft)
        if self._swift:
            entry.fresh = soft
        self._extend(entry, expires)
