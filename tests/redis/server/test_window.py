"""`RedisRateLimiter.window` on the virtual clock, with its script run by real servers."""

from __future__ import annotations

import random
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import pytest

from mtaio.exceptions import LimitTimeoutError
from mtaio.redis import RedisKeyedRateLimiter, RedisRateLimiter
from mtaio.redis._bucket import RESERVE_IN_WINDOW
from mtaio.resilience import Pipeline
from mtaio.testing import run
from tests.redis.memory import MemoryStore
from tests.redis.scripts import VirtualScripts

if TYPE_CHECKING:
    from tests.redis.scripts import Connection

LATENCY = 0.004


@pytest.mark.parametrize(
    ("limit", "per", "slack"), [(5, 1.0, 0.02), (40, 0.5, 0.1), (3, 60.0, 0.1)]
)
def test_no_window_sees_more(
    redis_connection: Connection, backend: str, limit: int, per: float, slack: float
) -> None:
    """
    Never more than the limit in any span of that length, in all processes, whoever asks how.

    And the rate is what is left of it after the time in which a token may be granted.
    """
    moments: list[float] = []
    spans = 5

    async def main() -> None:
        chance = random.Random(limit)  # noqa: S311 - for a test
        store = VirtualScripts(redis_connection, latency=LATENCY)
        async with store, anyio.create_task_group() as group:
            key = uuid4().hex
            new = partial(RedisRateLimiter.window, store, key, limit, per=per, slack=slack)
            for limiter in (new(), new(), new()):
                for waits in (True, True, True, False):
                    group.start_soon(work, limiter, chance, waits)
            await anyio.sleep(spans * per)
            group.cancel_scope.cancel()

    async def work(limiter: RedisRateLimiter, chance: random.Random, waits: bool) -> None:  # noqa: FBT001 - a task
        while True:
            tokens = chance.randint(1, 2)
            await anyio.sleep(chance.uniform(0, per / 20))
            with anyio.move_on_after(chance.choice([10 * per, per / 10])):
                if waits:
                    await limiter.acquire(tokens)
                    moments.extend([anyio.current_time()] * tokens)
                elif await limiter.try_acquire(tokens):  # it counts when the server took it
                    moments.extend([anyio.current_time() - LATENCY / 2] * tokens)

    run(main, backend=backend)
    moments.sort()
    least = min(moments[number + limit] - moments[number] for number in range(len(moments) - limit))
    assert least >= per - 1e-6
    assert len(moments) >= 0.75 * limit * spans * per / (per + slack)


def test_a_window_for_each_key(connection: Connection, backend: str) -> None:
    """Two processes share that of a key, exactly; no key waits for another."""

    async def main() -> None:
        async with VirtualScripts(connection, latency=LATENCY) as store:
            new = partial(RedisKeyedRateLimiter.window, store, uuid4().hex, 2, per=60)
            one, other = new(), new()
            await one.acquire("a")
            await anyio.sleep(10)
            await other.acquire("a")
            with pytest.raises(LimitTimeoutError):
                await one.acquire("a", timeout=30)
            await one.acquire("b")
            assert anyio.current_time() == pytest.approx(10, abs=0.1)
            for limiter, moment in (one, 60), (other, 70):
                await limiter.acquire("a")
                assert anyio.current_time() == pytest.approx(moment, abs=0.2)

    run(main, backend=backend)


def test_takes_back_what_it_granted(connection: Connection, backend: str) -> None:
    """A whole window at once, then nothing, then as much again; the estimate says when."""

    async def main() -> None:
        async with VirtualScripts(connection, latency=0) as store:
            limiter = RedisRateLimiter.window(store, uuid4().hex, 7, per=10, slack=0.001)
            await limiter.acquire(4)
            await anyio.sleep(2)
            assert [await limiter.try_acquire(2) for _ in range(2)] == [True, False]
            with pytest.raises(LimitTimeoutError, match=r"in about 8\.01") as late:
                await limiter.acquire(5, timeout=1)
            assert late.value.retry_after == pytest.approx(8.01, abs=0.02)
            assert await limiter.try_acquire()
            await limiter.acquire(5)
            assert anyio.current_time() == pytest.approx(12.01, abs=0.02)
            with pytest.raises(LimitTimeoutError, match=r"only in about 10\.0"):
                await limiter.acquire(7, timeout=0)
            await limiter.acquire()
            with pytest.raises(ValueError, match=r"window never has room for more than limit=7\."):
                await limiter.acquire(8)
            assert (limiter.rate, limiter.burst, limiter.per) == (7, 7, 10)

    run(main, backend=backend)


def test_cancelled_and_set_back(connection: Connection, backend: str) -> None:
    """A cancelled waiter's token goes to the next; a clock that is set back holds nobody up."""

    async def main() -> None:
        async with VirtualScripts(connection) as store:
            limiter = RedisRateLimiter.window(store, uuid4().hex, 1, per=1, slack=0.1)
            api = Pipeline(limiter)
            await limiter.acquire()
            async with anyio.create_task_group() as group:
                with anyio.move_on_after(0.2):
                    group.start_soon(api.run, anyio.sleep, 0)
                    await limiter.acquire()
            assert anyio.current_time() == pytest.approx(1.1, abs=0.01)
            store.skew -= 3600
            assert not await limiter.try_acquire()
            await limiter.acquire()
            assert 2.1 <= anyio.current_time() < 2.3
            assert limiter.statistics().lost == 0

    run(main, backend=backend)


def test_share_without_the_server(backend: str) -> None:
    """A process has a window of its own, of its part of the limit."""
    answers = count()

    def reserve(*_: Any) -> list[Any]:
        return [1, b"0", 3, 9, b"0", 1] if not next(answers) else [0, b"0", 3, 9]

    async def main() -> None:
        store = MemoryStore({RESERVE_IN_WINDOW: reserve}, latency=0, timeout=0.1)
        async with store:
            limiter = RedisRateLimiter.window(store, "key", 7, per=10, on_failure="local")
            await limiter.acquire()
            store.fail()
            moments: list[float] = []
            for _ in range(4):
                await limiter.acquire()
                moments.append(anyio.current_time())
            assert moments == pytest.approx([0.1, 0.1, 10.1, 10.1], abs=0.01)
            store.recover()
            await anyio.sleep(3)
            store.fail()
            assert not await limiter.try_acquire()  # what the last outage left, and no more
            store.recover()
            await anyio.sleep(3)
            assert not limiter.statistics().down

    run(main, backend=backend)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "^limit=0 is less than 1"),
        ({"per": 0}, r"^per=0 is not a finite"),
        ({"per": 1e9}, r"^per=1000000000\.0 is not between 0\.001 and 100000000\.0"),
        ({"limit": 10**7}, r"^rate=10000000 per 1\.0 s is more than a server can count"),
    ],
)
def test_refused_arguments(options: dict[str, Any], message: str) -> None:
    """What cannot be meant is refused when the limiter is made."""
    with pytest.raises(ValueError, match=message):
        RedisRateLimiter.window(MemoryStore(), **{"key": "key", "limit": 1, **options})
