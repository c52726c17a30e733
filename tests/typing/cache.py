"""What type checkers make of the cache: checked by mypy and pyright, and not run."""

from __future__ import annotations

from functools import partialmethod
from typing import TYPE_CHECKING, Any, assert_type

from mtaio.cache import BoundCached, BoundPlainCached, Cached, PlainCached, TTLCache, cached
from mtaio.statistics import CacheStatistics
from mtaio.types import EvictionPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mtaio.cache import RemovalCause

cache: TTLCache[int] = TTLCache(60, max_size=1000)
assert_type(TTLCache(60), TTLCache[Any])
assert_type(TTLCache(60, max_size=10).get_nowait("key"), Any | None)
TTLCache(60, 1000)  # type: ignore[call-arg] # the second number has no name
TTLCache(60, policy="lur")  # type: ignore[arg-type] # not one of the four


async def of_nothing() -> int:
    """Load an int."""
    return 1


async def of_text() -> str:
    """Load a string."""
    return ""


async def reading() -> None:
    """A value has the cache's type, and a default its own."""
    assert_type(cache.get_nowait("key"), int | None)
    assert_type(cache.get_nowait("key", "none"), int | str)
    assert_type(await cache.get("key"), int | None)
    assert_type(await cache.get("key", b""), int | bytes)
    assert_type(cache.get_many_nowait([1, "a"]), dict[Any, int])
    assert_type(cache.items(), list[tuple[Any, int]])
    assert_type(cache.statistics(), CacheStatistics)
    assert_type(cache.policy, EvictionPolicy)
    assert_type(cache.max_size, float | None)
    cache.pop("key")  # type: ignore[attr-defined] # of another library
    cache.get_nowait([])  # type: ignore[call-overload] # a list cannot be hashed


async def writing() -> None:
    """What is stored has to have the cache's type."""
    cache.set_nowait("key", 5, 2.5, tags={"a", 7})
    await cache.set(("a", 7), 5)
    cache.set_many_nowait({"a": 1, "b": 2}, 5)
    assert_type(cache.delete_nowait("key"), bool)
    assert_type(await cache.invalidate_tag("a"), int)
    assert_type(cache.increment_nowait("key", 2, ttl=5), int)
    assert_type(await cache.increment("key"), int)
    assert_type(cache.is_loading("key"), bool)
    await TTLCache[str]().increment("key")  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue] # of strings
    cache.set_nowait("key", "text")  # type: ignore[arg-type] # not an int
    cache.set_nowait([], 5)  # type: ignore[arg-type] # a list cannot be hashed
    cache.set_nowait("key", 5, tags=5)  # type: ignore[arg-type] # not a set of tags
    cache.set_many_nowait({"a": "text"})  # type: ignore[dict-item] # not an int


async def loading() -> None:
    """A loader has to bring what the cache holds."""
    assert_type(await cache.get_or_set("key", of_nothing, ttl=5), int)
    assert_type(await cache.refresh("key", of_nothing), int)
    assert_type(await cache.get_or_set("key", lambda: of_nothing()), int)  # noqa: PLW0108 - the subject
    await cache.get_or_set("key", of_text)  # type: ignore[arg-type] # not an int
    await cache.get_or_set("key", of_nothing())  # type: ignore[arg-type] # called too soon


async def of_numbers(keys: list[str]) -> dict[str, int]:
    """Load several."""
    return dict.fromkeys(keys, 1)


async def loading_many() -> None:
    """A loader of several takes the keys that were given, and brings what the cache holds."""
    assert_type(await cache.get_or_set_many(["a"], of_numbers, ttl=5), dict[str, int])
    await cache.get_or_set_many([1], of_numbers)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # other keys
    await cache.get_or_set_many(["a"], of_text)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # takes no keys


async def lasting() -> None:
    """How long a value is kept may depend on it."""
    await cache.get_or_set("key", of_nothing, ttl=float, keep=lambda value: value > 1)
    await cache.refresh("key", of_nothing, ttl=lambda value: value / 2)
    await cache.get_or_set("key", of_nothing, ttl=str)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # not a number


def brackets() -> None:
    """What a cache refuses, type checkers refuse."""
    cache["a"] = 1  # type: ignore[index] # pyright: ignore[reportIndexIssue] # use set_nowait
    cache["a"]  # type: ignore[index] # pyright: ignore[reportIndexIssue] # use get_nowait


async def entered() -> int:
    """The block of a cache swallows nothing, so that what it returns is what is returned."""
    async with cache as same:
        assert_type(same, TTLCache[int])
        return await same.get_or_set("key", of_nothing)


def heard(key: str, value: int, cause: RemovalCause) -> None:
    """Hear."""
    del key, value, cause


async def heard_later(key: Any, value: int, cause: RemovalCause) -> None:
    """Hear, and be awaited."""
    del key, value, cause


def heard_text(key: Any, value: str, cause: RemovalCause) -> None:
    """Hear of strings."""
    del key, value, cause


def weighed(key: object, value: int) -> float:
    """Weigh."""
    del key
    return value


def constructing() -> None:
    """Make one, rightly and wrongly."""
    first: TTLCache[int] = TTLCache(on_removed=heard, weigher=weighed, policy="lru")
    other: TTLCache[int] = TTLCache(on_removed=heard_later, policy="lfu")
    assert_type(TTLCache[str](5).name, str | None)
    wrong: TTLCache[int] = TTLCache(on_removed=heard_text)  # type: ignore[arg-type] # hears of others
    TTLCache[int]("60")  # type: ignore[arg-type] # a string is not a time
    del first, other, wrong


@cached
async def bare(item: str, *, count: int = 1) -> list[str]:
    """Be cached."""
    return [item] * count


def key_of(item: str) -> str:
    """Return the key of a call."""
    return item.casefold()


@cached(ttl=60, key=key_of, tags={"a"}, cache=TTLCache[int]())
async def told(item: str) -> int:
    """Be cached in a cache that was made elsewhere."""
    return len(item)


def lasting_for(_: object, number: int) -> float:
    """Return for how long the result of a call is kept."""
    return number / 2


class Shop:
    """Has methods of every kind."""

    @cached(ttl=60)
    async def price(self, item: str, count: int = 1) -> float:
        """Be a cached method."""
        return len(item) * count

    @cached
    async def plain(self) -> Shop:
        """Take no arguments."""
        return self

    @cached(ttl_for=lasting_for)
    def total(self, number: int) -> list[int]:
        """Be a cached plain method."""
        return [number]

    dear = cached(partialmethod(price, "dear"))
    all = cached(ttl=5)(partialmethod(total, 5))

    @staticmethod
    @cached
    async def static(item: str) -> int:
        """Be a cached static method."""
        return len(item)


async def functions() -> None:
    """A cached function takes what the function takes, and so does what it has."""
    assert_type(await bare("tea", count=2), list[str])
    assert_type(await told("tea"), int)
    assert_type(bare.invalidate_nowait("tea"), bool)
    assert_type(await bare.invalidate("tea"), bool)
    assert_type(await bare.refresh("tea", count=3), list[str])
    assert_type(bare.cache, TTLCache[list[str]])
    takes_cached(bare)
    takes_function(told)
    await bare(5)  # type: ignore[arg-type] # not a string
    await bare("tea", 2)  # type: ignore[call-arg] # count is by name only
    await bare("tea", number=2)  # type: ignore[call-arg] # no such argument
    bare.invalidate_nowait()  # type: ignore[call-arg] # an argument is missing
    await told.refresh(5)  # type: ignore[arg-type] # not a string


async def methods(shop: Shop) -> None:
    """A method of an object takes what is left without the object."""
    assert_type(await shop.price("tea", 2), float)
    assert_type(await shop.price("tea", count=2), float)
    assert_type(await shop.plain(), Shop)
    assert_type(await Shop.static("tea"), int)
    assert_type(shop.price.invalidate_nowait("tea"), bool)
    assert_type(await shop.price.contains("tea"), bool)
    assert_type(await shop.price.refresh("tea", 3), float)
    assert_type(shop.price.cache, TTLCache[float])
    assert_type(shop.plain, BoundCached[[], Shop])
    assert_type(await Shop.price(shop, "tea"), float)
    await shop.price(5)  # type: ignore[arg-type] # not a string
    await shop.price()  # type: ignore[call-arg] # an argument is missing
    shop.price.invalidate_nowait("tea", "many")  # type: ignore[arg-type] # not an int
    await shop.plain(1)  # type: ignore[call-arg] # takes none


@cached
def plainly(item: str, *, count: int = 1) -> list[str]:
    """Be a cached plain function."""
    return [item] * count


async def plain_functions(shop: Shop) -> None:
    """A plain function stays one."""
    assert_type(plainly("tea", count=2), list[str])
    assert_type(plainly.contains("tea"), bool)
    assert_type(plainly.invalidate("tea"), bool)
    assert_type(plainly.is_loading("tea"), bool)
    assert_type(plainly.refresh("tea"), list[str])
    assert_type(plainly.cache, TTLCache[list[str]])
    assert_type(plainly, PlainCached[[str], list[str]])  # type: ignore[assert-type] # pyright: ignore[reportAssertTypeFailure] # count is by name
    assert_type(shop.total(5), list[int])
    assert_type(shop.total.refresh(5), list[int])
    assert_type(shop.total, BoundPlainCached[[int], list[int]])  # type: ignore[assert-type] # pyright: ignore[reportAssertTypeFailure] # its argument has a name
    assert_type(await shop.dear(count=2), float)
    assert_type(shop.all(), list[int])
    takes_plain(plainly)
    plainly(5)  # type: ignore[arg-type] # not a string
    shop.total("5")  # type: ignore[arg-type] # not an int
    plainly.contains_nowait("tea")  # type: ignore[attr-defined] # of async functions


def takes_plain(fn: Callable[[str], list[str]]) -> None:
    """Take a plain function."""
    del fn


def takes_cached(fn: Cached[..., list[str]]) -> None:
    """Take what `cached` returns."""
    del fn


def takes_function(fn: Callable[[str], Awaitable[int]]) -> None:
    """Take a function."""
    del fn


def decorating() -> None:
    """What cannot be decorated."""
    cached(5)  # type: ignore[call-overload] # not a function
    cached(ttl="60")  # type: ignore[call-overload] # a string is not a time
    cached(cache=TTLCache[int])  # type: ignore[call-overload] # a class is not a cache
