"""
When entries expire: buckets of a second, in the order of time.

Promise: filing, taking out and looking what is due take constant time, whatever the number of
entries; nothing that was taken out is held, and no bucket is kept empty.
Cost: links within the entries; a bucket for each second in which something expires.
Why not a heap of entries: docs/en/design/caching.md.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from mtaio.cache._entry import Entry, ring

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Agenda"]

_SPARE: Final = 64
"""How many numbers of buckets that are no more may be in the heap, beside as many as there are."""


class Agenda:
    """The entries that are going to expire."""

    # Invariants:
    # - bucket n has entries that, when they were filed, expired before n, and not before n - 1;
    #   since then an entry may have got a later expiry, but never an earlier one;
    # - each bucket is in the heap, whose other numbers are of buckets that became empty;
    # - due is no later than the first bucket;
    # - awaited is when somebody will look of their own accord; -inf if they need not be told.
    __slots__ = ("_buckets", "_heap", "_ring", "awaited", "due")

    def __init__(self) -> None:
        self._buckets: dict[int, Entry] = {}
        self._heap: list[int] = []
        self.due: float = math.inf
        """Before this moment nothing has to be looked at."""
        self.awaited: float = -math.inf
        self._ring: Callable[[], object] | None = None

    def __len__(self) -> int:
        return len(self._buckets)

    def file(self, entry: Entry) -> None:
        """Take in an entry that expires some day."""
        number = int(entry.expires) + 1
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._open(number)
        last = bucket.before
        entry.after = bucket
        entry.before = last
        last.after = bucket.before = entry

    def unfile(self, entry: Entry) -> None:
        """Let go an entry that was filed."""
        before, after = entry.before, entry.after
        assert after is not None  # noqa: S101 - for the type checkers: it is filed
        before.after, after.before = after, before
        entry.after = None
        if before is after:  # the bucket alone is left
            del self._buckets[before.score]

    def next_due(self, moment: float) -> Entry | None:
        """Return an entry whose bucket is over at ``moment``, still filed; None if none is."""
        heap, buckets = self._heap, self._buckets
        while heap:
            number = heap[0]
            if number > moment:
                break
            bucket = buckets.get(number)
            if bucket is not None:
                return bucket.after
            heappop(heap)
        self.due = heap[0] if heap else math.inf
        return None

    def clear(self) -> None:
        """Let go everything."""
        self._buckets.clear()
        self._heap.clear()
        self.due = math.inf

    def awaken(self, ring: Callable[[], object] | None) -> float:
        """Return `due`, and call ``ring`` once if it becomes earlier; None for nobody."""
        self._ring = ring
        self.awaited = -math.inf if ring is None else self.due
        return self.due

    def _open(self, number: int) -> Entry:
        bucket = self._buckets[number] = ring()
        bucket.score = number
        bucket.before = bucket.after = bucket
        heap = self._heap
        if len(heap) > 2 * len(self._buckets) + _SPARE:
            heap[:] = self._buckets
            heapify(heap)
        else:
            heappush(heap, number)
        self.due = heap[0]
        if number < self.awaited:
            self.awaited = -math.inf
            assert self._ring is not None  # noqa: S101 - for the type checkers: somebody awaits it
            self._ring()
        return bucket
