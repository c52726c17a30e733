"""`cached`: functions and methods whose results are kept, and what makes two calls one."""

from __future__ import annotations

import copy
import gc
import inspect
import math
import sys
import weakref
from functools import partial, partialmethod
from typing import Any, Optional, get_type_hints

import anyio
import pytest

from mtaio.cache import BoundCached, Cached, TTLCache, cached
from mtaio.cache._policy import POLICIES
from mtaio.statistics import CacheStatistics
from mtaio.testing import assert_no_checkpoints, assert_quiescent, settle
from mtaio.types import EvictionPolicy

UNHASHABLE: Any = []


class Asked:
    """Remembers the calls of the functions under test."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def __call__(self, *args: Any) -> str:
        """Answer, and number the answers."""
        self.calls.append(args)
        return f"answer {len(self.calls)}"


@pytest.fixture
def asked() -> Asked:
    """Return a fresh record of calls."""
    return Asked()


# Calls and keys.


async def test_equal_calls_are_one(asked: Asked) -> None:
    """The second call with the same arguments is a hit, and no checkpoint."""

    @cached
    async def fetch(number: int) -> str:
        return await asked(number)

    assert await fetch(1) == "answer 1"
    assert await fetch(2) == "answer 2"
    with assert_no_checkpoints():
        assert await fetch(1) == "answer 1"
    assert asked.calls == [(1,), (2,)]
    statistics = fetch.cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.loads) == (1, 2, 2)


async def test_calls_at_once_are_one_load(asked: Asked) -> None:
    """Ten tasks that make the same call at once share one."""

    @cached(ttl=60)
    async def fetch(number: int) -> str:
        await anyio.sleep(1)
        return await asked(number)

    answers: list[str] = []

    async def call() -> None:
        answers.append(await fetch(7))

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(call)
    assert answers == ["answer 1"] * 10
    assert anyio.current_time() == 1
    assert_quiescent(fetch.cache)


async def test_none_is_a_result(asked: Asked) -> None:
    """A function that returns None is not called again for that."""

    @cached
    async def fetch() -> None:
        await asked()

    assert await fetch() is None  # type: ignore[func-returns-value] # the point
    assert await fetch() is None  # type: ignore[func-returns-value] # the point
    assert asked.calls == [()]


async def test_order_of_keywords_does_not_matter(asked: Asked) -> None:
    """By name, arguments are the same call in any order; by position it is another one."""

    @cached
    async def fetch(a: int, b: int = 0, **more: int) -> str:
        return await asked(a, b, more)

    one = await fetch(a=1, b=2)
    assert await fetch(b=2, a=1) == one
    assert await fetch(1, x=1, y=2) == await fetch(1, y=2, x=1)
    assert len(asked.calls) == 2
    assert await fetch(1, 2) != one  # how it was called is the key, as for functools
    assert await fetch(1, b=2) != one
    assert len(asked.calls) == 4


async def test_arguments_are_not_mixed_up(asked: Asked) -> None:
    """A keyword is not taken for positional arguments that look like it."""

    @cached
    async def fetch(*args: Any, **kwargs: Any) -> str:
        return await asked(args, kwargs)

    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((), {}),
        ((1,), {}),
        (((1,),), {}),
        ((("a", 1),), {}),
        ((frozenset({("a", 1)}),), {}),
        ((), {"a": 1}),
        ((1,), {"a": 1}),
        (("a", 1), {}),
        ((None,), {}),
    ]
    answers = [await fetch(*args, **kwargs) for args, kwargs in calls]
    assert len(set(answers)) == len(calls)
    assert [await fetch(*args, **kwargs) for args, kwargs in calls] == answers
    assert len(asked.calls) == len(calls)
    assert await fetch(1.0) == answers[1]  # equal, hence one key, as in a dict


async def test_ttl(asked: Asked) -> None:
    """A result is kept for the time of the decorator, which may be 0 or without end."""

    @cached(ttl=2.5)
    async def short() -> str:
        return await asked("short")

    @cached(ttl=0)
    async def never() -> str:
        return await asked("never")

    @cached(ttl=math.inf)
    async def always() -> str:
        return await asked("always")

    @cached
    async def usual() -> str:
        return await asked("usual")

    assert await short() == await short()
    assert await never() != await never()
    first, ordinary = await always(), await usual()
    await anyio.sleep(2.25)
    assert await short() == "answer 1"
    await anyio.sleep(0.25)
    assert await short() == "answer 6"
    await anyio.sleep(297.25)
    assert await usual() == ordinary
    await anyio.sleep(0.25)
    assert await usual() != ordinary
    await anyio.sleep(10**9)
    assert await always() == first


def test_own_cache_has_the_ttl() -> None:
    """What is stored by hand in the function's own cache lives as long as its results."""

    async def fetch() -> str:
        return ""  # pragma: no cover - not called

    assert cached(ttl=math.inf)(fetch).cache.default_ttl == math.inf
    assert cached(ttl=5)(fetch).cache.default_ttl == 5
    assert cached(ttl=lambda _: 5)(fetch).cache.default_ttl == 300


async def test_max_size(asked: Asked) -> None:
    """The cache made here holds 1024 results, or as many as are asked for, or all."""

    @cached(max_size=2)
    async def two(number: int) -> str:
        return await asked(number)

    @cached(max_size=None)
    async def endless(number: int) -> str:
        return await asked(number)

    @cached
    async def usual(number: int) -> str:
        return await asked(number)

    for number in range(3000):
        await two(number)
        await endless(number)
        await usual(number)
    assert (len(two.cache), len(endless.cache), len(usual.cache)) == (2, 3000, 1024)
    assert two.cache.max_size == 2


async def test_key_decides_what_is_equal(asked: Asked) -> None:
    """With key= the call's key is what it returns; what it leaves out does not count."""

    @cached(key=lambda user, **_: user.lower())
    async def fetch(user: str, *, verbose: bool = False) -> str:
        return await asked(user, verbose)

    assert await fetch("Ann") == "answer 1"
    assert await fetch("ANN", verbose=True) == "answer 1"
    assert await fetch("bob") == "answer 2"
    assert await fetch.cache.get("ann") == "answer 1"
    assert fetch.invalidate_nowait("aNN")
    assert await fetch("ann") == "answer 3"


async def test_key_makes_unhashable_arguments_fit(asked: Asked) -> None:
    """Without key= what cannot be hashed is refused with the way out, and nothing is called."""

    @cached
    async def fetch(numbers: list[int]) -> str:
        return await asked(*numbers)

    @cached(key=tuple)
    async def better(numbers: list[int]) -> str:
        return await asked(*numbers)

    for call in (fetch, fetch.refresh):
        with pytest.raises(TypeError, match=r"^key=\(\[1\],\) cannot be hashed: .*\. Pass a key"):
            await call([1])
        with pytest.raises(TypeError, match=r"^key=\(\('numbers', \[1\]\),\) .*; for a cac"):
            await call(numbers=[1])
    with pytest.raises(TypeError, match=r"^key=\(\('numbers', \[1\]\),\) cannot be hashed: "):
        fetch.invalidate_nowait(numbers=[1])
    with pytest.raises(TypeError, match=r"^key=\(\[1\],\) cannot be hashed: "):
        fetch.invalidate_nowait([1])

    class Shop:
        @cached
        async def price(self, numbers: list[int]) -> str:
            return await asked(*numbers)

    with pytest.raises(TypeError, match=r"\[1\].* cannot be hashed: "):
        await Shop().price([1])
    assert asked.calls == []
    assert await better([1, 2]) == await better([1, 2])
    assert asked.calls == [(1, 2)]


async def test_key_that_fails_or_cannot_be_hashed(asked: Asked) -> None:
    """What key= raises goes to the caller as it is; what it returns has to be hashable."""

    def fails(number: int) -> int:
        msg = f"no key for {number}"
        raise LookupError(msg)

    @cached(key=fails)
    async def one(number: int) -> str:
        return await asked(number)

    @cached(key=lambda _: UNHASHABLE)
    async def other(number: int) -> str:
        return await asked(number)

    with pytest.raises(LookupError, match=r"^no key for 3$"):
        await one(3)
    with pytest.raises(LookupError, match=r"^no key for 3$"):
        one.invalidate_nowait(3)
    with pytest.raises(TypeError, match=r"^key=\[\] cannot be hashed: "):
        await other(3)
    assert asked.calls == []


async def test_wrong_arguments_are_the_function_s_affair(asked: Asked) -> None:
    """A call that the function does not take raises its own error, and leaves nothing behind."""

    @cached
    async def fetch(number: int) -> str:
        return await asked(number)

    with pytest.raises(TypeError, match=r"fetch\(\) missing 1 required positional argument"):
        await fetch()  # type: ignore[call-arg] # the point
    assert len(fetch.cache) == 0
    with pytest.raises(TypeError, match=r"missing a required argument: 'number'"):
        fetch.invalidate_nowait()  # type: ignore[call-arg] # the point
    with pytest.raises(TypeError, match=r"too many positional arguments"):
        fetch.invalidate_nowait(1, 2)  # type: ignore[call-arg] # the point
    assert_quiescent(fetch.cache)


# Recursion.


async def test_function_that_calls_itself(asked: Asked) -> None:
    """Recursion with other arguments works, with the same ones it is refused."""

    @cached
    async def factorial(number: int) -> int:
        await asked(number)
        return number * await factorial(number - 1) if number else 1

    @cached
    async def endless(number: int) -> int:
        return await endless(number)

    assert await factorial(5) == 120
    assert await factorial(6) == 720
    assert len(asked.calls) == 7
    with pytest.raises(RuntimeError, match=r"^the load of key=\(3,\) in <TTLCache .* asked for"):
        await endless(3)


# Invalidation and refresh.


async def test_invalidate_and_refresh(asked: Asked) -> None:
    """Invalidating is plain and says whether there was something; refreshing calls again."""

    @cached
    async def fetch(number: int, *, deep: bool = False) -> str:
        return await asked(number, deep)

    assert not fetch.invalidate_nowait(1)
    await fetch(1)
    await fetch(1, deep=True)
    assert fetch.invalidate_nowait(1)
    assert not fetch.invalidate_nowait(1)
    assert await fetch(1, deep=True) == "answer 2"
    assert await fetch.refresh(1, deep=True) == "answer 3"
    assert await fetch(1, deep=True) == "answer 3"
    assert await fetch.refresh(9) == "answer 4"
    assert await fetch(9) == "answer 4"


async def test_tags(asked: Asked) -> None:
    """Tags are fixed, or made of each call's arguments; invalidating one finds all its results."""
    cache: TTLCache[str] = TTLCache()

    @cached(cache=cache, tags=["users"])
    async def user(number: int) -> str:
        return await asked("user", number)

    @cached(cache=cache, tags=lambda number, *, page=0: {f"user {number}", f"page {page}"})
    async def posts(number: int, *, page: int = 0) -> str:
        return await asked("posts", number, page)

    await user(1)
    await user(2)
    await posts(1)
    await posts(1, page=1)
    await posts(2)
    assert cache.invalidate_tag_nowait("users") == 2
    assert cache.invalidate_tag_nowait("page 1") == 1
    assert cache.invalidate_tag_nowait("user 1") == 1
    assert len(cache) == 1
    await posts.refresh(2)
    assert cache.invalidate_tag_nowait("user 2") == 1


async def test_tags_are_made_for_loads_alone(asked: Asked) -> None:
    """A hit asks for no tags, and tags that fail go to the caller, with nothing called."""
    made: list[int] = []

    def tags(number: int) -> set[str]:
        made.append(number)
        if number == 13:
            msg = "unlucky"
            raise LookupError(msg)
        return {str(number)}

    @cached(tags=tags)
    async def fetch(number: int) -> str:
        return await asked(number)

    await fetch(1)
    await fetch(1)
    assert made == [1]
    with pytest.raises(LookupError, match=r"^unlucky$"):
        await fetch(13)
    assert asked.calls == [(1,)]
    assert_quiescent(fetch.cache)


# Caches that are given.


async def test_functions_that_share_a_cache_keep_apart(asked: Asked) -> None:
    """Without key= the function is part of its keys; with it, the keys are the cache's own."""
    cache: TTLCache[str] = TTLCache(10, max_size=100)

    @cached(cache=cache)
    async def one(number: int) -> str:
        return await asked("one", number)

    @cached(cache=cache)
    async def other(number: int) -> str:
        return await asked("other", number)

    @cached(cache=cache, key=lambda number: ("user", number))
    async def third(number: int) -> str:
        return await asked("third", number)

    cache.set_nowait((1,), "set")
    assert one.cache is other.cache is cache
    assert await one(1) == "answer 1"
    assert await other(1) == "answer 2"
    assert await third(1) == "answer 3"
    assert await cache.get(("user", 1)) == "answer 3"
    assert one.invalidate_nowait(1)
    assert await one(1) == "answer 4"
    assert await other(1) == "answer 2"
    assert await one(number=1) == "answer 5"
    assert await other(number=1) == "answer 6"
    assert await one(number=1) == "answer 5"
    await anyio.sleep(10)
    assert await one(1) == "answer 7"  # for the time of the cache, without one of its own


async def test_ttl_of_the_decorator_rules_over_that_of_the_cache(asked: Asked) -> None:
    """In a cache that is given, results live as long as the decorator says."""

    @cached(cache=TTLCache(1000), ttl=2)
    async def fetch() -> str:
        return await asked()

    await fetch()
    await anyio.sleep(2)
    assert await fetch() == "answer 2"


@pytest.mark.parametrize("policy", POLICIES)
async def test_every_policy(policy: EvictionPolicy, asked: Asked) -> None:
    """A hit is a hit and counts as a use, whichever way the policy has of reading."""

    @cached(cache=TTLCache(10, max_size=2, policy=policy))
    async def fetch(number: int) -> str:
        return await asked(number)

    await fetch(1)
    await fetch(2)
    for _ in range(2):
        assert await fetch(1) == "answer 1"
    await fetch(3)
    assert fetch.cache.statistics().hits == 2
    there = await fetch(1)
    assert (there == "answer 1") == (policy != "fifo")


async def test_stale_results_and_refreshes() -> None:
    """A given cache may serve what is stale while a call in the background renews it."""
    calls = 0

    @cached(cache=TTLCache(10, stale_while_revalidate=5))
    async def fetch(number: int) -> str:
        nonlocal calls
        calls += 1
        await anyio.sleep(1)
        return f"{number}: {calls}"

    async with fetch.cache:
        assert await fetch(7) == "7: 1"
        await anyio.sleep(10)
        with assert_no_checkpoints():
            assert await fetch(7) == "7: 1"
        await anyio.sleep(1)
        await settle()
        assert await fetch(7) == "7: 2"


# Methods.


class Shop:
    """Sells, and remembers who asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0

    @cached(ttl=60)
    async def price(self, item: str) -> str:
        """Ask for a price."""
        self.calls += 1
        return f"{item} at {self.name}: {self.calls}"

    @cached
    @staticmethod
    async def open_at(day: str) -> str:
        """Need no object."""
        COUNT.append(day)
        return f"nine on {day}"

    @cached
    @classmethod
    async def kind(cls, item: str) -> str:
        """Need the class alone."""
        COUNT.append(item)
        return f"{cls.__name__} for {item}, {len(COUNT)}"

    @staticmethod
    @cached
    async def below_static(day: str) -> str:
        """Be cached first, and static then."""
        return f"ten on {day}"

    @classmethod
    @cached
    async def below_class(cls, item: str) -> str:
        """Be cached first, and the class's then."""
        return f"{cls.__name__} sells {item}"


COUNT: list[str] = []
"""The calls of methods that need no object."""


async def test_methods_keep_their_objects_apart() -> None:
    """The results of a method belong to its object, by identity, also if objects are equal."""
    one, other = Shop("one"), Shop("other")
    assert await one.price("tea") == "tea at one: 1"
    assert await other.price("tea") == "tea at other: 1"
    assert await one.price("tea") == "tea at one: 1"
    assert one.price.invalidate_nowait("tea")
    assert not one.price.invalidate_nowait("tea")
    assert await one.price("tea") == "tea at one: 2"
    assert await other.price("tea") == "tea at other: 1"
    assert await one.price.refresh("tea") == "tea at one: 3"
    assert await one.price(item="tea") == "tea at one: 4"
    assert one.price.cache is other.price.cache is Shop.price.cache


async def test_static_and_class_methods() -> None:
    """Above staticmethod there is no object; above classmethod the class is it, each its own."""

    class Sub(Shop):
        pass

    shop: Any = Shop  # no type checker follows a classmethod that a decorator is given
    sub: Any = Sub
    COUNT.clear()
    Shop.open_at.cache.clear_nowait()
    Shop.kind.cache.clear_nowait()
    assert await shop.open_at("Monday") == await shop("one").open_at("Monday") == "nine on Monday"
    assert COUNT == ["Monday"]
    assert shop("one").open_at.invalidate_nowait("Monday")
    assert not Shop.open_at.invalidate_nowait("Monday")
    COUNT.clear()
    assert await shop.kind("tea") == "Shop for tea, 1"
    assert await sub.kind("tea") == "Sub for tea, 2"
    assert await sub("sub").kind("tea") == "Sub for tea, 2"
    assert sub.kind.invalidate_nowait("tea")
    assert not sub.kind.invalidate_nowait("tea")
    assert await shop("one").kind("tea") == "Shop for tea, 1"
    assert await sub.kind.refresh("tea") == "Sub for tea, 3"
    assert await sub.kind("tea") == "Sub for tea, 3"


async def test_below_static_and_class_methods() -> None:
    """The other order caches as well; what it has for the class it is told by being given it."""
    shop: Any = Shop  # no type says that a class method has been given its class
    assert await shop.below_static("Monday") == "ten on Monday"
    assert Shop.below_static.invalidate_nowait("Monday")
    assert await shop.below_class("tea") == "Shop sells tea"
    assert await shop("one").below_class("tea") == "Shop sells tea"
    # Since 3.13 a classmethod no longer binds what it is given, but makes a method of it.
    given = (Shop, "tea") if sys.version_info >= (3, 13) else ("tea",)
    assert shop.below_class.invalidate_nowait(*given)
    assert not shop.below_class.invalidate_nowait(*given)


async def test_objects_are_not_kept_alive() -> None:
    """An object dies when its last owner lets go, and its results go with the next call."""
    gc.collect()
    gc.disable()
    try:
        cache = Shop.price.cache
        cache.clear_nowait()
        shop, other = Shop("one"), Shop("other")
        await shop.price("tea")
        await shop.price("milk")
        await other.price("tea")
        there = weakref.ref(shop)
        del shop
        assert there() is None
        assert len(cache) == 3
        await other.price("tea")  # what asks may be an object that is known
        assert len(cache) == 1
        assert len(Shop.price._binding.owners._tokens) == 1
        assert await other.price("tea") == "tea at other: 1"
        third = Shop("third")
        await third.price("tea")
        await third.price.refresh("tea")
        del third
        await other.price("tea")
        assert len(cache) == 1
    finally:
        gc.enable()


async def test_object_that_takes_the_place_of_another_in_memory() -> None:
    """An object at the address of one that died is not served what the other was."""
    for number in range(50):
        shop = Shop(str(number))
        assert await shop.price("tea") == f"tea at {number}: 1"
        del shop


async def test_object_that_dies_during_its_call() -> None:
    """A call keeps its object alive as any call does, and ends well."""

    class Slow:
        @cached
        async def fetch(self) -> str:
            await anyio.sleep(1)
            return type(self).__name__

    async with anyio.create_task_group() as group:
        slow = Slow()
        there = weakref.ref(slow)
        group.start_soon(slow.fetch)
        del slow
        await anyio.sleep(0.5)
        assert there() is not None
    gc.collect()
    assert there() is None
    assert_quiescent(Slow.fetch.cache)


async def test_equal_and_unhashable_objects() -> None:
    """Identity counts: objects that are equal keep apart, ones without a hash are fine."""

    class Odd:
        def __init__(self, name: str) -> None:
            self.name = name

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment] # the point

        @cached
        async def who(self) -> str:
            return self.name

    one, other = Odd("one"), Odd("other")
    assert (await one.who(), await other.who(), await one.who()) == ("one", "other", "one")


async def test_objects_without_weak_references() -> None:
    """Slots without __weakref__ are refused with the way out; key= is one."""

    class Slotted:
        __slots__ = ("number",)

        def __init__(self, number: int) -> None:
            self.number = number

        @cached
        async def one(self) -> int:
            return self.number

        @cached(key=lambda self: self.number)
        async def other(self) -> int:
            return self.number

    message = r"^<cached <function .*one at .*>> cannot tell the objects of <class .* apart: cannot"
    with pytest.raises(TypeError, match=message):
        await Slotted(1).one()
    assert await Slotted(1).other() == await Slotted(1).other() == 1
    assert Slotted.other.cache.statistics().hits == 1


async def test_key_of_a_method_sees_its_object() -> None:
    """With key= the key is given self, and may let objects share."""
    calls: list[str] = []

    class User:
        def __init__(self, number: int) -> None:
            self.number = number

        @cached(key=lambda self, what: (self.number, what), tags=lambda self, _: [self.number])
        async def read(self, what: str) -> str:
            calls.append(what)
            return f"{what} of {self.number}"

    for _ in range(3):  # each of them dies at once
        assert await User(1).read("mail") == "mail of 1"
    assert await User(2).read("mail") == "mail of 2"
    assert calls == ["mail", "mail"]
    assert User.read.cache.invalidate_tag_nowait(1) == 1
    assert User(2).read.invalidate_nowait("mail")


async def test_whether_objects_share() -> None:
    """``per_object`` says whether a method keeps its objects apart, with ``key`` and without."""

    def lower(_: object, item: str) -> str:
        return item.lower()

    class Shared:
        @cached(per_object=False)
        async def all_alike(self, item: str, *, count: int = 1) -> object:
            return [item, count]

        @cached(per_object=False, bind=True, cache=TTLCache())
        async def bound(self, item: str, *, count: int = 1) -> object:
            return [item, count]

        @cached(key=lower)
        async def by_key(self, item: str) -> object:
            return [item]

        @cached(key=lower, per_object=True)
        async def apart(self, item: str) -> object:
            return [item]

    one, other = Shared(), Shared()
    for shared in (one.all_alike, one.bound):
        first = await shared("tea", count=2)
        again = other.all_alike if shared == one.all_alike else other.bound
        assert await again("tea", count=2) is first
        assert again.contains_nowait("tea", count=2)
        assert await again("milk") is not first
    assert await other.bound(count=1, item="milk") is await one.bound("milk")
    assert await one.by_key("Tea") is await other.by_key("tea")
    first = await one.apart("Tea")
    assert await one.apart("tea") is first
    assert await other.apart("tea") is not first
    assert one.apart.invalidate_nowait("TEA")
    assert other.apart.contains_nowait("TEA")
    assert await other.apart.refresh("TEA") is await other.apart("tea")
    del one
    gc.collect()
    await other.apart("milk")
    assert len(Shared.apart.cache) == 2


async def test_partialmethods() -> None:
    """A partialmethod can be cached, and, but for Python 3.13, a cached method can be one's."""

    class Part:
        async def plain(self, item: str, count: int = 1, *, deep: bool = False) -> list[object]:
            """Return something new."""
            return [self, item, count, deep]

        def at_once(self, item: str, count: int = 1) -> list[object]:
            return [self, item, count]

        tea = cached(partialmethod(plain, "tea", deep=True))
        milk = cached(ttl=5)(partialmethod(at_once, "milk"))
        cached = cached(plain)
        water = partialmethod(cached, "water")

    one, other = Part(), Part()
    first = await one.tea(2)
    assert first == [one, "tea", 2, True]
    assert await one.tea(2) is first
    assert await other.tea(2) == [other, "tea", 2, True]
    assert one.tea.contains_nowait(2)
    assert await one.tea(deep=False) == [one, "tea", 1, False]
    assert one.milk(2) is one.milk(2)
    assert other.milk(2) == [other, "milk", 2]
    if sys.version_info[:2] != (3, 13):  # which binds no partial, and a cached function is one
        assert await one.water() is await one.water() is await one.cached("water")
    assert await other.water(count=3) == [other, "water", 3, False]
    tea: Any = one.tea
    assert (
        str(inspect.signature(tea))
        == "(count: 'int' = 1, *, deep: 'bool' = True) -> 'list[object]'"
    )
    assert str(inspect.signature(Part.tea)).startswith("(self, /, count: 'int' = 1, *")
    assert inspect.iscoroutinefunction(tea)
    assert tea.__doc__ == "Return something new."
    with pytest.raises(TypeError, match=r"^too many positional arguments$"):
        one.tea.contains_nowait(1, 2)
    with pytest.raises(AttributeError, match=r"no attribute 'partialmethod\("):
        copy.copy(tea)  # by its name, which the function has not


async def test_method_of_the_class_above() -> None:
    """An overriding method calls the one above on super(), for the same object."""

    class Sub(Shop):
        @cached
        async def price(self, item: str) -> str:
            return f"only {await super().price(item)}"

    sub = Sub("sub")
    assert await sub.price("tea") == "only tea at sub: 1"
    assert await super(Sub, sub).price("tea") == "tea at sub: 1"


async def test_function_that_is_kept_in_a_class(asked: Asked) -> None:
    """What a class has and is called without an object is a function like any other."""

    @cached
    async def fetch(number: int) -> str:
        return await asked(number)

    class Settings:
        source = fetch

    assert await Settings.source(3) == await fetch(3) == "answer 1"
    assert Settings.source.invalidate_nowait(3)
    assert not fetch.invalidate_nowait(3)
    assert await Settings.source.refresh(3) == "answer 2"
    assert await fetch(3) == "answer 2"
    with pytest.raises(TypeError, match=r"fetch\(\) missing 1 required positional argument"):
        await Settings.source()  # type: ignore[call-arg] # the point


async def test_functions_that_are_kept_in_a_class_and_share_a_cache() -> None:
    """They keep apart as others do, and are found by their own keys."""
    cache: TTLCache[str] = TTLCache()

    class Settings:
        @cached(cache=cache)
        async def one(number: int) -> str:  # noqa: N805 - no method
            return f"one {number}"

        @cached(cache=cache)
        async def other(number: int) -> str:  # noqa: N805 - no method
            return f"other {number}"

    fetch: Any = Settings
    for _ in range(2):
        assert (await fetch.one(1), await fetch.other(1)) == ("one 1", "other 1")
    assert len(cache) == 2
    assert fetch.other.invalidate_nowait(1)
    assert len(cache) == 1


async def test_key_of_a_method_called_on_its_class() -> None:
    """With key= both ways of calling have the key that it returns."""
    calls: list[str] = []

    class User:
        def __init__(self, number: int) -> None:
            self.number = number

        @cached(key=lambda self: self.number)
        async def name(self) -> str:
            calls.append("called")
            return f"user {self.number}"

    assert await User.name(User(1)) == await User(1).name() == "user 1"
    assert calls == ["called"]


async def test_methods_that_share_a_cache() -> None:
    """Two methods of one object in one cache keep apart."""
    cache: TTLCache[str] = TTLCache()

    class Two:
        @cached(cache=cache)
        async def one(self, number: int) -> str:
            return f"one {number}"

        @cached(cache=cache)
        async def other(self, number: int) -> str:
            return f"other {number}"

    two = Two()
    assert (await two.one(1), await two.other(1)) == ("one 1", "other 1")
    assert (await two.one(1), await two.other(1)) == ("one 1", "other 1")
    assert len(cache) == 2


async def test_methods_of_subclasses() -> None:
    """A method that is overridden and calls the one above keeps apart from it."""

    class Sub(Shop):
        @cached
        async def price(self, item: str) -> str:
            return f"only {await super().price(item)}"

    sub = Sub("sub")
    assert await sub.price("tea") == "only tea at sub: 1"
    assert await sub.price("tea") == "only tea at sub: 1"
    assert sub.calls == 1


# What it looks like.

RETURN = {"return": float}


async def test_looks_like_the_function() -> None:
    """Name, docstring, signature and attributes are the function's; it says what it is."""

    @cached
    async def fetch(number: int, *, deep: bool = False) -> str:
        """Fetch it."""
        return f"{number} {deep}"

    assert (fetch.__dict__["__name__"], fetch.__doc__, fetch.__module__) == (
        "fetch",
        "Fetch it.",
        __name__,
    )
    assert str(inspect.signature(fetch)) == "(number: 'int', *, deep: 'bool' = False) -> 'str'"
    assert isinstance(fetch, Cached)
    assert repr(fetch).startswith("<cached <function test_looks_like_the_function.<locals>.fetch")
    shop = Shop("one")
    assert isinstance(shop.price, BoundCached)
    assert shop.price.__self__ is shop
    assert repr(shop.price).startswith("<cached <function Shop.price at 0x")
    assert isinstance(Shop.price, Cached)
    await shop.price("tea")
    assert any("<a Shop>" in repr(key) for key in Shop.price.cache)
    await fetch(1, deep=True)
    assert [repr(key) for key in fetch.cache] == ["(1, **, frozenset({('deep', True)}))"]


async def test_is_a_coroutine_function() -> None:
    """Frameworks that look take it for what it is."""
    assert inspect.iscoroutinefunction(Shop.price)
    assert [*inspect.signature(Shop.price).parameters] == ["self", "item"]


class Till(Shop):
    """Has a method with annotations, and one of the same name that is not cached."""

    @cached
    async def total(self, item: str, qty: int = 1) -> float:
        """Return the total."""
        return float(len(item) * qty)

    async def plain(self, item: str, qty: int = 1) -> float:
        """Return the total."""
        return float(len(item) * qty)

    @classmethod
    async def of_class(cls, item: str) -> float:
        """Return what the class asks."""
        return float(len(item))

    of_class_cached = cached(of_class)


async def test_bound_method_looks_like_the_method() -> None:
    """Name, docstring, signature and annotations are the method's, as frameworks read them."""
    till = Till("one")
    total, plain = till.total, till.plain
    assert str(inspect.signature(total)) == str(inspect.signature(plain))
    assert get_type_hints(total) == get_type_hints(plain) == {"item": str, "qty": int} | RETURN
    look: Any = total
    assert look.__name__ == "total"
    assert look.__qualname__ == "Till.total"
    assert look.__module__ == __name__
    assert look.__doc__ == inspect.getdoc(total) == "Return the total."
    assert look.__annotations__ == plain.__annotations__
    assert look.__func__ is Till.total
    assert inspect.unwrap(look).__globals__ is plain.__globals__
    assert inspect.iscoroutinefunction(total)
    assert inspect.iscoroutinefunction(partial(total, "tea"))
    assert await total("tea", qty=2) == await partial(total, "tea")(qty=2) == 6.0
    of_class: Any = till.of_class_cached
    assert [*inspect.signature(of_class).parameters] == ["item"]
    assert await of_class("tea") == 3.0
    coroutine = look("tea")
    assert coroutine.__qualname__ == "Till.total"  # also where it is never awaited
    assert await coroutine == 3.0


async def test_annotations_are_the_functions() -> None:
    """A cached function that is not bound has the annotations of the function, too."""
    look: Any = Till.total
    assert look.__annotations__ == Till.plain.__annotations__
    assert get_type_hints(look) == get_type_hints(Till.plain)
    for each in (type(look), type(Till("one").total)):
        assert each.__annotations__ == get_type_hints(each) == {}


async def test_bound_method_stays_bound() -> None:
    """As an attribute of another class, a bound method has the object that it had."""

    class Other:
        total = Till("one").total

    assert Other().total == Other.total
    assert await Other().total("tea", qty=2) == 6.0


async def test_bound_methods_are_equal() -> None:
    """A method of an object is the same each time; of equal objects there are two."""

    class Equal(Till):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    one, other = Equal("one"), Equal("other")
    assert one.total == one.total
    assert hash(one.total) == hash(one.total)
    assert len({one.total, one.total, other.total, one.price}) == 3
    assert one.total != other.total
    assert one.total != one.price
    assert one.total != one.plain
    assert weakref.WeakMethod(one.total)() == one.total


def test_types_can_be_named_while_a_program_runs() -> None:
    """What looks at annotations can compare them, and is told of wrong ones."""
    kind: Any = Cached
    assert Optional[kind[[int], str]] == Optional[kind[[int], str]]  # noqa: UP045 - it takes the hash
    assert Optional[kind[[int], str]] != Optional[kind[[str], str]]  # noqa: UP045 - as above
    with pytest.raises(TypeError, match="Too few arguments"):
        kind[int]


async def test_what_looks_through_it_finds_the_name_of_the_function(asked: Asked) -> None:
    """Such as Trio, which names the task of a partial after what that calls."""

    @cached
    async def fetch() -> str:
        return await asked()

    call: Any = fetch
    assert call.func.__qualname__ == call.__qualname__
    coroutine = call()
    assert coroutine.__name__ == "fetch"  # also where it is never awaited
    assert await coroutine == "answer 1"


async def test_partial_functions_and_nested_decorators(asked: Asked) -> None:
    """A partial of an async function is cached like one; one cached twice is cached."""

    async def fetch(who: str, number: int) -> str:
        return await asked(who, number)

    bound = cached(partial(fetch, "me"))
    assert await bound(1) == await bound(1) == "answer 1"


# Statistics.


async def test_statistics(asked: Asked) -> None:
    """They are those of the cache: reads, calls, time, failures, and what went."""

    @cached(ttl=5, max_size=2)
    async def fetch(number: int) -> str:
        await anyio.sleep(0.5)
        if number < 0:
            raise LookupError
        return await asked(number)

    for number in (1, 2, 1, 3, 1):
        await fetch(number)
    with pytest.raises(LookupError):
        await fetch(-1)
    assert fetch.cache.statistics() == CacheStatistics(
        size=2,
        weight=2,
        max_size=2,
        hits=1,
        misses=5,
        hit_rate=1 / 6,
        loads=5,
        failed=1,
        cancelled=0,
        served_stale=0,
        load_seconds=2.5,
        in_flight=0,
        waiting=0,
        evictions=2,
        expirations=0,
        dropped=0,
    )


# Bad input.


async def answer() -> str:
    """Return something."""
    return "answer"


anything: Any = cached
"""`cached`, called as no type checker lets one."""

REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: anything(3), TypeError, r"^@cached cannot decorate 3: it is not a function\. Write"),
    (
        lambda: anything(ttl=1)(staticmethod(UNHASHABLE)),
        TypeError,
        r"^@cached cannot decorate <staticmethod.*: it is not a function\. .* options are named,",
    ),
    (lambda: anything(ttl=-1), ValueError, r"^ttl=-1 is less than 0\. Pass seconds >= 0, math\."),
    (lambda: anything(ttl=math.nan), ValueError, r"^ttl=nan is not a number\. "),
    (lambda: anything(ttl="1"), TypeError, r"^ttl='1' is a str, not a number\. "),
    (lambda: anything(ttl=None), TypeError, r"^ttl=None is a NoneType, .* or leave it out for the"),
    (
        lambda: anything(max_size=0)(answer),
        ValueError,
        r"^max_size=0 is less than 1",
    ),
    (lambda: anything(max_size=2.5)(answer), TypeError, r"^max_size=2\.5 is a float, "),
    (
        lambda: anything(key="user"),
        TypeError,
        r"^key='user' is a str, which is not callable\. Pass",
    ),
    (
        lambda: anything(tags="user"),
        TypeError,
        r"^tags='user' is a str, not a set of tags\. Pass ",
    ),
    (lambda: anything(tags=b"user"), TypeError, r"^tags=b'user' is a bytes, not a set of tags\. "),
    (lambda: anything(tags=3), TypeError, r"^tags=3 is an int, not a set of tags\. Pass a set"),
    (lambda: anything(tags=[[]]), TypeError, r"^tags=\[\[\]\] is not a set of hashable tags: "),
    (
        lambda: anything(cache={}),
        TypeError,
        r"^cache=\{\} is a dict, not a TTLCache\. Pass one",
    ),
    (
        lambda: anything(cache=TTLCache(), max_size=3),
        ValueError,
        r"^max_size=3 is for a cache made here\. Pass it to the TTLCache instead\.$",
    ),
]


@pytest.mark.parametrize(("make", "kind", "message"), REFUSED, ids=range(len(REFUSED)))
def test_bad_arguments(make: Any, kind: type[Exception], message: str) -> None:
    """A mistake is named where the function is decorated."""
    with pytest.raises(kind, match=message):
        make()
