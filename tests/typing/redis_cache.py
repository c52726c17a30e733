"""What type checkers make of the shared cache and the bridge: checked, and not run."""

from __future__ import annotations

from typing import Any, assert_type

from mtaio.events import EventEmitter, EventKey
from mtaio.redis import (
    JSON,
    Bridge,
    Codec,
    RedisStore,
    TieredCache,
    bridge,
)
from mtaio.statistics import BridgeStatistics, TieredCacheStatistics

store = RedisStore("redis://127.0.0.1")
numbers = Codec(encode=str, decode=int)
cache: TieredCache[int] = TieredCache(store, "numbers", codec=Codec[int](str, int))
anything = TieredCache[Any](store, "anything", codec=JSON)
plain = TieredCache(store, "plain")
assert_type(plain, TieredCache[Any])


async def load() -> int:
    """Load an int."""
    return 1


async def text() -> str:
    """Load a text."""
    return ""


def key_of(number: int, *, name: str = "") -> str:
    """Make a key."""
    return f"{number} {name}"


@cache.cached(key_of)
async def decorated(number: int, *, name: str = "") -> int:
    """Be cached."""
    return number + len(name)


def tags_of(number: int, *, name: str = "") -> set[str]:
    """Make tags."""
    return {f"{number} {name}"}


@cache.cached(key_of, tags=tags_of)
async def tagged(number: int, *, name: str = "") -> int:
    """Be cached with a tag."""
    return number + len(name)


async def caching() -> None:
    """Values have the cache's type, and a default its own; a decorated function keeps its own."""
    assert_type(await cache.get("key"), int | None)
    assert_type(await cache.get("key", "none"), int | str)
    assert_type(await cache.get_or_set("key", load), int)
    assert_type(await cache.delete("key", confirm=1), bool)
    assert_type(await decorated(1, name="one"), int)
    assert_type(await tagged(1, name="one"), int)
    assert_type(await cache.get_many(["key"]), dict[str, int])
    assert_type(await cache.delete_many({"key"}), int)
    assert_type(await cache.increment("key", -1), int)
    assert_type(await cache.touch("key", 5), bool)
    await cache.set_many({"key": 1}, 5, tags=["tag"], confirm=1)
    await cache.set_many({"key": "one"})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType] # what is tested
    assert_type(cache.statistics(), TieredCacheStatistics)
    await cache.set("key", "one")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # what is tested
    await cache.get_or_set("key", text)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # what is tested
    await decorated("one")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # what is tested


async def bridging() -> None:
    """A bridge takes names and keys."""
    emitter = EventEmitter()
    forward: list[str | EventKey[Any]] = ["order.*", EventKey[int]("order.paid")]
    async with bridge(emitter, store, stream="orders", group="ship", forward=forward) as remote:
        assert_type(remote, Bridge)
        assert_type(await remote.send(EventKey[int]("order.paid"), 1, metadata={"by": "ada"}), str)
        assert_type(remote.statistics(), BridgeStatistics)
