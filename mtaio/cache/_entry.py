"""
What a cache holds for one key.

Promise: an entry belongs to one key for ever, so whoever read it from the table holds that key's
value, whatever other threads do meanwhile; its last holder drops it, because no ring links to it.
Cost: 112 bytes, beside key, value, and the float of its expiry.
Why entries are not recycled: docs/en/design/caching.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Entry", "Failure", "Laden", "ring"]


class Entry:
    """
    One key's value, and its places in the queue of the policy and in the agenda.

    Args:
        key: The key.
        value: Its value.
        fresh: Until when a read may take the value without the lock; ``-inf`` for never.
        expires: When it is no longer kept.
        score: What the policy knows of a new entry.
    """

    # Invariants:
    # - key never changes, so a reader needs the table alone to know whose value it is;
    # - a writer sets value before fresh, a reader takes fresh before value: it may so see a newer
    #   value than the moment it looked at, but never one that had expired;
    # - home is the sentinel of the ring in which prev and next are;
    # - after is None while the entry is in no ring of the agenda.
    __slots__ = (
        "after",
        "before",
        "expires",
        "fresh",
        "home",
        "key",
        "next",
        "prev",
        "score",
        "value",
    )

    def __init__(self, key: Any, value: Any, fresh: float, expires: float, score: int) -> None:
        self.key: Hashable = key
        self.value: Any = value
        self.fresh: float = fresh
        self.expires: float = expires
        self.score: int = score
        self.before: Entry | None = None
        self.after: Entry | None = None
        # prev, next and home are set by the policy, before anybody reads them.
        self.prev: Entry
        self.next: Entry
        self.home: Entry


class Laden(Entry):
    """
    An entry of a cache that has to remember more: weights, idle time, early refresh.

    Args:
        key: As for `Entry`.
        value: As for `Entry`.
        fresh: As for `Entry`.
        expires: As for `Entry`.
        score: As for `Entry`.
    """

    __slots__ = ("renew", "soft", "weight")

    def __init__(self, key: Any, value: Any, fresh: float, expires: float, score: int) -> None:
        super().__init__(key, value, fresh, expires, score)
        self.soft: float = expires
        """When its time to live is over; it may be kept longer, to be served stale."""
        self.renew: float = math.inf
        """From when on a read begins a load although the time is not over."""
        self.weight: float = 1


class Failure:
    """
    An exception in the place of a value, for ``error_ttl``.

    Args:
        error: The exception that the loader raised.
    """

    __slots__ = ("error", "traceback")

    def __init__(self, error: Exception) -> None:
        self.error: Exception = error
        self.traceback = error.__traceback__


def ring() -> Entry:
    """Return the sentinel of an empty ring of ``prev`` and ``next``."""
    sentinel = Entry(None, None, -math.inf, math.inf, 0)
    sentinel.prev = sentinel.next = sentinel.home = sentinel
    return sentinel
