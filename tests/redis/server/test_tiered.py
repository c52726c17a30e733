"""`TieredCache` with real servers."""

from __future__ import annotations

import json
import math
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import pytest

from mtaio.redis import Codec, RedisStore, TieredCache
from mtaio.testing import check_cache
from tests.redis.scripts import RealScripts
from tests.redis.test_tiered import Whole

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from tests.redis.scripts import Connection
    from tests.redis.servers import Server

assert sys.platform != "win32", "the servers are for POSIX"

from tests.redis.server.test_concurrency import line, program  # noqa: E402 - not on Windows


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


@asynccontextmanager
async def two_caches(
    server: Server, namespace: str
) -> AsyncGenerator[tuple[RedisStore, TieredCache[Any], TieredCache[Any]]]:
    """Enter a store and two caches of it, which hear messages."""
    async with RedisStore(server.url, timeout=10) as store:
        one, two = (TieredCache[Any](store, namespace, check_interval=0.05) for _ in range(2))
        async with one, two:
            await until(lambda: one.statistics().listening and two.statistics().listening)
            yield store, one, two


async def test_numbers_and_times(shared_server: Server) -> None:
    """Counts are exact, and times to live what they should be: as with the server in memory."""
    namespace = uuid4().hex
    async with two_caches(shared_server, namespace) as (store, one, two):

        async def left(key: str) -> float:
            milliseconds = await store.command("PTTL", f"mtaio:cache:{namespace}:{{:{key}}}")
            return float(milliseconds / 1000)

        await one.set("count", 2**60, 1000)
        assert await two.increment("count", 2**61 + 1, ttl=100) == 2**60 + 2**61 + 1
        assert 500 < await left("count") <= 1000
        await one.set("tagged", 5, 100, tags={"tag"})
        assert await two.increment("tagged", -6) == await one.get("tagged") == -1
        assert 50 < await left("tagged") <= 100
        assert await one.increment("new", ttl=math.inf) == 1
        assert await two.increment("new") == 2
        assert await left("new") == -0.001
        assert await one.increment("short", ttl=0) == 1
        await one.set("text", "text", tags={"tag"})
        for key, delta in (("text", 1), ("count", 2**63)):
            with pytest.raises(ValueError, match=r"cannot be incremented by .* not an integer"):
                await two.increment(key, delta)
        assert await two.get("text") == "text"
        await one.invalidate_tag("tag", confirm=5)
        assert await two.get_many(["text", "tagged"]) == {}
        await one.set("tagged", -1, tags={"tag"})
        binary = TieredCache(store, f"{namespace} 2", codec=Codec[bytes](bytes, bytes))
        async with binary:
            await binary.set("key", b"\0#\n")
            assert await binary.delete("key")
        await one.set("other", 1, confirm=5)  # whatever was sent before has arrived now

        assert await one.touch("tagged", 1000)
        assert 500 < await left("tagged") <= 1000
        heard = two.statistics().changes_heard
        assert await two.get_many(["new", "short", "tagged"]) == {"new": 2, "tagged": -1}
        assert await one.touch("new", 1000)
        assert 500 < await left("new") <= 1000
        assert await one.touch("new", 2000)
        assert await one.touch("new", math.inf)
        assert await left("new") == -0.001
        assert await two.touch("count", 0)
        assert not await one.touch("count")
        await until(lambda: two.statistics().changes_heard == heard + 2)
        assert two.statistics().near_size == 1


async def test_tags_and_clear(shared_server: Server) -> None:
    """Values are outdated and deleted as with the server in memory, and nobody else's."""
    namespace = f"t*?[s]\\t {uuid4().hex}"
    async with (
        two_caches(shared_server, namespace) as (store, one, two),
        TieredCache[Any](store, namespace.replace("*?[s]\\", "x")) as other,
    ):
        values: dict[str, Any] = {str(number): number for number in range(1001)} | {"}{": 7}
        await one.set_many(values, 100, tags={"all", "}\u2603"}, confirm=5)
        assert await two.get_many(["none", *values]) == values
        assert two.statistics().near_size == 1002
        await one.set("mine", 1, tags={"all"})
        await one.invalidate_tag("}\u2603", confirm=5)
        assert two.statistics().near_size == 0
        assert await two.get_many(["5", "6", "mine"]) == {"mine": 1}
        assert not await two.touch("6")
        assert await two.increment("6") == 1
        assert await two.delete_many(["6", "7", "8", "mine", "none"]) == 2
        assert not await two.delete("9")

        all_of_them = f"mtaio:cache:{namespace}:{{#all}}"
        await one.set("9", 1, math.inf, tags={"all"})
        assert await two.touch("9", 1000)
        await store.command("DEL", all_of_them)  # as if the server had evicted it
        assert await two.get("9") is None
        await one.set("9", 1, 10, tags={"all"})
        assert 3600 < await store.command("TTL", all_of_them) <= 3610
        assert await two.touch("9", 1000)
        assert 4500 < await store.command("TTL", all_of_them) <= 4600
        await one.set("9", 1, math.inf, tags={"all"})
        await one.set("9", 1, 10, tags={"all"})
        assert await store.command("TTL", all_of_them) == -1

        await other.set("key", 1)
        assert await two.get("9") == 1
        await one.clear(confirm=5)
        assert two.statistics().near_size == 0
        assert await two.get_many([*values, "new"]) == {}
        kept = f"mtaio:cache:{other.namespace}:{{:key}}".encode()
        assert await store.scan(f"*{namespace[-32:]}*") == (None, [kept])


async def test_what_other_caches_do(shared_server: Server) -> None:
    """The rows of the guide for those who come from aiocache, cashews, dogpile.cache or Django."""
    namespace = uuid4().hex
    async with two_caches(shared_server, namespace) as (store, cache, other):
        await store.command("SET", f"foreign {namespace}", "1")
        await cache.set_many({"a": 1, "b": 2})  # multi_set, set_multi, set_many
        assert await other.get_many(["a", "none", "b"]) == {"a": 1, "b": 2}  # multi_get, get_multi
        assert await cache.touch("a", 60)  # expire, touch
        assert not await cache.touch("none", 60)
        assert await cache.increment("a", 5) == 6  # increment, incr
        assert 30 < await store.command("TTL", f"mtaio:cache:{namespace}:{{:a}}") <= 60
        assert await other.increment("a", -5) == 1  # decr
        assert await cache.increment("missing") == 1  # where Django raises a ValueError
        assert await cache.delete_many(["a", "b", "none"]) == 2
        await cache.set("name", "Ada", tags={"user:7"})
        await other.invalidate_tag("user:7")  # delete_tags
        await until(lambda: cache.statistics().near_size == 0)
        assert await cache.get("name") is None
        assert await cache.get_or_set("name", new) == "new"  # get_or_create, get_or_set
        await cache.clear()  # clear, delete_match, region.invalidate
        assert await cache.get_many(["name", "missing"]) == {}
        assert await store.command("GET", f"foreign {namespace}") == b"1"  # as Django's would not


async def test_two_processes(redis_server: Server, backend: str) -> None:
    """What one changes the other sees at once, and what it was loading then is not kept."""
    namespace = uuid4().hex
    async with (
        RedisStore(redis_server.url, timeout=10) as store,
        TieredCache[Any](store, namespace) as cache,
    ):
        with program("cache_worker", backend, redis_server.url, namespace) as worker:

            def ask(*call: object) -> None:
                assert worker.stdin is not None
                worker.stdin.write(f"{json.dumps(call)}\n")
                worker.stdin.flush()

            async def answer(*call: object) -> Any:
                ask(*call)
                return json.loads(await line(worker))

            assert await line(worker) == '"ready"'
            values = {str(number): number for number in range(100)}
            await cache.set_many(values, tags={"tag"})
            assert await answer("get_many", [*values]) == values
            await cache.invalidate_tag("tag", confirm=10)
            assert await answer("get_many", [*values]) == {}
            assert await answer("set_many", values) is None
            assert await cache.get_many(values) == values
            await cache.clear(confirm=10)
            assert await answer("get_many", [*values]) == {}

            ask("load", "key", 0.3, ["tag"])
            assert await line(worker) == '"loading"'
            await cache.invalidate_tag("tag", confirm=10)
            with anyio.fail_after(10):
                assert await cache.get_or_set("key", new) == "new"
            assert await line(worker) == '"old"'
            assert await answer("get", "key") == await cache.get("key") == "new"

            ask("load", "other", 0.3, [])
            assert await line(worker) == '"loading"'
            await cache.clear()
            assert await line(worker) == '"old"'
            assert await answer("get", "other") == await cache.get("other") is None
            for _ in range(10):
                ask("increment", "count")
                await cache.increment("count")
            for _ in range(10):
                await line(worker)
            assert await answer("get", "count") == await cache.get("count") == 20


async def new() -> str:
    """Be loaded."""
    return "new"


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
