"""
The interface of eviction policies, and what they share.

Promise: each operation takes constant time, evicting included; one that raises, because a key
cannot be hashed, has changed nothing. A policy knows nothing of time, threads or event loops.
To add one: write it in a module of its own, name it in `mtaio.cache._policies`, and give it a plain
model in ``tests/cache/models.py``. The tests of all policies then test it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Protocol

if TYPE_CHECKING:
    from mtaio.cache._entry import Entry

__all__ = ["HOT", "Policy", "append"]

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
