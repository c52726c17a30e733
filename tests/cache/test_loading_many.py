"""Several keys that are loaded together: each once, whoever asks for which, and is cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.cache import RemovalCause, TTLCache
from mtaio.exceptions import CacheClosedError
from mtaio.testing import assert_checkpoints, assert_no_checkpoints, assert_quiescent, settle
from tests.cache.loads import GONE, Loader, in_both

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Source:
    """Brings keys together after a second, unless told otherwise, and notes what it was asked."""

    def __init__(self, *, seconds: float = 1, without: str = "", fail: bool = False) -> None:
        self.asked: list[list[str]] = []
        self.seconds = seconds
        self.without = without
        self.fail = fail
        self.cancelled = 0

    async def __call__(self, keys: list[str]) -> dict[str, str]:
        """Load."""
        self.asked.append(keys)
        number = len(self.asked)
        try:
            await anyio.sleep(self.seconds)
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        if self.fail:
            msg = f"load {number}"
            raise LookupError(msg)
        return {key: f"{key}{number}" for key in keys if key not in self.without}


class Askers:
    """Tasks that ask for several keys, each in a scope of its own."""

    def __init__(self, cache: TTLCache[str], group: Any) -> None:
        self.cache = cache
        self.group = group
        self.scopes: list[anyio.CancelScope] = []
        self.answers: dict[int, object] = {}

    async def ask(self, keys: str, loader: Callable[..., Any]) -> None:
        """Start one more task that asks, for one key alone if there is only one."""
        self.scopes.append(anyio.CancelScope())
        self.group.start_soon(self._ask, len(self.scopes) - 1, keys, loader)
        await settle()

    async def _ask(self, number: int, keys: str, loader: Callable[..., Any]) -> None:
        with self.scopes[number] as scope:
            try:
                if len(keys) > 1:
                    self.answers[number] = await self.cache.get_or_set_many([*keys], loader)
                else:
                    self.answers[number] = await self.cache.get_or_set(keys, loader)
            except (LookupError, CacheClosedError) as error:
                self.answers[number] = error
        if scope.cancelled_caught:
            self.answers[number] = GONE


@in_both
async def test_one_load_for_all_that_are_missing(cache: TTLCache[str]) -> None:
    """What is there is served, the rest is loaded at once, and the next call loads nothing."""
    source = Source()
    cache.set_nowait("b", "old")
    expected = {"a": "a1", "b": "old", "c": "c1"}
    with assert_checkpoints():
        assert await cache.get_or_set_many(iter("abca"), source) == expected
    assert source.asked == [["a", "c"]]
    with assert_no_checkpoints():
        found = await cache.get_or_set_many(["c", "b", "a"], source)
    assert [*found.items()] == [*reversed(expected.items())]
    assert await cache.get_or_set_many([], source) == {}
    statistics = cache.statistics()
    assert (statistics.loads, statistics.load_seconds) == (2, 2.0)
    assert (statistics.hits, statistics.misses) == (4, 2)
    assert anyio.current_time() == 1


@in_both
async def test_each_key_is_loaded_once(cache: TTLCache[str]) -> None:
    """Keys that others load, together or alone, are waited for, and not asked for again."""
    source = Source()
    alone = Loader()
    async with anyio.create_task_group() as group:
        askers = Askers(cache, group)
        await askers.ask("ab", source)
        await askers.ask("d", alone)
        await anyio.sleep(0.5)
        await askers.ask("bcd", source)
        await askers.ask("c", alone)
        assert cache.statistics().in_flight == 4
    assert source.asked == [["a", "b"], ["c"]]
    assert alone.started == 1
    assert askers.answers == {
        0: {"a": "a1", "b": "b1"},
        1: "value 1",
        2: {"b": "b1", "c": "c2", "d": "value 1"},
        3: "c2",
    }
    assert anyio.current_time() == 1.5


async def test_first_caller_cancelled_in_an_entered_cache() -> None:
    """The load goes on while anybody waits for any of its keys, and is cancelled after that."""
    source = Source()
    async with TTLCache[str](10) as cache, anyio.create_task_group() as group:
        askers = Askers(cache, group)
        await askers.ask("abc", source)
        await askers.ask("bx", source)
        await askers.ask("c", Loader())
        await anyio.sleep(0.5)
        askers.scopes[0].cancel()
        askers.scopes[1].cancel()
        await settle()
        assert source.cancelled == 1  # that of x alone
        await askers.ask("a", Loader())  # nobody waits for it, but it is on its way
    assert source.asked == [["a", "b", "c"], ["x"]]
    assert askers.answers == {0: GONE, 1: GONE, 2: "c1", 3: "a1"}
    assert cache.get_nowait("b") == "b1"
    source.asked.clear()
    cache.clear_nowait()
    async with cache:
        with anyio.move_on_after(0.5):
            await cache.get_or_set_many(["a", "b"], source)
        await settle()
        assert (source.cancelled, cache.statistics().in_flight) == (2, 0)
        assert await cache.get_or_set_many(["ab"], source) == {"ab": "ab2"}
    assert_quiescent(cache)


async def test_first_caller_cancelled_in_a_cache_that_is_not_entered() -> None:
    """Who waited for its keys loads them again, each once."""
    source = Source()
    cache: TTLCache[str] = TTLCache(10)
    async with anyio.create_task_group() as group:
        askers = Askers(cache, group)
        await askers.ask("abc", source)
        await askers.ask("bcd", source)
        await askers.ask("ab", source)
        await anyio.sleep(0.5)
        askers.scopes[0].cancel()
    assert askers.answers[0] == GONE
    one, other = askers.answers[1], askers.answers[2]
    assert isinstance(one, dict)
    assert isinstance(other, dict)
    assert one["b"] == other["b"]
    assert sorted(key for keys in source.asked[2:] for key in keys) == ["a", "b", "c"]
    assert_quiescent(cache)


@in_both
async def test_loader_that_raises(cache: TTLCache[str]) -> None:
    """Its error goes to all who wait for any of its keys, and other keys are kept."""
    source = Source(fail=True)
    async with anyio.create_task_group() as group:
        askers = Askers(cache, group)
        await askers.ask("xy", Source(seconds=2))
        await askers.ask("ab", source)
        await askers.ask("bxc", Source())
        await askers.ask("a", Loader())
    assert len({id(askers.answers[number]) for number in (1, 2, 3)}) == 1
    assert str(askers.answers[3]) == "load 1"
    assert [*cache] == ["c", "x", "y"]
    statistics = cache.statistics()
    assert (statistics.loads, statistics.failed) == (5, 2)


@in_both
async def test_keys_that_the_loader_leaves_out(cache: TTLCache[str]) -> None:
    """They are in nobody's result; who asked for one alone loads it in its own way."""
    source = Source(without="b")
    async with anyio.create_task_group() as group:
        askers = Askers(cache, group)
        await askers.ask("abc", source)
        await askers.ask("bc", source)
        await askers.ask("b", Loader())
        await askers.ask("b", Loader())
    assert askers.answers == {
        0: {"a": "a1", "c": "c1"},
        1: {"c": "c1"},
        2: "value 1",
        3: "value 1",
    }
    assert source.asked == [["a", "b", "c"]]
    statistics = cache.statistics()
    assert (statistics.loads, statistics.failed, statistics.cancelled) == (4, 0, 0)


@in_both
async def test_lifetimes_and_tags(cache: TTLCache[str]) -> None:
    """Each value has its own; what fails there fails for its key alone."""

    async def load(keys: list[str]) -> Mapping[str, str]:
        return {key: key for key in [*keys, "not asked for"]}

    def seconds(value: str) -> float:
        return {"a": 1, "b": 2, "c": 0, "d": -1}[value]

    with pytest.raises(ValueError, match=r"^ttl=-1 is less than 0\. "):
        await cache.get_or_set_many([*"dabc"], load, ttl=seconds, tags={"t"})
    assert [*cache] == ["a", "b"]
    assert await cache.get_or_set_many(["x", "y"], load, keep=lambda value: value == "y") == {
        "x": "x",
        "y": "y",
    }
    assert [*cache] == ["a", "b", "y"]
    await anyio.sleep(1)
    assert [*cache] == ["b", "y"]
    assert cache.invalidate_tag_nowait("t") == 1


@in_both
async def test_changed_meanwhile(cache: TTLCache[str]) -> None:
    """What was set during the load stays, and the caller gets what it asked for."""
    async with anyio.create_task_group() as group:
        askers = Askers(cache, group)
        await askers.ask("ab", Source())
        cache.set_nowait("a", "new")
    assert askers.answers[0] == {"a": "a1", "b": "b1"}
    assert cache.items() == [("a", "new"), ("b", "b1")]


@in_both
async def test_loader_that_asks_for_what_it_loads(cache: TTLCache[str]) -> None:
    """It gets an error for any of its keys, also by way of others, and does not wait for itself."""

    async def around(keys: list[str]) -> dict[str, str]:
        assert keys == ["a", "b"]
        return await cache.get_or_set_many(["c", "d"], lambda _: back())

    async def back() -> dict[str, str]:
        async with anyio.create_task_group() as group:
            group.start_soon(cache.get_or_set_many, ["e", "b"], Source())
        raise AssertionError

    async def itself(keys: list[str]) -> dict[str, str]:
        await cache.get_or_set(keys[-1], Loader())
        raise AssertionError

    with pytest.raises(RuntimeError, match=r"^the load of key='b' in .* asked for its own key"):
        await cache.get_or_set_many(["a", "b"], itself)
    if cache._loads.block is not None:  # else nothing proves that the child is part of it
        with pytest.raises(ExceptionGroup) as caught:
            await cache.get_or_set_many(["a", "b"], around)
        assert caught.group_contains(RuntimeError, match=r"^the load of key='b' in ", depth=1)
    assert cache.statistics().in_flight == 0


@in_both
async def test_loaders_that_ask_for_each_other_s_keys(cache: TTLCache[str]) -> None:
    """A circle through any of the keys that load together is found, whichever closes it."""
    answers: dict[str, object] = {}

    async def together(_: list[str]) -> dict[str, str]:
        await anyio.sleep(1)
        value = await cache.get_or_set("b", Loader())
        return {"c": value, "d": value}

    async def alone() -> None:
        with pytest.raises(RuntimeError, match=r"^the load of key='b' in ") as info:
            await cache.get_or_set("b", lambda: cache.get_or_set("d", Loader()))
        answers["alone"] = info.value

    async with anyio.create_task_group() as group:
        group.start_soon(alone)
        with pytest.raises(RuntimeError, match=r"^the load of key='b' in ") as info:
            await cache.get_or_set_many(["c", "d"], together)
    assert answers == {"alone": info.value}


async def test_keys_of_a_load_that_lingers_are_free() -> None:
    """Once nobody waits for any of them, who asks for one has it loaded again, and that is kept."""

    async def linger(keys: list[str]) -> dict[str, str]:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(5)
        return dict.fromkeys(keys, "late")

    async with TTLCache[str](10) as cache:
        with anyio.move_on_after(1):
            await cache.get_or_set_many(["a", "b"], linger)
        for key in "ab":
            assert await cache.get_or_set(key, Loader()) == "value 1"
        assert anyio.current_time() == 3
        await anyio.sleep(3)
        assert cache.items() == [("a", "value 1"), ("b", "value 1")]


@in_both
async def test_loader_that_loads_others(cache: TTLCache[str]) -> None:
    """Other keys it may ask for, and be waited for by others meanwhile."""

    async def load(keys: list[str]) -> dict[str, str]:
        more = await cache.get_or_set_many([key.upper() for key in keys], Source())
        return {key: more[key.upper()] for key in keys}

    async with anyio.create_task_group() as group:
        askers = Askers(cache, group)
        await askers.ask("ab", load)
        await askers.ask("bc", load)
        await anyio.sleep(0.5)
        askers.scopes[0].cancel()
    assert askers.answers == {0: GONE, 1: {"b": "B1", "c": "C1"}}


async def test_a_loader_that_ends_after_its_block_was_left() -> None:
    """What it brings is nobody's any more."""

    async def linger(_: list[str]) -> dict[str, str]:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)
        return {"a": "late"}

    cache: TTLCache[str] = TTLCache(10)
    async with anyio.create_task_group() as group, cache:
        askers = Askers(cache, group)
        await askers.ask("ab", linger)
    assert isinstance(askers.answers[0], CacheClosedError)
    assert [*cache] == []
    assert_quiescent(cache)


async def test_leaving_the_block() -> None:
    """Who waits when the cache is left gets a `CacheClosedError`."""
    cache: TTLCache[str] = TTLCache(10)
    async with anyio.create_task_group() as group, cache:
        askers = Askers(cache, group)
        await askers.ask("ab", Source())
        await askers.ask("bc", Source())
    assert [str(askers.answers[number]) for number in range(2)] == [
        f"{cache!r} was closed while loading key='{key}'" for key in "ab"
    ]
    assert_quiescent(cache)


async def test_values_that_are_renewed_in_the_background(caplog: pytest.LogCaptureFixture) -> None:
    """Old values are served at once, and one load renews them; its failure is logged once."""
    cache: TTLCache[str] = TTLCache(1, stale_while_revalidate=9)
    source = Source(fail=True)
    with pytest.raises(RuntimeError, match=r"refreshes in the background, but is not entered"):
        await cache.get_or_set_many(["a"], source)
    async with cache:
        cache.set_many_nowait({"a": "old", "b": "old"})
        await anyio.sleep(1)
        old = {"a": "old", "b": "old"}
        with assert_no_checkpoints():
            assert await cache.get_or_set_many(["a", "b"], source) == old
        await anyio.sleep(1)
        await settle()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "'a' failed, and nobody waited for it" in caplog.text
        source.fail = False
        source.without = "b"
        assert await cache.get_or_set_many(["a", "b"], source) == old
        await anyio.sleep(1)
        await settle()
        assert cache.items() == [("a", "a2")]
    assert source.asked == [["a", "b"]] * 2
    assert_quiescent(cache)


async def test_errors_that_are_kept_and_old_values() -> None:
    """With ``error_ttl`` each key has the error; with ``stale_if_error``, its old value instead."""
    heard: list[tuple[str, str, str]] = []
    cache: TTLCache[str] = TTLCache(
        1, stale_if_error=9, error_ttl=5, on_removed=lambda *removal: heard.append(removal)
    )
    cache.set_nowait("a", "old")
    await anyio.sleep(1)
    source = Source(fail=True)
    for _try in range(2):
        with pytest.raises(LookupError, match=r"^load 1$"):
            await cache.get_or_set_many(["a", "b"], source)
    assert await cache.get_or_set_many(["a"], source) == {"a": "old"}
    assert len(source.asked) == 1
    await anyio.sleep(5)
    source.fail, source.without = False, "a"
    assert await cache.get_or_set_many(["a", "b"], source) == {"b": "b2"}
    assert heard == [("a", "old", RemovalCause.DELETED)]


class OddKey:
    """Equal to nothing, and from the second time on says so with an error."""

    asked = 0

    def __eq__(self, _: object) -> bool:
        self.asked += 1
        if self.asked > 1:
            raise LookupError(self.asked)
        return False

    def __hash__(self) -> int:
        return 1


async def test_keys_whose_code_raises() -> None:
    """What was about to start for other keys is given up."""
    cache: TTLCache[str] = TTLCache(10)
    cache.set_nowait(1, "one")
    keys: Any = ["a", OddKey()]
    with pytest.raises(LookupError, match=r"^2$"):
        await cache.get_or_set_many(keys, Source())
    assert cache.statistics().in_flight == 0
    assert await cache.get_or_set_many(["a"], Source()) == {"a": "a1"}
    assert_quiescent(cache)


@in_both
async def test_loader_that_ends_otherwise(cache: TTLCache[str]) -> None:
    """What is no ``Exception`` leaves nothing behind, and one that is plain is refused."""
    wrong: Any = cache

    async def as_list(keys: list[str]) -> list[str]:
        return keys

    for loader, message in (
        (3, r"^loader=3 is an int, which is not callable\. Pass an async function that takes a"),
        (as_list(["a"]), r"^loader=<coroutine .* Pass an async function that takes a list of keys"),
        (
            lambda keys: keys,
            r"^loader=<.* returned \['a'\], which cannot be awaited\. Pass an async ",
        ),
        (
            as_list,
            r"^the loader returned \['a'\], which is a list, not a mapping .*dict\(zip\(keys, ",
        ),
    ):
        with pytest.raises(TypeError, match=message):
            await wrong.get_or_set_many(["a"], loader)
    with pytest.raises(TypeError, match=r"^keys='ab' is a str, not a collection of keys"):
        await wrong.get_or_set_many("ab", Source())
    with pytest.raises(TypeError, match=r"^key=\[\] cannot be hashed"):
        await wrong.get_or_set_many([[]], Source())
    assert cache.statistics().in_flight == 0


async def test_a_coroutine_that_is_closed() -> None:
    """The loads of a call that the garbage collector ends are given up."""
    cache: TTLCache[str] = TTLCache(10, max_size=2)
    call = cache.get_or_set_many(["a", "b"], Source())
    call.send(None)
    assert cache.statistics().in_flight == 2
    call.close()
    statistics = cache.statistics()
    assert (statistics.in_flight, statistics.cancelled) == (0, 2)
    for _ in range(2):
        assert await cache.get_or_set_many(["a", "b"], Source()) == {"a": "a1", "b": "b1"}
    assert_quiescent(cache)


async def test_many_loads_let_others_run() -> None:
    """One in 64 is a checkpoint, also where no loader suspends."""
    cache: TTLCache[int] = TTLCache(10)

    async def load(keys: list[int]) -> dict[int, int]:
        return dict.fromkeys(keys, 0)

    with assert_checkpoints():
        for key in range(64):
            await cache.get_or_set_many([key], load)
