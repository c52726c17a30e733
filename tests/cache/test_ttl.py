"""What TTLCache does with memory alone: every operation, every limit, every refusal."""

from __future__ import annotations

import copy
import gc
import inspect
import math
import pickle
import weakref
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_type_hints

import anyio
import pytest

from mtaio._internal import loops
from mtaio.cache import BoundCached, Cached, RemovalCause, TTLCache, cached
from mtaio.cache._policy import POLICIES
from mtaio.statistics import CacheStatistics
from mtaio.testing import assert_no_checkpoints, assert_quiescent, run, settle
from mtaio.types import EvictionPolicy
from tests.backends import BACKENDS
from tests.cache.whole import assert_whole
from tests.clocks import by_hand

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_set_and_get() -> None:
    """A value is there until its time is over, to the moment."""
    cache: TTLCache[str] = TTLCache(10)
    await cache.set("key", "value")
    await cache.set("short", "value", 2.5)
    await cache.set("none", None)  # type: ignore[arg-type] # None is a value like any other
    assert await cache.get("key") == "value"
    assert await cache.get("missing") is None
    assert await cache.get("missing", 7) == 7
    assert await cache.get("none", 7) is None
    await anyio.sleep(2.25)
    assert await cache.get("short") == "value"
    await anyio.sleep(0.25)
    assert await cache.get("short") is None
    assert await cache.get("key") == "value"
    await anyio.sleep(7.5)
    assert await cache.get("key") is None
    assert len(cache) == 1  # what was not asked for was not looked at
    assert cache.statistics().expirations == 2


async def test_every_operation_has_a_plain_twin() -> None:
    """No async operation on memory is a checkpoint, and each does what its twin does."""
    one: TTLCache[int] = TTLCache(10)
    other: TTLCache[int] = TTLCache(10)
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("set", ("a", 1), {"tags": {"t"}}),
        ("set", ("b", 2, 5), {}),
        ("set_many", ({"c": 3, "d": 4},), {"ttl": 3, "tags": {"t"}}),
        ("get", ("a",), {}),
        ("get", ("x", 5), {}),
        ("get_many", (["a", "x", "c"],), {}),
        ("contains", ("a",), {}),
        ("contains", ("x",), {}),
        ("touch", ("c", 9), {}),
        ("touch", ("x",), {}),
        ("increment", ("a", 4), {}),
        ("increment", ("x",), {"ttl": 2}),
        ("delete", ("x",), {}),
        ("delete", ("a",), {}),
        ("delete", ("a",), {}),
        ("delete_many", (["b", "x"],), {}),
        ("invalidate_tag", ("t",), {}),
        ("invalidate_tag", ("t",), {}),
        ("set", ("a", 1), {}),
        ("clear", (), {}),
    ]
    for name, args, kwargs in calls:
        with assert_no_checkpoints():
            waited = await getattr(one, name)(*args, **kwargs)
            assert await one.contains("a") == ("a" in one)
        assert waited == getattr(other, f"{name}_nowait")(*args, **kwargs)
        assert one.items() == other.items()
        assert one.statistics() == other.statistics()
    names = {name for name, _ in inspect.getmembers(TTLCache, inspect.isfunction)}
    twins = {name for name in names if f"{name}_nowait" in names}
    assert twins == {name for name, _, _ in calls}


def test_works_without_an_event_loop() -> None:
    """From synchronous code, in real time."""
    cache: TTLCache[int] = TTLCache(10)
    cache.set_nowait("key", 1)
    assert cache.get_nowait("key") == 1
    assert "key" in cache
    assert [*cache] == ["key"]
    assert cache.delete_nowait("key")


async def test_ttl_of_zero_is_over_already() -> None:
    """A ttl of 0 means what it says, not the default; what was there goes."""
    heard: list[tuple[object, ...]] = []
    cache: TTLCache[int] = TTLCache(10, on_removed=lambda *removal: heard.append(removal))
    cache.set_nowait("key", 1)
    cache.set_nowait("key", 2, 0)
    cache.set_nowait("new", 3, 0)
    assert len(cache) == 0
    assert heard == [
        ("key", 1, RemovalCause.REPLACED),
        ("key", 2, RemovalCause.EXPIRED),
        ("new", 3, RemovalCause.EXPIRED),
    ]
    nothing: TTLCache[int] = TTLCache(0)
    nothing.set_nowait("key", 1)
    assert "key" not in nothing
    assert cache.statistics().expirations == 2


async def test_ttl_of_infinity_never_ends() -> None:
    """With math.inf a value stays; given a finite time later, it goes."""
    cache: TTLCache[int] = TTLCache(math.inf)
    cache.set_nowait("one", 1)
    cache.set_nowait("other", 2, 5)
    assert cache.touch_nowait("other")
    await anyio.sleep(10**9)
    assert cache.get_nowait("one") == 1
    assert cache.get_nowait("other") == 2
    cache.touch_nowait("one", 1)
    await anyio.sleep(1)
    assert "one" not in cache
    cache.set_nowait("third", 3)
    assert len(cache) == 2 or cache.get_nowait("one") is None


async def test_increment() -> None:
    """A count keeps its time and its tags; without a value it begins at 0, with a time."""
    cache: TTLCache[int] = TTLCache(10)
    assert cache.increment_nowait("key", 3, ttl=2) == 3
    await anyio.sleep(1)
    cache.set_nowait("tagged", 1, tags={"tag"})
    assert [cache.increment_nowait(key, -1) for key in ("key", "tagged", "new")] == [2, 0, -1]
    await anyio.sleep(1)
    assert [*cache] == ["tagged", "new"]
    assert cache.increment_nowait("key") == 1
    assert cache.invalidate_tag_nowait("tag") == 1
    await anyio.sleep(9)
    assert dict(cache.items()) == {"key": 1}
    await anyio.sleep(1)
    assert [*cache] == []
    assert cache.increment_nowait("never", ttl=0) == 1
    assert [*cache] == []


def test_increment_of_what_is_no_count() -> None:
    """It is refused, and nothing has changed."""
    cache: TTLCache[Any] = TTLCache(10)
    for value in ("1", 1.5, True, None):
        cache.set_nowait("key", value)
        with pytest.raises(ValueError, match=r"^key='key' has the value .*, not an int\. Set it f"):
            cache.increment_nowait("key")
        assert cache.get_nowait("key") is value
    for by in (1.5, True, "1"):
        with pytest.raises(
            TypeError, match=r"^by=.*, not an int\. Pass how much to add, as an int"
        ):
            cache.increment_nowait("new", by)  # type: ignore[arg-type] # the point
    assert "new" not in cache


@pytest.mark.parametrize("change", [None, "set", "delete"])
def test_increment_of_what_changes_meanwhile(change: str | None) -> None:
    """No change of others is lost, though they may come between reading and storing."""
    changes = [change]

    def weigh(key: str, value: int) -> float:
        if changes and key == "key" and value != 10:
            if changes.pop() == "set":
                cache.set_nowait("key", 10)
            elif change == "delete":
                cache.delete_nowait("key")
        return 1

    cache: TTLCache[int] = TTLCache(10, weigher=weigh)
    cache.set_nowait("key", 10)
    assert cache.increment_nowait("key", 5) == (5 if change == "delete" else 15)
    changes[:] = [change]
    assert cache.increment_nowait("key", 5) == cache.get_nowait("key")
    assert_whole(cache)


def test_increment_of_what_has_a_weight() -> None:
    """A count that has grown takes the room of others; one that is too heavy is not kept."""
    gone: list[tuple[object, int, str]] = []
    cache: TTLCache[int] = TTLCache(
        10,
        max_size=10,
        policy="fifo",
        weigher=lambda _, value: value,
        on_removed=lambda *removal: gone.append(removal),
    )
    cache.set_many_nowait({"a": 3, "b": 3, "c": 3})
    assert cache.increment_nowait("b", 4) == 7
    assert dict(cache.items()) == {"b": 7, "c": 3}
    assert cache.increment_nowait("b", 4) == 11
    assert dict(cache.items()) == {"c": 3}
    assert gone == [
        ("b", 3, "replaced"),
        ("a", 3, "evicted"),
        ("b", 7, "replaced"),
        ("b", 11, "evicted"),
    ]
    assert_whole(cache)


async def test_increment_restarts_the_idle_time() -> None:
    """It is a use, though it counts as no read."""
    cache: TTLCache[int] = TTLCache(10, idle_ttl=2)
    for number in range(1, 7):
        assert cache.increment_nowait("key") == number
        await anyio.sleep(1.75)
    assert cache.increment_nowait("key") == 1  # its time was over at 10
    assert cache.statistics().hits == 0


async def test_increment_during_a_load() -> None:
    """What is loaded meanwhile is not stored."""
    cache: TTLCache[int] = TTLCache(10)

    async def load() -> int:
        await anyio.sleep(1)
        return 100

    for expected in (1, 2):
        async with anyio.create_task_group() as group:
            group.start_soon(cache.refresh, "key", load)
            await anyio.sleep(0.5)
            assert await cache.increment("key") == expected
    assert cache.get_nowait("key") == 2


async def test_touch() -> None:
    """Touching restarts the time, longer or shorter; what is gone cannot be touched."""
    cache: TTLCache[int] = TTLCache(4)
    cache.set_nowait("key", 1)
    await anyio.sleep(3)
    assert cache.touch_nowait("key")
    await anyio.sleep(3)
    assert cache.get_nowait("key") == 1
    assert cache.touch_nowait("key", 0.5)
    await anyio.sleep(0.5)
    assert not cache.touch_nowait("key")
    cache.set_nowait("key", 2)
    assert cache.touch_nowait("key", 0)
    assert "key" not in cache
    assert len(cache) == 0


async def test_tags() -> None:
    """A tag finds what carries it now, not what carried it once."""
    cache: TTLCache[int] = TTLCache(10, max_size=3, policy="fifo")
    cache.set_nowait("one", 1, tags=["a", "b"])
    cache.set_nowait("two", 2, tags=["a"])
    cache.set_nowait("three", 3)
    cache.set_nowait("one", 1, tags=["b"])
    assert cache.invalidate_tag_nowait("a") == 1
    assert [*cache] == ["one", "three"]
    cache.set_nowait("one", 1)
    assert cache.invalidate_tag_nowait("b") == 0
    cache.set_nowait("two", 2, tags=["a"])
    for number in range(3):
        cache.set_nowait(number, number)  # evicts all of them
    assert cache.invalidate_tag_nowait("a") == 0
    assert not cache._store._tags._by_name
    assert not cache._store._tags.of_entries
    for number in range(3, 9):
        cache.set_nowait(number, number, tags=["a", number])
    assert cache.invalidate_tag_nowait("a") == 3
    assert not cache._store._tags._by_name
    assert not cache._store._tags.of_entries
    cache.set_nowait("one", 1, tags=["a"])
    cache.clear_nowait()
    assert not cache._store._tags._by_name
    assert not cache._store._tags.of_entries


async def test_expired_values_do_not_count() -> None:
    """What has expired but has not been looked at is not a value for any operation."""
    cache: TTLCache[int] = TTLCache(10)
    cache.set_many_nowait({"a": 1, "b": 2, "c": 3}, 0.25, tags=["t"])
    await anyio.sleep(0.25)  # its second is not over, so nothing has removed it
    assert len(cache) == 3
    assert "a" not in cache
    assert [*cache] == []
    assert cache.items() == []
    assert cache.get_many_nowait([*"abc"]) == {}
    assert not cache.delete_nowait("a")
    assert cache.delete_many_nowait(["b"]) == 0
    cache.set_nowait("c", 4, 0.25, tags=["t"])
    await anyio.sleep(0.25)
    assert cache.invalidate_tag_nowait("t") == 0
    assert len(cache) == 0


async def test_overwriting_what_has_expired_reports_that() -> None:
    """A value whose time is over when another comes has expired, not been replaced."""
    heard: list[RemovalCause] = []
    cache: TTLCache[int] = TTLCache(10, on_removed=lambda *removal: heard.append(removal[2]))
    cache.set_nowait("key", 1, 0.25)
    await anyio.sleep(0.25)
    cache.set_nowait("key", 2, 0.25)
    await anyio.sleep(0.25)
    assert not cache.delete_nowait("key")
    assert heard == [RemovalCause.EXPIRED, RemovalCause.EXPIRED]
    assert cache.statistics().expirations == 2


async def test_expired_values_go_before_others_are_evicted() -> None:
    """At the limit, what has expired makes room."""
    cache: TTLCache[int] = TTLCache(10, max_size=3)
    cache.set_nowait("old", 0, 100)
    cache.set_nowait("a", 1, 0.5)
    cache.set_nowait("b", 2, 0.5)
    await anyio.sleep(1)
    cache.set_nowait("c", 3)
    cache.set_nowait("d", 4)
    assert [*cache] == ["old", "c", "d"]
    assert cache.statistics().evictions == 0


@pytest.mark.parametrize("way", ["new", "heavier"])
@pytest.mark.parametrize("policy", POLICIES)
async def test_expired_values_go_before_others_make_room_for_a_heavy_one(
    policy: EvictionPolicy, way: str
) -> None:
    """As many as it takes, so that none goes whose time is not over."""
    cache: TTLCache[int] = TTLCache(
        math.inf, max_size=20, policy=policy, weigher=lambda _key, weight: weight
    )
    cache.set_nowait("stays", 9)
    cache.set_many_nowait(dict.fromkeys(range(10), 1), 1)
    cache.set_nowait("heavy", 1)
    await anyio.sleep(5)
    if way == "new":
        cache.delete_nowait("heavy")
    cache.set_nowait("heavy", 11)
    assert cache.items() == [("stays", 9), ("heavy", 11)]
    statistics = cache.statistics()
    assert (statistics.evictions, statistics.expirations, statistics.weight) == (0, 10, 20)
    assert_whole(cache)


async def test_looking_for_expired_values_in_favour_of_a_heavy_one_is_bounded() -> None:
    """Values that live longer than they were filed for are passed over, but not all of them."""
    cache: TTLCache[int] = TTLCache(
        math.inf, max_size=20, policy="fifo", weigher=lambda _key, weight: weight
    )
    cache.set_many_nowait(dict.fromkeys(range(10), 1), 1)
    for number in range(10):
        assert cache.touch_nowait(number, 100)
    await anyio.sleep(5)
    cache.set_nowait("heavy", 15)
    assert [*cache] == [5, 6, 7, 8, 9, "heavy"]
    assert (cache.statistics().evictions, cache.statistics().expirations) == (5, 0)
    assert cache._store.expiry.due <= anyio.current_time()  # there is more to look at
    assert_whole(cache)


@pytest.mark.parametrize("policy", POLICIES)
async def test_never_more_than_max_size(policy: EvictionPolicy) -> None:
    """Whatever is set, no more is held than there is room for."""
    cache: TTLCache[int] = TTLCache(10, max_size=7, policy=policy)
    for number in range(100):
        cache.set_nowait(number, number)
        assert len(cache) <= 7
    assert cache.statistics().evictions == 93
    assert cache.get_nowait(99) == 99
    assert cache.policy is policy


async def test_weights() -> None:
    """With a weigher it is the weights that count; what is too heavy is not kept."""
    heard: list[tuple[object, ...]] = []
    cache: TTLCache[str] = TTLCache(
        10,
        max_size=10,
        policy="lru",
        weigher=lambda _, value: len(value),
        on_removed=lambda *removal: heard.append(removal),
    )
    cache.set_nowait("a", "aaaa")
    cache.set_nowait("b", "bbbb")
    assert cache.statistics().weight == 8
    cache.set_nowait("c", "cccc")
    assert heard == [("a", "aaaa", RemovalCause.EVICTED)]
    cache.set_nowait("b", "bbbbbbb")
    assert heard[1:] == [
        ("b", "bbbb", RemovalCause.REPLACED),
        ("c", "cccc", RemovalCause.EVICTED),
    ]
    cache.set_nowait("b", "b" * 11)
    assert heard[3:] == [
        ("b", "bbbbbbb", RemovalCause.REPLACED),
        ("b", "b" * 11, RemovalCause.EVICTED),
    ]
    cache.set_nowait("empty", "")
    statistics = cache.statistics()
    assert (statistics.weight, statistics.size, statistics.evictions) == (0, 1, 3)
    cache.clear_nowait()
    assert cache.statistics().weight == 0


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_value_that_grows_makes_others_go(policy: EvictionPolicy) -> None:
    """Whatever the policy thinks of its key: what was stored just now is there."""
    gone: list[tuple[str, int, RemovalCause]] = []
    cache: TTLCache[int] = TTLCache(
        10,
        max_size=10,
        policy=policy,
        weigher=lambda _key, weight: weight,
        on_removed=lambda *removal: gone.append(removal),
    )
    cache.set_nowait("grows", 1)
    for key in ("one", "two", "three"):
        cache.set_nowait(key, 3)
        for _ in range(5):
            assert cache.get_nowait(key) == 3
    for weight in range(2, 11):
        cache.set_nowait("grows", weight)
        assert cache.get_nowait("grows") == weight
        assert_whole(cache)
    assert cache.items() == [("grows", 10)]
    evicted = [key for key, _, cause in gone if cause is RemovalCause.EVICTED]
    assert evicted == ["one", "two", "three"]
    cache.set_nowait("other", 1)
    assert cache.items() == [("other", 1)]
    assert_whole(cache)


async def test_weights_add_up_to_nothing() -> None:
    """When nothing is held, nothing is weighed, whatever floats make of the sums before."""
    cache: TTLCache[float] = TTLCache(10, weigher=lambda _, value: value)
    for number in range(1000):
        cache.set_nowait(number, 0.1 * (number % 7))
    assert cache.statistics().weight > 100
    for number in range(1000):
        assert cache.delete_nowait(number)
    assert cache.statistics().weight == 0


async def test_idle_ttl() -> None:
    """What is not read goes before its time; reading keeps it, but not beyond its time."""
    cache: TTLCache[int] = TTLCache(10, idle_ttl=3)
    cache.set_nowait("read", 1)
    cache.set_nowait("unread", 2)
    for _ in range(4):
        await anyio.sleep(2)
        assert cache.get_nowait("read") == 1
    assert "unread" not in cache
    await anyio.sleep(2)
    assert cache.get_nowait("read") is None
    cache.set_nowait("looked at", 1)
    await anyio.sleep(2)
    assert "looked at" in cache
    assert cache.touch_nowait("looked at")
    await anyio.sleep(2)
    assert "looked at" in cache
    await anyio.sleep(1)
    assert "looked at" not in cache


async def test_jitter_spreads_expiry() -> None:
    """With jitter what was set together expires apart, each somewhat before its time."""
    cache: TTLCache[int] = TTLCache(100, jitter=0.5)
    cache.set_many_nowait(dict.fromkeys(range(100), 0))
    assert len({entry.expires for entry in cache._store.entries.values()}) == 100
    for number in range(100, 200):
        cache.set_nowait(number, 0)
    for number in range(100):
        assert cache.touch_nowait(number)
    expiries = [entry.expires for entry in cache._store.entries.values()]
    assert len(set(expiries)) == 200
    assert all(50 < each <= 100 for each in expiries)
    assert min(expiries) < 60
    assert max(expiries) > 90


async def test_an_entered_cache_removes_what_expires() -> None:
    """In its block the cache removes what is over by itself, a second later at most."""
    cache: TTLCache[int] = TTLCache(10)
    cache.set_nowait("before", 1, 1.5)
    async with cache:
        await settle()
        cache.set_nowait("later", 2, 20)
        cache.set_nowait("sooner", 3, 3.25)
        await anyio.sleep(2)
        await settle()
        assert len(cache) == 2
        await anyio.sleep(2)
        await settle()
        assert len(cache) == 1
        await anyio.sleep(17)
        await settle()
        assert len(cache) == 0
        assert anyio.current_time() == 21
        cache.set_many_nowait(dict.fromkeys(range(2000), 0), 1)
        await anyio.sleep(2)
        await settle()
        assert len(cache) == 0
    assert cache.statistics().expirations == 2003


async def test_expiry_in_the_background_lets_others_run() -> None:
    """Ten thousand that expire at once go in slices, between which others run."""
    cache: TTLCache[int] = TTLCache(10)
    sizes: list[int] = []
    async with cache, anyio.create_task_group() as group:

        async def watch() -> None:
            while cache:
                sizes.append(len(cache))
                await anyio.lowlevel.checkpoint()

        cache.set_many_nowait(dict.fromkeys(range(10_000), 0), 1)
        await anyio.sleep(1.75)
        sizes.clear()
        await anyio.sleep(0.25)
        group.start_soon(watch)
    assert len(set(sizes)) >= 10_000 // 512
    assert len(cache) == 0


async def test_removed_values_are_let_go() -> None:
    """What has left the cache, in any way, is freed without the garbage collector."""

    class Value:
        pass

    ways: list[Callable[[TTLCache[Value]], object]] = [
        lambda cache: cache.set_nowait("key", Value()),
        lambda cache: cache.set_nowait("key", Value(), 0),
        lambda cache: cache.delete_nowait("key"),
        lambda cache: cache.invalidate_tag_nowait("tag"),
        lambda cache: cache.clear_nowait(),
        lambda cache: cache.set_many_nowait({number: Value() for number in range(9, 19)}),
        lambda cache: cache.touch_nowait("key", 0),
    ]
    gc.collect()
    gc.disable()
    try:
        for policy in POLICIES:
            for way in ways:
                cache: TTLCache[Value] = TTLCache(10, max_size=5, policy=policy)
                cache.set_many_nowait({number: Value() for number in range(5)})
                value = Value()
                there = weakref.ref(value)
                cache.set_nowait("key", value, tags=["tag"])
                del value
                assert there() is not None
                way(cache)
                assert there() is None
    finally:
        gc.enable()


async def test_churn_leaves_nothing_behind() -> None:
    """Setting and deleting with ever new times leaves no bucket, entry or tag behind."""
    cache: TTLCache[int] = TTLCache(10, max_size=100)
    for number in range(5000):
        cache.set_nowait("key", number, 1 + number % 977, tags=[number])
        if number % 3 == 0:
            cache.delete_nowait("key")
    assert len(cache._store.expiry) <= 1
    assert len(cache._store.expiry._heap) <= 2 * len(cache._store.expiry) + 64 + 2
    cache.delete_nowait("key")
    assert len(cache._store.expiry) == 0


async def test_a_longer_time_is_filed_when_the_shorter_would_be_over() -> None:
    """A value whose time was lengthened is kept when its first second comes, however it was."""
    cache: TTLCache[int] = TTLCache(10)
    async with cache:
        cache.set_nowait("set", 1, 1)
        cache.set_nowait("touched", 2, 1)
        cache.set_nowait("always", 3, 1)
        cache.set_nowait("set", 4, 5)
        cache.touch_nowait("touched", 6)
        cache.touch_nowait("always", math.inf)
        await anyio.sleep(3)
        await settle()
        assert [*cache] == ["set", "touched", "always"]
        await anyio.sleep(4)
        await settle()
        assert len(cache) == 1
        assert len(cache._store.expiry) == 0


@pytest.mark.parametrize("short_first", [True, False])
async def test_the_place_of_an_evicted_entry_is_taken_over(*, short_first: bool) -> None:
    """An entry that takes another's place expires in its own time, whichever is longer."""
    first, second = (1.25, 50.25) if short_first else (50.25, 1.25)
    cache: TTLCache[int] = TTLCache(10, max_size=1)
    async with cache:
        cache.set_nowait("one", 1, first)
        cache.set_nowait("two", 2, second)
        await anyio.sleep(2)
        await settle()
        assert ("two" in cache) == short_first
        await anyio.sleep(49)
        await settle()
        assert len(cache) == 0
        cache.set_nowait("one", 1, 1.25)
        cache.set_nowait("two", 2, math.inf)
        cache.set_nowait("three", 3, math.inf)
        cache.set_nowait("four", 4, 1.25)
        await anyio.sleep(2)
        await settle()
        assert len(cache) == 0


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"default_ttl": -1}, ValueError, r"^default_ttl=-1 is less than 0\. Pass seconds >= 0, or"),
    ({"default_ttl": math.nan}, ValueError, r"^default_ttl=nan is not a number\. "),
    ({"default_ttl": "1"}, TypeError, r"^default_ttl='1' is a str, not a number\. "),
    ({"default_ttl": None}, TypeError, r"^default_ttl=None is a NoneType, not a number\. "),
    ({"max_size": 0}, ValueError, r"^max_size=0 is less than 1\. Pass how many entries may be"),
    ({"max_size": 2.5}, TypeError, r"^max_size=2\.5 is a float, not an int\. "),
    ({"max_size": True}, TypeError, r"^max_size=True is a bool, not an int\. "),
    ({"max_size": 0.5, "weigher": len}, ValueError, r"^max_size=0\.5 is less than 1\. Pass what"),
    ({"policy": "mru"}, ValueError, r"^policy='mru' is unknown\. Pass one of 's3fifo', 'lru', 'l"),
    ({"policy": None}, ValueError, r"^policy=None is unknown\. "),
    ({"policy": []}, ValueError, r"^policy=\[\] is unknown\. "),
    ({"weigher": 1}, TypeError, r"^weigher=1 is an int, which is not callable\. Pass a function"),
    ({"idle_ttl": 0}, ValueError, r"^idle_ttl=0 would keep nothing\. Pass seconds > 0, or None"),
    ({"idle_ttl": -1}, ValueError, r"^idle_ttl=-1 is less than 0\. "),
    ({"idle_ttl": math.nan}, ValueError, r"^idle_ttl=nan is not a number\. "),
    ({"jitter": -0.1}, ValueError, r"^jitter=-0\.1 is less than 0\. Pass a fraction of the time"),
    (
        {"jitter": 1},
        ValueError,
        r"^jitter=1 would leave nothing of a time to live\. Pass a",
    ),
    ({"stale_while_revalidate": -1}, ValueError, r"^stale_while_revalidate=-1 is less than 0\. "),
    ({"refresh_ahead": 0}, ValueError, r"^refresh_ahead=0 is not between 0 and 1\. Pass a fract"),
    ({"refresh_ahead": 1}, ValueError, r"^refresh_ahead=1 is not between 0 and 1\. "),
    ({"default_ttl": True}, TypeError, r"^default_ttl=True is a bool, not a number\. "),
    ({"max_size": -3}, ValueError, r"^max_size=-3 is less than 1\. Pass how many entries may be"),
    ({"max_size": "9"}, TypeError, r"^max_size='9' is a str, not an int\. "),
    ({"max_size": math.nan}, TypeError, r"^max_size=nan is a float, not an int\. "),
    ({"max_size": math.nan, "weigher": len}, ValueError, r"^max_size=nan is not a number\. Pass"),
    ({"max_size": -1, "weigher": len}, ValueError, r"^max_size=-1 is less than 1\. Pass what the"),
    ({"idle_ttl": "1"}, TypeError, r"^idle_ttl='1' is a str, not a number\. Pass seconds > 0, or"),
    ({"jitter": math.nan}, ValueError, r"^jitter=nan is not a number\. Pass a fraction"),
    ({"jitter": None}, TypeError, r"^jitter=None is a NoneType, not a number\. "),
    ({"stale_while_revalidate": math.nan}, ValueError, r"^stale_while_revalidate=nan is not a nu"),
    ({"stale_while_revalidate": None}, TypeError, r"^stale_while_revalidate=None is a NoneType"),
    ({"refresh_ahead": math.nan}, ValueError, r"^refresh_ahead=nan is not a number\. "),
    ({"refresh_ahead": -0.5}, ValueError, r"^refresh_ahead=-0\.5 is less than 0\. Pass a fraction"),
    ({"error_ttl": -1}, ValueError, r"^error_ttl=-1 is less than 0\. Pass seconds >= 0; 0 turns"),
    ({"error_ttl": math.nan}, ValueError, r"^error_ttl=nan is not a number\. "),
    ({"error_ttl": "x"}, TypeError, r"^error_ttl='x' is a str, not a number\. Pass seconds >= 0"),
    ({"on_removed": 3}, TypeError, r"^on_removed=3 is an int, which is not callable\. Pass a fun"),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), REFUSED, ids=str)
def test_bad_arguments(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    """A mistake is named when the cache is made: the argument, the value, the way out."""
    with pytest.raises(kind, match=message):
        TTLCache[int](**arguments)


def exploding(_key: object, value: int) -> float:
    """Weigh, or do not."""
    if value == 13:
        msg = "unlucky"
        raise LookupError(msg)
    return {6: math.inf, 7: -1, 8: math.nan, 9: "heavy"}.get(value, 1)  # type: ignore[return-value] # the point


UNHASHABLE: Any = []


class Listed(dict[Any, int]):
    """A mapping whose items are not what a dict would take."""

    def items(self) -> Any:
        """Return two, of which the second cannot be stored."""
        return [("b", 1), (UNHASHABLE, 2)]


OPERATIONS: list[tuple[Callable[[TTLCache[int]], object], type[Exception], str]] = [
    (
        lambda c: c.set_nowait(UNHASHABLE, 1),
        TypeError,
        r"^key=\[\] cannot be hashed: .*\. Pass a key that",
    ),
    (lambda c: c.set_nowait(UNHASHABLE, 1, 5), TypeError, r"^key=\[\] cannot be hashed: "),
    (lambda c: c.get_nowait(UNHASHABLE), TypeError, r"^key=\[\] cannot be hashed: "),
    (lambda c: c.delete_nowait(UNHASHABLE), TypeError, r"^key=\[\] cannot be hashed: "),
    (lambda c: c.touch_nowait(UNHASHABLE), TypeError, r"^key=\[\] cannot be hashed: "),
    (lambda c: UNHASHABLE in c, TypeError, r"^key=\[\] cannot be hashed: "),
    (lambda c: c.delete_many_nowait(["a", UNHASHABLE]), TypeError, r"^key=\[\] cannot be hashed: "),
    (lambda c: c.get_many_nowait(["a", UNHASHABLE]), TypeError, r"^key=\[\] cannot be hashed: "),
    (lambda c: c.set_nowait("a", 2, -1), ValueError, r"^ttl=-1 is less than 0\. Pass seconds >= 0"),
    (lambda c: c.set_nowait("a", 2, math.nan), ValueError, r"^ttl=nan is not a number\. "),
    (lambda c: c.set_nowait("a", 2, None), TypeError, r"^ttl=None is a NoneType, not a"),  # type: ignore[arg-type] # the point
    (lambda c: c.touch_nowait("a", -1), ValueError, r"^ttl=-1 is less than 0\. "),
    (lambda c: c.set_nowait("a", 2, tags="tag"), TypeError, r"^tags='tag' is a str, not a set of"),
    (
        lambda c: c.set_nowait("a", 2, tags=[UNHASHABLE]),
        TypeError,
        r"^tags=\[\[\]\] is not a set of hashable",
    ),
    (lambda c: c.set_nowait("a", 2, tags=7), TypeError, r"^tags=7 is not a set of hashable tags: "),  # type: ignore[arg-type] # the point
    (
        lambda c: c.invalidate_tag_nowait(UNHASHABLE),
        TypeError,
        r"^tags=\(\[\],\) is not a set of hashable ",
    ),
    (lambda c: c.set_nowait("a", 13), LookupError, r"^unlucky$"),
    (lambda c: c.set_nowait("a", 7), ValueError, r"^weight=-1 is less than 0\. The weigher <func"),
    (lambda c: c.set_nowait("a", 6), ValueError, r"^weight=inf is infinite\. The weigher <func"),
    (lambda c: c.set_nowait("a", 8), ValueError, r"^weight=nan is not a number\. The weigher "),
    (lambda c: c.set_nowait("a", 9), TypeError, r"^weight='heavy' is a str, not a number\. The "),
    (lambda c: c.set_many_nowait({"b": 1, "a": 13}), LookupError, r"^unlucky$"),
    (lambda c: c.set_many_nowait({"b": 1, "d": 7}), ValueError, r"^weight=-1 is less than 0\. "),
    (lambda c: c.set_many_nowait({"b": 1, "d": 8}), ValueError, r"^weight=nan is not a number\. "),
    (lambda c: c.set_many_nowait({"b": 1}, -1), ValueError, r"^ttl=-1 is less than 0\. "),
    (lambda c: c.set_many_nowait({"b": 1}, math.nan), ValueError, r"^ttl=nan is not a number\. "),
    (lambda c: c.set_many_nowait({"b": 1}, tags="t"), TypeError, r"^tags='t' is a str, not a set"),
    (lambda c: c.set_many_nowait(Listed()), TypeError, r"^key=\[\] cannot be hashed: "),
    (
        lambda c: c.set_nowait(("a", UNHASHABLE), 1),
        TypeError,
        r"^key=\('a', \[\]\) cannot be hashed",
    ),
    (lambda c: c.touch_nowait("a", math.nan), ValueError, r"^ttl=nan is not a number\. "),
    (lambda c: c.touch_nowait("a", "1"), TypeError, r"^ttl='1' is a str, not a number\. "),  # type: ignore[arg-type] # the point
    (lambda c: c.touch_nowait("none", -1), ValueError, r"^ttl=-1 is less than 0\. "),
    (
        lambda c: c.set_many_nowait([("b", 1)]),  # type: ignore[arg-type] # the point
        TypeError,
        r"^values=\[\('b', 1\)\] is a list, not a mapping\. Pass a dict\.$",
    ),
    (
        lambda c: c.get_many_nowait("ac"),
        TypeError,
        r"^keys='ac' is a str, not a collection of keys\. Pass a list of keys, even for one\.$",
    ),
    (lambda c: c.get_many_nowait(7), TypeError, r"^keys=7 is an int, not a collection of keys\. "),  # type: ignore[arg-type] # the point
    (lambda c: c.delete_many_nowait("ac"), TypeError, r"^keys='ac' is a str, not a collection "),
    (lambda c: c.delete_many_nowait(b"ac"), TypeError, r"^keys=b'ac' is a bytes, not a collection"),
    (lambda c: c.delete_many_nowait(7), TypeError, r"^keys=7 is an int, not a collection of keys"),  # type: ignore[arg-type] # the point
]


@pytest.mark.parametrize(("operation", "kind", "message"), OPERATIONS, ids=range(len(OPERATIONS)))
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "weighed"])
def test_refused_operations_change_nothing(
    operation: Callable[[TTLCache[int]], object],
    kind: type[Exception],
    message: str,
    *,
    plain: bool,
) -> None:
    """Whatever is refused leaves the cache as it was."""
    if plain and (kind is LookupError or message.startswith("^weight")):
        pytest.skip("there is no weigher")
    heard: list[object] = []
    cache: TTLCache[int] = TTLCache(
        math.inf,
        max_size=5,
        weigher=None if plain else exploding,
        on_removed=None if plain else lambda *removal: heard.append(removal),
    )
    cache.set_many_nowait({"a": 1, "c": 3})
    before = cache.statistics()
    with pytest.raises(kind, match=message):
        operation(cache)
    assert cache.items() == [("a", 1), ("c", 3)]
    after = cache.statistics()
    assert (after.size, after.weight) == (before.size, before.weight)
    assert heard == []
    assert_whole(cache)


def test_errors_of_keys_pass() -> None:
    """What a key's own __eq__ or __hash__ raises is not taken for an unhashable key."""

    class Odd:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            msg = "incomparable"
            raise TypeError(msg)

    cache: TTLCache[int] = TTLCache()
    cache.set_nowait(1, 1)
    for operation in (cache.get_nowait, cache.delete_nowait, lambda key: cache.set_nowait(key, 2)):
        with pytest.raises(TypeError, match=r"^incomparable$"):
            operation(Odd())
    assert cache.items() == [(1, 1)]


def test_properties_and_repr() -> None:
    """What a cache was made with can be read, and its repr says what it is."""
    cache: TTLCache[int] = TTLCache(60, max_size=100, policy="lfu", name="users")
    cache.set_nowait("key", 1)
    assert repr(cache) == "<TTLCache 'users' lfu 1 of 100, 60 s>"
    assert (cache.name, cache.default_ttl, cache.max_size) == ("users", 60, 100)
    assert cache.policy == "lfu"
    endless: TTLCache[int] = TTLCache()
    assert repr(endless) == "<TTLCache s3fifo 0 of inf, 300 s>"
    assert endless.max_size is None


def test_signatures_can_be_evaluated() -> None:
    """What annotations name is there at run time, as containers and frameworks need it."""
    for owner in (TTLCache, Cached, BoundCached):
        for name, method in inspect.getmembers(owner, inspect.isfunction):
            if name == "__init__" or not name.startswith("_"):
                assert "return" in get_type_hints(method)
    assert get_type_hints(TTLCache.statistics) == {"return": CacheStatistics}
    assert get_type_hints(cached)["cache"] == TTLCache[Any] | None


def test_statistics_can_be_copied() -> None:
    """A snapshot is data: it becomes a dict, and its copies are equal."""
    statistics = TTLCache[int](60).statistics()
    assert CacheStatistics(**asdict(statistics)) == statistics
    assert pickle.loads(pickle.dumps(statistics)) == statistics  # noqa: S301 - our own
    assert copy.deepcopy(statistics) == statistics


async def test_no_option_of_seconds_has_an_end() -> None:
    """Each may be infinite: a value is kept, served stale and its error remembered for ever."""
    endless = math.inf
    kept: TTLCache[int] = TTLCache(endless, idle_ttl=endless)
    spared: TTLCache[int] = TTLCache(1, stale_if_error=endless, error_ttl=endless)
    stale: TTLCache[int] = TTLCache(1, stale_while_revalidate=endless)
    failing: TTLCache[int] = TTLCache(1, error_ttl=endless)

    async def fail() -> int:
        raise LookupError

    async def load() -> int:
        return 2

    async with stale:
        for cache in (kept, spared, stale):
            cache.set_nowait("key", 1)
        with pytest.raises(LookupError):
            await failing.get_or_set("key", fail)
        await anyio.sleep(86_400)
        assert await kept.get_or_set("key", fail) == 1
        assert await spared.get_or_set("key", fail) == 1
        assert await stale.get_or_set("key", load) == 1
        await settle()
        assert await stale.get_or_set("key", fail) == 2
        with pytest.raises(LookupError):
            await failing.get_or_set("key", load)
    assert kept.statistics().loads == 0


def test_statistics() -> None:
    """Every figure of a fresh cache is 0, and the rate of hits is that of all reads."""
    cache: TTLCache[int] = TTLCache(60, max_size=100)
    assert cache.statistics() == CacheStatistics(
        size=0,
        weight=0,
        max_size=100,
        hits=0,
        misses=0,
        hit_rate=0.0,
        loads=0,
        failed=0,
        cancelled=0,
        served_stale=0,
        load_seconds=0.0,
        in_flight=0,
        waiting=0,
        evictions=0,
        expirations=0,
        dropped=0,
    )
    cache.set_nowait("key", 1)
    for key in ("key", "key", "key", "other"):
        cache.get_nowait(key)
    assert cache.statistics().hit_rate == 0.75
    assert_quiescent(cache)


@pytest.mark.parametrize("policy", POLICIES)
def test_used_by_one_loop_after_another(policy: EvictionPolicy, backend: str) -> None:
    """Values stay from loop to loop, entered or not, and with loads in between."""
    cache: TTLCache[int] = TTLCache(1000, max_size=100, policy=policy)

    async def one() -> int:
        await anyio.sleep(0.5)
        return 1

    async def use(*, entered: bool) -> None:
        if entered:
            async with cache:
                await cache.get_or_set("key", one)
                async with anyio.create_task_group() as group:
                    for number in range(5):
                        group.start_soon(cache.get_or_set, number % 2, one)
        else:
            assert await cache.get_or_set("key", one) == 1
            assert await cache.get_or_set("other", one) == 1

    for entered in (True, False, True):
        run(lambda entered=entered: use(entered=entered), backend=backend)  # type: ignore[misc] # mypy sees no type for the default
    assert cache.statistics().loads == 4
    assert_quiescent(cache)


def test_used_by_loops_of_both_backends_in_turn() -> None:
    """One cache, made where no loop runs, serves asyncio and trio in turn, entered and not."""
    cache: TTLCache[int] = TTLCache(1000, max_size=100, stale_while_revalidate=1)
    started = 0

    async def load() -> int:
        nonlocal started
        started += 1
        await anyio.sleep(0.5)
        return started

    async def use() -> None:
        with pytest.raises(RuntimeError, match=r"^<TTLCache .* is not entered in this event loop"):
            await cache.get_or_set("key", load)
        async with cache, anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(cache.get_or_set, "key", load)
            await anyio.sleep(1)
            assert await cache.delete("key")
            cache.set_nowait("kept", started)

    async def leave_early() -> None:
        with anyio.move_on_after(0.25):
            async with cache:
                await cache.get_or_set("key", load)

    for number, backend in enumerate([*BACKENDS, *BACKENDS], 1):
        assert cache.get_nowait("kept") == (2 * number - 2 or None)
        run(use, backend=backend)
        run(leave_early, backend=backend)
        assert started == 2 * number
        cache.set_nowait("kept", started)
        assert_quiescent(cache)
        assert_whole(cache)


def test_a_cache_keeps_no_loop_alive(backend: str) -> None:
    """Nothing of an event loop is left in a cache that was entered there, or has loaded there."""
    cache: TTLCache[int] = TTLCache(1000, max_size=100)
    loops_of: list[weakref.ref[object]] = []

    async def load() -> int:
        await anyio.sleep(0.5)
        return 1

    async def use() -> None:
        loops_of.append(weakref.ref(loops.current_loop()))
        async with cache, anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(cache.get_or_set, "key", load)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(cache.get_or_set, "other", load)

    run(use, backend=backend)
    gc.collect()
    assert [each() for each in loops_of] == [None]
    assert len(cache) == 2


def test_a_clock_that_takes_over() -> None:
    """A cache that is used under another clock still holds what it has, and goes on."""
    cache: TTLCache[int] = TTLCache(10, max_size=3)
    with by_hand(1000.0) as hands:
        cache.set_nowait("key", 1)
        cache.set_nowait("endless", 1, math.inf)
        hands.take_over(5.0)
        assert cache.get_nowait("key") == 1
        cache.set_nowait("other", 2)
        hands.take_over(2000.0)
        assert cache.get_nowait("other") == 2
        hands.now += 10
        assert [*cache] == ["endless"]
