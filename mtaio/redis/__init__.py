"""
Limits, a cache and events that processes share, through a Redis or Valkey server.

Needs the extra ``redis``. Guide: docs/en/guides/redis.md.
"""

from __future__ import annotations

from mtaio.redis._client import RedisStore
from mtaio.redis._concurrency import RedisConcurrencyLimiter, RedisConcurrencyStatistics
from mtaio.redis._lease import Lease
from mtaio.redis._rate import RedisRateLimiter, RedisRateLimiterStatistics

__all__ = [
    "Lease",
    "RedisConcurrencyLimiter",
    "RedisConcurrencyStatistics",
    "RedisRateLimiter",
    "RedisRateLimiterStatistics",
    "RedisStore",
]
