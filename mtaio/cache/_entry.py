"""
What a cache holds for one key.

Promise: an entry belongs to one key for good, so a reader that took it from the table holds that
key's value, whatever other threads do.
Cost: 112 bytes, besides key, value, and the float of its expiry.
Why entries are not recycled: docs/en/design/caching.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["DetailedEntry", "Entry", "Failure", "entry_of", "ring"]


class Hit:
    """What a hit reads: a class of its own, since slots are in the order of classes, then names."""

    __slots__ = ("fresh", "score", "value")

    if TYPE_CHECKING:
        fresh: float
        """Until when a read may take the value without the lock; ``-inf`` for never."""
        score: int
        """What the policy knows of its use."""
        value: Any


class Entry(Hit):
    """
    One key's value, and its places in the queue of the policy and among what expires.

    Made by `entry_of`, or by hand where each call counts: then key, value, fresh, expires, score
    and after have to be set.
    """

    # Invariants:
    # - key never changes, so a reader needs the table alone to know whose value it is;
    # - a writer sets value before fresh, a reader takes fresh before value: it may so see a newer
    #   value than the moment it looked at, but never one that had expired;
    # - prev and next are its neighbours in a queue of the policy; queue is for a policy that has
    #   several: the sentinel of that one, or what else tells them apart;
    # - before and after are its neighbours in a bucket of what expires; after is None while it is
    #   in none.
    __slots__ = ("after", "before", "expires", "key", "next", "prev", "queue")

    if TYPE_CHECKING:
        key: Hashable
        expires: float
        """When it is no longer kept."""
        prev: Entry
        next: Entry
        queue: Any
        before: Entry
        after: Entry | None


class DetailedEntry(Entry):
    """An entry of a cache that has to remember more: weights, idle time, early refresh."""

    __slots__ = ("renew", "soft", "weight")

    if TYPE_CHECKING:
        soft: float
        """When its time to live is over; it may be kept longer, to be served stale."""
        renew: float
        """From when on a read starts a load even though there is a value."""
        weight: float


E = TypeVar("E", bound=Entry)


def entry_of(made: E, key: Hashable, value: Any, expires: float, score: int) -> E:
    """Set what an entry needs, so that it is read under the lock alone, and return it."""
    made.key = key
    made.value = value
    made.fresh = -math.inf
    made.expires = expires
    made.score = score
    made.after = None
    return made


class Failure:
    """
    An exception in place of a value: what a load ended with.

    Args:
        error: The exception.
    """

    __slots__ = ("error", "logged", "traceback")

    def __init__(self, error: Exception) -> None:
        self.error: Exception = error
        self.logged: bool = False
        """Whether it was, because an old value was served in its place."""
        self.traceback = error.__traceback__


def ring() -> Entry:
    """Return the sentinel of an empty queue, a ring of ``prev`` and ``next``."""
    sentinel = entry_of(Entry(), None, None, math.inf, 0)
    sentinel.prev = sentinel.next = sentinel.queue = sentinel
    return sentinel
