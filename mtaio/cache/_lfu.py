"""
The least frequently used.

Promise: as `Policy` says.
Cost: links within the entries, and a sentinel for each different count.
"""

from __future__ import annotations

from typing import ClassVar

from mtaio.cache._entry import Entry, ring
from mtaio.cache._policy import append

__all__ = ["LFU"]


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
