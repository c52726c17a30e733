"""Old values that are served where a load fails."""

from __future__ import annotations

import gc
import logging
import weakref
from contextlib import AsyncExitStack

import anyio
import pytest

from mtaio.cache import TTLCache
from mtaio.testing import assert_quiescent
from tests.cache.loads import BOTH, GONE, Callers, Loader


async def old(options: dict[str, float], stack: AsyncExitStack, *, entered: bool) -> TTLCache[str]:
    """Return a cache with a value whose time is just over."""
    cache: TTLCache[str] = TTLCache(1, max_size=100, stale_if_error=5, **options)  # type: ignore[arg-type] # all take floats
    if entered:
        await stack.enter_async_context(cache)
    cache.set_nowait("key", "old")
    await anyio.sleep(1)
    return cache


@BOTH
async def test_old_value_in_place_of_an_error(
    caplog: pytest.LogCaptureFixture, *, entered: bool
) -> None:
    """All who wait for a load that fails get the old value, and one line of the log says why."""
    async with AsyncExitStack() as stack:
        cache = await old({}, stack, entered=entered)
        loader = Loader(fail=True)
        async with anyio.create_task_group() as group:
            callers = Callers(cache, group)
            for _ in range(3):
                await callers.ask(loader)
            callers.scopes[2].cancel()
        assert callers.answers == {0: "old", 1: "old", 2: GONE}
        assert caplog.messages == [
            f"{cache!r}: the load of key='key' failed, and its old value was served"
        ]
        assert caplog.records[0].levelno == logging.WARNING
        assert caplog.records[0].exc_info is not None
        assert cache.get_nowait("key") is None
        assert "key" not in cache
        statistics = cache.statistics()
        assert (statistics.loads, statistics.failed, statistics.served_stale) == (1, 1, 2)
        loader.fail = False
        assert await cache.get_or_set("key", loader) == "value 2"
        assert cache.get_nowait("key") == "value 2"
    assert_quiescent(cache)


@BOTH
async def test_not_for_ever(*, entered: bool) -> None:
    """Once that time is over too, the error is the callers'."""
    async with AsyncExitStack() as stack:
        cache = await old({}, stack, entered=entered)
        await anyio.sleep(4)
        with pytest.raises(LookupError, match=r"^load 1$"):
            await cache.get_or_set("key", Loader(fail=True))
    assert cache.statistics().served_stale == 0


@BOTH
async def test_refresh_gets_the_error(*, entered: bool) -> None:
    """Who asks for a new value hears that there is none; who would take any gets the old one."""
    async with AsyncExitStack() as stack:
        cache = await old({}, stack, entered=entered)
        loader = Loader(fail=True)
        async with anyio.create_task_group() as group:
            callers = Callers(cache, group)

            async def refresh() -> None:
                with pytest.raises(LookupError, match=r"^load 1$"):
                    await cache.refresh("key", loader)

            group.start_soon(refresh)
            await anyio.sleep(0.5)
            await callers.ask(loader)
        assert callers.answers == {0: "old"}
        assert loader.started == 1


@BOTH
async def test_a_key_that_was_removed_meanwhile(*, entered: bool) -> None:
    """What was deleted during the load is not served."""
    async with AsyncExitStack() as stack:
        cache = await old({}, stack, entered=entered)
        async with anyio.create_task_group() as group:
            callers = Callers(cache, group)
            await callers.ask(Loader(fail=True))
            cache.delete_nowait("key")
        assert str(callers.answers[0]) == "load 1"


@BOTH
async def test_errors_that_are_kept(*, entered: bool) -> None:
    """With ``error_ttl`` the next load waits for that long, and the old value is a hit."""
    async with AsyncExitStack() as stack:
        cache = await old({"error_ttl": 2}, stack, entered=entered)
        loader = Loader(fail=True, seconds=0)
        for _ in range(3):
            assert await cache.get_or_set("key", loader) == "old"
        assert (loader.started, cache.statistics().hits) == (1, 2)
        await anyio.sleep(2)
        assert await cache.get_or_set("key", loader) == "old"
        assert loader.started == 2
        assert cache.statistics().served_stale == 4
        await anyio.sleep(3)
        for _ in range(2):
            with pytest.raises(LookupError, match=r"^load 3$"):
                await cache.get_or_set("key", loader)


async def test_after_stale_while_revalidate() -> None:
    """First a value is served while it is renewed, then only if that fails."""
    cache: TTLCache[str] = TTLCache(1, stale_while_revalidate=2, stale_if_error=5)
    loader = Loader(fail=True, seconds=0.5)
    async with cache:
        cache.set_nowait("key", "old")
        for moment, waits in ((1, 0), (2, 0), (3, 0.5), (5.25, 0.5)):
            await anyio.sleep(moment - anyio.current_time())
            assert await cache.get_or_set("key", loader) == "old"
            assert anyio.current_time() == moment + waits
    assert cache.statistics().served_stale == 2


async def test_idle_values_go() -> None:
    """``idle_ttl`` ends it sooner."""
    cache: TTLCache[str] = TTLCache(1, stale_if_error=50, idle_ttl=3, policy="lru")
    cache.set_nowait("key", "old")
    await anyio.sleep(2)
    loader = Loader(fail=True, seconds=0)
    assert await cache.get_or_set("key", loader) == "old"
    await anyio.sleep(1)
    with pytest.raises(LookupError):
        await cache.get_or_set("key", loader)


async def test_served_errors_are_let_go() -> None:
    """The error that was not raised is kept by nothing."""

    class HeldError(Exception):
        def __init__(self) -> None:
            there.append(weakref.ref(self))

    there: list[weakref.ref[HeldError]] = []

    async def load() -> str:
        raise HeldError

    async with AsyncExitStack() as stack:
        cache = await old({}, stack, entered=False)
        gc.disable()
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(logging.getLogger("mtaio.cache"), "disabled", True)
                assert await cache.get_or_set("key", load) == "old"
            assert there[0]() is None
        finally:
            gc.enable()
