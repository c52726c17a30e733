"""`TieredCache` on the virtual clock, with a server in memory: each cache stands for a process."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import pickle
import re
from binascii import crc_hqx
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.exceptions import StoreError
from mtaio.redis import JSON, Codec, TieredCache
from mtaio.redis._far import ACQUIRE, READ, RENEW
from mtaio.testing import Victim, check_cache, explore, run
from tests.redis.caching import caching_store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from typing import Self

    from mtaio.redis._store import Argument, Script
    from tests.redis.memory import MemoryStore


def nothing(*_: Any) -> int:
    """Be a script that does nothing."""
    return 0


class Source:
    """Where the values come from: a version, which takes its time to be read."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.version = 0
        self.reads = 0
        self.seconds = seconds

    async def load(self) -> int:
        """Return what was the version at the beginning."""
        self.reads += 1
        version = self.version
        await anyio.sleep(self.seconds)
        return version


@asynccontextmanager
async def processes(
    count: int = 2, **options: Any
) -> AsyncGenerator[tuple[MemoryStore, list[TieredCache[Any]]]]:
    """Enter a store and some caches of it."""
    async with caching_store() as store, AsyncExitStack() as stack:
        caches = [TieredCache[Any](store, "test", **options) for _ in range(count)]
        for cache in caches:
            await stack.enter_async_context(cache)
        yield store, caches


async def test_a_value_is_found_near_and_far() -> None:
    """What one process has loaded another finds by one call, and then without any."""
    async with processes() as (store, (one, two)):
        source = Source()
        assert await one.get_or_set("key", source.load) == 0
        assert store.calls == 2  # the lease, and the value
        assert await one.get("key") == 0
        assert store.calls == 2
        assert await two.get("key") == 0
        assert await two.get_or_set("key", source.load) == 0
        assert store.calls == 3
        await one.delete("key")
        await anyio.sleep(0.1)
        await one.set("key", "set")
        await anyio.sleep(0.1)
        assert await two.get_or_set("key", source.load) == "set"
        assert await two.get_or_set("key", source.load) == "set"
        assert source.reads == 1
        statistics = two.statistics()
        assert (statistics.near_hits, statistics.far_hits, statistics.loads) == (2, 2, 0)
        assert (statistics.listening, statistics.near_size) == (True, 1)
        assert one.statistics().loads == one.statistics().misses == 1


async def test_one_load_for_all() -> None:
    """Those who ask in several processes get the value of one load, a way after it has ended."""
    async with processes(3) as (_, caches):
        source = Source(20)  # longer than a lease lasts
        ended: list[float] = []

        async def ask(cache: TieredCache[Any]) -> None:
            assert await cache.get_or_set("key", source.load) == 0
            ended.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            for cache in caches * 3:
                group.start_soon(ask, cache)
            await anyio.sleep(1)
            assert sum(cache.statistics().waiting for cache in caches) == 2
        assert source.reads == 1
        assert max(ended) < 20.01


async def test_values_expire_everywhere_at_once() -> None:
    """What is left of a value's time at the server is what it has in memory."""
    async with processes(near_ttl=100, default_ttl=10) as (_, (one, two)):
        await one.set("key", 1)
        await one.set("ever", 1, math.inf)
        await anyio.sleep(6)
        assert await two.get("key") == await two.get("ever") == 1
        await anyio.sleep(3.9)
        assert await two.get("key") == 1
        await anyio.sleep(0.1)
        assert await two.get("key", "none") == await one.get("key", "none") == "none"
        await anyio.sleep(1e6)  # noqa: ASYNC116 - of virtual time
        assert await two.get("ever") == 1
        await one.set("ever", 1, 0)
        assert await one.get("ever") is None


async def test_nothing_is_kept_in_memory_if_not_wanted() -> None:
    """With ``near_ttl=0`` each read asks the server."""
    async with processes(near_ttl=0) as (store, (one, two)):
        source = Source()
        assert await one.get_or_set("key", source.load) == 0
        assert await two.get("key") == await one.get("key") == 0
        assert await one.get_or_set("key", source.load) == 0
        assert store.calls == 5
        assert one.statistics().near_size == 0


async def test_a_change_during_a_load() -> None:
    """The load answers those who asked before, and is stored nowhere; who asks later loads."""
    async with processes(3) as (_, (one, two, three)):
        source = Source()
        got: list[Any] = []

        async def ask(cache: TieredCache[Any]) -> None:
            got.append(await cache.get_or_set("key", source.load))

        async with anyio.create_task_group() as group:
            group.start_soon(ask, one)
            await anyio.sleep(0.5)
            source.version = 1
            await two.delete("key")
            await anyio.sleep(0.1)
            group.start_soon(ask, one)
            group.start_soon(ask, three)
        assert got == [0, 1, 1]
        assert await one.get("key") == await two.get("key") == 1
        assert one.statistics().outdated == 1
        assert source.reads == 2


async def test_a_load_that_fails_is_made_by_another() -> None:
    """The error goes to the callers of its process, and another process loads at once."""
    async with processes() as (_, (one, two)):
        source = Source()
        errors: list[str] = []

        async def fail() -> int:
            await anyio.sleep(1)
            raise OSError("no source")

        async def ask() -> None:
            with pytest.raises(OSError, match=r"^no source$"):
                await one.get_or_set("key", fail)
            errors.append("one")

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(ask)
            await anyio.sleep(0.1)
            assert await two.get_or_set("key", source.load) == 0
        assert anyio.current_time() < 2.01
        assert len(errors) == 2


async def test_a_value_that_cannot_be_encoded() -> None:
    """It is an error of the load, and the lease is given back; `set` changes nothing."""
    async with processes(1) as (_, (one,)):

        async def load() -> object:
            return object()

        for _ in range(2):
            with pytest.raises(TypeError, match=r"not JSON serializable"):
                await one.get_or_set("key", load)
        with pytest.raises(TypeError, match=r"not JSON serializable"):
            await one.set("key", object())
        assert anyio.current_time() < 0.1


@pytest.mark.parametrize("encode", [lambda value: value, bytearray, lambda _: None])
async def test_a_codec_that_does_not_encode(encode: Any) -> None:
    """What is neither bytes nor a str would be another value in another process: it is refused."""
    async with processes(1, codec=Codec(encode, lambda raw: raw)) as (_, (cache,)):
        source = Source()
        with pytest.raises(TypeError, match=r"^codec=Codec\(.*\) encodes 0 as a"):
            await cache.get_or_set("key", source.load)
        with pytest.raises(TypeError, match=r"returns bytes or a str\.$"):
            await cache.set("key", 0)
        assert await cache.get("key", "none") == "none"


async def test_a_process_that_dies_costs_a_lease() -> None:
    """The lease of a load that is not heard of any more goes to another when it is over."""
    async with processes(lease=3) as (store, (one, two)):
        source = Source()
        async with anyio.create_task_group() as group:
            group.start_soon(one.get_or_set, "key", anyio.sleep_forever)
            await anyio.sleep(0.5)
            store.scripts[RENEW] = nothing  # as if the process had been killed
            assert await two.get_or_set("key", source.load) == 0
            assert 3 < anyio.current_time() < 4.01 + 0.01
            group.cancel_scope.cancel()


async def test_a_change_that_is_confirmed() -> None:
    """It returns when no process has the old value, or says how many may have it."""
    async with processes(3) as (store, caches):
        for number in range(10):
            for cache in caches:
                assert await cache.get("key", 0) == number
            await caches[number % 3].set("key", number + 1, confirm=1)
        assert await caches[0].delete("key", confirm=1)
        assert not await caches[0].delete("key", confirm=1)
        for cache in caches:
            assert await cache.get("key", "none") == "none"
        store.down = True
        with pytest.raises(StoreError):
            await caches[0].delete("key", confirm=1)
        store.down = False
        publish, store.publish = store.publish, fail  # type: ignore[method-assign, assignment] # the server refuses
        with pytest.raises(
            TimeoutError,
            match=r"^<TieredCache 'test' .*>: only 0 of 3 processes confirmed within 0\.5 s that "
            r"'key' was changed",
        ):
            await caches[0].set("key", 1, confirm=0.5)
        assert await caches[1].get("key") == 1
        store.publish = publish  # type: ignore[method-assign] # no more
        with pytest.raises(TimeoutError, match="0 of 3"):
            await caches[0].set("key", 1, confirm=0)
        await anyio.sleep(0.01)  # the answers come when nobody waits


async def fail(*_: object) -> None:
    """Fail, as a server does."""
    raise StoreError


async def test_the_memory_is_cleared_when_messages_may_be_missing() -> None:
    """At every subscription, and when nothing is heard; then each read asks the server."""
    async with processes() as (store, (one, two)):
        await one.set("key", 1)
        await anyio.sleep(0.01)
        assert await two.get("key") == 1
        store.reconnect()
        assert two.statistics().near_size == 0
        assert await two.get("key") == 1
        store.deafen()
        assert (two.statistics().listening, two.statistics().near_size) == (False, 0)
        calls = store.calls
        assert await two.get("key") == await two.get_or_set("key", Source().load) == 1
        assert store.calls == calls + 2
        await one.set("key", 2)  # of which two hears nothing
        assert await two.get("key") == 2
        assert await two.get_or_set("other", Source().load) == 0
        assert two.statistics().near_size == 0
        assert two.statistics().near_cleared == 4


async def test_waiting_without_messages() -> None:
    """Who waits for another's load and hears nothing looks every 0.1 s."""
    async with processes() as (store, (one, two)):
        source = Source()
        store.deafen()
        async with anyio.create_task_group() as group:
            group.start_soon(one.get_or_set, "key", source.load)
            await anyio.sleep(0.01)
            assert await two.get_or_set("key", source.load) == 0
        assert anyio.current_time() < 1.12
        assert source.reads == 1


async def test_server_down(caplog: pytest.LogCaptureFixture) -> None:
    """Reads load by themselves, without waiting for the server each time, and keep it shortly."""
    caplog.set_level(logging.WARNING, "mtaio.redis")
    async with processes(1, fallback_ttl=5) as (store, (cache,)):
        source = Source(0)
        await cache.set("key", "before")
        store.fail()
        assert await cache.get("key", "none") == "none"
        assert anyio.current_time() < 1.01
        for number in range(100):
            assert await cache.get_or_set(str(number), source.load) == 0
        assert anyio.current_time() < 1.01
        assert await cache.get_or_set("0", source.load) == 0
        assert source.reads == cache.statistics().loads_without_server == 100
        await anyio.sleep(5)
        assert await cache.get_or_set("0", source.load) == 0
        assert source.reads == 101
        with pytest.raises(StoreError, match=r"^memory://"):
            await cache.set("key", "no")
        with pytest.raises(StoreError, match=r"^memory://"):
            await cache.delete("key")
        store.recover()
        assert await cache.get("key") == "before"
        assert await cache.get_or_set("0", source.load) == 0
        assert source.reads == 102
        assert cache.statistics().server_failures == 4
    (line,) = caplog.messages
    assert "at memory://>: the server failed (on_failure='local'): memory://" in line


async def test_server_that_goes_down_during_a_load() -> None:
    """The value is returned, and not kept."""
    async with processes(1) as (store, (cache,)):
        source = Source()
        async with anyio.create_task_group() as group:
            group.start_soon(cache.get_or_set, "key", source.load)
            await anyio.sleep(0.5)
            store.fail()
        assert cache.statistics().near_size == 0
        assert cache.statistics().outdated == 1


async def test_server_down_and_closed() -> None:
    """Reads raise the error, if that is wanted, and it names the server."""
    async with processes(1, on_failure="raise") as (store, (cache,)):
        source = Source()
        store.fail()
        with pytest.raises(StoreError, match=r"^memory:// did not answer within 1 s"):
            await cache.get("key")
        with pytest.raises(
            StoreError, match=r"^memory:// failed, and is asked again in 0\.1 s: memory:// did not"
        ):
            await cache.get_or_set("key", source.load)
        for pause in (0.1, 0.2, 0.4, 0.8, 1.6, 2, 2):
            await anyio.sleep(pause)
            with pytest.raises(StoreError, match=r"did not answer"):
                await cache.get("key")
        store.recover()
        assert await cache.get("key", "none") == "none"


async def test_what_cannot_be_decoded_is_no_value(caplog: pytest.LogCaptureFixture) -> None:
    """It is told of in the log, and loaded again."""
    strict = Codec[int](encode=lambda value: f"v2:{value}", decode=lambda raw: int(raw[3:]))
    async with caching_store() as store:
        old = TieredCache[Any](store, "test")
        new = TieredCache[int](store, "test", codec=strict)
        async with old, new:
            await old.set("key", {"old": 1})
            with caplog.at_level(logging.WARNING, "mtaio.redis"):
                assert await new.get("key") is None
                assert await new.get_or_set("key", Source().load) == 0
            assert new.statistics().undecodable == 2
            assert "cannot decode the value of 'key', and loads it again" in caplog.text
            assert await new.get("key") == 0


async def test_cached_functions_and_methods() -> None:
    """The decorator keeps results under the keys that it is told to make."""
    async with processes() as (_, (one, two)):
        calls: list[int] = []

        class Users:
            @one.cached(lambda self, user: f"user:{user}", ttl=60)  # noqa: ARG005 - a method's
            async def load(self, user: int) -> Any:
                """Load a user."""
                calls.append(user)
                return {"id": user}

        assert await Users().load(7) == await Users().load(user=7) == {"id": 7}
        assert await two.get("user:7") == {"id": 7}
        assert calls == [7]
        assert Users.load.__doc__ == "Load a user."
        with pytest.raises(TypeError, match=r"^key='user' is a str, which is not callable"):
            one.cached("user")  # type: ignore[arg-type] # what is tested


async def test_refused_calls() -> None:
    """A server that answers with an error is there: other keys are asked for as before."""
    async with caching_store() as store:

        def read(*_: object) -> None:
            msg = "memory://: WRONGTYPE: Operation against a key of the wrong kind"
            raise StoreError(msg, refused=True)

        cache = TieredCache[str](store, "users", near_ttl=0, on_failure="raise")
        async with cache:
            await cache.set("one", "value")
            reading, store.scripts[READ] = store.scripts[READ], read
            with pytest.raises(StoreError, match="WRONGTYPE"):
                await cache.get("other")
            store.scripts[READ] = reading
            assert await cache.get("one") == "value"
            assert cache.statistics().server_failures == 1


async def heard() -> None:
    """Wait until all messages have arrived."""
    await anyio.sleep(0.01)


async def test_many_keys_by_one_call() -> None:
    """They are read, written and deleted together, and only what is not in memory is asked for."""
    async with processes(default_ttl=50) as (store, (one, two)):
        values = {str(number): number for number in range(100)}
        await one.set_many(values)
        assert store.calls == 1
        await heard()
        assert two.statistics().changes_heard == 1
        assert list((await two.get_many(["none", *values, "1"])).items()) == list(values.items())
        assert await two.get_many(values) == values
        assert store.calls == 2
        await one.set("7", "new")
        await heard()
        assert await two.get_many(iter(["0", "7"])) == {"0": 0, "7": "new"}
        assert store.calls == 4
        statistics = two.statistics()
        assert (statistics.near_hits, statistics.far_hits, statistics.misses) == (101, 101, 1)
        assert store.data["mtaio:cache:test:{:1}"][0] == b"1"  # as other programs would write it
        near = two.statistics().near_size
        assert await one.delete_many(["7", "7", "none", "8"], confirm=1) == 2
        assert two.statistics().near_size == near - 2
        await heard()
        assert await two.get_many(["7", "8", "9"]) == {"9": 9}
        await one.set_many({"9": 1, "a\0b": 1}, 10, confirm=1)
        assert two.statistics().near_size == 0  # such a key is not told by its name
        calls = store.calls
        assert await two.get_many(()) == {}
        await one.set_many({})
        assert await one.delete_many([], confirm=1) == 0
        assert store.calls == calls
        await anyio.sleep(10)
        assert await two.get_many(["9", "10"]) == {"10": 10}
        await one.set_many({"10": 1, "11": 1}, 0)
        await heard()
        assert await two.get_many(["10", "11", "12"]) == {"12": 12}


async def test_very_many_keys() -> None:
    """A call has a thousand of them at most, and what is confirmed is each call."""
    async with processes(near_max_size=None) as (store, (one, two)):
        values = {str(number): number for number in range(2001)}
        await one.set_many(values, confirm=1)
        calls = store.calls
        assert calls == 3 + 3 * 2  # each call is confirmed by each process
        assert await two.get_many(values) == values
        assert store.calls == calls + 3
        assert await one.delete_many(values, confirm=1) == 2001
        assert two.statistics().near_size == 0


async def test_many_keys_that_change_while_they_are_read() -> None:
    """What was read before a message has arrived is not kept in memory; the rest is."""
    async with processes() as (store, (one, two)):
        await one.set_many({"a": 1, "b": 1, "c": 1})
        await heard()

        def interfere(message: bytes, *args: Any) -> Any:
            answer = reading(*args)
            store.deliver("mtaio:cache:test", message)
            return answer

        reading, store.scripts[READ] = store.scripts[READ], partial(interfere, b"-a")
        assert await two.get_many(["a", "b"]) == {"a": 1, "b": 1}
        assert await two.get("a") == 1
        assert two.statistics().near_size == 1
        store.scripts[READ] = partial(interfere, b"~")
        assert await two.get_many(["a", "c"]) == {"a": 1, "c": 1}
        assert two.statistics().near_size == 0  # a message that is not known may mean anything


async def test_keys_of_a_cluster() -> None:
    """Each call has keys of one slot, a hundred calls are made at once, and one may fail."""
    async with caching_store() as store:
        store.cluster = True
        run = store.script

        async def checked(
            script: Script, keys: Sequence[str], args: Sequence[Argument] = ()
        ) -> Any:
            assert (
                len({crc_hqx(key[key.find("{") + 1 : key.find("}")].encode(), 0) for key in keys})
                == 1
            )
            if "mtaio:cache:test:{:7}" in keys and store.down:
                raise StoreError
            return await run(script, keys, args)

        store.script = checked  # type: ignore[method-assign] # it checks what it is given
        async with TieredCache[Any](store, "test", near_ttl=0, on_failure="raise") as cache:
            values = {str(number): number for number in range(250)}
            await cache.set_many(values, tags={"a", "b"})
            assert store.calls == 252
            before = anyio.current_time()
            assert await cache.get_many(values) == values
            assert anyio.current_time() - before == pytest.approx(0.004)
            assert await cache.delete_many(["1", "2", "none"]) == 2
            await cache.clear()
            assert await cache.get_many(values) == {}
            await cache.set_many(values)
            store.down = True
            with pytest.raises(StoreError):
                await cache.get_many(values)
            store.down = False


async def test_a_tag_that_changes_while_a_value_is_read() -> None:
    """The value is not kept in memory: it may be the one that carries the tag."""
    async with processes() as (store, (one, two)):
        source = Source()
        await one.set("key", 1, tags={"tag"})

        def interfere(*args: Any) -> Any:
            answer = acquiring(*args)
            store.deliver("mtaio:cache:test", b"#tag")
            return answer

        acquiring, store.scripts[ACQUIRE] = store.scripts[ACQUIRE], interfere
        assert await two.get_or_set("key", source.load, tags={"other"}) == 1
        assert two.statistics().near_size == 0
        store.scripts[ACQUIRE] = acquiring
        assert await two.get_or_set("key", source.load) == 1
        assert two.statistics().near_size == 1
        store.deafen()
        assert await two.get_or_set("key", source.load) == await two.get("key") == 1
        assert two.statistics().near_size == source.reads == 0


async def test_touch() -> None:
    """A time is restarted; others are told when it ends sooner, as they keep the value."""
    async with processes(default_ttl=10, near_ttl=100) as (_, (one, two)):
        assert not await one.touch("key")
        await one.set("key", 1)
        await heard()
        assert await two.get("key") == await one.get("key") == 1
        await anyio.sleep(5)
        assert await one.touch("key")
        assert (one.statistics().near_size, two.statistics().near_size) == (1, 1)
        assert two.statistics().changes_heard == 1
        await anyio.sleep(9)
        assert await two.get("key") == 1
        assert await one.touch("key", 0.5)
        assert one.statistics().near_size == 0
        await heard()
        assert two.statistics().near_size == 0
        assert await two.get("key") == 1
        await anyio.sleep(0.5)
        assert await two.get("key") is None
        await one.set("key", 1)
        assert await one.touch("key", math.inf)
        await anyio.sleep(1000)
        assert await two.get("key") == 1
        assert await one.touch("key", 5)
        await heard()
        assert two.statistics().near_size == 0
        assert await one.touch("key", 0)
        assert not await one.touch("key", 0)


async def test_increment() -> None:
    """It counts in one step, keeps the time to live, and takes a load's lease away."""
    async with processes(default_ttl=10, near_ttl=100) as (store, (one, two)):

        async def count(cache: TieredCache[Any], times: int) -> None:
            for _ in range(times):
                await cache.increment("key")

        async with anyio.create_task_group() as group:
            for cache in (one, two) * 3:
                group.start_soon(count, cache, 5)
        assert await one.get("key") == 30
        assert store.calls == 31
        await anyio.sleep(6)
        assert await two.increment("key", -40, ttl=1000) == -10
        await heard()
        assert await one.get("key") == -10
        await anyio.sleep(4)
        assert await one.get("key") is None
        assert await one.increment("key", 5, ttl=2, confirm=1) == 5
        await anyio.sleep(2)
        assert await one.get("key") is None
        source = Source()
        async with anyio.create_task_group() as group:
            group.start_soon(one.get_or_set, "key", source.load)
            await anyio.sleep(0.5)
            assert await two.increment("key", 7) == 7
        assert await one.get("key") == 7
        await one.set("key", "text")
        with pytest.raises(
            ValueError, match=r"'key' cannot be incremented by 2: ERR value is not an integer"
        ):
            await two.increment("key", 2, confirm=1)
        assert await two.get("key") == "text"
        pickled = TieredCache[Any](store, "pickled", codec=Codec(pickle.dumps, pickle.loads))
        async with pickled:
            with pytest.raises(TypeError, match=r"which does not write ints in digits"):
                await pickled.increment("key")


async def test_tags() -> None:
    """All that carries a tag is outdated in every process, with a call for the tags more."""
    async with processes() as (store, (one, two)):
        await one.set_many({"a": 1, "b": 2}, tags={"user", "all"})
        await one.set("c", 3, tags=["all"])
        await one.set("d", 4)
        assert store.calls == 5
        await heard()
        assert await two.get_many([*"dcba"]) == {"a": 1, "b": 2, "c": 3, "d": 4}
        assert store.calls == 7
        await one.invalidate_tag("user")
        assert store.calls == 8
        await heard()
        assert two.statistics().near_size == 2
        assert await two.get_many([*"abcd"]) == {"c": 3, "d": 4}
        assert await two.get("a", "none") == "none"
        assert (two.statistics().far_hits, two.statistics().misses) == (4, 3)
        assert not await one.delete("a")
        assert await one.delete_many([*"bcd"]) == 2
        await one.set("a", 5, tags={"user"})
        assert await two.get("a") == 5
        await one.set("a", 6)
        await one.invalidate_tag("user", confirm=1)
        assert await two.get("a") == 6
        calls = store.calls
        await one.set("a", 7, 0, tags={"user"})
        assert store.calls == calls + 1
        assert await one.get("a") is None


async def test_values_that_look_like_others_with_tags() -> None:
    """They are what they are, with tags and without, however they were stored."""
    odd = b'\0#{"tag": "token"}\nvalue'
    async with caching_store() as store:
        caches = [TieredCache(store, "test", codec=Codec[bytes](bytes, bytes)) for _ in range(2)]
        async with caches[0] as one, caches[1] as two:

            async def load() -> bytes:
                return odd

            for tags in ((), ("tag",)):
                await one.set("key", odd, tags=tags)
                assert await two.get("key") == odd
                assert await one.get_or_set("loaded", load, tags=tags) == odd
                assert await two.get_or_set("loaded", load) == odd
                assert await one.delete_many(["key", "loaded"]) == 2
            assert two.statistics().far_hits == 4


async def test_tags_of_loads() -> None:
    """What is loaded carries the tags of the load, wherever it is read."""
    async with processes() as (store, (one, two)):
        source = Source()
        assert await one.get_or_set("key", source.load, tags={"user"}) == 0
        assert store.calls == 3
        assert await two.get_or_set("key", source.load) == 0
        assert store.calls == 5
        assert await one.get_or_set("key", source.load) == await two.get("key") == 0
        assert store.calls == 5
        source.version = 1
        await one.invalidate_tag("user")
        await heard()
        assert await two.get_or_set("key", source.load, tags={"other"}) == 1
        await one.invalidate_tag("user")
        await heard()
        assert await one.get("key") == await two.get("key") == 1
        calls = store.calls
        await two.invalidate_tag("other")
        await heard()
        assert await one.get("key") is None
        assert await one.touch("key") is False
        assert [key for key in store.data if "#" in key] == []
        assert store.calls == calls + 1 + 2 + 3


async def test_tags_of_cached_functions() -> None:
    """They are the same for all calls, or made of the arguments of each."""
    async with processes() as (_, (one, two)):
        calls: list[str] = []

        @one.cached(lambda user: f"name:{user}", tags={"names"})
        async def name(user: str) -> Any:
            calls.append(f"name {user}")
            return user.title()

        @two.cached(lambda user: f"age:{user}", tags=lambda user: {f"user:{user}"})
        async def age(user: str) -> Any:
            calls.append(f"age {user}")
            return len(user)

        async def ask() -> list[str]:
            calls.clear()
            for user in ("ada", "bob"):
                assert (await name(user), await age(user)) == (user.title(), 3)
            await heard()
            return calls

        assert len(await ask()) == 4
        assert await ask() == []
        await two.invalidate_tag("names")
        await heard()
        assert await ask() == ["name ada", "name bob"]
        await one.invalidate_tag("user:ada")
        await heard()
        assert await ask() == ["age ada"]
        with pytest.raises(TypeError, match=r"^tag=7 is an int, not a str\."):
            one.cached(str, tags={7})  # type: ignore[arg-type] # what is tested
        with pytest.raises(TypeError, match=r"^tags='ab' is a str, not several\. Pass a set of"):
            await one.cached(str, tags=lambda _: "ab")(name)("ada")


async def test_tags_live_as_long_as_values() -> None:
    """Also where a load takes its time, where the time is restarted, and beside shorter values."""
    async with processes(near_ttl=0, default_ttl=20) as (store, (one, two)):
        source = Source(200)
        await one.get_or_set("key", source.load, tags={"tag"})
        await anyio.sleep(19)
        assert await two.get("key") == 0
        assert await two.touch("key", 10_000)
        await one.set("short", 1, 1, tags={"tag"})
        await anyio.sleep(9_999)
        assert await two.get("key") == 0
        await one.set("ever", 1, math.inf, tags={"tag"})
        await one.set("short", 1, 1, tags={"tag"})
        await anyio.sleep(100_000)  # noqa: ASYNC116 - of virtual time
        assert await two.get("ever") == 1
        await one.set("short", 1, 1, tags={"brief"})
        await anyio.sleep(3602)
        store.scripts[READ](store.data, anyio.current_time(), [], [])
        tag = "mtaio:cache:test:{#brief}"
        assert store.data[tag][1] < anyio.current_time() + store.skew
        del store.data["mtaio:cache:test:{#tag}"]  # as if the server had evicted it
        assert await two.get("ever") is None
        await one.set("other", 1, tags={"tag"})
        assert await two.get("ever") is None


async def test_counters_with_tags() -> None:
    """They keep their tags; when these are invalidated, they begin again."""
    async with processes() as (_, (one, two)):
        await one.set("key", 5, tags={"tag"})
        assert await two.increment("key") == 6
        assert await one.get("key") == 6
        await two.invalidate_tag("tag")
        await heard()
        assert await one.get("key") is None
        assert await one.increment("key") == 1
        assert await two.get("key") == 1


@pytest.mark.parametrize("deaf", [False, True])
async def test_an_invalidation_during_a_load(*, deaf: bool) -> None:
    """The load is stored nowhere, and whoever asks later gets a newer value; mostly at once."""
    async with processes(3) as (store, (one, two, three)):
        source = Source(2)
        got: list[Any] = []

        async def ask(cache: TieredCache[Any]) -> None:
            got.append((await cache.get_or_set("key", source.load, tags={"tag"}), moment()))

        def moment() -> float:
            return round(anyio.current_time(), 1)

        if deaf:
            store.deafen()
        async with anyio.create_task_group() as group:
            group.start_soon(ask, one)
            await anyio.sleep(1)
            source.version = 1
            await two.invalidate_tag("tag")
            if not deaf:
                await heard()
            group.start_soon(ask, one if not deaf else two)
            group.start_soon(ask, three)
        assert got[0] == (0, 2.0)
        assert [value for value, _ in got[1:]] == [1, 1]
        assert source.reads == 2
        last = max(when for _, when in got)
        assert 4 <= last <= 4.2 if deaf else last == 3
        for cache in (one, two, three):
            assert await cache.get("key") == 1
        assert one.statistics().outdated == (0 if deaf else 1)


@pytest.mark.parametrize("namespace", ["test", "t*?[e]\\st"])
async def test_clear(namespace: str) -> None:
    """Everything of the namespace goes, in memory and on the server, and nothing of another."""
    async with caching_store() as store:
        one, two = (TieredCache[Any](store, namespace) for _ in range(2))
        async with one, two, TieredCache[Any](store, "t*") as other:
            await other.set("key", 1, tags={"tag"})
            kept = set(store.data)
            await one.set_many({str(number): number for number in range(20)}, tags={"tag"})
            await one.set("}{\n", 1)
            await heard()
            assert len(await two.get_many(map(str, range(20)))) == 20
            before = two.statistics().near_cleared
            source = Source(1)
            got: list[int] = []

            async def ask() -> None:
                got.append(await two.get_or_set("key", source.load))

            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                await anyio.sleep(0.5)
                source.version = 1
                await one.clear(confirm=1)
                assert two.statistics().near_size == one.statistics().near_size == 0
                assert set(store.data) == kept
                await ask()
            assert got == [0, 1]
            assert await one.get("key") == await two.get("key") == 1
            assert await one.get_many(map(str, range(20))) == {}
            assert two.statistics().near_cleared == before
            assert two.statistics().outdated == 1


async def test_clear_without_scan() -> None:
    """A store that cannot find keys says so, and serves everything else."""

    class Plain:
        def __init__(self, store: MemoryStore) -> None:
            self.name, self.timeout = store.name, store.timeout
            self.script, self.publish, self.subscribe = store.script, store.publish, store.subscribe
            self._block = store._block

    async with caching_store() as store:
        plain: Any = Plain(store)
        async with TieredCache[Any](plain, "test") as cache:
            await cache.set_many({"a": 1, "b": 2}, tags={"tag"})
            assert await cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
            assert store.calls == 4
            with pytest.raises(TypeError, match=r"has no method scan\(pattern, cursor\), by which"):
                await cache.clear()
            assert await cache.get("a") == 1


CHANGES: list[Callable[[TieredCache[Any]], Any]] = [
    lambda cache: cache.set_many({"key": 1, "other": 1}, tags={"tag"}),
    lambda cache: cache.delete_many(["key", "other"]),
    lambda cache: cache.touch("key"),
    lambda cache: cache.increment("key"),
    lambda cache: cache.invalidate_tag("tag"),
    lambda cache: cache.clear(),
]


@pytest.mark.parametrize("change", CHANGES)
async def test_changes_without_the_server(change: Callable[[TieredCache[Any]], Any]) -> None:
    """They raise the server's error, also outside of the block, and leave nothing in memory."""
    async with processes(1, fallback_ttl=100) as (store, (cache,)):
        store.fail()
        assert await cache.get_or_set("key", Source(0).load, tags={"tag"}) == 0
        assert cache.statistics().near_size == 1
        failures = cache.statistics().server_failures
        for number in range(2):
            with pytest.raises(StoreError, match=r"^memory:// did not answer"):
                await change(cache)
            assert cache.statistics().server_failures == failures + number + 1
        assert cache.statistics().near_size == 0
    with pytest.raises(RuntimeError, match=r"is not entered in this event loop"):
        await change(cache)


@pytest.mark.parametrize("change", CHANGES[:2] + CHANGES[3:])
async def test_changes_that_are_not_confirmed(change: Callable[[TieredCache[Any]], Any]) -> None:
    """Each says what may still be old."""

    class Confirmed:
        def __getattr__(self, name: str) -> Any:
            return partial(getattr(cache, name), confirm=0.5)

    async with processes(2) as (store, (cache, _)):
        confirming: Any = Confirmed()
        await change(confirming)
        await heard()
        publish, store.publish = store.publish, fail  # type: ignore[method-assign, assignment] # the server refuses
        what = r"(one of 2 keys|'key'|the tag 'tag'|the namespace)"
        with pytest.raises(
            TimeoutError, match=rf"only 0 of 2 processes confirmed within 0.5 s that {what} was"
        ):
            await change(confirming)
        store.publish = publish  # type: ignore[method-assign] # no more


async def test_a_change_under_way() -> None:
    """What is being changed is no longer served from memory, and nothing else is dropped."""
    async with processes(1) as (store, (cache,)):
        await cache.set_many({"a": 1, "b": 1}, tags={"tag"})
        await cache.set("c", 1)
        changes: list[Callable[[], Any]] = [
            partial(cache.set, "a", 2, tags={"tag"}),
            partial(cache.invalidate_tag, "tag"),
            partial(cache.clear),
        ]
        for left, change in zip((2, 1, 0), changes, strict=True):
            await heard()
            await cache.get_many(["a", "b", "c"])
            store.latency = 1
            async with anyio.create_task_group() as group:
                group.start_soon(change)
                await anyio.sleep(0.1)
                assert cache.statistics().near_size == left
            store.latency = 0.001


async def test_many_keys_without_the_server() -> None:
    """What is in memory is returned, or the error raised."""
    async with processes(1, fallback_ttl=100) as (store, (cache,)):
        store.fail()
        await cache.get_or_set("near", Source(0).load)
        assert await cache.get_many(["far", "near", "away"]) == {"near": 0}
        assert cache.statistics().misses == 3
    async with processes(1, on_failure="raise") as (store, (cache,)):
        store.fail()
        with pytest.raises(StoreError):
            await cache.get_many(["far", "away"])
        assert cache.statistics().misses == 2


async def test_what_cannot_be_decoded_among_many() -> None:
    """It is no value, and the others are."""
    async with caching_store() as store:
        old = TieredCache[Any](store, "test")
        new = TieredCache[int](store, "test", codec=Codec[int](str, int))
        async with old, new:
            await old.set_many({"a": 1, "b": "x"}, tags={"tag"})
            assert await new.get_many(["a", "b", "c"]) == {"a": 1}
            assert (new.statistics().far_hits, new.statistics().misses) == (1, 2)
            assert await new.get_or_set("b", Source().load) == 0
            assert new.statistics().undecodable == 2


REFUSED: list[tuple[str, Callable[[Any], Any]]] = [
    ("keys='ab' is a str, not several. Pass a list", lambda cache: cache.get_many("ab")),
    ("keys=b'ab' is a bytes, not several", lambda cache: cache.delete_many(b"ab")),
    ("keys=7 is an int, not several", lambda cache: cache.get_many(7)),
    ("key=7 is an int, not a str. Pass one, such as", lambda cache: cache.delete_many(["a", 7])),
    ("values=['a'] is a list, not a mapping", lambda cache: cache.set_many(["a"])),
    ("key=7 is an int, not a str", lambda cache: cache.set_many({7: 7})),
    ("tags='tag' is a str, not several", lambda cache: cache.set("key", 1, tags="tag")),
    ("tag=7 is an int", lambda cache: cache.set_many({"key": 1}, tags={7})),
    ("tag=7 is an int", lambda cache: cache.get_or_set("none", Source().load, tags={7})),
    ("tag=7 is an int", lambda cache: cache.invalidate_tag(7)),
    ("ttl=-1 is less than 0", lambda cache: cache.touch("key", -1)),
    ("ttl=-1 is less than 0", lambda cache: cache.increment("key", ttl=-1)),
    ("ttl=-1 is less than 0", lambda cache: cache.set_many({"key": 1}, -1)),
    ("by=1.5 is a float", lambda cache: cache.increment("key", 1.5)),
    ("by=-9223372036854775809 is less", lambda cache: cache.increment("key", -(2**63) - 1)),
    ("confirm=-1 is less than 0", lambda cache: cache.clear(confirm=-1)),
    ("confirm=-1 is less than 0", lambda cache: cache.invalidate_tag("tag", confirm=-1)),
]


@pytest.mark.parametrize(("message", "call"), REFUSED)
async def test_refused_arguments(message: str, call: Callable[[Any], Any]) -> None:
    """The error names the value, and nothing has changed."""
    async with processes(1) as (store, (cache,)):
        await cache.set("key", "value", tags={"tag"})
        calls = store.calls
        with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}"):
            await call(cache)
        assert store.calls == calls
        assert await cache.get("key") == "value"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies(copied: Callable[[object], object]) -> None:
    """A copy would not hear of changes, and is refused."""
    cache = TieredCache(caching_store(), "users")
    with pytest.raises(TypeError, match=r"^<TieredCache 'users' .*> cannot be copied or pickled: "):
        copied(cache)


async def test_refusals() -> None:
    """What cannot be a key, a number or a namespace, and use outside of the block."""
    async with caching_store() as store:
        cache = TieredCache[Any](store, "users", name="them")
        assert repr(cache) == "<TieredCache 'them' 300 s at memory://>"
        assert (cache.name, cache.namespace, cache.default_ttl) == ("them", "users", 300)
        with pytest.raises(RuntimeError, match=r"is not entered in this event loop"):
            await cache.get("key")
        async with cache:
            with pytest.raises(TypeError, match=r"^key=7 is an int, not a str"):
                await cache.set(7, "value")  # type: ignore[arg-type] # what is tested
            with pytest.raises(ValueError, match=r"^key='\\ud800' has half of a surrogate pair"):
                await cache.get("\ud800")
            with pytest.raises(TypeError, match=r"^loader=7 is an int, which is not callable"):
                await cache.get_or_set("key", 7)  # type: ignore[arg-type] # what is tested
            with pytest.raises(TypeError, match=r"^loader=<.* returned 7, which cannot be awaited"):
                await cache.get_or_set("key", lambda: 7)  # type: ignore[arg-type, return-value] # what is tested
        namespaces: list[tuple[object, str]] = [
            ("", "'' is empty"),
            ("a{b", "'a{b' contains a brace"),
            ("\ud800", ".* has half of a surrogate pair"),
            (None, "None is a NoneType, not a str"),
        ]
        for namespace, message in namespaces:
            with pytest.raises((TypeError, ValueError), match=f"^namespace={message}"):
                TieredCache[Any](store, namespace)  # type: ignore[arg-type] # what is tested
        options: list[tuple[str, Any, str]] = [
            ("store", None, "store=None is a NoneType, not a store"),
            ("codec", None, "codec=None is a NoneType, not a Codec"),
            ("near_max_size", 0, "near_max_size=0 is less than 1"),
        ]
        for name, value, message in options:
            with pytest.raises((TypeError, ValueError), match=f"^{message}"):
                TieredCache[Any](**{"store": store, "namespace": "users", name: value})
        assert (
            TieredCache[Any](store, "users", near_max_size=None).statistics().near_max_size is None
        )
        with pytest.raises(TypeError, match=r"^@TieredCache.cached cannot decorate <function"):
            cache.cached(str)(lambda: 7)  # type: ignore[arg-type, return-value] # what is tested
        with pytest.raises(TypeError, match=r"^key=<.* is an async function, which returns no str"):
            cache.cached(cache.get)  # type: ignore[arg-type] # what is tested
        for lease in (0, math.inf):
            with pytest.raises(ValueError, match=r"^lease=.* is not a finite number"):
                TieredCache[Any](store, "users", lease=lease)
        with pytest.raises(ValueError, match=r"^near_ttl=-1 is less than 0"):
            TieredCache[Any](store, "users", near_ttl=-1)
        with pytest.raises(ValueError, match=r"^on_failure='allow' is unknown"):
            TieredCache[Any](store, "users", on_failure="allow")  # type: ignore[arg-type] # what is tested


def test_json_keeps_what_json_can_say() -> None:
    """Letters stay as they are, unless UTF-8 has nothing for them."""
    for value in ("\ud800", {"\ud800": "\u2603"}):
        assert JSON.decode(JSON.encode(value)) == value  # type: ignore[arg-type] # bytes
    assert (
        JSON.encode({"name": "Ada \u2603", "none": None})
        == '{"name":"Ada \u2603","none":null}'.encode()
    )
    assert JSON.decode(b"[1,2]") == [1, 2]


@explore(seeds=30, exhaustive=1)
async def test_a_caller_that_is_cancelled(victim: Victim) -> None:
    """Whenever it is, another process loads at once, nothing is leased, and the value is right."""
    async with processes() as (store, (one, two)):
        source = Source()
        got: list[int] = []

        async def ask() -> None:
            got.append(await two.get_or_set("key", source.load))

        async with anyio.create_task_group() as group:
            group.start_soon(victim, partial(one.get_or_set, "key", source.load))
            group.start_soon(ask)
        assert got == [0]
        assert source.reads <= 2
        assert anyio.current_time() < 2.1
        await anyio.sleep(0.01)
        assert [key for key in store.data if key.endswith(":load")] == []
        assert await one.get("key") == 0


@explore(seeds=40, exhaustive=1)
async def test_no_old_value_stays(sim: Any) -> None:
    """Whatever comes between, what is read after a change has been heard is not older than it."""
    del sim
    async with processes(3) as (_, caches):
        source = Source(0.001)

        async def use(cache: TieredCache[Any], pause: float) -> None:
            for _ in range(4):
                await anyio.sleep(pause)
                before = source.version
                assert await cache.get_or_set("key", source.load) >= before - 1
                assert await cache.get("key", before) >= before - 1

        async def change(cache: TieredCache[Any]) -> None:
            for _ in range(4):
                source.version += 1
                await cache.delete("key")
                await anyio.sleep(0.001)

        async with anyio.create_task_group() as group:
            for number, cache in enumerate(caches):
                group.start_soon(use, cache, number / 2000)
            group.start_soon(change, caches[0])
        await anyio.sleep(0.01)
        for cache in caches:
            assert await cache.get_or_set("key", source.load) == source.version
        assert not any(cache._queries.by_key for cache in caches)


@explore(seeds=20, exhaustive=0)
async def test_no_old_value_stays_after_an_invalidation(sim: Any) -> None:
    """Nor one whose load was under way, whatever is invalidated, cleared or written meanwhile."""
    del sim
    async with processes(3) as (_, caches):
        source = Source(0.002)

        async def use(cache: TieredCache[Any], pause: float) -> None:
            for _ in range(4):
                await anyio.sleep(pause)
                before = source.version
                got = await cache.get_or_set("key", source.load, tags={"tag"})
                assert got >= before - 1
                many = await cache.get_many(["key", "other"])
                assert many.get("key", before) >= before - 1

        async def change(cache: TieredCache[Any]) -> None:
            for number in range(4):
                source.version += 1
                await (cache.invalidate_tag("tag") if number % 2 else cache.clear())
                await anyio.sleep(0.001)

        async with anyio.create_task_group() as group:
            for number, cache in enumerate(caches):
                group.start_soon(use, cache, number / 2000)
            group.start_soon(change, caches[0])
        await heard()
        for cache in caches:
            assert await cache.get_or_set("key", source.load, tags={"tag"}) == source.version
        assert not any(cache._queries.by_key for cache in caches)


@explore(seeds=3, exhaustive=0, inject=("checkpoint", "native"))
async def test_calls_that_are_cancelled(victim: Victim) -> None:
    """Whenever one is, others go on at once, nothing is leased, and no old value stays."""
    async with processes() as (store, (one, two)):
        source = Source()

        async def all_of_them() -> None:
            await one.get_or_set("key", source.load, tags={"tag"})
            source.version += 1
            await one.invalidate_tag("tag")
            await one.set_many({"a": 1, "b": 2}, tags={"tag"})
            await one.increment("a")
            await one.touch("a", 1)
            await one.clear(confirm=1)

        async with anyio.create_task_group() as group:
            group.start_soon(victim, all_of_them)
            group.start_soon(partial(two.get_or_set, "key", source.load, tags={"tag"}))
        await heard()
        assert anyio.current_time() < 2.2
        assert [key for key in store.data if key.endswith(":load")] == []
        await two.invalidate_tag("tag")
        await heard()
        for cache in (one, two):
            assert await cache.get_or_set("key", source.load, tags={"tag"}) == source.version
            assert await cache.get_many(["a", "b"]) == {}


class Whole:
    """A cache together with its server, as the contract wants it."""

    def __init__(self, store: MemoryStore, namespace: str = "test") -> None:
        self.store = store
        self.cache = TieredCache[Any](self.store, namespace, default_ttl=60)
        self.get, self.set = self.cache.get, self.cache.set
        self.delete, self.get_or_set = self.cache.delete, self.cache.get_or_set

    async def __aenter__(self) -> Self:
        await self.store.__aenter__()
        await self.cache.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.cache.__aexit__(*exc)  # type: ignore[arg-type] # as it comes
        await self.store.__aexit__(*exc)  # type: ignore[arg-type] # as it comes


def test_contract() -> None:
    """It keeps what caches promise, but for the bound: the server has no end of its own."""
    check_cache(lambda _: Whole(caching_store()), seeds=3, exhaustive=0, without=["bound"])


def test_one_loop_after_another(backend: str) -> None:
    """Made outside of event loops, also where one ended without leaving it."""
    whole = Whole(caching_store())

    async def use() -> None:
        async with whole:
            await whole.set("key", 1)
            assert await whole.get("key") == 1

    run(use, backend=backend)
    run(use, backend=backend)


def test_loop_that_ended_without_leaving(backend: str) -> None:
    """In the next one the cache refuses to answer until it is entered there."""
    whole = Whole(caching_store())
    loop = asyncio.new_event_loop()
    loop.run_until_complete(whole.__aenter__())
    loop.close()

    async def use() -> None:
        with pytest.raises(RuntimeError, match=r"^<.*> is not entered in this event loop"):
            await whole.get("key")
        async with whole:
            assert await whole.get("key") is None

    run(use, backend=backend)
