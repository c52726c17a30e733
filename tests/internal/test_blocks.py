"""``with`` where only ``async with`` can work."""

from __future__ import annotations

from typing import Any

import pytest

from mtaio.core import TaskExecutor
from mtaio.monitoring import HealthMonitor, Probes, ResourceMonitor
from mtaio.redis import RedisConcurrencyLimiter, RedisRateLimiter
from mtaio.resilience import AdaptiveLimiter
from tests.redis.memory import MemoryStore


async def same(x: int) -> int:
    """Return ``x``."""
    return x


def blocks() -> list[Any]:
    """Return an object of each kind that is for ``async with`` alone; others have their tests."""
    monitor = ResourceMonitor()
    store = MemoryStore()
    return [
        TaskExecutor(),
        TaskExecutor().stream(same, [1]),
        monitor,
        Probes(monitor=monitor),
        HealthMonitor(monitor=monitor),
        RedisRateLimiter(store, "a", 1),
        RedisConcurrencyLimiter(store, "a", 1),
        AdaptiveLimiter().slot(),
    ]


@pytest.mark.parametrize("block", blocks(), ids=lambda each: type(each).__name__)
def test_plain_with(block: Any) -> None:
    """What is named is ``async with``, and the object by what a user knows of it."""
    message = r"^<(?!.* at 0x).*> cannot wait in a 'with' block\. Write 'async with'\.$"
    with pytest.raises(TypeError, match=message), block:
        pass  # pragma: no cover - not reached
