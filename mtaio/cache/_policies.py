"""
The eviction policies by name: which entry a full cache gives up.

Which to choose, and the hit ratios behind the default: docs/en/design/caching.md.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from mtaio.cache._lfu import LFU
from mtaio.cache._policy import FIFO, LRU, Policy
from mtaio.cache._s3fifo import S3FIFO

__all__ = ["POLICIES", "EvictionPolicy"]


class EvictionPolicy(StrEnum):
    """Which entry a full cache gives up."""

    S3FIFO = "s3fifo"
    """Three queues, first in first out: entries that are never used again leave early, used ones
    stay. Near the best on most traces, resists scans, and reads without a lock."""
    LRU = "lru"
    """The least recently used entry. Good where recent keys are asked for again."""
    LFU = "lfu"
    """The least often used entry. Good where some keys are always popular; it forgets nothing."""
    FIFO = "fifo"
    """The oldest entry. The cheapest, and reads without a lock."""


POLICIES: Final[dict[EvictionPolicy, type[Policy]]] = {
    EvictionPolicy.S3FIFO: S3FIFO,
    EvictionPolicy.LRU: LRU,
    EvictionPolicy.LFU: LFU,
    EvictionPolicy.FIFO: FIFO,
}
