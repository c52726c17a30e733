"""
Which entry a full cache gives up: the policies by name, and the three simple ones.

Promise: each operation takes constant time, evicting included; one that raises, because a key
cannot be hashed, has changed nothing. A policy knows nothing of time, threads or event loops.
Cost: links within the entries, and for LFU a sentinel for each different count.
Which to choose, and the hit ratios behind the default: docs/en/design/caching.md.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Final, Protocol

from mtaio.cache._entry import Entry, ring

__all__ = ["FIFO", "HOT", "LFU", "LRU", "EvictionPolicy", "Policy", "append"]


class EvictionPolicy(StrEnum):
    """Which entry a full cache gives up."""

    S3FIFO = "s3fifo"
    """Three queues, first in first out: entries that are never used again leave early, used ones
    stay. Near the best on most traces, resists scans, and reads without a lock."""
    LRU = "lru"
    """The least recently used entry. Good where recent keys are asked for again."""
    LFU = "lfu"
    """The least often used entry. Good where some keys are always popular; it forgets nothing."""
    FIFO = "fifo"
    """The oldest entry. The cheapest, and reads without a lock."""


HOT: Final = 3
"""The highest score: a hit does not raise it any more."""


class Policy(Protocol):
    """
    The interface of all policies.

    Invariant: ``evict`` is called only while there is an entry.
    """

    lock_free: ClassVar[bool]
    """Whether a hit only raises the entry's score, up to `HOT`."""
    score: ClassVar[int]
    """The score of a new entry."""

    def insert(self, entry: Entry) -> None:
        """Add a new entry."""
        ...

    def remove(self, entry: Entry) -> None:
        """Remove an entry."""
        ...

    def hit(self, entry: Entry) -> None:
        """Note that an entry was used."""
        ...

    def evict(self) -> Entry:
        """Remove the entry to give up now, and return it."""
        ...

    def restore(self, entry: Entry) -> None:
        """Put back an entry that could not or should not leave, without looking at its key."""
        ...

    def replace(self, entry: Entry) -> Entry:
        """Do as `evict`, then add a new entry; there is one at least."""
        ...


def append(queue: Entry, entry: Entry) -> None:
    """Put an entry at the end of a queue, and note that it is there."""
    last = queue.prev
    entry.queue = entry.next = queue
    entry.prev = last
    last.next = queue.prev = entry


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


class LFU:
    """
    Least frequently used; among those of equal use, the one that has been so for longest.

    In constant time by a ring for each count (Shah, Mitra, Matani, 2010).
    """

    # Invariants:
    # - the sentinels of the rings form a ring themselves, by before and after, ordered by score;
    # - an entry's score is its queue's, and no ring but the root is empty.
    __slots__ = ("_root",)

    lock_free: ClassVar[bool] = False
    score: ClassVar[int] = 1

    def __init__(self) -> None:
        self._root: Entry = ring()
        self._root.before = self._root.after = self._root

    def insert(self, entry: Entry) -> None:
        """Add a new entry, used once."""
        entry.score = 1
        append(self._ring_of(1, self._root), entry)

    def remove(self, entry: Entry) -> None:
        """Remove an entry."""
        prev, following = entry.prev, entry.next
        prev.next = following
        following.prev = prev
        if prev is following:  # the sentinel alone is left
            _unlink(entry.queue)

    def hit(self, entry: Entry) -> None:
        """Count one more use."""
        queue = entry.queue
        entry.score += 1
        more = self._ring_of(entry.score, queue)
        self.remove(entry)
        append(more, entry)

    def evict(self) -> Entry:
        """Remove the entry of least use, and return it."""
        least = self._root.after
        assert least is not None  # noqa: S101 - for the type checkers: sentinels are linked
        entry = least.next
        self.remove(entry)
        return entry

    def replace(self, entry: Entry) -> Entry:
        """Do as `evict`, then add a new entry."""
        old = self.evict()
        self.insert(entry)
        return old

    def restore(self, entry: Entry) -> None:
        """Put back an entry; it has been used once."""
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
