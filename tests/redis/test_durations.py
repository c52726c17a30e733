"""How long waits at limits of a server take, and loads of its cache, where that is recorded."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.redis import (
    RedisConcurrencyLimiter,
    RedisKeyedRateLimiter,
    RedisQuota,
    RedisRateLimiter,
    TieredCache,
)
from mtaio.resilience import Pipeline
from tests.redis.answering import answering_store
from tests.redis.caching import caching_store
from tests.redis.exchanging import Slots
from tests.redis.reserving import reserving_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.redis.memory import MemoryStore

LIMITERS: dict[str, tuple[Callable[[], MemoryStore], Callable[[Any], Any]]] = {
    "rate": (
        lambda: reserving_store(latency=0),
        lambda store: RedisRateLimiter(store, "key", 1, burst=1),
    ),
    "rate of a key": (
        lambda: reserving_store(latency=0),
        lambda store: RedisKeyedRateLimiter(store, "key", 1, burst=1),
    ),
    "quota": (
        lambda: answering_store(latency=0),
        lambda store: RedisQuota(store, "key", requests=1),
    ),
    "slots": (lambda: Slots(latency=0), lambda store: RedisConcurrencyLimiter(store, "key", 1)),
}


@pytest.mark.parametrize("name", LIMITERS)
async def test_waits_are_recorded(name: str) -> None:
    """Those that count in ``wait_seconds``: here each call, as each goes to the server."""
    make_store, make = LIMITERS[name]

    async def hold() -> None:
        await anyio.sleep(1)

    async with make_store() as store:
        limiter = make(store)
        api = Pipeline(limiter)
        assert limiter.statistics().wait_duration is None
        api.record_durations()
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(lambda: api.run(hold, key="ada"))
        statistics = limiter.statistics()
    assert statistics.wait_duration.count == statistics.acquired == 2
    assert statistics.wait_duration.sum == pytest.approx(statistics.wait_seconds)
    assert statistics.wait_duration.sum == pytest.approx(1, abs=0.2)


async def test_loads_are_recorded() -> None:
    """How long the loader took, with a value, an error or a cancellation; not the server."""

    async def load() -> int:
        await anyio.sleep(1)
        return 1

    async def fail() -> int:
        await anyio.sleep(2)
        raise OSError

    async with caching_store() as store, TieredCache[int](store, "test") as cache:
        await cache.get_or_set("before", load)
        assert cache.statistics().load_duration is None
        cache.record_durations()
        cache.record_durations()
        for _ in range(2):
            await cache.get_or_set("key", load)
        with suppress(OSError):
            await cache.get_or_set("failing", fail)
        with anyio.move_on_after(0.5):
            await cache.get_or_set("slow", load)
    took = cache.statistics().load_duration
    assert took is not None
    assert took.count == 3
    assert took.sum == pytest.approx(3.5, abs=0.1)
