"""
The policies by name.

Which to choose, and the hit ratios behind the default: docs/en/design/caching.md.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from mtaio.cache._queues import FIFO, LFU, LRU
from mtaio.cache._s3fifo import S3FIFO

if TYPE_CHECKING:
    from mtaio.cache._policy import Policy

__all__ = ["POLICIES", "EvictionPolicy"]


class EvictionPolicy(StrEnum):
    """Which entry a full cache gives up."""

    S3FIFO = "s3fifo"
    """Three queues, first in first out: what is never used again leaves early, what is used stays.
    Near the best on most traces, resists scans, and reads without a lock."""
    LRU = "lru"
    """What has not been used for longest. Good where the recent past is what comes again."""
    LFU = "lfu"
    """What was used least often. Good where some keys are popular for ever; it forgets nothing."""
    FIFO = "fifo"
    """What came first. The cheapest, and reads without a lock."""


POLICIES: Final[dict[EvictionPolicy, type[Policy]]] = {
    EvictionPolicy.S3FIFO: S3FIFO,
    EvictionPolicy.LRU: LRU,
    EvictionPolicy.LFU: LFU,
    EvictionPolicy.FIFO: FIFO,
}
