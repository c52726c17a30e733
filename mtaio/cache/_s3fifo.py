"""
S3-FIFO: entries that are never used again leave early, used ones stay.

Promise: as `Policy` says; an eviction passes over a bounded number of entries.
Cost: links within the entries; the hash of what it evicted, in eight bytes more an entry.
Why the ghost is an array, and chances are counted: docs/en/design/caching.md.
"""

from __future__ import annotations

from array import array
from typing import ClassVar, Final

from mtaio.cache._entry import Entry, ring
from mtaio.cache._policy import HOT, append

__all__ = ["S3FIFO"]

_CHANCES: Final = 16
"""How many entries an eviction passes over at most, because they were hit."""

_VACANT: Final = -1
"""In CPython nothing has this hash, so it marks an empty slot of the ghost."""


class S3FIFO:
    """
    S3-FIFO (Yang et al., SOSP 2023): a small queue for newcomers, a main one, and a ghost.

    A newcomer waits in *small*, a tenth of the cache. If it is used there it moves on to *main*;
    otherwise it leaves, and the ghost remembers the hash of its key: if it soon comes back, it goes
    to main at once. In main, an entry that was used gets another turn.
    """

    # Invariants:
    # - queue tells where an entry is, and the two counts how many are there;
    # - a slot of the ghost has the hash of a key that was evicted from small, or _VACANT;
    # - settled is true only if small has its share, and the ghost a slot for each entry held.
    __slots__ = ("_ghost", "_in_main", "_in_small", "_main", "_mask", "_settled", "_small")

    lock_free: ClassVar[bool] = True
    score: ClassVar[int] = 0

    def __init__(self) -> None:
        self._small: Entry = ring()
        self._main: Entry = ring()
        self._in_small: int = 0
        self._in_main: int = 0
        self._ghost: array[int] = array("q", [_VACANT])
        self._mask: int = 0
        self._settled: bool = False

    def insert(self, entry: Entry) -> None:
        """Add a new entry: into main if the ghost remembers its key, else into small."""
        self._settled = False
        ghost = self._ghost
        trace = hash(entry.key)
        slot = trace & self._mask
        if ghost[slot] == trace:
            ghost[slot] = _VACANT
            queue = self._main
            self._in_main += 1
        else:
            queue = self._small
            self._in_small += 1
        append(queue, entry)

    def remove(self, entry: Entry) -> None:
        """Remove an entry."""
        prev, following = entry.prev, entry.next
        prev.next = following
        following.prev = prev
        self._settled = False
        if entry.queue is self._main:
            self._in_main -= 1
        else:
            self._in_small -= 1

    def hit(self, entry: Entry) -> None:
        """Count a use, up to `HOT`."""
        if entry.score < HOT:
            entry.score += 1

    def evict(self) -> Entry:
        """Remove what small or main gives up, passing over a bounded number of those used."""
        small, main = self._small, self._main
        self._settled = False
        held = self._in_small + self._in_main
        chances = _CHANCES
        while True:
            entry = small.next
            if self._in_small * 10 >= held or main.next is main:
                if entry.score < 2 or not chances:  # noqa: PLR2004 - one use is none: a burst
                    break
                self._in_small -= 1
                self._in_main += 1
                entry.score = 0
            else:
                entry = main.next
                score = entry.score
                if not score or (not chances and small.next is small):
                    self.remove(entry)
                    return entry
                if not chances:
                    entry = small.next
                    break
                entry.score = score - 1
            chances -= 1
            prev, following = entry.prev, entry.next
            prev.next = following
            following.prev = prev
            append(main, entry)
        trace = hash(entry.key)
        if self._mask < held - 1:
            self._enlarge(held)
        following = entry.next
        small.next = following
        following.prev = small
        self._in_small -= 1
        self._ghost[trace & self._mask] = trace
        return entry

    def restore(self, entry: Entry) -> None:
        """Put back an entry, as the youngest of small."""
        self._settled = False
        self._in_small += 1
        append(self._small, entry)

    def replace(self, entry: Entry) -> Entry:
        """Do as `evict`, then add a new entry."""
        small = self._small
        old = small.next
        if old.score > 1 or not self._settled:
            old = self.evict()
            try:
                self.insert(entry)
            except BaseException:
                self.restore(old)
                raise
            held = self._in_small + self._in_main
            self._settled = self._in_small * 10 >= held and self._mask >= held - 1
            return old
        # From here on it is what the calls above do, for small, without the calls.
        mask = self._mask
        trace = hash(entry.key)
        left = hash(old.key)
        following = old.next
        small.next = following
        following.prev = small
        ghost = self._ghost
        ghost[left & mask] = left
        slot = trace & mask
        if ghost[slot] == trace:
            ghost[slot] = _VACANT
            small = self._main
            self._in_small -= 1
            self._in_main += 1
            self._settled = False
        last = small.prev
        entry.queue = entry.next = small
        entry.prev = last
        last.next = small.prev = entry
        return old

    def _enlarge(self, held: int) -> None:
        """Give the ghost a slot for each entry held at least, and forget nothing."""
        mask = (1 << (held - 1).bit_length()) - 1
        ghost = array("q", [_VACANT]) * (mask + 1)
        for trace in self._ghost:
            if trace != _VACANT:
                ghost[trace & mask] = trace
        self._ghost = ghost
        self._mask = mask
