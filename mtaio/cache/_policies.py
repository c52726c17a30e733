"""
Which entry to give up when there is no room: four policies as pure data.

Promise: each operation takes constant time, evicting included; a policy knows nothing of time,
events, threads or loops, and holds exactly the entries that were inserted and not removed.
Cost: links within the entries; S3-FIFO remembers what it evicted, in eight bytes more an entry.
Which to choose, and the hit ratios behind the default: docs/en/design/caching.md.
"""

from __future__ import annotations

from array import array
from enum import StrEnum
from typing import ClassVar, Final, Protocol

from mtaio.cache._entry import Entry, ring

__all__ = ["FIFO", "LFU", "LRU", "POLICIES", "S3FIFO", "EvictionPolicy", "Policy"]

HOT: Final = 3
"""The score from which a hit no longer raises it."""

_CHANCES: Final = 16
"""How many entries an eviction passes over at most, because they were hit."""

_VACANT: Final = -1
"""What is the hash of nothing in CPython, 0 included; so it marks an empty slot of the ghost."""


class EvictionPolicy(StrEnum):
    """Which entry a full cache gives up."""

    S3FIFO = "s3fifo"
    """Three queues, first in first out: what is never used again leaves early, what is used stays.
    Near the best on most traces, resists scans, and reads without a lock."""
    LRU = "lru"
    """What has not been used for longest. Good where the recent past is what comes again."""
    LFU = "lfu"
    """What was used least often. Good where some keys are popular for ever; it forgets nothing."""
    FIFO = "fifo"
    """What came first. The cheapest, and reads without a lock."""


class Policy(Protocol):
    """
    What all policies have in common.

    Invariant: ``evict`` is called only while there is an entry.
    """

    lock_free: ClassVar[bool]
    """Whether all that a hit does is to raise the entry's score, up to `HOT`."""
    score: ClassVar[int]
    """The score of a new entry."""

    def insert(self, entry: Entry) -> None:
        """Take in a new entry."""
        ...

    def remove(self, entry: Entry) -> None:
        """Let go an entry, for whatever reason."""
        ...

    def hit(self, entry: Entry) -> None:
        """Note that an entry was used."""
        ...

    def evict(self) -> Entry:
        """Let go the entry to give up now, and return it."""
        ...

    def replace(self, entry: Entry) -> Entry:
        """Do as `evict`, then take in a new entry; there is one at least."""
        ...


class FIFO:
    """First in, first out."""

    __slots__ = ("_ring",)

    lock_free: ClassVar[bool] = True
    score: ClassVar[int] = HOT

    def __init__(self) -> None:
        self._ring: Entry = ring()

    def insert(self, entry: Entry) -> None:
        """Take in a new entry, as the youngest."""
        _append(self._ring, entry)

    def remove(self, entry: Entry) -> None:
        """Let go an entry."""
        prev, following = entry.prev, entry.next
        prev.next = following
        following.prev = prev

    def replace(self, entry: Entry) -> Entry:
        """Do as `evict`, then take in a new entry."""
        old = self.evict()
        _append(self._ring, entry)
        return old

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
        _append(self._ring, entry)


class LFU:
    """Least frequently used; among those of equal use, the one that has been so for longest."""

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
        _append(self._ring_of(1, self._root), entry)

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
        _append(more, entry)

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


class S3FIFO:
    """
    S3-FIFO (Yang et al., SOSP 2023): a small queue for newcomers, a main one, and a ghost.

    A newcomer waits in *small*, a tenth of the cache. If it is used there it goes on to *main*;
    else it leaves, and the ghost remembers the hash of its key: should it come back soon, it goes
    to main at once. In main, an entry that was used goes round again.
    """

    # Invariants:
    # - home tells in which queue an entry is, and the two counts how many are there;
    # - a slot of the ghost has the hash of a key that was evicted from small, or _VACANT.
    __slots__ = ("_ghost", "_in_main", "_in_small", "_main", "_mask", "_small")

    lock_free: ClassVar[bool] = True
    score: ClassVar[int] = 0

    def __init__(self) -> None:
        self._small: Entry = ring()
        self._main: Entry = ring()
        self._in_small: int = 0
        self._in_main: int = 0
        self._ghost: array[int] = array("q", [_VACANT])
        self._mask: int = 0

    def insert(self, entry: Entry) -> None:
        """Take in a new entry: into main if the ghost remembers its key, else into small."""
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
        _append(queue, entry)

    def remove(self, entry: Entry) -> None:
        """Let go an entry."""
        prev, following = entry.prev, entry.next
        prev.next = following
        following.prev = prev
        if entry.home is self._main:
            self._in_main -= 1
        else:
            self._in_small -= 1

    def hit(self, entry: Entry) -> None:
        """Count a use, up to `HOT`."""
        if entry.score < HOT:
            entry.score += 1

    def evict(self) -> Entry:
        """Let go what small or main gives up; what was used is passed over, but not for ever."""
        small, main = self._small, self._main
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
            _append(main, entry)
        following = entry.next
        small.next = following
        following.prev = small
        self._in_small -= 1
        if self._mask < held - 1:
            self._enlarge(held)
        trace = hash(entry.key)
        self._ghost[trace & self._mask] = trace
        return entry

    def replace(self, entry: Entry) -> Entry:
        """Do as `evict`, then take in a new entry."""
        small = self._small
        old = small.next
        held = self._in_small + self._in_main
        mask = self._mask
        if old.score > 1 or self._in_small * 10 < held or mask < held - 1:
            old = self.evict()
            self.insert(entry)
            return old
        # From here on it is what the calls above do, for small, without the calls.
        following = old.next
        small.next = following
        following.prev = small
        ghost = self._ghost
        trace = hash(old.key)
        ghost[trace & mask] = trace
        trace = hash(entry.key)
        if ghost[trace & mask] == trace:
            ghost[trace & mask] = _VACANT
            small = self._main
            self._in_small -= 1
            self._in_main += 1
        last = small.prev
        entry.home = entry.next = small
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


def _append(queue: Entry, entry: Entry) -> None:
    last = queue.prev
    entry.home = entry.next = queue
    entry.prev = last
    last.next = queue.prev = entry


def _unlink(sentinel: Entry) -> None:
    """Take a ring that is empty out of the ring of rings."""
    before, after = sentinel.before, sentinel.after
    assert before is not None  # noqa: S101 - for the type checkers: sentinels are linked
    assert after is not None  # noqa: S101 - as above
    before.after, after.before = after, before


POLICIES: Final[dict[EvictionPolicy, type[Policy]]] = {
    EvictionPolicy.S3FIFO: S3FIFO,
    EvictionPolicy.LRU: LRU,
    EvictionPolicy.LFU: LFU,
    EvictionPolicy.FIFO: FIFO,
}
