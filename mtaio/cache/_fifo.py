"""
First in, first out; and the least recently used, which is the same with hits as new entries.

Promise: as `Policy` says.
Cost: links within the entries.
"""

from __future__ import annotations

from typing import ClassVar

from mtaio.cache._entry import Entry, ring
from mtaio.cache._policy import HOT, append

__all__ = ["FIFO", "LRU"]


class FIFO:
    """First in, first out."""

    __slots__ = ("_ring",)

    lock_free: ClassVar[bool] = True
    score: ClassVar[int] = HOT

    def __init__(self) -> None:
        self._ring: Entry = ring()

    def insert(self, entry: Entry) -> None:
        """Add a new entry, as the youngest."""
        append(self._ring, entry)

    def remove(self, entry: Entry) -> None:
        """Remove an entry."""
        prev, following = entry.prev, entry.next
        prev.next = following
        following.prev = prev

    def replace(self, entry: Entry) -> Entry:
        """Do as `evict`, then add a new entry."""
        old = self.evict()
        append(self._ring, entry)
        return old

    def restore(self, entry: Entry) -> None:
        """Put back an entry, as the youngest."""
        append(self._ring, entry)

    def hit(self, entry: Entry) -> None:
        """Do nothing: use does not count."""

    def evict(self) -> Entry:
        """Remove the oldest, and return it."""
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
