"""
The eviction policies: their names, their interface, and the two simplest.

Promise: each operation takes constant time, evicting included; one that raises, because a key
cannot be hashed, has changed nothing. A policy knows nothing of time, threads or event loops.
To add one: write it in a module of its own, name it here, and give it a plain model in
``tests/cache/models.py``. The tests of all policies then test it.
Which to choose, and the hit ratios behind the default: docs/en/design/caching.md.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal, Protocol, TypeAlias, get_args

from mtaio.cache._entry import Entry, ring

__all__ = ["FIFO", "HOT", "LRU", "POLICIES", "EvictionPolicy", "Policy", "append", "new_policy"]

EvictionPolicy: TypeAlias = Literal["s3fifo", "lru", "lfu", "fifo"]
"""Which entry a full cache gives up; see `TTLCache`."""

POLICIES: Final[tuple[EvictionPolicy, ...]] = get_args(EvictionPolicy)

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


def new_policy(name: EvictionPolicy) -> Policy:
    """Return a new policy; the module of one that has its own is imported for the first."""
    if name == "s3fifo":
        from mtaio.cache._s3fifo import S3FIFO  # noqa: PLC0415 - see above

        return S3FIFO()
    if name == "lfu":
        from mtaio.cache._lfu import LFU  # noqa: PLC0415 - as above

        return LFU()
    return LRU() if name == "lru" else FIFO()
