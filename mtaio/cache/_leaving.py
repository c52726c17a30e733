"""
What leaves the table of a cache: what expires, is deleted, or has to make room.

Promise: an entry leaves the table, its queue, the agenda, the tags and the weight together, and
what has left is dropped by the caller, outside the lock.
"""

from __future__ import annotations

import math
import reprlib
from functools import partial
from typing import TYPE_CHECKING, Final

from mtaio._internal import clock
from mtaio.cache._entry import Entry, Failure, Laden
from mtaio.cache._listeners import RemovalCause
from mtaio.cache._table import Table

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

__all__ = ["FEW", "Leaving", "scatter"]

FEW: Final = 4
"""How many entries that may have expired a change looks at."""


class Leaving(Table):
    """The ways out of a cache. All within the gate, save for `expire_slice`."""

    __slots__ = ()

    def _expire_key(self, key: Hashable, moment: float) -> Entry | None:
        """Remove the entry of ``key`` if its time is over, and return it."""
        entry = self._entries.get(key)
        if entry is None or moment < entry.expires or self._mute:
            return None
        return self._remove(entry, RemovalCause.EXPIRED)

    def _make_room(self, weight: float, moment: float, spared: Entry | None = None) -> list[object]:
        """
        Remove what has expired, then others, until there is room; return what had to go.

        Not ``spared``, which holds what was stored just now.
        """
        room = self._max_size - weight
        gone: list[object] = []
        while self._agenda.due <= moment and self._total() > room:
            over = self._expire(moment, FEW)
            if not over:  # there may be more, but looking for it has to end
                break
            gone.extend(over)
        passed: Entry | None = None
        try:
            while len(self._entries) > (passed is not None) and self._total() > room:
                try:
                    entry = self._evict(spared)
                except Exception:
                    if not self._purge():
                        raise
                else:
                    if entry is spared:
                        passed = entry
                    else:
                        gone.append(entry)
        finally:
            if passed is not None:
                self._policy.restore(passed)
        return gone

    def _evict(self, spared: Entry | None) -> Entry:
        """Let go what the policy gives up, and return it; ``spared`` by the policy alone."""
        entry = self._policy.evict()
        if entry is spared:
            return entry
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

    def expire_slice(self, moment: float, most: int) -> bool:
        """Remove some of what has expired; tell whether there may be more."""
        with self._gate:
            gone = self._expire(moment, most)
            more = self._agenda.due <= moment
        self._deliver(gone)
        return more


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
