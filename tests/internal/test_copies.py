"""What counts for all who use it is not copied."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from mtaio.core import Retry, TaskExecutor
from mtaio.redis import (
    RedisBreaker,
    RedisConcurrencyLimiter,
    RedisKeyedRateLimiter,
    RedisQuota,
    RedisRateLimiter,
)
from mtaio.resilience import AdaptiveLimiter, Breaker, Budget, Hedge
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
    ResourceLimiter,
)
from tests.redis.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable


def counting() -> list[Any]:
    """Return an object of each kind that counts."""
    return [
        RateLimiter(1),
        RateLimiter.window(1, per=1),
        KeyedRateLimiter(1),
        ConcurrencyLimiter(1),
        KeyedConcurrencyLimiter(1),
        ResourceLimiter(rate=1),
        AdaptiveLimiter(),
        Breaker(),
        Budget(0.1),
        Hedge(0.1),
        Retry(budget=Budget(0.1)),
        RedisRateLimiter(MemoryStore(), "a", 1),
        RedisConcurrencyLimiter(MemoryStore(), "a", 1),
        RedisKeyedRateLimiter(MemoryStore(), "a", 1),
        RedisQuota(MemoryStore(), "a", requests=1),
        RedisBreaker(MemoryStore(), "a"),
    ]


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("original", counting(), ids=lambda each: type(each).__name__)
def test_refused(original: Any, copied: Callable[[Any], object]) -> None:
    """A copy, with which there would be two limits, is refused, and the way out is told."""
    message = r"^<(?!.* at 0x).*> cannot be copied or pickled: .* Share the object; in another pro"
    with pytest.raises(TypeError, match=message):
        copied(original)
    with pytest.raises(TypeError, match=message):
        copied([{"inside": original}])


def test_shallow_copy() -> None:
    """Neither is a shallow one made; what only refers to it may be copied, and shares it."""
    limiter = ConcurrencyLimiter(1)
    with pytest.raises(TypeError, match=r"^<ConcurrencyLimiter: .*> cannot be copied"):
        copy.copy(limiter)
    retry = Retry(budget=Budget(0.1))
    assert copy.copy(retry).budget is retry.budget


def granted(limiter: RateLimiter, _: int) -> bool:
    """Return whether it has a token."""
    limiter.acquire_nowait()
    return True


async def test_worker_process() -> None:
    """A limiter does not go into worker processes, where each would have its own count."""
    limiter = RateLimiter(1, burst=1)
    with pytest.raises(TypeError, match=r"^<RateLimiter .*> cannot be copied or pickled"):
        await TaskExecutor().map(partial(granted, limiter), range(8), via="processes")
    limiter.acquire_nowait()
