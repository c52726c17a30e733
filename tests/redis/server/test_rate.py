"""`RedisRateLimiter` with real servers, and with real processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import pytest

from mtaio.exceptions import StoreError
from mtaio.redis import RedisRateLimiter, RedisStore
from tests.redis.servers import serving

if TYPE_CHECKING:
    from tests.redis.servers import Server


async def test_grants_in_time(shared_server: Server) -> None:
    """What the script grants on a real server is spread over the time that the rate needs."""
    async with RedisStore(shared_server.url, timeout=10) as store:
        limiter = RedisRateLimiter(store, "in time", 200, burst=3)
        start = time.monotonic()
        moments: list[float] = []

        async def work() -> None:
            await limiter.acquire()
            moments.append(time.monotonic())

        async with anyio.create_task_group() as group:
            for _ in range(60):
                group.start_soon(work)
        assert_bound(moments, rate=200, burst=3, slack=limiter.slack)
        assert time.monotonic() - start >= 57 / 200 - limiter.slack
        assert await limiter.try_acquire() in {True, False}


async def test_many_tries_at_once(shared_server: Server) -> None:
    """They take what the bucket holds, no more and no less, by a call or two."""
    async with RedisStore(shared_server.url, timeout=10) as store:
        key = uuid4().hex
        limiter = RedisRateLimiter(store, key, 0.01, burst=8, slack=5, on_failure="allow")
        taken: list[int] = []

        async def work(tokens: int) -> None:
            if await limiter.try_acquire(tokens):
                taken.append(tokens)

        for tokens in (3, 1):
            async with anyio.create_task_group() as group:
                for _ in range(300):
                    group.start_soon(work, tokens)
        assert taken == [3, 3, 1, 1]
        statistics = limiter.statistics()
        assert (statistics.acquired, statistics.rejected) == (4, 596)
        assert (statistics.lost, statistics.down) == (0, 0)
        assert statistics.server_calls <= 20


async def test_servers_clock_that_was_set_back(shared_server: Server) -> None:
    """The bucket holds what it held at that time, which it said would be in an hour."""
    async with RedisStore(shared_server.url, timeout=10) as store:
        limiter = RedisRateLimiter(store, "set back", 100, burst=5)
        seconds, _ = await store.command("TIME")
        written = (int(seconds) + 3600) * 10**6
        key = limiter._bucket._keys[0]
        await store.command("SET", key, f"{written + 50_000} {written}")
        assert not await limiter.try_acquire(4)
        with anyio.fail_after(20):
            await limiter.acquire()


async def test_processes_with_different_limits(shared_server: Server) -> None:
    """Those with another limit neither fill the bucket again for the others nor hold them up."""
    async with RedisStore(shared_server.url, timeout=10) as store:
        key = uuid4().hex
        slow = RedisRateLimiter(store, key, 0.1, burst=50, slack=5)
        fast = RedisRateLimiter(store, key, 1000, burst=1, slack=5)
        assert await slow.try_acquire(50)
        for _ in range(5):
            await fast.acquire()
            assert not await slow.try_acquire()


async def test_server_that_takes_no_writes(redis_server: Server) -> None:
    """While its memory is full it is down, though it still answers what changes nothing."""
    async with RedisStore(redis_server.url, timeout=10) as store:
        bucket = RedisRateLimiter(store, uuid4().hex, 1)._bucket
        redis_server.ask("config", "set", "maxmemory", "1")
        try:
            with pytest.raises(StoreError, match="OOM") as caught:
                await bucket.reserve("", 0, of_use=0, held=0, within=0.0)
        finally:
            redis_server.ask("config", "set", "maxmemory", "0")
        assert caught.value.refused
        await bucket.reserve("", 0, of_use=0, held=0, within=0.0)


async def test_reserved_tokens_are_not_taken_for_a_clock_that_was_set_back(
    shared_server: Server,
) -> None:
    """A call that asks for tokens at once leaves alone what others have reserved for later."""
    async with RedisStore(shared_server.url, timeout=10) as store:
        options: dict[str, Any] = {"burst": 1, "slack": 100}
        waits, tries = (RedisRateLimiter(store, "far ahead", 1, **options) for _ in range(2))
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(waits.acquire)
            while not waits.statistics().reserved:  # noqa: ASYNC110 - nothing tells
                await anyio.sleep(0.01)
            key = tries._bucket._keys[0]
            full_at = await store.command("GET", key)
            assert not await tries.try_acquire()
            assert await store.command("GET", key) == full_at
            group.cancel_scope.cancel()


async def test_server_that_goes_and_comes_back() -> None:
    """Without the server each call fails in time; with it, all goes on."""
    with serving() as server:
        async with RedisStore(server.url, timeout=0.3) as store:
            limiter = RedisRateLimiter(store, "comes back", 100)
            await until_granted(limiter)
            server.kill()
            start = anyio.current_time()
            with pytest.raises(StoreError, match=r"^redis://127\.0\.0\.1:\d+/0"):
                await limiter.acquire()
            assert anyio.current_time() - start < 3
            server.start()
            await until_granted(limiter)


async def test_two_loops_at_once(backend: str, redis_server: Server) -> None:
    """A second running loop is refused while tasks of the first wait."""
    async with RedisStore(redis_server.url) as store:
        limiter = RedisRateLimiter(store, "two loops", 0.001, burst=1)
        await limiter.try_acquire()

        async def other() -> None:
            with pytest.raises(
                RuntimeError, match=r"is in use by tasks of another running event loop"
            ):
                await limiter.acquire()

        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire)
            await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(lambda: anyio.run(other, backend=backend))
            group.cancel_scope.cancel()


async def until_granted(limiter: RedisRateLimiter) -> None:
    """Acquire until it succeeds."""
    while True:
        try:
            await limiter.acquire()
        except StoreError:
            await anyio.sleep(0.01)
        else:
            return


PROGRAM = """
import json, sys, time, anyio
from mtaio.redis import RedisRateLimiter, RedisStore
url, backend, kind = sys.argv[1:]
moments = []
async def main():
    store = RedisStore(url, timeout=20)
    limiter = RedisRateLimiter(store, "shared", 500, burst=20, slack=0.2)
    async def work():
        while True:
            await limiter.acquire()
            moments.append(time.monotonic())
    async with store:
        await store.ping()
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        with anyio.move_on_after(1):
            async with anyio.create_task_group() as group:
                for _ in range(30):
                    group.start_soon(work)
anyio.run(main, backend=backend)
print(json.dumps(moments))
"""


def test_processes_together_keep_to_the_rate(backend: str, redis_server: Server) -> None:
    """Three processes, one of which is killed: the bound holds, and each gets something."""
    redis_server.ask("flushall")
    programs = [
        subprocess.Popen(  # noqa: S603 - a program of ours
            [sys.executable, "-c", PROGRAM, redis_server.url, backend, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for kind in ("stays", "stays", "killed")
    ]
    for program in programs:
        assert program.stdout is not None
        assert program.stdin is not None
        assert program.stdout.readline() == "ready\n"
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("go\n")
        program.stdin.flush()
    time.sleep(0.3)
    programs[2].kill()
    each = [json.loads(program.communicate(timeout=60)[0] or "[]") for program in programs]
    assert all(each[:2])
    assert_bound(sorted(each[0] + each[1]), rate=500, burst=20, slack=0.2)


def assert_bound(moments: list[float], *, rate: float, burst: int, slack: float) -> None:
    """Check that in no span more was granted than ``burst + rate * (t + slack)``."""
    least = float("inf")
    for number, moment in enumerate(moments):
        least = min(least, number - rate * moment)
        assert number + 1 - rate * moment - least <= burst + rate * slack
