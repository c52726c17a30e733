"""`RedisQuota` on the virtual clock, with its script run by real servers."""

from __future__ import annotations

import logging
import math
import random
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import pytest

from mtaio.core import TaskExecutor
from mtaio.exceptions import LimitTimeoutError, RateLimitError, StoreError
from mtaio.redis import RedisQuota
from mtaio.resilience import Pipeline
from mtaio.testing import Victim, explore, run, settle
from tests.redis.memory import MemoryStore
from tests.redis.scripts import Connection, VirtualScripts
from tests.redis.servers import serving

if TYPE_CHECKING:
    from collections.abc import Generator

ROUND = 0.01
"""More than a call of the server takes."""

LIMITS: dict[str, Any] = {"requests": 20, "tokens": 1000, "per": 10}


class Processes:
    """Quotas of one key, each in a process of its own."""

    def __init__(self, connection: Connection, size: int = 2, **options: Any) -> None:
        self.stores = [VirtualScripts(connection, timeout=0.5) for _ in range(size)]
        key = uuid4().hex
        options = LIMITS | options
        self.quotas = [RedisQuota(store, key, **options) for store in self.stores]
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> list[RedisQuota]:
        await self._stack.__aenter__()
        for store in self.stores:
            await self._stack.enter_async_context(store)
        return self.quotas

    async def __aexit__(self, *how: object) -> None:
        await self._stack.aclose()


def tokens_of(quota: RedisQuota) -> float:
    """Return the tokens at the server's last answer."""
    return quota.statistics().limits["tokens"].tokens


async def seconds(waits: Any) -> float:
    """Return how long it takes."""
    start = anyio.current_time()
    await waits
    return anyio.current_time() - start


def test_all_or_none(connection: Connection, backend: str) -> None:
    """What one limit lacks, no other loses; both limits hold for all processes together."""

    async def main() -> None:
        async with Processes(connection) as (one, other):
            assert await one.try_acquire(tokens=900)
            assert not await other.try_acquire(requests=1, tokens=200)
            assert await other.try_acquire(requests=18, tokens=100)
            assert not await other.try_acquire(requests=2, tokens=0)
            assert await other.try_acquire(requests=1, tokens=0)
            assert await seconds(one.acquire(requests=0, tokens=500)) == pytest.approx(5, abs=0.05)
            async with other.take(requests=2) as taken:
                assert taken.cost == (2, 1)
            statistics = other.statistics()
            assert (statistics.acquired, statistics.rejected, statistics.members) == (3, 2, 2)
            assert statistics.limits["requests"].acquired == 21
            assert statistics.limits["tokens"].rate == 1000
            assert one.rate == 2

    run(main, backend=backend)


def test_bound_and_order(redis_connection: Connection, backend: str) -> None:
    """No span sees more than bucket and rate; tasks and processes take turns, large or small."""
    granted: list[tuple[float, int, str]] = []

    async def main() -> None:
        async with (
            Processes(redis_connection, size=3) as quotas,
            anyio.create_task_group() as group,
        ):

            async def work(quota: RedisQuota, name: str, size: int) -> None:
                while True:
                    await quota.acquire(tokens=size)
                    granted.append((anyio.current_time(), size, name))

            for _ in range(4):
                group.start_soon(work, quotas[0], "many", 100)
            group.start_soon(work, quotas[1], "small", 100)
            group.start_soon(work, quotas[2], "large", 700)
            await anyio.sleep(100)
            group.cancel_scope.cancel()

    run(main, backend=backend)
    for first, (start, _, _) in enumerate(granted):
        total = 0
        for requests, (moment, size, _) in enumerate(granted[first:], 1):
            total += size
            assert total <= 1000 + 100 * (moment - start + ROUND)
            assert requests <= 20 + 2 * (moment - start + ROUND)
    assert sum(size for _, size, _ in granted) >= 0.97 * (1000 + 100 * 100) - 700
    count = {name: sum(who == name for _, _, who in granted) for name in ("many", "small", "large")}
    assert 0.7 * count["large"] <= count["small"] <= 1.5 * count["large"]
    assert count["many"] <= 3 * count["large"] + 10


def test_cancelled_and_dead(redis_connection: Connection, backend: str) -> None:
    """One that gives up has taken nothing; a process that dies in the line is passed over."""

    async def main() -> None:
        processes = Processes(redis_connection, size=3)
        async with processes as (one, other, dead):
            await one.acquire(tokens=1000)
            with anyio.move_on_after(2):
                await other.acquire(tokens=900)
            assert await seconds(one.acquire(tokens=300)) == pytest.approx(1, abs=0.05)
            with anyio.move_on_after(1) as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(partial(dead.acquire, tokens=900))
                    await anyio.sleep(0.5)
                    processes.stores[2].down = True
                    await anyio.sleep(5)
            assert scope.cancelled_caught
            # It is in the line for two seconds, and before this one.
            assert await seconds(one.acquire(tokens=300)) == pytest.approx(2, abs=0.3)
            assert one.statistics().cancelled == 0
            assert other.statistics().cancelled == dead.statistics().cancelled == 1
            processes.stores[2].down = False

    run(main, backend=backend)


def test_timeouts(redis_connection: Connection, backend: str) -> None:
    """Refused as soon as it is known; one that does not wait comes after those that do."""

    async def main() -> None:
        processes = Processes(redis_connection)
        async with processes as (one, other):
            await one.acquire(tokens=1000)
            start = anyio.current_time()
            with pytest.raises(LimitTimeoutError, match=r"1 requests and 500 tokens within 4 s"):
                await other.acquire(tokens=500, timeout=4)
            assert anyio.current_time() - start < ROUND
            async with anyio.create_task_group() as group:
                group.start_soon(partial(one.acquire, tokens=800))
                await settle()
                await anyio.sleep(1)
                calls = one.statistics().server_calls
                assert not await one.try_acquire(tokens=0)
                assert one.statistics().server_calls == calls
                with pytest.raises(
                    LimitTimeoutError, match=r"within 0\.5 s, only in about (7|6\.9)"
                ):
                    await one.acquire(timeout=0.5)
                with pytest.raises(LimitTimeoutError, match="within 0 s, only in about"):
                    await one.acquire(timeout=0)
            assert await other.try_acquire(tokens=0)
            processes.stores[1].latency = 10
            with pytest.raises(LimitTimeoutError, match="has not answered yet"):
                await other.acquire(timeout=0.3)
            processes.stores[1].latency = 0.002
            statistics = one.statistics()
            assert (statistics.timed_out, statistics.rejected) == (2, 1)

    run(main, backend=backend)


def test_settled(connection: Connection, backend: str) -> None:
    """What was not used comes back if the bucket has lacked it ever since; what was beside goes."""

    async def main() -> None:
        async with Processes(connection) as (one, other):
            taken = [one.take(tokens=tokens) for tokens in (600, 300)]
            for each in taken:
                async with each:
                    assert one.statistics().in_flight == 1
            taken[0].settle(tokens=500)
            taken[1].settle(tokens=400)
            await anyio.sleep(ROUND)
            assert tokens_of(one) == pytest.approx(100, abs=3)
            taken[0].settle(tokens=0)
            await anyio.sleep(ROUND)
            assert await other.try_acquire(tokens=600)
            async with other.take(tokens=0) as beside:
                beside.settle(tokens=500)
            await anyio.sleep(ROUND)
            assert tokens_of(other) == pytest.approx(-500, abs=10)
            await anyio.sleep(20)  # it is full again: what was taken before has come back by itself
            assert await other.try_acquire(tokens=900)
            taken[1].settle(tokens=0)
            await anyio.sleep(ROUND)
            assert not await one.try_acquire(tokens=200)
            limits = one.statistics().limits["tokens"]
            assert (limits.acquired, limits.used, limits.in_flight) == (900, 0, 0)

    run(main, backend=backend)


def test_never_more_than_it_would_hold(redis_connection: Connection, backend: str) -> None:
    """Whoever settles when, by what was used no span sees more than bucket and rate."""
    used: list[tuple[float, float]] = []

    async def main() -> None:
        chance = random.Random(3)  # noqa: S311 - for a test

        async def work(quota: RedisQuota) -> None:
            while True:
                cost = chance.randint(1, 400)
                async with quota.take(tokens=cost) as taken:
                    moment = anyio.current_time()
                    await anyio.sleep(chance.expovariate(1 / 3))
                    real = chance.choice([0, cost // 2, cost])
                    taken.settle(tokens=real)
                    used.append((moment, real))
                await anyio.sleep(chance.expovariate(1))

        processes = Processes(redis_connection, requests=10_000, per=1)
        async with processes as quotas, anyio.create_task_group() as group:
            for quota in quotas * 30:
                group.start_soon(work, quota)
            await anyio.sleep(30)
            group.cancel_scope.cancel()

    run(main, backend=backend)
    used.sort()
    for first, (start, _) in enumerate(used):
        total = 0.0
        for moment, real in used[first:]:
            total += real
            assert total <= 1000 + 1000 * (moment - start + ROUND)


def test_what_the_service_says(connection: Connection, backend: str) -> None:
    """One process is told, and all obey."""

    async def main() -> None:
        async with Processes(connection) as (one, other):
            await other.acquire()
            one.observe(remaining={"tokens": 50}, limit={}, reset={"tokens": 3})
            one.observe(remaining={"requests": 10**6})
            await one.acquire(tokens=0)
            assert not await other.try_acquire(tokens=100)
            one.hold(1)
            await anyio.sleep(0.001)  # while that is on its way
            one.hold(5)
            await anyio.sleep(ROUND)
            async with anyio.create_task_group() as group:
                group.start_soon(partial(one.acquire, tokens=100))
                assert await seconds(other.acquire()) == pytest.approx(5, abs=0.05)
            assert other.statistics().held_seconds == 0
            await anyio.sleep(20)
            assert await one.try_acquire(tokens=950)
            one.observe(limit={"tokens": 500, "requests": 20})
            await anyio.sleep(ROUND)
            async with anyio.create_task_group() as group:
                group.start_soon(_refused, other)
                await settle()
            with pytest.raises(ValueError, match=r"never has more than 500\.0 at once"):
                await other.acquire(tokens=501)
            assert tokens_of(other) == pytest.approx(-450, abs=3)
            assert await seconds(other.acquire(tokens=500)) == pytest.approx(19, abs=0.1)
            assert other.rate == 2

    run(main, backend=backend)


async def _refused(quota: RedisQuota) -> None:
    with pytest.raises(RateLimitError, match="never has more than"):
        await quota.acquire(tokens=1000)


def test_servers_clock_and_memory(redis_connection: Connection, backend: str) -> None:
    """A clock that is set back changes nothing; a server that has forgotten gives nothing back."""

    async def main() -> None:
        processes = Processes(redis_connection, start=0.5)
        async with processes as (one, other):
            assert not await one.try_acquire(tokens=600)
            taken = one.take(tokens=500)
            async with taken:
                await anyio.sleep(1)
            async with anyio.create_task_group() as group:
                group.start_soon(partial(other.acquire, tokens=1000))
                await anyio.sleep(0.1)
                for store in processes.stores:
                    store.skew -= 3600
                assert await seconds(one.acquire(tokens=100)) < ROUND
            assert anyio.current_time() == pytest.approx(11, abs=0.2)
            taken.settle(tokens=0)
            await anyio.sleep(ROUND)
            assert not await one.try_acquire(tokens=10)
            redis_connection.ask("FLUSHALL")
            assert await one.try_acquire(tokens=500)
            assert not await one.try_acquire(tokens=10)

    run(main, backend=backend)


@pytest.mark.parametrize("mode", ["raise", "allow", "local"])
def test_outage(
    redis_connection: Connection, backend: str, mode: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors, or everything, or this process's part, which the server is told of afterwards."""

    async def main() -> None:
        processes = Processes(redis_connection, on_failure=mode)
        async with processes as (one, other):
            async with one.take(tokens=300) as taken:
                await other.acquire(tokens=300)
                await other.acquire(tokens=200)
                await one.acquire(requests=0, tokens=0)
            for store in processes.stores:
                store.down = True
            taken.settle(tokens=400)
            one.observe(remaining={"tokens": 900})
            await anyio.sleep(1)
            assert tokens_of(one) == pytest.approx(200, abs=5)
            if mode == "raise":
                with pytest.raises(StoreError):
                    await one.acquire()
                assert not await _is_there(one.try_acquire())
            elif mode == "allow":
                for _ in range(29):
                    await one.acquire(tokens=1000)
                async with one.take(tokens=1000) as taken:
                    taken.settle(tokens=5)
            else:
                one.hold(0.5)
                assert not await one.try_acquire(tokens=50)
                assert await seconds(one.acquire(tokens=50)) == pytest.approx(0.5, abs=0.05)
                with pytest.raises(LimitTimeoutError, match="only in about"):
                    await one.acquire(tokens=1000, timeout=5)
                async with anyio.create_task_group() as group:
                    with anyio.move_on_after(1):
                        await one.acquire(tokens=400)
                    group.start_soon(partial(one.acquire, tokens=100))
                one.observe(remaining={"tokens": 0})
            for store in processes.stores:
                store.down = False
            await anyio.sleep(3)
            statistics = one.statistics()
            assert not statistics.down
            assert statistics.acquired_without_server == {"raise": 0, "allow": 30, "local": 2}[mode]
            before = tokens_of(one)
            await one.acquire(requests=0, tokens=1)
            if mode == "local":
                # 200 were left; 150 were taken alone and 100 were settled, in some 7 seconds.
                assert before < 200
            await anyio.sleep(100)
            await other.acquire(tokens=1000)

    with caplog.at_level(logging.WARNING, "mtaio.redis"):
        run(main, backend=backend)
    assert (mode == "raise") == ("the server failed" not in caplog.text)


async def _is_there(waits: Any) -> bool:
    with suppress(StoreError):
        return bool(await waits)
    return False


def test_held_when_the_server_fails(redis_connection: Connection, backend: str) -> None:
    """A hold that all know of counts in the outage too."""

    async def main() -> None:
        processes = Processes(redis_connection, size=1, on_failure="local")
        async with processes as (quota,):
            await quota.acquire()
            quota.hold(10)
            await anyio.sleep(1)
            processes.stores[0].down = True
            assert await seconds(quota.acquire()) == pytest.approx(9, abs=0.1)
            fresh = RedisQuota(processes.stores[0], "fresh", on_failure="local", **LIMITS)
            await fresh.acquire(tokens=1000)
            processes.stores[0].down = False

    run(main, backend=backend)


def test_store_that_is_left(redis_connection: Connection, backend: str) -> None:
    """What was not reported is; a task that waits gets an error, and the next block begins anew."""

    async def main() -> None:
        processes = Processes(redis_connection)
        one, other = processes.quotas
        errors: list[str] = []

        async def wait() -> None:
            try:
                await one.acquire(tokens=1000)
            except RuntimeError as error:
                errors.append(str(error))

        async with processes.stores[1], anyio.create_task_group() as group:
            async with processes.stores[0]:
                async with one.take(tokens=900) as taken:
                    pass
                group.start_soon(wait)
                await anyio.sleep(0.1)
                taken.settle(tokens=0)
                one.observe(limit={"requests": 5})
            assert await other.try_acquire(tokens=990)
            assert other.rate == 0.5
        assert len(errors) == 1
        assert "was left while" in errors[0]
        with pytest.raises(RuntimeError, match="not entered"):
            await one.acquire()

    run(main, backend=backend)


def test_loops_one_after_another(redis_connection: Connection, backend: str) -> None:
    """Tasks of a loop that is over are forgotten; what is left of them changes nothing."""
    processes = Processes(redis_connection, size=1)
    (quota,) = processes.quotas
    left: list[Any] = []

    async def first() -> None:
        async with processes.stores[0]:
            await quota.acquire(tokens=1000)
            left.append(quota.acquire(tokens=1000))
            left[0].send(None)
            quota.hold(1)

    async def second() -> None:
        async with processes.stores[0]:
            async with anyio.create_task_group() as group:
                group.start_soon(partial(quota.acquire, tokens=100))
                await anyio.sleep(0.5)
                left[0].close()
            assert quota.statistics().waiting == 0

    run(first, backend="asyncio")
    run(second, backend=backend)


def test_ways_to_use_it(redis_connection: Connection, backend: str) -> None:
    """As a part with a cost, as a part, a decorator, and a rate of the executor."""

    async def main() -> None:
        async with Processes(redis_connection, size=1) as (quota,):

            async def ask(prompt: str, *, short: bool = False) -> str:
                return prompt[:4] if short else prompt

            part = quota.part(
                tokens=lambda prompt, **_: len(prompt), used=lambda a: {"tokens": len(a)}
            )
            api = Pipeline(part)
            assert await api.run(partial(ask, short=True), "hello") == "hell"
            assert await Pipeline(quota).run(ask, "there") == "there"
            assert await quota(ask)("you") == "you"
            limited = quota(tokens=lambda *_, **__: 900)(ask)
            assert await limited("you", short=True) == "you"
            await TaskExecutor().map(ask, ["a", "b"], rate=quota)
            limits = quota.statistics().limits["tokens"]
            assert (limits.acquired, limits.used) == (909, 908)
            assert quota.statistics().acquired == 6

    run(main, backend=backend)


@pytest.fixture(scope="module")
def scripts() -> Generator[Connection]:
    """Return a connection to a server, for explored tests."""
    with serving() as server:
        connection = Connection(server)
        yield connection
        connection.close()


def test_cancelled_anywhere(scripts: Connection, backend: str) -> None:
    """A task that is cancelled between any two steps has taken nothing, unless it knows of it."""

    @explore(seeds=0, exhaustive=0, inject=("step", "native"), backends=(backend,))
    async def scenario(victim: Victim) -> None:
        got: list[int] = []

        async def take(quota: RedisQuota, tokens: int) -> None:
            await quota.acquire(tokens=tokens)
            got.append(tokens)

        processes = Processes(scripts, requests=1000, per=1000)
        async with processes as (one, other):
            await one.acquire(requests=0, tokens=999)
            async with anyio.create_task_group() as group:
                group.start_soon(victim, take, one, 3)
                group.start_soon(take, one, 2)
                group.start_soon(take, other, 1)
            await anyio.sleep(ROUND)
            await other.acquire(requests=0, tokens=0)
            level = tokens_of(other)
            assert level + sum(got) + 999 == pytest.approx(1000 + anyio.current_time(), abs=0.1)
            assert one.statistics().waiting == 0

    scenario()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, TypeError, "^a RedisQuota without limits"),
        ({"timeout": 5}, TypeError, "^a limit cannot be called 'timeout'"),
        ({"tokens": 0}, ValueError, "^tokens=0 is not"),
        ({"tokens": (5, 1, 1)}, ValueError, "^tokens=.* is not a pair"),
        ({"tokens": (5, 0)}, ValueError, "^per=0 is not"),
        ({"tokens": 5, "start": 2}, ValueError, r"^start=2 is not between 0 and 1"),
        ({"tokens": 5, "on_failure": "never"}, ValueError, "^on_failure='never' is unknown"),
    ],
)
def test_refused_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    """What cannot be meant is refused when the quota is made."""
    with pytest.raises(error, match=message):
        RedisQuota(MemoryStore(), "key", **options)


def test_refused_calls() -> None:
    """What can never be granted is refused at once."""
    quota = RedisQuota(MemoryStore(), "model", requests=2, tokens=(0.5, 60), name="api")
    assert repr(quota) == "<RedisQuota 'api' of requests 2/1 s, tokens 0.5/60 s at memory://>"
    assert (quota.name, quota.key) == ("api", "model")
    with pytest.raises(TypeError, match=r"has no limit 'token'\. Pass one of requests, tokens\."):
        quota.take(token=1)
    with pytest.raises(ValueError, match=r"^cannot take 3 requests of <.*>: it never has more"):
        quota.part(requests=3)
    with pytest.raises(ValueError, match=r"^requests=inf is more than there can be"):
        quota.take(requests=math.inf)
    with pytest.raises(ValueError, match=r"^seconds=inf would hold the quota for ever"):
        quota.hold(math.inf)
    with pytest.raises(ValueError, match=r"^limit\['tokens'\]=0 is not"):
        quota.observe(limit={"tokens": 0})
    with pytest.raises(TypeError, match="has no limit 'x'"):
        quota.observe(remaining={"x": 0})
