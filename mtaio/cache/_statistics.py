"""
What a cache holds and has done, as a frozen picture.

Promise: reading it changes nothing and is no checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CacheStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatistics:
    """A picture of a `TTLCache` at one moment."""

    size: int
    """Entries held now, those included that expired and have not been looked at since."""
    weight: float
    """What the entries weigh; without a weigher, each weighs 1."""
    max_size: float | None
    """The most that they may weigh; None for no limit."""
    hits: int
    """
    Reads that found a value; stale ones that ``get_or_set`` served and kept errors that it raised
    included.
    """
    misses: int
    """Reads that found none."""
    hit_rate: float
    """Hits among all reads, from 0 to 1; 0 before the first."""
    loads: int
    """Loads begun, refreshes included."""
    load_failures: int
    """Loads that raised an error."""
    load_seconds: float
    """Seconds that loads took which brought a value or an error, added up."""
    in_flight: int
    """Loads running now."""
    waiting: int
    """Callers that wait now for a load in another task."""
    evictions: int
    """Entries given up for want of room."""
    expirations: int
    """Entries removed because their time was over."""
    unheard: int
    """
    Removals that an async ``on_removed`` was not told of: too many waited to be told, or the cache
    was being left.
    """
