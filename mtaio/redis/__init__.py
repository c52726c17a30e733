"""
Limits, a cache and events that processes share through a Redis or Valkey server.

Needs the extra ``redis``.
"""

from __future__ import annotations

from mtaio.redis._breaker import RedisBreaker
from mtaio.redis._bridge import Bridge, bridge
from mtaio.redis._client import RedisStore
from mtaio.redis._codec import JSON, Codec
from mtaio.redis._concurrency import RedisConcurrencyLimiter
from mtaio.redis._keyed import RedisKeyedRateLimiter
from mtaio.redis._leader import LeaderTerm, RedisLeader
from mtaio.redis._lease import Lease
from mtaio.redis._quota import RedisQuota
from mtaio.redis._rate import RedisRateLimiter
from mtaio.redis._tiered import TieredCache

__all__ = [
    "JSON",
    "Bridge",
    "Codec",
    "LeaderTerm",
    "Lease",
    "RedisBreaker",
    "RedisConcurrencyLimiter",
    "RedisKeyedRateLimiter",
    "RedisLeader",
    "RedisQuota",
    "RedisRateLimiter",
    "RedisStore",
    "TieredCache",
    "bridge",
]
