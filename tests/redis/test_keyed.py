"""`RedisKeyedRateLimiter` on the virtual clock, with a server in memory."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import anyio
import pytest

from mtaio.exceptions import LimitTimeoutError, RateLimitError, StoreError
from mtaio.redis import RedisKeyedRateLimiter
from mtaio.resilience import Pipeline
from mtaio.testing import Victim, explore, run, settle
from tests.redis.memory import MemoryStore
from tests.redis.reserving import reserving_store


async def test_each_key_has_its_own_limit() -> None:
    """Two processes share the bucket of a key, and no key waits for another."""
    async with reserving_store() as store:
        one, other = (RedisKeyedRateLimiter(store, "api", 10) for _ in range(2))
        moments: list[tuple[str, float]] = []

        async def work(limiter: RedisKeyedRateLimiter, key: str) -> None:
            await limiter.acquire(key)
            moments.append((key, round(anyio.current_time(), 1)))

        async with anyio.create_task_group() as group:
            for limiter in (one, other):
                for key in ("ada", "ada", "bob"):
                    group.start_soon(work, limiter, key)
        assert sorted(moments) == [
            *(("ada", 0.0), ("ada", 0.1), ("ada", 0.2), ("ada", 0.3)),
            *(("bob", 0.0), ("bob", 0.1)),
        ]
        statistics = one.statistics()
        assert (statistics.acquired, statistics.keys, statistics.waiting) == (3, 2, 0)
        assert statistics.server_calls >= 3
        assert {key.split("}")[0] for key in store.data} == {
            "mtaio:rate:{api:ada",
            "mtaio:rate:{api:bob",
        }


async def test_ways_to_acquire() -> None:
    """By trying, with a timeout, as a decorator, by `run`, and as a part of a pipeline."""
    async with reserving_store() as store:
        limiter = RedisKeyedRateLimiter(store, "api", 10, burst=2, name="users")

        @limiter(key=lambda user, _: user, tokens=2)
        async def greet(user: str, greeting: str) -> str:
            return f"{greeting} {user}"

        assert await greet("ada", "hello") == "hello ada"
        assert not await limiter.try_acquire("ada")
        with pytest.raises(LimitTimeoutError, match=r" key='ada' cannot grant 1 token within 0\.0"):
            await limiter.acquire("ada", timeout=0.01)
        api = Pipeline(limiter)
        await api.run(anyio.sleep, 0, key="bob")
        await limiter.run(anyio.sleep, 0, key="bob")
        assert not await limiter.try_acquire("bob")
        with pytest.raises(ValueError, match="has no key, and"):
            await api.run(anyio.sleep, 0)
        assert str(api) == (
            "Pipeline\n  <RedisKeyedRateLimiter 'users' 10 per 1 s, burst=2 at memory://, 2 keys>"
        )
        with pytest.raises(ValueError, match=r"^cannot acquire 3 tokens of"):
            limiter(key=str, tokens=3)
        key: Any = 5
        with pytest.raises(TypeError, match=r"^key=5 is an int, not a str"):
            await limiter.acquire(key)
        properties = (limiter.name, limiter.key, limiter.rate, limiter.per, limiter.slack)
        assert properties == ("users", "api", 10, 1.0, 0.1)
        assert (limiter.burst, limiter.max_keys) == (2, 10_000)


async def test_least_recently_used_key_makes_room() -> None:
    """What it had granted stays at the server; a key in use is not forgotten."""
    async with reserving_store() as store:
        limiter = RedisKeyedRateLimiter(store, "api", 0.1, max_keys=2)
        for key in ("ada", "bob", "ada", "cy"):
            await limiter.try_acquire(key)
        assert limiter.statistics().keys == 2
        for key in ("ada", "bob", "cy"):
            assert not await limiter.try_acquire(key)
        calls = limiter.statistics().server_calls
        async with anyio.create_task_group() as group:
            for key in ("ada", "bob"):
                group.start_soon(limiter.acquire, key)
            await settle()
            assert not await limiter.try_acquire("cy")
            with pytest.raises(RateLimitError, match=r"max_keys=2 are in use"):
                await limiter.acquire("dee")
            group.cancel_scope.cancel()
        statistics = limiter.statistics()
        assert (statistics.rejected_keys, statistics.cancelled) == (2, 2)
        assert statistics.server_calls > calls > 6
        await limiter.acquire("dee")


async def test_outage_is_one_for_all_keys(caplog: pytest.LogCaptureFixture) -> None:
    """After the first call that failed none waits for the server; one task looks for it."""
    async with reserving_store(timeout=0.5) as store:
        new = partial(RedisKeyedRateLimiter, store, "api", 1, burst=2, on_failure="local")
        limiter, other = new(max_keys=3), new()
        for each in (limiter, other):
            await each.acquire("ada")
        await limiter.try_acquire("ada")
        store.fail()
        with caplog.at_level(logging.WARNING, "mtaio.redis"):
            start = anyio.current_time()
            for key in ("ada", "bob", "cy"):
                await limiter.acquire(key)
            assert anyio.current_time() - start == pytest.approx(0.5, abs=0.01)
            failures = limiter.statistics().server_failures
            assert not await limiter.try_acquire("bob")  # half of the burst, as there are two
            assert not await limiter.try_acquire("dee")  # the others count here now
            await anyio.sleep(20)
        assert len(caplog.messages) == 1
        statistics = limiter.statistics()
        assert (statistics.down, statistics.acquired_without_server) == (True, 3)
        assert statistics.server_failures - failures <= 12
        store.recover()
        await anyio.sleep(3)
        assert not limiter.statistics().down
        assert await limiter.try_acquire("dee", 2)
        assert not await limiter.try_acquire("dee")


async def test_outage_that_lifts_the_limit_or_fails() -> None:
    """New keys are granted everything too, or fail with the others."""
    async with reserving_store(timeout=0.5) as store:
        limiter = RedisKeyedRateLimiter(store, "api", 0.01, on_failure="allow", max_keys=2)
        strict = RedisKeyedRateLimiter(store, "api", 0.01)
        store.fail()
        for key in "abcdefgh" * 2:
            await limiter.acquire(key)
        assert limiter.statistics().acquired_without_server == 16
        with pytest.raises(StoreError):
            await strict.acquire("ada")
        store.recover()
        await anyio.sleep(3)
        assert not limiter.statistics().down
        assert await strict.try_acquire("ada")


async def test_store_that_is_left_during_an_outage() -> None:
    """The next block asks the server again."""
    async with reserving_store(timeout=0.5) as store:
        limiter = RedisKeyedRateLimiter(store, "api", 1, on_failure="local")
        store.fail()
        for key in ("ada", "bob"):
            await limiter.acquire(key)
    assert not limiter.statistics().down
    async with store:
        store.recover()
        await limiter.acquire("ada")
        assert limiter.statistics().acquired_without_server == 2


def test_loops_one_after_another(backend: str) -> None:
    """The keys of a loop that is over are forgotten; a task that was left there changes nothing."""
    store = reserving_store()
    limiter = RedisKeyedRateLimiter(store, "api", 0.5, max_keys=2)
    left: list[Any] = []

    async def first() -> None:
        async with store:
            await limiter.acquire("ada")
            left.append(limiter.acquire("ada"))
            left[0].send(None)

    async def second() -> None:
        async with store:
            for key in ("ada", "bob"):
                await limiter.acquire(key)
            left[0].close()
            assert not await limiter.try_acquire("ada")
            statistics = limiter.statistics()
            assert (statistics.keys, statistics.waiting, statistics.acquired) == (2, 0, 3)
            assert statistics.server_calls >= 4

    run(first, backend="asyncio")
    run(second, backend=backend)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_keys": 0}, "^max_keys=0 is less than 1"),
        ({"rate": 0}, "^rate=0 is not"),
        ({"key": ""}, "^key='' is empty"),
    ],
)
def test_refused_arguments(options: dict[str, Any], message: str) -> None:
    """What cannot be meant is refused when the limiter is made."""
    with pytest.raises(ValueError, match=message):
        RedisKeyedRateLimiter(MemoryStore(), **{"key": "key", "rate": 1, **options})


def test_window_of_each_key() -> None:
    """The same with a window for each key."""
    limiter = RedisKeyedRateLimiter.window(MemoryStore(), "api", 5, per=60, max_keys=7)
    assert repr(limiter) == ("<RedisKeyedRateLimiter 'api' window 5 per 60 s at memory://, 0 keys>")
    assert (limiter.rate, limiter.burst, limiter.per, limiter.max_keys) == (5, 5, 60, 7)


@explore(seeds=10, exhaustive=1, inject=("checkpoint", "step", "native"))
async def test_cancelled_anywhere(victim: Victim) -> None:
    """A task that is cancelled between any two steps leaves its key to make room."""
    async with reserving_store(latency=0.002) as store:
        limiter = RedisKeyedRateLimiter(store, "api", 50, max_keys=2)
        async with anyio.create_task_group() as group:
            group.start_soon(victim, partial(limiter.acquire, "ada"))
            group.start_soon(limiter.acquire, "ada")
        for key in ("bob", "cy"):
            with anyio.fail_after(1):
                await limiter.acquire(key)
        statistics = limiter.statistics()
        assert (statistics.waiting, statistics.keys) == (0, 2)
