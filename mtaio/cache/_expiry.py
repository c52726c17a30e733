"""
When entries expire: buckets of a second, in the order of time.

Promise: adding, removing and finding what is due take constant time, whatever the number of
entries; nothing that was removed is held, and no bucket is kept empty.
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

__all__ = ["ExpiryBuckets"]

_SPARE: Final = 64
"""How many numbers of deleted buckets the heap may hold, beyond one for each bucket there is."""


class ExpiryBuckets:
    """The entries that are going to expire."""

    # Invariants:
    # - bucket n has entries that, when they were added, expired before n, and not before n - 1;
    #   since then an entry may have got a later expiry, but never an earlier one;
    # - each bucket is in the heap, whose other numbers are of buckets that became empty;
    # - due is no later than the first bucket;
    # - _awaited is the moment for which _wake's owner sleeps; -inf if it need not be woken.
    __slots__ = ("_awaited", "_buckets", "_heap", "_wake", "due")

    def __init__(self) -> None:
        self._buckets: dict[int, Entry] = {}
        self._heap: list[int] = []
        self.due: float = math.inf
        """Before this moment nothing has to be looked at."""
        self._awaited: float = -math.inf
        self._wake: Callable[[], object] | None = None

    def __len__(self) -> int:
        return len(self._buckets)

    def add(self, entry: Entry) -> None:
        """Add an entry that expires some day."""
        number = int(entry.expires) + 1
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._open(number)
        last = bucket.before
        entry.after = bucket
        entry.before = last
        last.after = bucket.before = entry

    def remove(self, entry: Entry) -> None:
        """Remove an entry that was added."""
        before, after = entry.before, entry.after
        assert after is not None  # noqa: S101 - for the type checkers: it was added
        before.after, after.before = after, before
        entry.after = None
        if before is after:  # the bucket alone is left
            del self._buckets[before.score]

    def next_due(self, moment: float) -> Entry | None:
        """Return an entry whose bucket is over at ``moment``, without removing it; else None."""
        heap, buckets = self._heap, self._buckets
        while heap:
            number = heap[0]
            if number > moment:
                break
            bucket = buckets.get(number)
            if bucket is not None:
                return bucket.after
            heappop(heap)
        self.due = float(heap[0]) if heap else math.inf
        return None

    def clear(self) -> None:
        """Remove everything."""
        self._buckets.clear()
        self._heap.clear()
        self.due = math.inf

    def wake_at_due(self, wake: Callable[[], object] | None) -> float:
        """Return `due`, and call ``wake`` once if it becomes earlier; None to call nothing."""
        self._wake = wake
        self._awaited = -math.inf if wake is None else self.due
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
        self.due = float(heap[0])  # it is compared with floats, which costs more for an int
        if number < self._awaited:
            self._awaited = -math.inf
            assert self._wake is not None  # noqa: S101 - for the type checkers: there is a sleeper
            self._wake()
        return bucket
