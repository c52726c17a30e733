"""Loads: one for each key, whichever caller is cancelled, entered or not."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import itertools
import logging
import weakref
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio._internal import deadlines
from mtaio.cache import TTLCache
from mtaio.cache._load import Load
from mtaio.cache._policy import POLICIES
from mtaio.exceptions import CacheClosedError, StrayCancellationError
from mtaio.testing import (
    Schedule,
    assert_checkpoints,
    assert_no_checkpoints,
    assert_quiescent,
    run,
    settle,
)
from mtaio.types import EvictionPolicy
from tests.backends import BACKENDS
from tests.cache.loads import BOTH, GONE, UNHASHABLE, Callers, Loader, in_both

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mtaio.testing import Simulation


class NestedError(Exception):
    """With which two loads end."""


class NotesOfAnError(list[str]):
    """What an error refers to, and nothing else."""


class NoException(BaseException):
    """As KeyboardInterrupt, of which asyncio would end the whole loop."""


@in_both
async def test_one_load_for_all_who_ask(cache: TTLCache[str]) -> None:
    """Five who ask at once, and one who asks half-way, get the value of one load."""
    loader = Loader()
    async with anyio.create_task_group() as group:
        callers = Callers(cache, group)
        for _ in range(5):
            await callers.ask(loader)
        await anyio.sleep(0.5)
        await callers.ask(loader)
        statistics = cache.statistics()
        assert (statistics.in_flight, statistics.loads) == (1, 1)
    assert callers.answers == dict.fromkeys(range(6), "value 1")
    assert anyio.current_time() == 1
    statistics = cache.statistics()
    assert (statistics.loads, statistics.load_seconds, statistics.misses) == (1, 1.0, 6)


async def test_leader_cancelled_in_an_entered_cache() -> None:
    """When the first who asked is cancelled the load goes on, and the others get its value."""
    loader = Loader()
    async with TTLCache[str](10) as cache, anyio.create_task_group() as group:
        callers = Callers(cache, group)
        for _ in range(3):
            await callers.ask(loader)
        await anyio.sleep(0.5)
        callers.scopes[0].cancel()
    assert callers.answers == {0: GONE, 1: "value 1", 2: "value 1"}
    assert (loader.started, loader.cancelled) == (1, 0)
    assert anyio.current_time() == 1
    assert_quiescent(cache)


async def test_leader_cancelled_in_a_cache_that_is_not_entered() -> None:
    """When the first who asked is cancelled, one other loads again, for all who are left."""
    loader = Loader()
    cache: TTLCache[str] = TTLCache(10)
    async with anyio.create_task_group() as group:
        callers = Callers(cache, group)
        for _ in range(4):
            await callers.ask(loader)
        await anyio.sleep(0.5)
        callers.scopes[0].cancel()
    assert callers.answers == {0: GONE, 1: "value 2", 2: "value 2", 3: "value 2"}
    assert (loader.started, loader.ended, loader.cancelled) == (2, 1, 1)
    assert anyio.current_time() == 1.5
    statistics = cache.statistics()
    assert (statistics.loads, statistics.failed, statistics.misses) == (2, 0, 4)
    assert_quiescent(cache)


@in_both
async def test_one_follower_cancelled(cache: TTLCache[str]) -> None:
    """A caller that waited and is cancelled changes nothing for the others."""
    loader = Loader()
    async with anyio.create_task_group() as group:
        callers = Callers(cache, group)
        for _ in range(3):
            await callers.ask(loader)
        await anyio.sleep(0.5)
        callers.scopes[1].cancel()
    assert callers.answers == {0: "value 1", 1: GONE, 2: "value 1"}
    assert (loader.started, loader.cancelled) == (1, 0)


@in_both
async def test_loader_raises(cache: TTLCache[str]) -> None:
    """An error goes to all who waited for that load, and only to them."""
    loader = Loader(fail=True)
    async with anyio.create_task_group() as group:
        callers = Callers(cache, group)
        for _ in range(3):
            await callers.ask(loader)
    errors = {id(answer) for answer in callers.answers.values()}
    assert len(errors) == 1
    assert str(callers.answers[2]) == "load 1"
    assert "key" not in cache
    with pytest.raises(LookupError, match=r"^load 2$"):
        await cache.get_or_set("key", loader)
    loader.fail = False
    assert await cache.get_or_set("key", loader) == "value 3"
    assert cache.statistics().failed == 2


@in_both
async def test_traceback_does_not_grow_with_each_who_is_told(cache: TTLCache[str]) -> None:
    """The error that everybody gets has the same traceback for each: the load's and its own."""
    lengths: list[int] = []

    async def ask() -> None:
        try:
            await cache.get_or_set("key", Loader(fail=True))
        except LookupError as error:
            length, trace = 0, error.__traceback__
            while trace is not None:
                length, trace = length + 1, trace.tb_next
            lengths.append(length)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(ask)
    assert len(lengths) == 20
    assert max(lengths) <= 5


@in_both
async def test_error_keeps_nothing_alive(cache: TTLCache[str]) -> None:
    """What a load that failed had in its hands is let go with its error, without the collector."""

    class Weighty:
        pass

    held: list[weakref.ref[Weighty]] = []

    async def fail() -> str:
        weighty = Weighty()
        held.append(weakref.ref(weighty))
        await anyio.lowlevel.checkpoint()
        raise LookupError

    async def ask(call: Any) -> None:
        with suppress(LookupError):
            await call("key", fail)

    gc.collect()
    gc.disable()
    try:
        for call in (cache.get_or_set, cache.refresh):
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(ask, call)
            await ask(call)
            await settle()
        assert len(held) >= 4
        assert [there() for there in held] == [None] * len(held)
    finally:
        gc.enable()


@pytest.mark.parametrize("asks", ["alone", "as another does", "itself", "and is closed"])
@in_both
async def test_error_of_a_load_within_another_keeps_nothing_alive(
    cache: TTLCache[str], asks: str
) -> None:
    """An error with which two loads end has neither of them in its hands."""
    other: TTLCache[str] = TTLCache(10)
    held: list[weakref.ref[NotesOfAnError]] = []

    async def fail() -> str:
        await anyio.sleep(1)
        raise NestedError

    async def inner() -> str:
        if asks == "and is closed":
            return await other.get_or_set("inner", fail)
        return await cache.get_or_set("outer" if asks == "itself" else "inner", fail)

    async def ask(key: str, load: Callable[[], Awaitable[str]]) -> None:
        try:
            await cache.get_or_set(key, load)
        except (NestedError, RuntimeError, CacheClosedError) as error:
            error.__notes__ = notes = NotesOfAnError()  # an error alone cannot be referred to
            held.append(weakref.ref(notes))

    gc.collect()
    gc.disable()
    try:
        async with anyio.create_task_group() as group, other:
            if asks == "as another does":
                group.start_soon(ask, "inner", fail)
                await settle()
            group.start_soon(ask, "outer", inner)
            await anyio.sleep(0.5 if asks == "and is closed" else 2)
        await settle()
        assert len(held) == (2 if asks == "as another does" else 1)
        assert [there() for there in held] == [None] * len(held)
    finally:
        gc.enable()


@in_both
async def test_last_one_out_ends_the_load(cache: TTLCache[str]) -> None:
    """When its last caller has left the load is cancelled, and the next caller starts another."""
    loader = Loader()
    async with anyio.create_task_group() as group:
        callers = Callers(cache, group)
        for _ in range(3):
            await callers.ask(loader)
        await anyio.sleep(0.25)
        for scope in callers.scopes:
            scope.cancel()
        await settle()
        assert callers.answers == dict.fromkeys(range(3), GONE)
        assert loader.started == loader.cancelled
        assert_quiescent(cache)
        before = loader.started
        number = await callers.ask(loader)
    assert callers.answers[number] == f"value {before + 1}"
    assert anyio.current_time() == 1.25


async def test_last_one_out_and_a_newcomer_meanwhile() -> None:
    """A load that was cancelled, and still cleans up, is not joined: the newcomer has its own."""
    started = 0

    async def slow_to_end() -> str:
        nonlocal started
        started += 1
        number = started
        try:
            await anyio.sleep(1)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)
            raise
        return f"value {number}"

    async with TTLCache[str](10) as cache, anyio.create_task_group() as group:
        callers = Callers(cache, group)
        await callers.ask(slow_to_end)
        callers.scopes[0].cancel()
        await settle()
        await callers.ask(slow_to_end)
        await anyio.sleep(1.5)
        assert callers.answers == {0: GONE, 1: "value 2"}
        assert await cache.get("key") == "value 2"
        assert cache.statistics().in_flight == 1
    assert_quiescent(cache)


@pytest.mark.parametrize("newcomer", [True, False], ids=["newcomer", "delete"])
async def test_a_load_that_everybody_left_stores_nothing(*, newcomer: bool) -> None:
    """Should it bring a value all the same, that is older than whatever came after it was left."""

    async def stubborn() -> str:
        with anyio.CancelScope(shield=True):  # as a worker thread is, which cannot be cancelled
            await anyio.sleep(1)
        return "old"

    loader = Loader()
    async with TTLCache[str](10) as cache, anyio.create_task_group() as group:
        callers = Callers(cache, group)
        await callers.ask(stubborn)
        await anyio.sleep(0.25)
        callers.scopes[0].cancel()
        await settle()
        if newcomer:
            await callers.ask(loader)
        else:
            await cache.delete("key")
        await anyio.sleep(0.875)
        assert cache.statistics().in_flight == newcomer
        assert "key" not in cache
        if newcomer:
            await callers.ask(loader)
    assert [*callers.answers.values()] == ([GONE, "value 1", "value 1"] if newcomer else [GONE])
    assert await cache.get("key") == ("value 1" if newcomer else None)
    assert_quiescent(cache)


def test_cancelled_before_its_task_has_started(backend: str) -> None:
    """A load whose only caller left at once is over at once; it may never start."""
    started: set[int] = set()

    async def main() -> None:
        loader = Loader()
        async with TTLCache[str](10) as cache:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await cache.get_or_set("key", loader)
            await settle()
            assert loader.started == loader.cancelled
            started.add(loader.started)
            assert_quiescent(cache)

    for seed in range(30):
        run(main, backend=backend, schedule=Schedule(seed=seed))
    assert started == {0, 1}


async def test_closed_during_a_load() -> None:
    """Who waits from outside the block gets a CacheClosedError when it is left, at once."""
    loader = Loader()
    cache: TTLCache[str] = TTLCache(10, name="users")
    async with anyio.create_task_group() as group:
        callers = Callers(cache, group)
        async with cache:
            for _ in range(2):
                await callers.ask(loader)
            await anyio.sleep(0.5)
        await settle()
        assert loader.cancelled == 1
        for answer in callers.answers.values():
            assert isinstance(answer, CacheClosedError)
            assert answer.name == "users"
            assert str(answer).startswith(
                "<TTLCache 'users' s3fifo 0 of inf, 10 s> was closed while"
            )
        assert len(callers.answers) == 2
        assert_quiescent(cache)
        await callers.ask(loader)
    assert callers.answers[2] == "value 2"
    assert anyio.current_time() == 1.5


async def test_closing_does_not_wait_for_those_who_wait() -> None:
    """Waiters learn that the block is left before a load has finished its clean-up."""
    told: list[float] = []

    async def stubborn() -> str:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(5)
        return "too late"

    cache: TTLCache[str] = TTLCache(10)

    async def ask() -> None:
        with pytest.raises(CacheClosedError):
            await cache.get_or_set("key", stubborn)
        told.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        async with cache:
            group.start_soon(ask)
            await anyio.sleep(1)
        assert anyio.current_time() == 5
    assert told == [1]
    assert "key" not in cache
    assert_quiescent(cache)


async def test_who_asks_while_the_block_is_left_loads_in_its_own_task() -> None:
    """Nothing begins any more in a block that is being left; callers do as if it were left."""

    async def stubborn() -> str:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(5)
        return "too late"

    loader = Loader()
    cache: TTLCache[str] = TTLCache(10)
    async with anyio.create_task_group() as group:
        callers = Callers(cache, group)
        async with cache:
            await callers.ask(stubborn)
            group.start_soon(ask_at, 2, callers, loader)
            await anyio.sleep(1)
        assert anyio.current_time() == 5
    assert isinstance(callers.answers.pop(0), CacheClosedError)
    assert callers.answers == {1: "value 1", 2: "value 2"}
    assert [*callers.moments.values()] == [1, 3, 3]
    assert await cache.get("key") == "value 1"
    assert_quiescent(cache)


async def ask_at(moment: float, callers: Callers, loader: Loader) -> None:
    """Ask at a moment: for the key that is being loaded, and for another."""
    await anyio.sleep(moment)
    await callers.ask(loader)
    await callers.ask(loader, "other")


async def test_block_cancelled_from_outside_during_a_load() -> None:
    """Waiters outside a block that is being cancelled are told so, and do not try again."""
    loader = Loader()
    cache: TTLCache[str] = TTLCache(10)
    async with anyio.create_task_group() as group:
        callers = Callers(cache, group)

        async def block() -> None:
            with anyio.move_on_after(0.5):
                async with cache:
                    try:
                        await anyio.sleep_forever()
                    finally:
                        with anyio.CancelScope(shield=True):
                            await anyio.sleep(3)

        group.start_soon(block)
        await settle()
        await callers.ask(loader)
        await anyio.sleep(1)
        assert isinstance(callers.answers[0], CacheClosedError)
    assert (loader.started, loader.cancelled) == (1, 1)
    assert_quiescent(cache)


CHANGES: dict[str, Callable[[TTLCache[str]], object]] = {
    "set": lambda cache: cache.set_nowait("key", "set"),
    "set_many": lambda cache: cache.set_many_nowait({"key": "set"}),
    "delete": lambda cache: cache.delete_nowait("key"),
    "delete_many": lambda cache: cache.delete_many_nowait(["other", "key"]),
    "clear": lambda cache: cache.clear_nowait(),
    "invalidate_tag": lambda cache: cache.invalidate_tag_nowait("tag"),
}


@pytest.mark.parametrize("change", CHANGES)
@in_both
async def test_invalidated_in_flight(cache: TTLCache[str], change: str) -> None:
    """A load that a change overtook answers those who wait, stores nothing, and is not joined."""
    loader = Loader()

    async def first() -> None:
        answers.append(await cache.get_or_set("key", loader, tags=["tag"]))

    answers: list[str] = []
    async with anyio.create_task_group() as group:
        group.start_soon(first)
        group.start_soon(first)
        await anyio.sleep(0.5)
        CHANGES[change](cache)
        if change.startswith("set"):
            assert await cache.get_or_set("key", loader) == "set"
        else:
            assert await cache.get_or_set("key", loader) == "value 2"
            assert anyio.current_time() == 1.5
    assert answers == ["value 1", "value 1"]
    expected = "set" if change.startswith("set") else "value 2"
    assert await cache.get("key") == expected
    assert loader.started == (1 if change.startswith("set") else 2)


@in_both
async def test_other_changes_leave_a_load_alone(cache: TTLCache[str]) -> None:
    """Changing other keys and other tags does not touch a load."""
    loader = Loader()
    async with anyio.create_task_group() as group:
        callers = Callers(cache, group)
        await callers.ask(loader)
        cache.set_nowait("other", "value")
        cache.delete_nowait("other")
        cache.invalidate_tag_nowait("tag")
        await callers.ask(loader)
    assert callers.answers == {0: "value 1", 1: "value 1"}
    assert "key" in cache


@in_both
async def test_tag_of_the_value_that_a_refresh_is_about_to_replace(cache: TTLCache[str]) -> None:
    """What has to go is not put back by a load that began before, whatever its own tags."""
    cache.set_nowait("key", "old", tags={"tag"})
    async with anyio.create_task_group() as group:
        group.start_soon(cache.refresh, "key", Loader())
        await anyio.sleep(0.5)
        assert cache.invalidate_tag_nowait("tag") == 1
    assert cache.statistics().loads == 1
    assert "key" not in cache


@in_both
async def test_leader_of_an_invalidated_load_cancelled(cache: TTLCache[str]) -> None:
    """Those who waited for a load that was overtaken, and then ended early, get the new value."""
    loader = Loader()
    async with anyio.create_task_group() as group:
        callers = Callers(cache, group)
        await callers.ask(loader)
        await callers.ask(loader)
        await anyio.sleep(0.5)
        cache.delete_nowait("key")
        callers.scopes[0].cancel()
        await settle()
    entered = cache.statistics().loads == 1
    assert callers.answers == {0: GONE, 1: "value 1" if entered else "value 2"}
    assert ("key" in cache) == (not entered)


@pytest.mark.parametrize("policy", POLICIES)
async def test_each_call_is_one_read(policy: EvictionPolicy) -> None:
    """Who waited in vain and then finds a value that was set meanwhile has missed, and no more."""
    cache: TTLCache[str] = TTLCache(10, max_size=10, policy=policy)
    async with anyio.create_task_group() as group:
        callers = Callers(cache, group)
        await callers.ask(Loader())
        await callers.ask(Loader())
        cache.set_nowait("key", "set")
        callers.scopes[0].cancel()
    assert callers.answers == {0: GONE, 1: "set"}
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses) == (0, 2)


@in_both
async def test_recursive_load_is_refused(cache: TTLCache[str]) -> None:
    """A loader that asks for its own key gets a RuntimeError instead of waiting for itself."""

    async def recursive() -> str:
        return await cache.get_or_set("key", Loader())

    with pytest.raises(
        RuntimeError, match=r"^the load of key='key' in <TTLCache .* asked for its "
    ):
        await cache.get_or_set("key", recursive)
    assert cache.statistics().loads == 1
    assert await cache.get_or_set("key", Loader()) == "value 1"


@in_both
async def test_keys_that_cannot_be_compared_are_not(cache: TTLCache[str]) -> None:
    """A load asks for another key without comparing the two, unless their hashes are one."""

    class Lonely:
        def __eq__(self, other: object) -> bool:
            msg = f"compared with {other!r}"
            raise ValueError(msg)

        def __hash__(self) -> int:
            return 7

    async def outer() -> str:
        return await cache.get_or_set("other", Loader())

    async def recursive() -> str:
        return await cache.get_or_set(lonely, Loader())

    lonely = Lonely()
    assert await cache.get_or_set(lonely, outer) == "value 1"
    assert await cache.delete(lonely)
    with pytest.raises(RuntimeError, match=r"^the load of key=<tests.* asked for its own key"):
        await cache.get_or_set(lonely, recursive)


@in_both
async def test_recursion_through_other_keys_and_caches(cache: TTLCache[str]) -> None:
    """It is seen through another load, of another cache."""
    other: TTLCache[str] = TTLCache(10)

    async def through() -> str:
        return await other.get_or_set("other", lambda: cache.get_or_set("key", Loader()))

    with pytest.raises(RuntimeError, match=r"^the load of key='key' in .* would wait for itself"):
        await cache.get_or_set("key", through)
    assert "key" not in cache
    assert "other" not in other


async def test_recursion_in_a_child_task() -> None:
    """In an entered cache it is seen in a task of the loader, too, also through another cache."""
    other: TTLCache[str] = TTLCache(10)
    answer = ""

    async def around() -> None:
        nonlocal answer
        answer = await cache.get_or_set("key", Loader())

    async def child() -> str:
        async with anyio.create_task_group() as group:
            group.start_soon(around)
        return answer

    async def through() -> str:
        return await other.get_or_set("other", child)

    async with TTLCache[str](10) as cache:
        for loader in (child, through):
            with pytest.raises(ExceptionGroup) as caught:
                await cache.get_or_set("key", loader)
            assert isinstance(caught.value.exceptions[0], RuntimeError)
            assert "key" not in cache
            assert "other" not in other
    assert_quiescent(cache)


@in_both
async def test_a_task_that_a_load_only_started_is_not_the_load(cache: TTLCache[str]) -> None:
    """It waits for that load, and loads other keys, as any caller; also if the loader is plain."""
    answers: list[str] = []

    async def ask(key: str) -> None:
        answers.append(await cache.get_or_set(key, Loader()))

    async with anyio.create_task_group() as group:

        def loader() -> Awaitable[str]:
            group.start_soon(ask, "key")
            return load()

        async def load() -> str:
            group.start_soon(ask, "key")
            group.start_soon(ask, "other")
            await anyio.sleep(1)
            return "value"

        assert await cache.get_or_set("key", loader) == "value"
    assert sorted(answers) == ["value", "value", "value 1"]
    assert cache.statistics().loads == 2


@pytest.mark.parametrize("length", [2, 3, 5])
@in_both
async def test_loads_that_wait_for_each_other(cache: TTLCache[str], length: int) -> None:
    """One is told of the circle, at once; what becomes of it goes to all who wait."""
    errors: list[tuple[int, float]] = []

    async def load(number: int) -> str:
        await anyio.sleep(1)
        following = (number + 1) % length
        return await cache.get_or_set(following, partial(load, following))

    async def ask(number: int) -> None:
        with pytest.raises(
            RuntimeError, match=r"^the load of key=\d in <TTLCache .* asked for its"
        ):
            await cache.get_or_set(number, partial(load, number))
        errors.append((number, anyio.current_time()))

    async with anyio.create_task_group() as group:
        for number in range(length):
            group.start_soon(ask, number)
    assert sorted(errors) == [(number, 1) for number in range(length)]
    assert_quiescent(cache)
    assert await cache.get_or_set(0, Loader()) == "value 1"


@in_both
async def test_a_circle_may_be_caught_by_one_of_its_loads(cache: TTLCache[str]) -> None:
    """The load that is told can do without, and the others go on."""

    async def one() -> str:
        await anyio.sleep(1)
        return "one of " + await cache.get_or_set("two", two)

    async def two() -> str:
        await anyio.sleep(2)
        try:
            return "two of " + await cache.get_or_set("one", one)
        except RuntimeError:
            return "two"

    async with anyio.create_task_group() as group:
        callers = Callers(cache, group)
        await callers.ask(one, "one")
        await callers.ask(two, "two")
    assert callers.answers == {0: "one of two", 1: "two"}


@pytest.mark.parametrize("waits", [True, False], ids=["circle", "no circle"])
async def test_a_circle_with_two_ways_round(*, waits: bool) -> None:
    """Two loads wait for a third, which wants one that waits for them, or only started them."""

    async def first() -> str:
        async with anyio.create_task_group() as group:
            for key in ("left", "right"):
                group.start_soon(cache.get_or_set, key, lambda: cache.get_or_set("last", last))
        return "first"

    async def last() -> str:
        await anyio.sleep(1)
        return "last of " + await cache.get_or_set("top", top)

    async def top() -> str:
        if waits:
            return await cache.get_or_set("first", first)
        background.start_soon(cache.get_or_set, "first", first)
        await anyio.sleep(2)
        return "top"

    async with TTLCache[str](10) as cache, anyio.create_task_group() as background:
        if waits:
            with pytest.raises(ExceptionGroup) as caught:
                await cache.get_or_set("top", top)
            assert {type(error) for error in caught.value.exceptions} == {RuntimeError}
        else:
            assert await cache.get_or_set("top", top) == "top"
    assert cache.get_nowait("last") == (None if waits else "last of top")
    assert_quiescent(cache)


@in_both
async def test_loads_that_wait_for_one_load_form_no_circle(cache: TTLCache[str]) -> None:
    """Several may wait for the same one, directly and through each other."""
    last = Loader()

    async def load(number: int) -> str:
        await cache.get_or_set("last", last)
        return await (cache.get_or_set(number - 1, partial(load, number - 1)) if number else last())

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(cache.get_or_set, number, partial(load, number))
    assert [cache.get_nowait(number) for number in range(4)] == ["value 2"] * 4


async def test_a_circle_that_cannot_be_seen_ends_with_its_callers() -> None:
    """Loads that wait for tasks which wait for the loads do not outlive their callers."""

    async def load(key: str, other: str) -> str:
        if anyio.current_time() >= 1:  # for the tasks below, which go on
            return key
        done = anyio.Event()

        async def ask() -> None:
            await cache.get_or_set(other, partial(load, other, key))
            done.set()

        background.start_soon(ask)
        await done.wait()
        return key

    async def caller(key: str, other: str, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await cache.get_or_set(key, partial(load, key, other))

    async with TTLCache[str](10) as cache, anyio.create_task_group() as background:
        async with anyio.create_task_group() as group:
            group.start_soon(caller, "one", "two", 1)
            group.start_soon(caller, "two", "one", 2)
        assert anyio.current_time() == 2
    assert anyio.current_time() == 2
    assert_quiescent(cache)


@pytest.mark.parametrize("patient", [True, False], ids=["one stays", "all leave"])
async def test_load_that_went_on_without_another(*, patient: bool) -> None:
    """What a load no longer waits for may ask for it; while a task of the load does, it may not."""
    answers: list[str] = []

    async def ask_two() -> str:
        await anyio.sleep(1)
        try:
            return "two, of " + await cache.get_or_set("one", ask_one)
        except RuntimeError:
            return "two, refused"

    async def ask(seconds: float) -> None:
        with anyio.move_on_after(seconds):
            answers.append(await cache.get_or_set("two", ask_two))

    async def ask_one() -> str:
        async with anyio.create_task_group() as children:
            children.start_soon(ask, 0.5)
            children.start_soon(ask, 9 if patient else 0.25)
        await anyio.sleep(1)
        return "one"

    async with TTLCache[str](60) as cache, anyio.create_task_group() as group:
        callers = Callers(cache, group)
        await callers.ask(ask_one, "one")
        await callers.ask(ask_two, "two")
    assert callers.answers == {0: "one", 1: "two, refused" if patient else "two, of one"}
    assert answers == ["two, refused"] * patient
    assert_quiescent(cache)


@in_both
async def test_recursion_after_deleting_ones_own_key(cache: TTLCache[str]) -> None:
    """A loader that deletes its key first is still inside the load of that key."""

    async def recursive() -> str:
        cache.delete_nowait("key")
        return await cache.get_or_set("key", recursive)

    with pytest.raises(RuntimeError, match=r"^the load of key='key'"):
        await cache.get_or_set("key", recursive)


@in_both
async def test_loads_may_load_other_keys(cache: TTLCache[str]) -> None:
    """Inside a load other keys are loaded as ever, and the same key of another cache too."""
    other: TTLCache[str] = TTLCache(10)

    async def outer() -> str:
        one = await cache.get_or_set("inner", Loader())
        return one + await other.get_or_set("outer", Loader())

    assert await cache.get_or_set("outer", outer) == "value 1value 1"
    assert await cache.get("inner") == "value 1"


@in_both
async def test_a_task_that_outlives_its_load_may_ask_again(cache: TTLCache[str]) -> None:
    """A task that a loader started elsewhere is not inside the load any more when it is over."""
    answers: list[str] = []

    async def later() -> None:
        await anyio.sleep(2)
        cache.delete_nowait("key")
        answers.append(await cache.get_or_set("key", Loader()))

    async with anyio.create_task_group() as group:

        async def starts() -> str:
            group.start_soon(later)
            return "first"

        assert await cache.get_or_set("key", starts) == "first"
    assert answers == ["value 1"]


@in_both
async def test_hits_are_no_checkpoint_and_one_load_in_64_is(cache: TTLCache[str]) -> None:
    """A loop over loads that never suspend lets others run all the same, at each checkpoint."""
    began: list[int] = []

    async def at_once() -> str:
        return "value"

    async def watch() -> None:
        while True:
            began.append(cache.statistics().loads)
            await anyio.lowlevel.checkpoint()

    await cache.get_or_set(-1, at_once)
    with assert_no_checkpoints():
        await cache.get_or_set(-1, at_once)
    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        for number in range(640):
            await cache.get_or_set(number, at_once)
        group.cancel_scope.cancel()
    seen = [1, *began, 641]
    most = max(after - before for before, after in itertools.pairwise(seen))
    assert most <= 2 * 64  # late in one turn of the loop, early in the next


async def test_the_64th_load_is_a_checkpoint() -> None:
    """Cancellation reaches a loop over loads that never suspend, and nothing is half done."""
    cache: TTLCache[int] = TTLCache(10)

    async def at_once() -> int:
        return 1

    for number in range(63):
        with assert_no_checkpoints():
            await cache.get_or_set(number, at_once)
    with assert_checkpoints():
        await cache.get_or_set(63, at_once)
    with anyio.CancelScope() as scope:
        scope.cancel()
        for number in range(64, 1000):
            await cache.get_or_set(number, at_once)
    assert scope.cancelled_caught
    assert len(cache) == 127
    assert_quiescent(cache)


@in_both
async def test_unusual_factories(cache: TTLCache[str]) -> None:
    """A loader may be a callable object or return any awaitable; nothing else is taken."""

    class Ready:
        def __await__(self) -> Any:
            yield from anyio.lowlevel.checkpoint().__await__()
            return "ready"

    assert await cache.get_or_set("one", Ready) == "ready"
    with pytest.raises(TypeError, match=r"^loader=<class 'int'> returned 0, which cannot be aw"):
        await cache.get_or_set("two", int)  # type: ignore[arg-type] # the point
    with pytest.raises(TypeError, match=r"^loader=3 is an int, which is not callable\. Pass an"):
        await cache.get_or_set("two", 3)  # type: ignore[arg-type] # the point
    assert await cache.get_or_set("two", Loader()) == "value 1"
    with pytest.raises(TypeError, match=r"^key=\[\] cannot be hashed: "):
        await cache.get_or_set(UNHASHABLE, Loader())
    with pytest.raises(ValueError, match=r"^ttl=-1 is less than 0\. "):
        await cache.get_or_set("three", Loader(), ttl=-1)
    with pytest.raises(TypeError, match=r"^tags='tag' is a str, not a set of tags\. "):
        await cache.get_or_set("three", Loader(), tags="tag")
    with pytest.raises(TypeError, match=r"^key=\[\] cannot be hashed: "):
        await cache.refresh(UNHASHABLE, Loader())


@in_both
async def test_a_factory_that_was_called(cache: TTLCache[str]) -> None:
    """A coroutine in the place of a loader is refused, and closed; Python does not warn."""
    for load in (cache.get_or_set, cache.refresh):
        call: Any = Loader()()
        with pytest.raises(TypeError, match=r"^loader=<corou.* is a coroutine, which is not call"):
            await load("key", call)
        assert inspect.getcoroutinestate(call) == inspect.CORO_CLOSED
    assert await cache.get_or_set("key", Loader()) == "value 1"


@in_both
async def test_ttl_and_tags_of_a_load(cache: TTLCache[str]) -> None:
    """What is loaded lives as long as the call says, from when it is there, under its tags."""
    loader = Loader()
    await cache.get_or_set("key", loader, ttl=2.5, tags={"a"})
    await anyio.sleep(2.25)
    assert await cache.get("key") == "value 1"
    await anyio.sleep(0.5)
    assert await cache.get("key") is None
    await cache.get_or_set("key", loader, tags={"a"})
    assert await cache.invalidate_tag("a") == 1
    assert await cache.get_or_set("key", loader, ttl=0) == "value 3"
    assert "key" not in cache


@in_both
async def test_refresh_loads_again(cache: TTLCache[str]) -> None:
    """While a refresh is on its way others get the old value; if it fails they keep it."""
    loader = Loader()
    await cache.get_or_set("key", loader)
    async with anyio.create_task_group() as group:
        group.start_soon(cache.refresh, "key", loader)
        await anyio.sleep(0.5)
        assert await cache.get_or_set("key", loader) == "value 1"
        await anyio.sleep(0.5)
        await settle()
        assert await cache.get("key") == "value 2"
    with pytest.raises(LookupError, match=r"^load 1$"):
        await cache.refresh("key", Loader(fail=True))
    assert await cache.get("key") == "value 2"
    assert await cache.refresh("new", loader) == "value 3"


@in_both
async def test_refresh_does_not_join_what_began_before(cache: TTLCache[str]) -> None:
    """A refresh begins its own load; the one before it stores nothing, though it ends later."""
    async with anyio.create_task_group() as group:
        callers = Callers(cache, group)

        async def old() -> str:
            await anyio.sleep(3)
            return "old"

        await callers.ask(old)
        await anyio.sleep(0.5)
        refreshed: list[str] = []

        async def refresh() -> None:
            refreshed.append(await cache.refresh("key", Loader()))

        group.start_soon(refresh)
        await settle()
        await callers.ask(old)
    assert refreshed == ["value 1"]
    assert callers.answers == {0: "old", 1: "value 1"}
    assert await cache.get("key") == "value 1"


@in_both
async def test_cancelled_refresh_leaves_the_old_value(cache: TTLCache[str]) -> None:
    """A refresh that is cancelled has changed nothing."""
    await cache.get_or_set("key", Loader())
    loader = Loader()
    with anyio.move_on_after(0.5):
        await cache.refresh("key", loader)
    await settle()
    assert loader.cancelled == 1
    assert await cache.get("key") == "value 1"


@BOTH
async def test_weigher_that_raises_fails_the_load(entered: bool) -> None:  # noqa: FBT001 - a parameter
    """A value that cannot be weighed is an error to everybody who waits; nothing is stored."""

    def weigh(_: object, value: str) -> int:
        if value == "value 1":
            msg = "too odd"
            raise LookupError(msg)
        return -1

    cache: TTLCache[str] = TTLCache(10, max_size=10, weigher=weigh)
    loader = Loader()
    async with AsyncExitStack() as stack:
        if entered:
            await stack.enter_async_context(cache)
        async with anyio.create_task_group() as group:
            callers = Callers(cache, group)
            await callers.ask(loader)
            await callers.ask(loader)
        assert [str(answer) for answer in callers.answers.values()] == ["too odd", "too odd"]
        with pytest.raises(ValueError, match=r"^weight=-1 is less than 0\. The weigher "):
            await cache.get_or_set("key", loader)
    assert len(cache) == 0
    assert cache.statistics().failed == 2
    assert_quiescent(cache)


@BOTH
async def test_error_ttl_keeps_an_error(entered: bool) -> None:  # noqa: FBT001 - a parameter
    """With error_ttl an exception is raised to each caller, for that long; there is no value."""
    cache: TTLCache[str] = TTLCache(10, max_size=5, error_ttl=3)
    loader = Loader(fail=True)
    async with AsyncExitStack() as stack:
        if entered:
            await stack.enter_async_context(cache)
        for _ in range(3):
            with pytest.raises(LookupError, match=r"^load 1$"):
                await cache.get_or_set("key", loader)
        assert await cache.get("key", "none") == "none"
        assert "key" not in cache
        assert [*cache] == []
        assert not await cache.touch("key")
        assert len(cache) == 1
        await anyio.sleep(3)
        with pytest.raises(LookupError, match=r"^load 2$"):
            await cache.get_or_set("key", loader)
        cache.set_nowait("key", "set")
        assert await cache.get_or_set("key", loader) == "set"
        await cache.delete("key")
        with pytest.raises(LookupError, match=r"^load 3$"):
            await cache.get_or_set("key", loader)
        assert not await cache.delete("key")
    statistics = cache.statistics()
    assert (statistics.hits, statistics.loads, statistics.failed) == (3, 3, 3)


async def test_errors_kept_count_towards_the_limit() -> None:
    """A thousand failing keys hold no more than max_size, and report no value when they go."""
    heard: list[object] = []
    cache: TTLCache[str] = TTLCache(
        10, max_size=5, error_ttl=30, on_removed=lambda *args: heard.append(args)
    )

    async def fail() -> str:
        raise LookupError

    for number in range(1000):
        with pytest.raises(LookupError):
            await cache.get_or_set(number, fail)
    assert len(cache) == 5
    cache.clear_nowait()
    assert heard == []
    assert cache.statistics().evictions == 995


@BOTH
@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
async def test_thousand_loads_never_exceed_the_bound(
    sim: Simulation,
    policy: EvictionPolicy,
    entered: bool,  # noqa: FBT001 - a parameter
) -> None:
    """What is being loaded takes no room, and after no step there is more than max_size."""
    cache: TTLCache[int] = TTLCache(100, max_size=10, policy=policy)
    sim.always(lambda: len(cache) == cache.statistics().weight <= 10)

    async def load(number: int) -> int:
        await anyio.sleep(number % 7)
        return number

    async def ask(number: int) -> None:
        assert await cache.get_or_set(number, partial(load, number)) == number

    async with AsyncExitStack() as stack:
        if entered:
            await stack.enter_async_context(cache)
        async with anyio.create_task_group() as group:
            for number in range(1000):
                group.start_soon(ask, number)
            await settle()
            assert cache.statistics().in_flight == 1000 - 143
            assert len(cache) == 10
    assert len(cache) == 10
    assert cache.statistics().evictions == 990
    assert_quiescent(cache)


async def test_an_error_of_the_body_passes_as_it_is() -> None:
    """What the body of an entered cache raises is not wrapped, with a load in progress too."""
    error = LookupError("mine")
    async with anyio.create_task_group() as group:
        cache: TTLCache[str] = TTLCache(10)
        callers = Callers(cache, group)
        with pytest.raises(LookupError) as caught:  # noqa: PT012 - the block is the subject
            async with cache:
                await callers.ask(Loader())
                raise error
        assert caught.value is error
    assert isinstance(callers.answers[0], CacheClosedError)


async def test_what_is_no_exception_ends_the_block() -> None:
    """A loader that raises a BaseException ends the block, and its waiters are told."""
    cache: TTLCache[str] = TTLCache(10)

    async def leave() -> str:
        await anyio.sleep(1)
        raise NoException

    async with anyio.create_task_group() as group:
        callers = Callers(cache, group)
        with pytest.raises(NoException):  # noqa: PT012 - the block is the subject
            async with cache:
                await callers.ask(leave)
                await anyio.sleep_forever()
    assert isinstance(callers.answers[0], CacheClosedError)
    assert_quiescent(cache)


async def test_two_loaders_that_raise_what_is_no_exception() -> None:
    """Several such errors come out together."""
    cache: TTLCache[str] = TTLCache(10)

    async def leave() -> str:
        try:
            await anyio.sleep(1)
        finally:
            raise NoException

    async with anyio.create_task_group() as group:
        callers = Callers(cache, group)
        with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012 - the block is the subject
            async with cache:
                await callers.ask(leave, "one")
                await callers.ask(leave, "two")
                await anyio.sleep_forever()
        assert [type(each) for each in caught.value.exceptions] == [NoException, NoException]


@BOTH
@pytest.mark.parametrize("error", [NoException, GeneratorExit])
async def test_listener_that_raises_what_is_no_exception_at_the_end_of_a_load(
    error: type[BaseException],
    entered: bool,  # noqa: FBT001 - a parameter
) -> None:
    """The load has ended once: its value is kept, and who waited for it gets it."""
    caught: list[BaseException] = []

    def listen(*_: object) -> None:
        raise error

    async def lead(cache: TTLCache[str]) -> None:
        try:
            async with AsyncExitStack() as stack:
                if entered:
                    await stack.enter_async_context(cache)
                    await anyio.sleep_forever()
                await cache.get_or_set("key", loader)
        except error as raised:
            caught.append(raised)

    loader = Loader()
    cache: TTLCache[str] = TTLCache(10, max_size=1, policy="lru", on_removed=listen)
    cache.set_nowait("old", "value")
    async with anyio.create_task_group() as group:
        group.start_soon(lead, cache)
        await settle()
        callers = Callers(cache, group)
        await callers.ask(loader)
        await anyio.sleep(2)
    assert len(caught) == 1
    assert callers.answers == {0: "value 1"}
    assert (loader.started, cache.get_nowait("key")) == (1, "value 1")
    assert cache.statistics().in_flight == 0
    assert_quiescent(cache)


async def test_loads_know_no_limit_of_the_first_caller() -> None:
    """In an entered cache the timeout of the first caller does not limit the loader."""
    left: list[float] = []

    async def load() -> str:
        left.append(deadlines.remaining())
        return "value"

    async with TTLCache[str](10) as cache:
        limit = deadlines.enter(5.0)
        await cache.get_or_set("key", load)
        deadlines.leave(limit)
    assert left == [float("inf")]


async def test_stray_cancellation_is_an_error_of_the_load(backend: str) -> None:
    """A loader that cancels itself fails its load, which is not tried again and again."""
    if backend != "asyncio":
        pytest.skip("only asyncio has cancellation that comes from nowhere")
    calls = 0

    async def cancels_itself() -> str:
        nonlocal calls
        calls += 1
        raise asyncio.CancelledError

    async with TTLCache[str](10) as cache:
        with pytest.raises(StrayCancellationError, match=r"cancels_itself raised CancelledError"):
            await cache.get_or_set("key", cancels_itself)
    assert calls == 1


async def test_a_load_that_fails_when_nobody_waits_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An error in the clean-up of a load that everybody left is not lost."""

    async def fails_at_the_end() -> str:
        try:
            await anyio.sleep(1)
        finally:
            msg = "in clean-up"
            raise LookupError(msg)

    async with TTLCache[str](10) as cache:
        with anyio.move_on_after(0.5):
            await cache.get_or_set("key", fails_at_the_end)
        await settle()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert (
        caplog.records[0]
        .getMessage()
        .endswith("the load of key='key' failed, and nobody waited for it")
    )
    assert_quiescent(cache)


def test_eager_tasks() -> None:
    """Where asyncio runs tasks at once, a load that never suspends is over before the wait."""
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("needs Python 3.12")

    async def at_once() -> str:
        return "value"

    async def fails() -> str:
        raise LookupError

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        async with TTLCache[str](10) as cache:
            with assert_checkpoints():
                assert await cache.get_or_set("key", at_once) == "value"
            with pytest.raises(LookupError):
                await cache.get_or_set("other", fails)
        assert_quiescent(cache)

    run(main)


@pytest.mark.parametrize("entered", [True, False], ids=["entered", "not entered"])
def test_an_eager_task_that_a_load_started_is_not_the_load(*, entered: bool) -> None:
    """Though it runs within the load's own step."""
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("needs Python 3.12")
    answers: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        cache: TTLCache[str] = TTLCache(10)

        async def ask() -> None:
            answers.append(await cache.get_or_set("key", Loader()))

        async def load() -> str:
            group.start_soon(ask)
            tasks.append(asyncio.create_task(ask()))
            await anyio.sleep(1)
            return "value"

        tasks: list[asyncio.Task[None]] = []
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(anyio.create_task_group())
            if entered:
                await stack.enter_async_context(cache)
            assert await cache.get_or_set("key", load) == "value"
            await asyncio.wait(tasks)
        assert_quiescent(cache)

    run(main)
    assert answers == ["value", "value"]


@pytest.mark.parametrize("other", BACKENDS)
def test_context_that_outlives_its_loop(backend: str, other: str) -> None:
    """A context in which one loop has loaded, and in which another runs, does not mislead that."""
    cache = TTLCache[str](60, max_size=10)

    async def first() -> contextvars.Context:
        await cache.get_or_set("a", Loader())
        return contextvars.copy_context()

    def take_over(before: contextvars.Context) -> None:
        for variable, value in before.items():
            if variable.name.startswith("mtaio."):
                variable.set(value)

    async def second() -> None:
        loader = Loader()
        async with anyio.create_task_group() as group:
            callers = Callers(cache, group)
            for _ in range(5):
                await callers.ask(loader)
        assert loader.started == 1
        assert callers.answers == dict.fromkeys(range(5), "value 1")

    context = contextvars.copy_context()  # what asyncio.Runner(context=...) does, for any loop
    context.run(take_over, run(first, backend=backend))
    for _ in range(2):
        cache.clear_nowait()
        context.run(partial(run, second, backend=other))
        assert_quiescent(cache)


@pytest.mark.parametrize("again", [True, False], ids=["refresh", "get_or_set"])
async def test_loads_that_follow_each_other_form_no_chain(*, again: bool) -> None:
    """What begins in the course of a load that is over does not hold it."""
    cache = TTLCache[int](60, max_size=10)
    begin: anyio.Event

    async def load() -> int:
        nonlocal begin
        begin = anyio.Event()
        group.start_soon(follow, begin)
        return 1

    async def follow(turn: anyio.Event) -> None:
        await turn.wait()
        await (cache.refresh if again else cache.get_or_set)(cache.statistics().loads, load)
        if cache.statistics().loads < 20:
            begin.set()
        else:
            gc.collect()
            loads = [each for each in gc.get_objects() if type(each) is Load]
            assert sum(each.owner is cache for each in loads) <= 2
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        await cache.get_or_set("first", load)
        begin.set()
    assert cache.statistics().loads == 20


async def test_load_started_by_one_that_is_over_keeps_nothing_of_it() -> None:
    """Each load that begins in the course of the one before is as light as the first."""
    cache = TTLCache[object](60, max_size=10)
    values: list[weakref.ref[Loader]] = []
    begin = anyio.Event()

    async def load() -> object:
        nonlocal begin
        begin = anyio.Event()
        group.start_soon(chain, begin)
        value = Loader()
        values.append(weakref.ref(value))
        return value

    async def chain(turn: anyio.Event) -> None:
        await turn.wait()
        await cache.refresh("key", load)
        if len(values) < 5:
            begin.set()
        await anyio.sleep_forever()  # in the course of a load that is over

    async with anyio.create_task_group() as group:
        await cache.refresh("key", load)
        begin.set()
        await settle()
        await anyio.sleep(1)
        gc.collect()
        assert len(values) == 5
        assert [each() is not None for each in values] == [False, False, False, False, True]
        group.cancel_scope.cancel()
