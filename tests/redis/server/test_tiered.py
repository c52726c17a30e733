"""`TieredCache` with real servers."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import pytest

from mtaio.redis import RedisStore, TieredCache
from mtaio.testing import check_cache
from tests.redis.scripts import RealScripts
from tests.redis.test_tiered import Whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.redis.scripts import Connection
    from tests.redis.servers import Server


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - a server tells no event
            await anyio.sleep(0.005)


async def test_all_that_it_does(shared_server: Server) -> None:
    """Values, times, one load for all, changes during a load, leases: as with the one in memory."""
    async with RedisStore(shared_server.url) as store, AsyncExitStack() as stack:
        namespace = f"test {uuid4().hex}"
        caches = [
            TieredCache[Any](store, namespace, lease=0.6, check_interval=0.05) for _ in range(3)
        ]
        for cache in caches:
            await stack.enter_async_context(cache)
        one, two, three = caches
        await until(lambda: all(cache.statistics().listening for cache in caches))
        await one.set("ever }{ \u2603", {"name": "Ada"}, math.inf)
        assert await two.get("ever }{ \u2603") == {"name": "Ada"}
        await one.set("short", None, 0.2)
        assert await two.get("short", "none") is None
        await anyio.sleep(0.25)
        assert await two.get("short", "none") == await one.get("short", "none") == "none"

        loads = 0
        version = 0

        async def load() -> int:
            nonlocal loads
            loads += 1
            seen = version
            await anyio.sleep(0.7)  # longer than a lease
            return seen

        got: list[int] = []

        async def ask(cache: TieredCache[Any]) -> None:
            got.append(await cache.get_or_set("key", load))

        async with anyio.create_task_group() as group:
            for cache in caches * 2:
                group.start_soon(ask, cache)
        assert (got, loads) == ([0] * 6, 1)
        assert await one.delete("key")
        assert not await one.delete("key")
        await until(lambda: three.statistics().changes_heard == 4)

        got.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(ask, one)
            await until(lambda: loads == 2)
            version = 1
            await two.delete("key")
        assert got == [0]
        assert one.statistics().outdated == 1
        assert await three.get("key", "none") == "none"

        async with anyio.create_task_group() as group:
            abandoned = group.start_soon(ask, one)
            await until(lambda: loads == 3)
            group.start_soon(ask, two)
            await until(lambda: two.statistics().waiting)
            start = anyio.current_time()
            abandoned.cancel()
            await until(lambda: loads == 4)
            assert anyio.current_time() - start < 0.5  # less than a lease
        assert await three.get("key") == 1


async def test_connections_that_break(shared_server: Server) -> None:
    """The memory is cleared when the subscription comes back, and what was missed is not kept."""
    async with RedisStore(shared_server.url) as store:
        namespace = f"test {uuid4().hex}"
        async with TieredCache[int](store, namespace, check_interval=0.05) as cache:
            await until(lambda: cache.statistics().listening)
            await cache.set("key", 1)
            await until(lambda: cache.statistics().changes_heard)
            assert await cache.get("key") == 1
            cleared = cache.statistics().near_cleared
            await store.command("CLIENT", "KILL", "TYPE", "PUBSUB")
            await store.command("SET", f"mtaio:cache:{namespace}:{{:key}}", "2")
            await until(lambda: cache.statistics().near_cleared > cleared)
            assert await cache.get("key") == 2


def test_contract(connection: Connection, backend: str) -> None:
    """It is as good a cache as one within a process; a server's clock cannot be advanced."""
    check_cache(
        lambda _: Whole(RealScripts(connection), uuid4().hex),
        seeds=0,
        exhaustive=None,
        without=["bound", "time"],
        backends=[backend],
    )


async def test_a_cache_needs_its_store() -> None:
    """Entering it outside of the store's block says so."""
    cache = TieredCache[int](RedisStore("redis://127.0.0.1:1"), "test")
    with pytest.raises(RuntimeError, match="is not entered in this event loop"):
        await cache.__aenter__()
