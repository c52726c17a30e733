"""
What every policy can do, and what the others of this package know of it.

Promise: an operation that raises, because a key cannot be hashed any more, has changed nothing; a
policy knows nothing of time, events, threads or loops, and holds exactly the entries that were
inserted and not removed; each operation takes constant time, evicting included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Protocol

if TYPE_CHECKING:
    from mtaio.cache._entry import Entry

__all__ = ["HOT", "Policy", "append"]

HOT: Final = 3
"""The score from which a hit no longer raises it."""


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

    def restore(self, entry: Entry) -> None:
        """Take back an entry that could not or should not leave, without looking at its key."""
        ...

    def replace(self, entry: Entry) -> Entry:
        """Do as `evict`, then take in a new entry; there is one at least."""
        ...


def append(queue: Entry, entry: Entry) -> None:
    """Put an entry at the end of a queue, which is its home from now on."""
    last = queue.prev
    entry.home = entry.next = queue
    entry.prev = last
    last.next = queue.prev = entry
