"""``with`` where only ``async with`` can work."""

from __future__ import annotations

from typing import Any

import pytest

from mtaio.app import Application
from mtaio.config import Settings
from mtaio.core import Retry, TaskExecutor
from mtaio.events import EventEmitter
from mtaio.monitoring import HealthMonitor, Probes, ResourceMonitor
from mtaio.redis import RedisConcurrencyLimiter, RedisRateLimiter, TieredCache
from mtaio.resilience import AdaptiveLimiter, Breaker, Fallback, Hedge, Timeout
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
        EventEmitter(),
        EventEmitter().stream("a"),
        monitor,
        Probes(monitor=monitor),
        HealthMonitor(monitor=monitor),
        Application(settings=Settings()),
        RedisRateLimiter(store, "a", 1),
        RedisConcurrencyLimiter(store, "a", 1),
        TieredCache[int](store, "a"),
        AdaptiveLimiter().slot(),
    ]


@pytest.mark.parametrize("block", blocks(), ids=lambda each: type(each).__name__)
def test_plain_with(block: Any) -> None:
    """What is named is ``async with``, and the object by what a user knows of it."""
    message = r"^<(?!.* at 0x).*> cannot wait in a 'with' block\. Write 'async with'\.$"
    with pytest.raises(TypeError, match=message), block:
        pass  # pragma: no cover - not reached


@pytest.mark.parametrize(
    "part",
    [Retry(3), Breaker(0.5), Hedge(1), Fallback(print), Timeout(5)],
    ids=lambda each: type(each).__name__,
)
async def test_part_of_a_pipeline_alone(part: Any) -> None:
    """A part that is used as a decorator or a block, as elsewhere, says where it belongs."""
    message = r" is a part of a pipeline, neither a decorator nor a block\. Write @Pipeline"
    with pytest.raises(TypeError, match=message):
        part(same)
    with pytest.raises(TypeError, match=message):
        async with part:
            pass  # pragma: no cover - not reached
    with pytest.raises(TypeError, match=message), part:
        pass  # pragma: no cover - not reached


async def test_adaptive_limiter_as_a_block() -> None:
    """It is entered through a slot, which is what it says."""
    limiter: Any = AdaptiveLimiter()
    message = r"^<AdaptiveLimiter: .*> cannot be entered, because each block has a slot of its own"
    with pytest.raises(TypeError, match=message):
        async with limiter:
            pass  # pragma: no cover - not reached
