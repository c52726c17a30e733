"""What type checkers make of limits that processes share: checked by mypy and pyright, not run."""

from __future__ import annotations

from typing import assert_type

from mtaio.core import TaskExecutor
from mtaio.redis import Lease, RedisConcurrencyLimiter, RedisStore
from mtaio.resilience import Pipeline

store = RedisStore("redis://127.0.0.1")
limiter = RedisConcurrencyLimiter(store, "reports", 2)
RedisConcurrencyLimiter(store, "reports", 2, on_failure="local")  # type: ignore[arg-type] # unknown


@limiter
async def twice(number: int) -> int:
    """The signature stays."""
    return 2 * number


@limiter(timeout=2)
async def shout(word: str) -> str:
    """As above."""
    return word.upper()


async def use() -> int:
    """What it returns is known, and the code behind a block is reached."""
    async with limiter as lease:
        assert_type(lease, Lease)
        assert_type(lease.token, int)
    assert_type(await limiter.try_acquire(), Lease | None)
    assert_type(await limiter.acquire(timeout=1), Lease)
    assert_type(await shout("a"), str)
    assert_type(await limiter.run(twice, 1), int)
    assert_type(await Pipeline(limiter).run(twice, 1), int)
    await TaskExecutor().race(shout("a"), rate=limiter)  # type: ignore[call-overload] # no rate
    with limiter:  # type: ignore[attr-defined] # cannot wait
        pass
    async with limiter.hold(timeout=1):
        return await twice(1)
