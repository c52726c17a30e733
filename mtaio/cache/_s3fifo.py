"""
S3-FIFO: entries that are never used again leave early, used ones stay.

Promise: as `Policy` says; an eviction passes over a bounded number of entries.
Cost: links within the entries; the hash of what it evicted, in sixteen bytes more an entry.
Why the ghost is an array, how time is told, and why chances are counted: docs/en/design/caching.md.
"""

from __future__ import annotations

from array import array
from typing import ClassVar, Final

from mtaio.cache._entry import Entry, ring
from mtaio.cache._policy import HOT, append

__all__ = ["S3FIFO"]

_CHANCES: Final = 16
"""How many entries an eviction passes over at most, because they were hit."""

_LEAST: Final = 20
"""Small has at least one in so many of the entries held."""

_VACANT: Final = 1 << 62
"""Marks an empty slot of the ghost: one in 2 ** 62 hashes would be taken for a key's."""


class S3FIFO:
    """
    S3-FIFO (Yang et al., SOSP 2023): a small queue for newcomers, a main one, and a ghost.

    A newcomer waits in *small*. If it is used there it moves on to *main*; otherwise it leaves, and
    the ghost remembers the hash of its key, and when that was. If it comes back, it goes to main at
    once, provided that the oldest entry of main has not been used since: so the test of LIRS
    (Jiang and Zhang, SIGMETRICS 2002) says which of the two comes back sooner. In main, an entry
    that was used gets another turn.

    How large small is depends on what becomes of newcomers, as in CLOCK-Pro (Jiang, Chen and Zhang,
    ATC 2005): each that moves on, and each that left too early, makes it larger, and those that
    leave unused make it smaller.

    Time is told in turns. A mark goes round in small, and a turn ends when it is the head.
    """

    # Invariants:
    # - the mark is in small's ring, and counts as no entry; its score is that of a used entry, so
    #   that replacing meets it on the long path alone;
    # - queue is the sentinel of small for an entry that is there, and for one of main the turn in
    #   which it was last seen to be used, or came; the two counts say how many are there;
    # - a slot of the ghost has _VACANT, or the hash of a key that was evicted from small, XOR the
    #   turn of that, modulo the slots; the slot is the hash modulo the slots. So the turn can be
    #   told from the slot, and XOR with another hash of the slot is never less than the slots;
    # - settled is true only if small has its share, and the ghost two slots for each entry held.
    __slots__ = (
        "_due",
        "_early",
        "_ghost",
        "_in_main",
        "_in_small",
        "_main",
        "_mark",
        "_mask",
        "_moved",
        "_settled",
        "_share",
        "_small",
        "_stamp",
        "_turn",
    )

    lock_free: ClassVar[bool] = True
    score: ClassVar[int] = 0

    def __init__(self) -> None:
        self._small: Entry = ring()
        self._main: Entry = ring()
        self._mark: Entry = ring()
        self._mark.score = HOT
        append(self._small, self._mark)
        self._in_small: int = 0
        self._in_main: int = 0
        self._share: float = 1
        """How many entries small has before it gives one up."""
        self._turn: int = 0
        self._stamp: int = 0
        """The turn, modulo the slots of the ghost."""
        self._due: int = 0
        """How many entries were before the mark when the turn began."""
        self._moved: int = 0
        """How many of them moved on to main."""
        self._early: int = 0
        """How many came back to main in this turn, as they had left small too early."""
        self._ghost: array[int] = array("q", [_VACANT])
        self._mask: int = 0
        self._settled: bool = False

    def insert(self, entry: Entry) -> None:
        """Add a new entry: into main if it left small too early, else into small."""
        mask = self._mask
        if mask:  # something has been evicted
            trace = hash(entry.key)
            if 0 <= self._ghost[trace & mask] ^ trace <= mask:
                self._come_back(entry, trace)
                return
        self._settled = False
        self._in_small += 1
        small = self._small
        last = small.prev  # as `append` does
        entry.queue = entry.next = small
        entry.prev = last
        last.next = small.prev = entry

    def remove(self, entry: Entry) -> None:
        """Remove an entry."""
        prev, following = entry.prev, entry.next
        prev.next = following
        following.prev = prev
        self._settled = False
        if entry.queue is self._small:
            self._in_small -= 1
        else:
            self._in_main -= 1

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
            if small.next is self._mark:
                self._end_turn(held)
            if self._in_small >= self._share or not self._in_main:
                entry = small.next
                if entry.score < 2 or not chances:  # noqa: PLR2004 - one use is none: a burst
                    break
                self._in_small -= 1
                self._in_main += 1
                self._moved += 1
            else:
                entry = main.next
                if not entry.score or (not chances and not self._in_small):
                    self.remove(entry)
                    return entry
                if not chances:
                    entry = small.next
                    break
            chances -= 1
            self._to_main(entry)
        trace = hash(entry.key)
        if self._mask < 2 * held - 1:
            self._enlarge(held)
        following = entry.next
        small.next = following
        following.prev = small
        self._in_small -= 1
        self._ghost[trace & self._mask] = trace ^ self._stamp
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
            if old is self._mark and self._settled:
                self._end_turn(self._in_small + self._in_main)
                self._settled = self._in_small >= self._share
                return self.replace(entry)
            old = self.evict()
            try:
                self.insert(entry)
            except BaseException:
                self.restore(old)
                raise
            held = self._in_small + self._in_main
            self._settled = self._in_small >= self._share and self._mask >= 2 * held - 1
            return old
        # From here on it is what the calls above do, for small, without the calls.
        mask = self._mask
        trace = hash(entry.key)
        left = hash(old.key)
        following = old.next
        small.next = following
        following.prev = small
        ghost = self._ghost
        ghost[left & mask] = left ^ self._stamp
        if 0 <= ghost[trace & mask] ^ trace <= mask:
            self._in_small -= 1
            self._come_back(entry, trace)
            return old
        last = small.prev
        entry.queue = entry.next = small
        entry.prev = last
        last.next = small.prev = entry
        return old

    def _come_back(self, entry: Entry, trace: int) -> None:
        """Add an entry whose key the ghost remembers."""
        self._settled = False
        if self._left_early(trace):
            self._in_main += 1
            append(self._main, entry)
            entry.queue = self._turn
        else:
            self._in_small += 1
            append(self._small, entry)

    def _left_early(self, trace: int) -> bool:
        """
        Take a key that has come back out of the ghost, and return whether it belongs into main.

        It does if there is room, or if the oldest entry of main was last used in an earlier turn
        than the one in which the key left small. One that was used since is passed over.
        """
        slot = trace & self._mask
        turns = (self._turn - (self._ghost[slot] ^ trace)) & self._mask
        self._ghost[slot] = _VACANT
        if self._in_small > self._share or not self._in_main:
            return True
        oldest = self._main.next
        if oldest.score:
            self._to_main(oldest)
            oldest = self._main.next
        if oldest.score or self._turn - oldest.queue <= turns:
            return False
        self._early += 1
        return True

    def _to_main(self, entry: Entry) -> None:
        """Make an entry that was used the youngest of main."""
        prev, following = entry.prev, entry.next
        prev.next = following
        following.prev = prev
        append(self._main, entry)
        entry.score = 0
        entry.queue = self._turn

    def _end_turn(self, held: int) -> None:
        """Set small's share by what became of those in it, and send the mark round again."""
        least = max(1, held // _LEAST)
        most = max(least, held * 9 // 10)
        share = self._share + self._moved + 2 * self._early - (self._due - self._moved) / 2
        self._share = min(max(share, least), most)
        self._turn += 1
        self._stamp = self._turn & self._mask
        self._due = self._in_small
        self._moved = self._early = 0
        small, mark = self._small, self._mark
        following = mark.next
        small.next = following
        following.prev = small
        append(small, mark)

    def _enlarge(self, held: int) -> None:
        """Give the ghost two slots for each entry held at least, and forget nothing."""
        before = self._mask
        self._mask = mask = (1 << (2 * held - 1).bit_length()) - 1
        self._stamp = self._turn & mask
        ghost = array("q", [_VACANT]) * (mask + 1)
        for slot, seen in enumerate(self._ghost):
            if seen != _VACANT:
                turn = (seen ^ slot) & before
                trace = seen ^ turn
                since = (self._turn - turn) & before
                ghost[trace & mask] = trace ^ ((self._turn - since) & mask)
        self._ghost = ghost
