"""
What a cache holds and has done, as a frozen snapshot.

Promise: taking one changes nothing, is not a checkpoint, and may be done by any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, SECONDS

__all__ = ["CacheStatistics"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatistics:
    """A snapshot of a `TTLCache`."""

    size: int = field(metadata=GAUGE)
    """Entries held now, including expired ones that have not been removed yet."""
    weight: float = field(metadata=GAUGE)
    """Total weight of the entries now; without a weigher, each weighs 1."""
    max_size: float | None = field(metadata=LIMIT)
    """The most they may weigh; None for no limit."""
    hits: int = field(metadata=COUNTER)
    """
    Reads that found a value, including the stale values that ``get_or_set`` served and the kept
    errors that it raised.
    """
    misses: int = field(metadata=COUNTER)
    """Reads that found none."""
    hit_rate: float = field(metadata=GAUGE)
    """Hits among all reads, from 0 to 1; 0 before the first."""
    loads: int = field(metadata=COUNTER)
    """Loads started, including refreshes; one for each key of several loaded together."""
    failed: int = field(metadata=COUNTER)
    """Loads that raised an error."""
    cancelled: int = field(metadata=COUNTER)
    """Loads that were cancelled, or never finished because their event loop had."""
    served_stale: int = field(metadata=COUNTER)
    """Calls that got an expired value because a load had failed, with ``stale_if_error``."""
    load_seconds: float = field(metadata=COUNTER)
    """Total seconds of the loads that ended with a value or an error."""
    load_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long each of those loads took; None before ``record_durations()``."""
    in_flight: int = field(metadata=GAUGE)
    """Loads in progress now."""
    waiting: int = field(metadata=GAUGE)
    """Callers waiting now for a load in another task or thread, once for each key they wait for."""
    evictions: int = field(metadata=COUNTER)
    """Entries removed to make room."""
    expirations: int = field(metadata=COUNTER)
    """Entries removed because they had expired."""
    dropped: int = field(metadata=COUNTER)
    """
    Removals that an async ``on_removed`` was not called for, because too many were waiting or the
    cache was being left.
    """
