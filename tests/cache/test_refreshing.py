"""Values that are renewed before or after their time, and errors that are kept."""

from __future__ import annotations

import gc
import logging
import math
import weakref
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from mtaio.cache import RemovalCause, TTLCache, cached
from mtaio.cache._policy import POLICIES
from mtaio.testing import assert_no_checkpoints, assert_quiescent, settle
from mtaio.types import EvictionPolicy
from tests.cache.loads import GONE, Callers, Loader
from tests.cache.whole import assert_whole

# Without a limit all policies are one, so each test of them all has one.
EACH_POLICY = pytest.mark.parametrize("policy", POLICIES)


async def until(moment: float) -> None:
    """Sleep until a moment on the virtual clock, and let everybody come to rest."""
    await anyio.sleep(moment - anyio.current_time())
    await settle()


# Stale while revalidate.


@EACH_POLICY
async def test_stale_value_is_served_while_a_new_one_is_loaded(policy: EvictionPolicy) -> None:
    """After its time a value is served at once, and one load in the background renews it."""
    loader = Loader()
    cache: TTLCache[str] = TTLCache(10, max_size=100, policy=policy, stale_while_revalidate=5)
    async with cache:
        assert await cache.get_or_set("key", loader) == "value 1"  # until 11, stale until 16
        await until(10.9375)
        assert await cache.get_or_set("key", loader) == "value 1"
        await until(11)
        assert loader.started == 1
        for _ in range(3):
            with assert_no_checkpoints():
                assert await cache.get_or_set("key", loader) == "value 1"
            await settle()
        assert loader.started == 2
        assert cache.statistics().in_flight == 1
        assert cache.statistics().waiting == 0
        await until(12)
        assert await cache.get_or_set("key", loader) == "value 2"
        await until(21.9375)
        assert await cache.get_or_set("key", loader) == "value 2"
        assert loader.started == 2
        statistics = cache.statistics()
        assert (statistics.loads, statistics.hits, statistics.misses) == (2, 6, 1)
    assert_quiescent(cache)


@EACH_POLICY
async def test_stale_value_is_no_value_for_other_operations(policy: EvictionPolicy) -> None:
    """Only get_or_set serves what is stale: for everything else its time is over."""
    cache: TTLCache[str] = TTLCache(10, max_size=100, policy=policy, stale_while_revalidate=5)
    cache.set_nowait("key", "old", tags=["tag"])
    await until(10)
    assert await cache.get("key", "none") == "none"
    assert "key" not in cache
    assert not await cache.contains("key")
    assert cache.items() == []
    assert [*cache] == []
    assert await cache.get_many(["key"]) == {}
    assert not await cache.touch("key")
    assert len(cache) == 1
    async with cache:
        assert await cache.get_or_set("key", Loader()) == "old"  # reading it took nothing away
    cache.set_nowait("key", "old", tags=["tag"])
    await until(20)
    assert not await cache.delete("key")
    assert len(cache) == 0
    cache.set_nowait("key", "old", tags=["tag"])
    await until(30)
    assert await cache.invalidate_tag("tag") == 0
    assert len(cache) == 0


@EACH_POLICY
async def test_stale_value_is_not_served_beyond_its_limit(policy: EvictionPolicy) -> None:
    """At the end of the stale time the caller waits for a load, as if nothing had been there."""
    heard: list[object] = []
    loader = Loader()
    cache: TTLCache[str] = TTLCache(
        10,
        max_size=100,
        policy=policy,
        stale_while_revalidate=5,
        on_removed=lambda *removal: heard.append((*removal, anyio.current_time())),
    )
    async with cache:
        cache.set_nowait("key", "old")
        await until(14.9375)
        assert len(cache) == 1
        await until(15)
        assert await cache.get_or_set("key", loader) == "value 1"
        assert anyio.current_time() == 16
        assert loader.started == 1
    assert heard == [("key", "old", RemovalCause.EXPIRED, 16.0)]
    assert cache.statistics().expirations == 1


@EACH_POLICY
async def test_failed_refresh_keeps_the_stale_value(
    policy: EvictionPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    """If the load fails the old value is served until its limit, and each call tries again."""
    loader = Loader(fail=True)
    cache: TTLCache[str] = TTLCache(
        10, max_size=100, policy=policy, stale_while_revalidate=5, name="users"
    )
    async with cache:
        cache.set_nowait("key", "old")
        for started, moment in enumerate((10, 11, 12, 13), 1):
            await until(moment)
            assert await cache.get_or_set("key", loader) == "old"
            await settle()
            assert loader.started == started
        await until(14.0625)
        assert loader.ended == 4
        await until(15)
        with pytest.raises(LookupError, match=r"^load 5$"):
            await cache.get_or_set("key", loader)
        assert "key" not in cache
        loader.fail = False
        assert await cache.get_or_set("key", loader) == "value 6"
    statistics = cache.statistics()
    assert (statistics.loads, statistics.failed) == (6, 5)
    # Four without a waiter are in the log; the fifth went to its caller.
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 4
    assert caplog.records[0].getMessage().startswith("<TTLCache 'users' ")
    assert_quiescent(cache)


@EACH_POLICY
async def test_error_ttl_spaces_the_refreshes_that_fail(policy: EvictionPolicy) -> None:
    """With an error_ttl the next attempt comes no sooner than that after the last failed."""
    loader = Loader(fail=True)
    cache: TTLCache[str] = TTLCache(
        10, max_size=100, policy=policy, stale_while_revalidate=90, error_ttl=4
    )
    async with cache:
        cache.set_nowait("key", "old")
        moments: list[float] = []
        for moment in range(10, 22):
            await until(moment)
            before = loader.started
            assert await cache.get_or_set("key", loader) == "old"
            await settle()
            if loader.started > before:
                moments.append(moment)
        assert moments == [10, 15, 20]
        await until(22)
        loader.fail = False
        await until(25)
        assert await cache.get_or_set("key", loader) == "old"
        await until(26)
        assert await cache.get_or_set("key", loader) == "value 4"
    assert "key" in cache


async def test_callers_who_were_served_stale_do_not_own_the_refresh() -> None:
    """The refresh goes on though its caller is gone, or cancelled at the same moment."""
    loader = Loader()
    async with TTLCache[str](10, stale_while_revalidate=5) as cache:
        cache.set_nowait("key", "old")
        await until(10)
        with anyio.CancelScope() as scope:
            scope.cancel()
            assert await cache.get_or_set("key", loader) == "old"
        await until(11)
        assert await cache.get("key") == "value 1"
        assert loader.cancelled == 0


async def test_who_finds_nothing_waits_for_the_refresh_in_progress() -> None:
    """A refresh that outlives the stale value is what later callers wait for; one may leave it."""
    loader = Loader()
    async with (
        TTLCache[str](10, stale_while_revalidate=0.5) as cache,
        anyio.create_task_group() as group,
    ):
        callers = Callers(cache, group)
        cache.set_nowait("key", "old")
        await until(10.25)
        await callers.ask(loader)
        assert callers.answers == {0: "old"}
        await until(10.75)
        await callers.ask(loader)
        await callers.ask(loader)
        callers.scopes[1].cancel()
        await settle()
        assert loader.cancelled == 0
        await callers.ask(loader)
        await until(12)
    assert callers.answers == {0: "old", 1: GONE, 2: "value 1", 3: "value 1"}
    assert callers.moments[3] == 11.25
    assert loader.started == 1


async def test_refresh_that_hangs_does_not_block_its_key() -> None:
    """The last to wait for a refresh cancels it by leaving; the next call loads again."""
    hang, loader = Loader(seconds=1000), Loader()
    async with (
        TTLCache[str](10, stale_while_revalidate=0.5) as cache,
        anyio.create_task_group() as group,
    ):
        callers = Callers(cache, group)
        cache.set_nowait("key", "old")
        await until(10.25)
        await callers.ask(hang)
        assert (callers.answers, hang.started) == ({0: "old"}, 1)
        await until(10.75)  # the stale time is over
        for _ in range(2):
            await callers.ask(loader)
        callers.scopes[1].cancel()
        await settle()
        assert hang.cancelled == 0
        callers.scopes[2].cancel()
        await settle()
        assert hang.cancelled == 1
        await callers.ask(loader)
        await until(12)
        assert cache.statistics().in_flight == 0
    assert callers.answers == {0: "old", 1: GONE, 2: GONE, 3: "value 1"}
    assert callers.moments[3] == 11.75
    assert_quiescent(cache)


@pytest.mark.parametrize("change", ["set", "delete", "clear", "invalidate_tag"])
async def test_changed_during_a_refresh(change: str) -> None:
    """What is set or removed while a refresh is on its way stays so."""
    loader = Loader()
    async with TTLCache[str](10, stale_while_revalidate=5) as cache:
        cache.set_nowait("key", "old", tags=["tag"])
        await until(10)
        assert await cache.get_or_set("key", loader, tags=["tag"]) == "old"
        await until(10.5)
        args = {"set": ("key", "set"), "delete": ("key",), "clear": (), "invalidate_tag": ("tag",)}
        await getattr(cache, change)(*args[change])
        await until(12)
        assert loader.ended == 1
        assert await cache.get("key") == ("set" if change == "set" else None)
    assert_quiescent(cache)


async def test_refresh_that_is_closed() -> None:
    """Leaving the cache cancels its refreshes; the old value stays, and nothing is told of it."""
    loader = Loader()
    cache: TTLCache[str] = TTLCache(10, stale_while_revalidate=50)
    async with cache:
        cache.set_nowait("key", "old")
        await until(10)
        assert await cache.get_or_set("key", loader) == "old"
        await settle()
    assert anyio.current_time() == 10
    assert (loader.started, loader.cancelled) == (1, 1)
    async with cache:
        assert await cache.get_or_set("key", loader) == "old"
        await until(11)
        assert await cache.get("key") == "value 2"
    assert_quiescent(cache)


@pytest.mark.parametrize("options", [{"stale_while_revalidate": 5}, {"refresh_ahead": 0.5}])
async def test_refreshing_needs_an_entered_cache(options: dict[str, Any]) -> None:
    """Without a block there is nowhere to refresh; the error says what to do, before any load."""
    loader = Loader()
    cache: TTLCache[str] = TTLCache(10, name="users", **options)
    message = (
        r"^<TTLCache 'users' .*> refreshes in the background, but is not entered in this event "
        r"loop\. Use 'async with cache:' around code that uses it, or leave out "
    )
    for call in (cache.get_or_set, cache.refresh):
        with pytest.raises(RuntimeError, match=message):
            await call("key", loader)
    assert (loader.started, len(cache)) == (0, 0)
    cache.set_nowait("key", "value")  # what works on memory alone does so as ever
    assert await cache.get("key") == "value"
    async with cache:
        assert await cache.get_or_set("key", loader) == "value"
    assert_quiescent(cache)


async def listen(*_: object) -> None:
    """Hear of a removal."""


@EACH_POLICY
@pytest.mark.parametrize(
    "options",
    [{"stale_while_revalidate": 5}, {"refresh_ahead": 0.5}, {"on_removed": listen}],
    ids=["stale", "ahead", "listened"],
)
async def test_values_that_are_there_need_no_entered_cache(
    policy: EvictionPolicy, options: dict[str, Any]
) -> None:
    """What needs a block is a load, and a hit starts none, whatever the policy."""
    loader = Loader()
    cache: TTLCache[str] = TTLCache(10, max_size=10, policy=policy, **options)
    async with cache:
        cache.set_nowait("key", "value")
    assert await cache.get_or_set("key", loader) == "value"
    await anyio.sleep(10)
    before = cache.statistics()
    assert (before.hits, before.misses) == (1, 0)
    for call in (cache.get_or_set, cache.refresh):
        with pytest.raises(RuntimeError, match=r"^<TTLCache .* is not entered"):
            await call("key", loader)
    assert cache.statistics() == before
    assert loader.started == 0
    async with cache:
        assert await cache.get_or_set("other", loader) == "value 1"
    assert_quiescent(cache)


# Refresh ahead.


@EACH_POLICY
async def test_refresh_ahead(policy: EvictionPolicy) -> None:
    """From its fraction on a read begins a load; the value is fresh when its time would end."""
    loader = Loader()
    async with TTLCache[str](10, max_size=100, policy=policy, refresh_ahead=0.75) as cache:
        cache.set_nowait("key", "old")
        await until(7.4375)
        assert await cache.get_or_set("key", loader) == "old"
        await settle()
        assert loader.started == 0
        await until(7.5)
        assert await cache.get("key") == "old"  # reading alone loads nothing
        await settle()
        assert loader.started == 0
        with assert_no_checkpoints():
            assert await cache.get_or_set("key", loader) == "old"
            assert await cache.get_or_set("key", loader) == "old"
        await until(8.5)
        assert loader.started == 1
        assert await cache.get_or_set("key", loader) == "value 1"
        await until(15.9375)
        assert await cache.get_or_set("key", loader) == "value 1"
        await settle()
        assert loader.started == 1
        await until(16)
        assert await cache.get_or_set("key", loader) == "value 1"
        await until(17)
        assert await cache.get("key") == "value 2"
    assert_quiescent(cache)


async def test_refresh_ahead_needs_somebody_who_asks() -> None:
    """A value that is not asked for is not renewed, and is gone when its time is over."""
    loader = Loader()
    async with TTLCache[str](10, refresh_ahead=0.5) as cache:
        cache.set_nowait("key", "old")
        await until(10)
        assert await cache.get_or_set("key", loader) == "value 1"
        assert anyio.current_time() == 11
        assert loader.started == 1


async def test_failed_refresh_ahead_keeps_the_value() -> None:
    """The value stays until its time is over, and each call tries again."""
    loader = Loader(fail=True)
    async with TTLCache[str](10, refresh_ahead=0.5) as cache:
        cache.set_nowait("key", "old")
        for moment in (5, 6, 7):
            await until(moment)
            assert await cache.get_or_set("key", loader) == "old"
        await until(9)
        assert loader.ended == 3
        assert await cache.get("key") == "old"
        await until(10)
        assert await cache.get("key") is None


async def test_refresh_ahead_and_stale_together() -> None:
    """The refresh begins ahead, and if it is slow the old value bridges the time."""

    async def slow() -> str:
        await anyio.sleep(4)
        return "new"

    async with TTLCache[str](10, refresh_ahead=0.8, stale_while_revalidate=5) as cache:
        cache.set_nowait("key", "old")
        await until(8)
        assert await cache.get_or_set("key", slow) == "old"
        await until(11.5)
        assert await cache.get("key") is None
        assert await cache.get_or_set("key", slow) == "old"
        await until(12)
        assert await cache.get_or_set("key", slow) == "new"
        assert cache.statistics().loads == 1


@EACH_POLICY
async def test_touch_defers_the_refresh(policy: EvictionPolicy) -> None:
    """Touching restarts the value's time, and that of its refresh."""
    loader = Loader()
    cache: TTLCache[str] = TTLCache(
        10, max_size=100, policy=policy, refresh_ahead=0.5, stale_while_revalidate=2
    )
    async with cache:
        cache.set_nowait("key", "old")
        await until(4)
        assert await cache.touch("key")
        await until(8.9375)
        assert await cache.get_or_set("key", loader) == "old"
        await settle()
        assert loader.started == 0
        await until(9)
        assert await cache.get_or_set("key", loader) == "old"
        await settle()
        assert loader.started == 1
        cache.set_nowait("key", "set", math.inf)
        await until(10**6)
        assert await cache.get_or_set("key", loader) == "set"
        await settle()
        assert loader.started == 1  # what never ends is never renewed


async def test_refresh_keeps_ttl_and_tags_of_its_call() -> None:
    """What a refresh stores has the ttl and the tags that the call which began it gave."""
    async with TTLCache[str](10, stale_while_revalidate=5) as cache:
        cache.set_nowait("key", "old", tags=["one"])
        await until(10)
        assert await cache.get_or_set("key", Loader(), ttl=3, tags=["other"]) == "old"
        await until(11)
        assert await cache.invalidate_tag("one") == 0
        await until(13.9375)
        assert await cache.get("key") == "value 1"
        assert await cache.invalidate_tag("other") == 1


async def test_idle_ttl_bounds_the_stale_time() -> None:
    """A stale value that is not asked for goes with its idle time; asking keeps it to its limit."""
    loader = Loader(fail=True)
    async with TTLCache[str](4, stale_while_revalidate=10, idle_ttl=3) as cache:
        cache.set_nowait("read", "old")
        cache.set_nowait("unread", "old")
        for moment in (2, 4, 6, 8, 10, 12, 13.9375):
            await until(moment)
            assert await cache.get_or_set("read", loader) == "old"
        await until(14)
        assert len(cache) == 0
        with pytest.raises(LookupError):
            await cache.get_or_set("read", loader)


async def test_loader_that_asks_for_its_own_stale_key() -> None:
    """A refresh that asks for its own key is refused as any load is, and the old value stays."""
    started = 0

    async with TTLCache[str](10, stale_while_revalidate=5) as cache:

        async def recursive() -> str:
            nonlocal started
            started += 1
            return await cache.get_or_set("key", recursive)

        cache.set_nowait("key", "old")
        await until(10)
        assert await cache.get_or_set("key", recursive) == "old"
        await settle()
        assert started == 1
        assert await cache.get_or_set("key", Loader()) == "old"
        await until(11)
        assert await cache.get("key") == "value 1"
    assert_quiescent(cache)


async def test_refresh_that_asks_for_the_load_in_whose_course_it_began() -> None:
    """That load was served the stale value and does not wait for it, so this may wait for that."""

    async def old() -> str:
        return "old"

    async def renewed() -> str:
        return f"part of {await cache.get_or_set('whole', whole)}"

    async def whole() -> str:
        part = await cache.get_or_set("part", renewed)
        await anyio.sleep(1)
        return f"whole of {part}"

    async with TTLCache[str](10, stale_while_revalidate=100) as cache:
        await cache.get_or_set("part", old)
        await until(15)
        assert await cache.get_or_set("whole", whole) == "whole of old"
        await settle()
        assert cache.get_nowait("part") == "part of whole of old"
        assert cache.statistics().loads == 3


@pytest.mark.parametrize(
    "options", [{"stale_while_revalidate": 60}, {"refresh_ahead": 0.5}], ids=["stale", "ahead"]
)
async def test_refresh_loads_what_its_call_has_named(options: dict[str, Any]) -> None:
    """A lambda in a loop means the variable of its turn, though the load runs later."""
    loaded: list[str] = []

    async def fetch(user: str) -> str:
        await anyio.lowlevel.checkpoint()
        loaded.append(user)
        return f"data of {user}"

    cache: TTLCache[str] = TTLCache(10, max_size=100, **options)
    users = ("ann", "ben", "cy")
    async with cache:
        for _ in range(2):
            for user in users:
                got = await cache.get_or_set(user, lambda: fetch(user))  # noqa: B023 - the point
                assert got == f"data of {user}"
            user = "nobody"
            await settle()
            await anyio.sleep(10 if "stale_while_revalidate" in options else 5)
        assert sorted(loaded) == sorted([*users, *users])
        for user in users:
            assert await cache.get_or_set(user, Loader()) == f"data of {user}"


@pytest.mark.parametrize("kept", [True, False], ids=["refresh", "load"])
@pytest.mark.parametrize("fault", ["raises", "returns"])
async def test_factory_that_fails_at_once(
    fault: str, *, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What a loader raises before there is anything to await is the error of that load."""

    def loader() -> Any:
        if fault == "raises":
            msg = "no such source"
            raise LookupError(msg)
        return 3

    error: type[Exception] = LookupError if fault == "raises" else TypeError
    async with TTLCache[str](10, stale_while_revalidate=5) as cache:
        if kept:
            cache.set_nowait("key", "old")
            await until(10)
            assert await cache.get_or_set("key", loader) == "old"
        else:
            with pytest.raises(error, match=r"^(no such source$|loader=<.* returned 3, which)"):
                await cache.get_or_set("key", loader)
        assert_quiescent(cache)
        assert cache.statistics().failed == 1
        assert await cache.get_or_set("other", Loader()) == "value 1"
    assert len(caplog.records) == kept  # those without a waiter


async def test_factory_that_raises_what_is_no_exception() -> None:
    """It goes through to the caller, and leaves no load behind."""

    class NoError(BaseException):
        pass

    def loader() -> Any:
        raise NoError

    async with TTLCache[str](10) as cache:
        with pytest.raises(NoError):
            await cache.get_or_set("key", loader)
        assert_quiescent(cache)
        assert await cache.get_or_set("key", Loader()) == "value 1"


async def test_limits_hold_for_stale_values() -> None:
    """Stale values count towards max_size and go as any other does."""
    heard: list[tuple[Any, str, RemovalCause]] = []
    cache: TTLCache[str] = TTLCache(
        10,
        max_size=2,
        policy="fifo",
        stale_while_revalidate=5,
        on_removed=lambda *removal: heard.append(removal),
    )
    cache.set_nowait("a", "old")
    cache.set_nowait("b", "old")
    await until(10)
    cache.set_nowait("c", "new")
    cache.set_nowait("b", "new")
    assert heard == [("a", "old", RemovalCause.EVICTED), ("b", "old", RemovalCause.REPLACED)]
    statistics = cache.statistics()
    assert (statistics.size, statistics.evictions, statistics.expirations) == (2, 1, 0)


# Errors that are kept.


@EACH_POLICY
async def test_kept_error_is_raised_for_exactly_that_long(policy: EvictionPolicy) -> None:
    """From the moment of the failure, error_ttl seconds, to everybody who asks; then no more."""
    loader = Loader(fail=True)
    cache: TTLCache[str] = TTLCache(10, max_size=100, policy=policy, error_ttl=3)
    with pytest.raises(LookupError, match=r"^load 1$"):
        await cache.get_or_set("key", loader)
    await until(3.9375)
    with pytest.raises(LookupError, match=r"^load 1$"), assert_no_checkpoints():
        await cache.get_or_set("key", loader)
    await until(4)
    loader.fail = False
    assert await cache.get_or_set("key", loader) == "value 2"
    assert cache.statistics().failed == 1


async def test_kept_error_has_a_steady_traceback() -> None:
    """However often it is raised, its traceback is that of the load and of one call."""
    cache: TTLCache[str] = TTLCache(10, error_ttl=30)
    lengths: list[int] = []
    for _ in range(20):
        try:
            await cache.get_or_set("key", Loader(fail=True))
        except LookupError as error:
            length, trace = 0, error.__traceback__
            while trace is not None:
                length, trace = length + 1, trace.tb_next
            lengths.append(length)
    assert len(lengths) == 20
    assert max(lengths[1:]) == min(lengths[1:])


@pytest.mark.parametrize(
    "options",
    [{"idle_ttl": 100}, {"stale_while_revalidate": 50}, {"idle_ttl": 1, "refresh_ahead": 0.5}],
    ids=["idle", "stale", "ahead"],
)
async def test_kept_error_ends_in_its_time_whatever_the_cache_is_told(
    options: dict[str, Any],
) -> None:
    """Neither idle time nor stale time lengthens or shortens how long an error is kept."""
    loader = Loader(fail=True)
    async with TTLCache[str](10, error_ttl=3, **{"stale_while_revalidate": 50, **options}) as cache:
        with pytest.raises(LookupError, match=r"^load 1$"):
            await cache.get_or_set("key", loader)
        for moment in (1.5, 3.75):
            await until(moment)
            with pytest.raises(LookupError, match=r"^load 1$"):
                await cache.get_or_set("key", loader)
        await until(4)
        with pytest.raises(LookupError, match=r"^load 2$"):
            await cache.get_or_set("key", loader)


async def test_cancellation_and_what_is_no_exception_are_not_kept() -> None:
    """Only an Exception of the loader is kept for error_ttl: not its end by cancellation."""
    loader = Loader()
    for entered in (True, False):
        cache: TTLCache[str] = TTLCache(10, error_ttl=30)
        if entered:
            async with cache:
                with anyio.move_on_after(0.5):
                    await cache.get_or_set("key", loader)
                await settle()
                assert len(cache) == 0
        else:
            with anyio.move_on_after(0.5):
                await cache.get_or_set("key", loader)
        assert len(cache) == 0
        assert cache.statistics().failed == 0
    assert loader.cancelled == 2


@pytest.mark.parametrize("way", ["set", "delete", "clear", "load"])
async def test_kept_error_makes_way(way: str) -> None:
    """Setting, deleting, clearing or refreshing the key ends its error at once."""
    heard: list[object] = []
    cache: TTLCache[str] = TTLCache(
        10, error_ttl=30, on_removed=lambda *removal: heard.append(removal)
    )
    loader = Loader(fail=True)
    with pytest.raises(LookupError):
        await cache.get_or_set("key", loader)
    loader.fail = False
    if way == "set":
        await cache.set("key", "set")
        assert await cache.get_or_set("key", loader) == "set"
    elif way == "load":
        assert await cache.refresh("key", loader) == "value 2"
        assert await cache.get("key") == "value 2"
    else:
        await getattr(cache, way)(*(["key"] if way == "delete" else []))
        assert await cache.get_or_set("key", loader) == "value 2"
    assert heard == []  # an error is not a value


@EACH_POLICY
@pytest.mark.parametrize("detailed", [True, False], ids=["detailed", "plain"])
async def test_kept_error_that_is_evicted_is_no_value(
    policy: EvictionPolicy, *, detailed: bool
) -> None:
    """The listener is not told of it, but it counts as evicted; a value that it evicts is told."""
    heard: list[object] = []
    cache: TTLCache[str] = TTLCache(
        math.inf,
        max_size=1,
        policy=policy,
        error_ttl=30,
        idle_ttl=100 if detailed else None,
        on_removed=lambda *removal: heard.append(removal),
    )
    with pytest.raises(LookupError):
        await cache.get_or_set("key", Loader(fail=True))
    cache.set_nowait("other", "value")
    assert heard == []
    assert cache.items() == [("other", "value")]
    assert cache.statistics().evictions == 1
    with pytest.raises(LookupError):
        await cache.get_or_set("key", Loader(fail=True))
    assert heard == [("other", "value", RemovalCause.EVICTED)]  # at once
    assert cache.items() == []


@EACH_POLICY
async def test_kept_errors_go_in_the_background(policy: EvictionPolicy) -> None:
    """In an entered cache, errors whose time is over are removed without being asked for."""
    async with TTLCache[str](10, max_size=100, policy=policy, error_ttl=3) as cache:
        with pytest.raises(LookupError):
            await cache.get_or_set("key", Loader(fail=True))
        assert len(cache) == 1
        await until(5)
        assert len(cache) == 0
        assert cache.statistics().expirations == 1


@EACH_POLICY
async def test_kept_errors_that_are_over_go_when_others_come(policy: EvictionPolicy) -> None:
    """Without a block each load that fails removes a few of them, before a value has to go."""
    cache: TTLCache[str] = TTLCache(10, policy=policy, error_ttl=3)
    full: TTLCache[str] = TTLCache(math.inf, max_size=4, policy=policy, error_ttl=3)
    full.set_nowait("value", "stays")
    loader = Loader(fail=True, seconds=0)
    for key in range(100):
        if key % 3 == 0:
            await anyio.sleep(5)
        for each in (cache, full):
            with pytest.raises(LookupError):
                await each.get_or_set(key, loader)
        assert len(cache) <= 6
    assert "value" in full
    assert full.statistics().evictions == 0
    assert_whole(cache)
    assert_whole(full)


async def test_kept_error_takes_the_place_of_a_value_that_is_over() -> None:
    """That value left because its time was over, also if it had not been removed yet."""
    heard: list[object] = []
    cache: TTLCache[str] = TTLCache(
        10, error_ttl=30, on_removed=lambda *removal: heard.append(removal)
    )
    cache.set_nowait("key", "old", 0.5)
    await anyio.sleep(0.6)  # what is over is looked for by the second
    with pytest.raises(LookupError):
        await cache.get_or_set("key", Loader(fail=True, seconds=0))
    assert heard == [("key", "old", RemovalCause.EXPIRED)]
    assert (len(cache), cache.statistics().expirations) == (1, 1)
    assert_whole(cache)


@pytest.mark.parametrize("entered", [True, False], ids=["entered", "not entered"])
@pytest.mark.parametrize("change", ["set", "delete", "clear"])
async def test_error_of_a_load_that_a_change_overtook_is_not_kept(
    change: str, *, entered: bool
) -> None:
    """Who waited for that load gets its error; who asks afterwards has nothing to do with it."""
    cache: TTLCache[str] = TTLCache(10, error_ttl=30)
    async with AsyncExitStack() as stack:
        if entered:
            await stack.enter_async_context(cache)
        async with anyio.create_task_group() as group:
            callers = Callers(cache, group)
            await callers.ask(Loader(fail=True))
            await until(0.5)
            args = {"set": ("key", "set", 0.25), "delete": ("key",), "clear": ()}
            await getattr(cache, change)(*args[change])
            await until(1.5)
            assert str(callers.answers[0]) == "load 1"
            assert await cache.get_or_set("key", Loader()) == "value 1"


@EACH_POLICY
async def test_refresh_that_fails_early_brings_no_other_forward(policy: EvictionPolicy) -> None:
    """The next refresh is due when it was, or error_ttl after the failure if that is later."""
    loader = Loader(fail=True)
    async with TTLCache[str](
        16, max_size=100, policy=policy, refresh_ahead=0.5, error_ttl=2
    ) as cache:
        cache.set_nowait("key", "old")
        with pytest.raises(LookupError):
            await cache.refresh("key", loader)
        started: list[float] = []
        for moment in (2, 4, 7, 8, 10, 11):
            await until(moment)
            before = loader.started
            assert await cache.get_or_set("key", loader) == "old"
            await settle()
            if loader.started > before:
                started.append(moment)
        assert started == [8, 11]


@EACH_POLICY
@pytest.mark.parametrize(
    "options",
    [{}, {"idle_ttl": 100}, {"weigher": lambda *_: 1}, {"error_ttl": 5}],
    ids=["plain", "idle", "weighed", "errors kept"],
)
async def test_failed_refresh_leaves_a_value_that_nothing_renews(
    policy: EvictionPolicy, options: dict[str, Any]
) -> None:
    """Where nothing is renewed in the background, a value that a refresh left is not either."""
    loader = Loader(fail=True)
    cache: TTLCache[str] = TTLCache(60, max_size=100, policy=policy, **options)
    for entered in (False, True):
        async with AsyncExitStack() as stack:
            if entered:
                await stack.enter_async_context(cache)
            cache.set_nowait("key", "old")
            with pytest.raises(LookupError):
                await cache.refresh("key", loader)
            for _ in range(3):
                await anyio.sleep(1)
                with assert_no_checkpoints():
                    assert await cache.get_or_set("key", loader) == "old"
            await settle()
    assert loader.started == 2


@pytest.mark.parametrize("entered", [True, False], ids=["entered", "not entered"])
async def test_kept_error_carries_the_tags_of_its_load(*, entered: bool) -> None:
    """Invalidating a tag forgets an error too, which is not counted as a value."""
    heard: list[object] = []
    cache: TTLCache[str] = TTLCache(
        60, error_ttl=60, on_removed=lambda *removal: heard.append(removal)
    )
    loader = Loader(fail=True)
    async with AsyncExitStack() as stack:
        if entered:
            await stack.enter_async_context(cache)
        for call in (cache.get_or_set, cache.refresh):
            with pytest.raises(LookupError):
                await call("key", loader, tags=["user 7"])
            assert len(cache) == 1
            assert cache.invalidate_tag_nowait("user 8") == 0
            assert len(cache) == 1
            assert cache.invalidate_tag_nowait("user 7") == 0
            assert len(cache) == 0
        assert await cache.get_or_set("key", Loader(), tags=["user 7"]) == "value 1"
    assert heard == []


async def test_kept_error_of_an_object_that_died_is_forgotten() -> None:
    """The errors of a method go with its object, as its results do."""
    cache: TTLCache[None] = TTLCache(60, error_ttl=60)

    class User:
        @cached(cache=cache)
        async def read(self) -> None:
            raise LookupError

    user = User()
    with pytest.raises(LookupError):
        await user.read()
    assert len(cache) == 1
    there = weakref.ref(user)
    cache._store.entries[next(iter(cache._store.entries))].value.error.__traceback__ = None
    cache._store.entries[next(iter(cache._store.entries))].value.traceback = None
    del user
    gc.collect()
    assert there() is None
    other = User()
    with pytest.raises(LookupError):
        await other.read()
    assert len(cache) == 1


# Jitter.


@EACH_POLICY
async def test_jitter_of_loads_and_of_stale_values(policy: EvictionPolicy) -> None:
    """What is loaded is spread as what is set: within its fraction, never longer, never over."""
    cache: TTLCache[int] = TTLCache(100, max_size=100, policy=policy, jitter=0.5)

    async def one() -> int:
        return 1

    for number in range(100):
        await cache.get_or_set(number, one)
    await until(50)
    assert len(cache.items()) == 100
    await until(75)
    assert 20 < len(cache.items()) < 80
    await until(100)
    assert cache.items() == []


async def test_jitter_leaves_what_never_ends_alone() -> None:
    """A time to live without an end, and one of nothing, are the same with jitter."""
    cache: TTLCache[int] = TTLCache(math.inf, jitter=0.9)
    cache.set_nowait("ever", 1)
    cache.set_nowait("never", 1, 0)
    await until(10**9)
    assert [*cache] == ["ever"]
    assert cache.touch_nowait("ever")
    assert [*cache] == ["ever"]


# Tags of what is loaded.


async def test_tags_of_loads_are_checked_before_the_load() -> None:
    """A tag that cannot be one is refused before anything begins."""
    cache: TTLCache[str] = TTLCache(10)
    loader = Loader()
    bad: Any = [[]]
    with pytest.raises(TypeError, match=r"^tags=\[\[\]\] is not a set of hashable tags: "):
        await cache.get_or_set("key", loader, tags=bad)
    with pytest.raises(TypeError, match=r"^tags='tag' is a str, not a set of tags\. "):
        await cache.refresh("key", loader, tags="tag")
    assert loader.started == 0
    assert cache.statistics().misses == 0


async def test_tag_of_a_hit_is_that_of_its_load() -> None:
    """Asking with other tags for what is there changes no tags; refreshing does."""
    cache: TTLCache[str] = TTLCache(10)
    loader = Loader()
    await cache.get_or_set("key", loader, tags=["one"])
    await cache.get_or_set("key", loader, tags=["other"])
    assert cache.invalidate_tag_nowait("other") == 0
    await cache.refresh("key", loader, tags=["other"])
    assert cache.invalidate_tag_nowait("one") == 0
    assert cache.invalidate_tag_nowait("other") == 1
