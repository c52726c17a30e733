"""
Three policies of one idea each: first in, least recently used, least frequently used.

Promise: as `Policy` says.
Cost: links within the entries, and for LFU a sentinel for each different count.
"""

from __future__ import annotations

from typing import ClassVar

from mtaio.cache._entry import Entry, ring
from mtaio.cache._policy import HOT, append

__all__ = ["FIFO", "LFU", "LRU"]


class FIFO:
    """First in, first out."""

    __slots__ = ("_ring",)

    lock_free: ClassVar[bool] = True
    score: ClassVar[int] = HOT

    def __init__(self) -> None:
        self._ring: Entry = ring()

    def insert(self, entry: Entry) -> None:
        """Take in a new entry, as the youngest."""
        append(self._ring, entry)

    def remove(self, entry: Entry) -> None:
        """Let go an entry."""
        prev, following = entry.prev, entry.next
        prev.next = following
        following.prev = prev

    def replace(self, entry: Entry) -> Entry:
        """Do as `evict`, then take in a new entry."""
        old = self.evict()
        append(self._ring, entry)
        return old

    def restore(self, entry: Entry) -> None:
        """Take back an entry, as the youngest."""
        append(self._ring, entry)

    def hit(self, entry: Entry) -> None:
        """Do nothing: use does not count."""

    def evict(self) -> Entry:
        """Let go the oldest, and return it."""
        entry = self._ring.next
        following = entry.next
        self._ring.next = following
        following.prev = self._ring
        return entry


class LRU(FIFO):
    """Least recently used: a queue in which a hit is a new entry."""

    __slots__ = ()

    lock_free: ClassVar[bool] = False

    def hit(self, entry: Entry) -> None:
        """Make the entry the youngest."""
        prev, following = entry.prev, entry.next
        prev.next = following
        following.prev = prev
        append(self._ring, entry)


class LFU:
    """
    Least frequently used; among those of equal use, the one that has been so for longest.

    In constant time by a ring for each count (Shah, Mitra, Matani, 2010).
    """

    # Invariants:
    # - the sentinels of the rings form a ring themselves, by before and after, ordered by score;
    # - an entry's score is its home's, and no ring but the root is empty.
    __slots__ = ("_root",)

    lock_free: ClassVar[bool] = False
    score: ClassVar[int] = 1

    def __init__(self) -> None:
        self._root: Entry = ring()
        self._root.before = self._root.after = self._root

    def insert(self, entry: Entry) -> None:
        """Take in a new entry, used once."""
        entry.score = 1
        append(self._ring_of(1, self._root), entry)

    def remove(self, entry: Entry) -> None:
        """Let go an entry."""
        prev, following = entry.prev, entry.next
        prev.next = following
        following.prev = prev
        if prev is following:  # the sentinel alone is left
            _unlink(entry.home)

    def hit(self, entry: Entry) -> None:
        """Count one more use."""
        home = entry.home
        entry.score += 1
        more = self._ring_of(entry.score, home)
        self.remove(entry)
        append(more, entry)

    def evict(self) -> Entry:
        """Let go the entry of least use, and return it."""
        least = self._root.after
        assert least is not None  # noqa: S101 - for the type checkers: sentinels are linked
        entry = least.next
        self.remove(entry)
        return entry

    def replace(self, entry: Entry) -> Entry:
        """Do as `evict`, then take in a new entry."""
        old = self.evict()
        self.insert(entry)
        return old

    def restore(self, entry: Entry) -> None:
        """Take back an entry; it has been used once."""
        self.insert(entry)

    def _ring_of(self, score: int, lower: Entry) -> Entry:
        """Return the ring of ``score``, which comes right behind ``lower`` if it is there."""
        higher = lower.after
        assert higher is not None  # noqa: S101 - for the type checkers: sentinels are linked
        if higher is not self._root and higher.score == score:
            return higher
        made = ring()
        made.score = score
        made.before, made.after = lower, higher
        lower.after = higher.before = made
        return made


def _unlink(sentinel: Entry) -> None:
    """Take a ring that is empty out of the ring of rings."""
    before, after = sentinel.before, sentinel.after
    assert before is not None  # noqa: S101 - for the type checkers: sentinels are linked
    assert after is not None  # noqa: S101 - as above
    before.after, after.before = after, before
