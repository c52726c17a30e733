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


async def answer_one(_: object) -> str:
    """Return something for an argument."""
    return "answer"


UNHASHABLE: Any = []


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


async def test_ttl_for_the_arguments() -> None:
    """``ttl_for`` says for each call that loads how long, or how to tell by the result."""
    asked: list[tuple[str, bool]] = []

    def lasts(user: str, /, *, fresh: bool = False) -> float:
        asked.append((user, fresh))
        return 1.5 if fresh else 5

    @cached(ttl_for=lasts, keep=lambda user: user[0] != "bob")
    async def load(user: str, /, *, fresh: bool = False) -> object:
        return user, fresh

    class Shop:
        @cached(ttl_for=lambda _, number: lambda result: result - number)
        async def price(self, number: int) -> int:
            return 2 * number

    for user in ("ann", "ann", "bob"):
        await load(user)
        await load(user, fresh=True)
    assert asked == [("ann", False), ("ann", True), ("bob", False), ("bob", True)]
    shop = Shop()
    await shop.price(1)
    await shop.price(3)
    assert [load.contains_nowait(user) for user in ("ann", "bob")] == [True, False]
    await anyio.sleep(1.5)
    assert load.contains_nowait("ann")
    assert not load.contains_nowait("ann", fresh=True)
    assert [shop.price.contains_nowait(number) for number in (1, 3)] == [False, True]
    await load.refresh("ann", fresh=True)
    await shop.price.refresh(3)
    assert load.contains_nowait("ann", fresh=True)
    await anyio.sleep(3.5)
    assert [*load.cache, *shop.price.cache] == []


@pytest.mark.parametrize(
    ("lasts", "kind", "message"),
    [
        (lambda _: -1, ValueError, r"^ttl=-1 is less than 0\. <function .* has to return seconds"),
        (lambda _: None, TypeError, r"^ttl=None is a NoneType, not a number\. <function "),
        (lambda number: 1 / number, ZeroDivisionError, r"^division by zero$"),
        (lambda _: answer, TypeError, r"^ttl=<function answer .*> is an async function"),
    ],
    ids=["negative", "none", "fails", "async"],
)
async def test_ttl_for_that_fails(lasts: Any, kind: type[Exception], message: str) -> None:
    """What it raises goes to the caller, as a time that is none does, and nothing is called."""
    fetch = anything_cached(ttl_for=lasts)(answer)
    plain = anything_cached(ttl_for=lasts)(str)
    for call in (fetch, fetch.refresh):
        with pytest.raises(kind, match=message):
            await call(0)
    for call in (plain, plain.refresh):
        with pytest.raises(kind, match=message):
            call(0)
    assert (fetch.cache.statistics().loads, plain.cache.statistics().loads) == (0, 0)


async def test_ttl_for_of_nothing() -> None:
    """A time of 0 keeps nothing."""
    fetch = cached(ttl_for=lambda *_: 0)(answer)
    await fetch(1)
    assert not fetch.contains_nowait(1)


@in_both
async def test_is_loading(cache: TTLCache[str]) -> None:
    """A load in progress is no value yet, can be asked for, and is forgotten with its key."""

    @cached(cache=cache, key=lambda key: key)
    async def fetch(key: str) -> str:
        await anyio.sleep(1)
        return key

    class Shop:
        @cached(cache=cache, key=lambda _, key: key)
        async def price(self, key: str) -> str:
            return await fetch(key)

    shop = Shop()
    assert not cache.is_loading("a")
    async with anyio.create_task_group() as group:
        group.start_soon(fetch, "a")
        group.start_soon(fetch, "b")
        await anyio.sleep(0.5)
        with assert_no_checkpoints():
            for key in ("a", "b"):
                assert cache.is_loading(key)
                assert fetch.is_loading(key)
                assert shop.price.is_loading(key)
                assert not await cache.contains(key)
                assert key not in cache
                assert not fetch.contains_nowait(key)
        cache.delete_nowait("a")
        assert (cache.is_loading("a"), cache.is_loading("b")) == (False, True)
    assert (cache.is_loading("a"), cache.is_loading("b")) == (False, False)
    assert [*cache] == ["b"]
    cache.set_nowait("b", "old")
    async with anyio.create_task_group() as group:
        group.start_soon(fetch.refresh, "b")
        await anyio.sleep(0.5)
        assert cache.is_loading("b")
        assert "b" in cache
    with pytest.raises(TypeError, match=r"^key=\[\] cannot be hashed: "):
        cache.is_loading(UNHASHABLE)
    with pytest.raises(TypeError, match=r"^too many positional arguments$"):
        cached(answer_one).is_loading(1, 2)  # type: ignore[call-arg] # the point


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
    (lambda: anything_cached(ttl_for=3), r"ttl_for=3 is an int, which is not callable\. Pass a p"),
    (
        lambda: anything_cached(ttl_for=answer),
        r"ttl_for=<function answer .*> is an async function, .* Pass a plain function that takes",
    ),
    (
        lambda: anything_cached(ttl_for=lambda: 1)(answer_one),
        r"ttl_for=<function .*<lambda>\(_\): too many positional arguments\. Pass a plain funct",
    ),
    (
        lambda: anything_cached(ttl_for=lambda _: 1)(lambda a, *, b=0: a + b),
        r"ttl_for=<function .*<lambda>\(a, b=…\): got an unexpected keyword argument 'b'\. ",
    ),
    (
        lambda: anything_cached(ttl=lambda user, fresh: 1),  # noqa: ARG005 - it is not called
        r"ttl=<function .*<lambda>\(result\): missing a required argument: 'fresh'\. .* ttl_for=",
    ),
    (lambda: anything_cached(per_object=1), r"per_object=1 is an int, not a bool\. Pass True"),
    (lambda: anything_cached(bind=1), r"bind=1 is an int, not a bool\. Pass True or False\."),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_teach_the_right_form(mistake: Callable[[], object], message: str) -> None:
    """Options that cannot be are refused with what to write instead."""
    with pytest.raises(TypeError, match=f"^{message}"):
        mistake()


def test_signatures_that_cannot_be_known() -> None:
    """What may take anything is accepted, and so is anything for what may be given anything."""
    takes_anything: Any = dict
    for fn in (answer_one, answer, takes_anything):
        cached(ttl_for=takes_anything)(fn)
    for fn in (answer, takes_anything):
        cached(ttl_for=lambda: 1)(fn)


def test_two_ways_for_one_thing() -> None:
    """Two ways to make a key are one too many, and so are two to say how long it lasts."""
    with pytest.raises(ValueError, match=r"^ttl=5 and ttl_for=<function .* both say how long\. L"):
        cached(ttl=5, ttl_for=lambda: 5)
    with pytest.raises(ValueError, match=r"^bind=True is for the default keys, and key=<function "):
        cached(bind=True, key=lambda item: item)
