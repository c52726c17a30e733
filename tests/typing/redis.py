"""What type checkers make of mtaio.redis."""

from __future__ import annotations

from typing import assert_type

from mtaio.core import TaskExecutor
from mtaio.redis import RedisRateLimiter, RedisStore
from mtaio.resilience import Pipeline
from mtaio.statistics import RedisRateLimiterStatistics


async def limited(store: RedisStore) -> None:
    """Never run."""
    limiter = RedisRateLimiter(store, "key", 50, burst=10, on_failure="local")

    @limiter
    async def plain(number: int) -> str:
        return str(number)

    @limiter(tokens=2, timeout=1.0)
    async def options(number: int) -> str:
        return str(number)

    async with store as entered:
        assert_type(entered, RedisStore)
        assert_type(await store.ping(), float)
        assert_type(await limiter.try_acquire(), bool)
        assert_type(await plain(1), str)
        assert_type(await options(1), str)
        assert_type(await limiter.run(plain, 1), str)
        assert_type(limiter.statistics(), RedisRateLimiterStatistics)
        assert_type(await TaskExecutor().map(plain, [1], rate=limiter), list[str])
        assert_type(await Pipeline(limiter).run(plain, 1), str)
