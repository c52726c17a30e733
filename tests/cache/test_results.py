"""What depends on the result: how long it is kept, and whether; and which calls are one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.cache import TTLCache, cached
from mtaio.testing import assert_no_checkpoints
from tests.cache.loads import in_both

if TYPE_CHECKING:
    from collections.abc import Callable

anything_cached: Any = cached
"""`cached`, called as no type checker lets one."""


async def answer(*_: object, **__: object) -> str:
    """Return something."""
    return "answer"


@in_both
async def test_ttl_of_the_value(cache: TTLCache[int]) -> None:
    """A function of what was loaded says for how long it is kept; 0 is not at all."""

    async def load(value: int) -> int:
        return value

    assert await cache.get_or_set("short", lambda: load(1), ttl=float) == 1
    assert await cache.get_or_set("long", lambda: load(3), ttl=lambda value: value) == 3
    assert await cache.get_or_set("none", lambda: load(0), ttl=lambda value: value) == 0
    assert [*cache] == ["short", "long"]
    await anyio.sleep(1)
    assert [*cache] == ["long"]
    assert await cache.refresh("long", lambda: load(7), ttl=float) == 7
    await anyio.sleep(6)
    assert "long" in cache


@in_both
async def test_values_that_are_not_to_be_kept(cache: TTLCache[str | None]) -> None:
    """What ``keep`` refuses answers the caller, is loaded again, and leaves no older value."""
    answers: list[str | None] = [None, "a", None]

    async def load() -> str | None:
        return answers.pop(0)

    for expected in (None, "a", "a"):
        assert await cache.get_or_set("key", load, keep=bool, ttl=lambda _: 5) == expected
    await anyio.sleep(5)
    cache.set_nowait("key", "old")
    assert await cache.refresh("key", load, keep=bool) is None
    assert "key" not in cache


@in_both
async def test_lifetimes_that_fail(cache: TTLCache[str]) -> None:
    """What ``ttl`` or ``keep`` raises, or a ``ttl`` that is no time, is the failure of the load."""

    def explode(_: str) -> bool:
        raise LookupError(1)

    for options, kind, message in (
        ({"ttl": lambda _: -1}, ValueError, r"^ttl=-1 is less than 0\. <function .* has to return"),
        ({"ttl": lambda _: "1"}, TypeError, r"^ttl='1' is a str, not a number\. <function "),
        ({"keep": explode}, LookupError, r"^1$"),
    ):
        given: dict[str, Any] = options
        with pytest.raises(kind, match=message):
            await cache.get_or_set("key", answer, **given)
    assert "key" not in cache
    assert cache.statistics().failed == 3


async def test_cached_results_by_what_they_are() -> None:
    """`cached` takes both, and a ``keep`` alone leaves the cache its own time."""
    calls: list[int] = []

    @cached(ttl=lambda value: value, keep=lambda value: value != 3)
    async def fetch(value: int) -> int:
        calls.append(value)
        return value

    @cached(keep=lambda value: value > 1, cache=TTLCache(2))
    async def large(value: int) -> int:
        return value

    for value in (2, 2, 3, 3):
        assert await fetch(value) == value
    assert calls == [2, 3, 3]
    for value in (1, 2):
        await large(value)
    assert [large.contains_nowait(1), large.contains_nowait(2)] == [False, True]
    await anyio.sleep(2)
    assert not fetch.contains_nowait(2)
    assert not large.contains_nowait(2)


# Which call is which.


async def test_calls_that_bind_to_the_same_arguments() -> None:
    """With ``bind``, by position or by name, and defaults given or not, it is one call."""

    @cached(bind=True)
    async def fetch(a: int, b: int = 2, *more: int, c: int = 3, **named: int) -> object:
        return a, b, more, c, named

    first = await fetch(1)
    for call in (fetch(a=1), fetch(1, 2), fetch(b=2, a=1), fetch(1, c=3), fetch(1, 2, c=3)):
        assert await call is first
    others = [await fetch(1, 3), await fetch(1, 2, 3), await fetch(1, d=4), await fetch(1, c=4)]
    assert len({id(each) for each in [first, *others]}) == 5
    assert fetch.cache.statistics().loads == 5
    assert fetch.contains_nowait(b=2, a=1)
    assert fetch.invalidate_nowait(a=1)
    assert not fetch.contains_nowait(1)
    with pytest.raises(TypeError, match=r"^missing a required argument: 'a'$"):
        await fetch()  # type: ignore[call-arg] # the point


async def test_methods_that_bind() -> None:
    """Of a method, what binds is all but its object."""

    class Shop:
        @cached(bind=True, cache=TTLCache(60))
        async def price(self, item: str, tax: int = 10) -> object:
            return item, tax

    north, south = Shop(), Shop()
    first = await north.price("tea")
    assert await north.price(tax=10, item="tea") is first
    assert await south.price("tea", 10) is not first
    assert north.price.contains_nowait("tea", 10)
    assert await north.price.refresh(item="tea") is not first
    assert north.price.invalidate_nowait(tax=10, item="tea")
    assert not north.price.contains_nowait("tea")
    assert south.price.contains_nowait("tea")


async def test_contains() -> None:
    """A look at a call's result is no read and no checkpoint; a call that cannot be is refused."""

    @cached(ttl=1)
    async def fetch(item: str) -> str:
        return item

    @cached(key=lambda item: item.lower())
    async def by_key(item: str) -> str:
        return item

    await fetch("tea")
    await by_key("Tea")
    with assert_no_checkpoints():
        assert fetch.contains_nowait("tea")
        assert not fetch.contains_nowait("milk")
        assert by_key.contains_nowait("TEA")
    await anyio.sleep(1)
    assert not fetch.contains_nowait("tea")
    assert (fetch.cache.statistics().hits, fetch.cache.statistics().misses) == (0, 1)
    with pytest.raises(TypeError, match=r"^too many positional arguments$"):
        fetch.contains_nowait("tea", 2)  # type: ignore[call-arg] # the point


async def test_coroutines_do_the_same() -> None:
    """As those of a cache, ``contains`` and ``invalidate`` have both forms, and do not yield."""

    @cached
    async def fetch(item: str) -> str:
        return item

    class Shop:
        @cached
        async def price(self, item: str) -> str:
            return item

    shop = Shop()
    for fn in (fetch, shop.price):
        await fn("tea")
        with assert_no_checkpoints():
            assert await fn.contains("tea")
            assert await fn.invalidate("tea")
            assert not await fn.invalidate("tea")
            assert not await fn.contains("tea")
        with pytest.raises(TypeError, match=r"^too many positional arguments$"):
            await fn.contains("tea", 2)  # type: ignore[call-arg] # the point
        with pytest.raises(TypeError, match=r"^too many positional arguments$"):
            await fn.invalidate("tea", 2)  # type: ignore[call-arg] # the point


# Wrong uses.


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (
        lambda: anything_cached(ttl=answer),
        r"ttl=<function answer .*> is an async function, .* Pass seconds, or a plain function",
    ),
    (
        lambda: anything_cached(keep=answer),
        r"keep=<function answer .*> is an async function, .* Pass a plain function",
    ),
    (lambda: anything_cached(keep=3), r"keep=3 is an int, which is not callable\. Pass a plain"),
    (lambda: anything_cached(bind=1), r"bind=1 is an int, not a bool\. Pass True or False\."),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_teach_the_right_form(mistake: Callable[[], object], message: str) -> None:
    """Options that cannot be are refused with what to write instead."""
    with pytest.raises(TypeError, match=f"^{message}"):
        mistake()


def test_bind_and_key() -> None:
    """Two ways to make a key are one too many."""
    with pytest.raises(ValueError, match=r"^bind=True is for the default keys, and key=<function "):
        cached(bind=True, key=lambda item: item)
