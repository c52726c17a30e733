"""Loads whose coroutine is closed, or whose event loop is over: they neither block nor count."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import anyio
import pytest

from mtaio.cache import TTLCache, cached
from mtaio.testing import assert_quiescent, run
from tests.cache.whole import assert_whole


class Never:
    """Suspends for good, so that no event loop has to clean up behind it."""

    def __await__(self) -> Any:
        yield


async def never() -> int:
    """Load, and never finish."""
    await Never()
    raise AssertionError


async def soon() -> int:
    """Load at once."""
    return 1


def started_apart(call: Any) -> tuple[contextvars.Context, Any]:
    """Start a call in a context of its own, and return both; else the next call is part of it."""
    context = contextvars.copy_context()
    context.run(call.send, None)  # driven by hand, so that it outlasts its loop
    return context, call


def test_loads_whose_loop_is_over(backend: str) -> None:
    """A load that its loop never ended is in no account, and neither when it is closed later."""
    cache: TTLCache[int] = TTLCache(60)
    calls: list[Any] = []

    async def begin() -> None:
        for key in ("key", "other"):
            call: Any = cache.get_or_set(key, never)
            call.send(None)  # driven by hand, so that no loop ends it
            calls.append(call)

    run(begin, backend=backend)
    assert cache.statistics().in_flight == 2
    with cache._lock:
        calls.pop().close()
        assert cache.statistics().in_flight == 2
    assert cache.statistics().in_flight == 1
    run(lambda: cache.get_or_set("third", soon), backend=backend)
    assert cache.statistics().in_flight == 0
    run(lambda: cache.get_or_set("key", soon), backend=backend)
    calls.pop().close()
    assert len(cache) == 2
    assert_quiescent(cache)
    assert_whole(cache)


def test_loads_of_a_loop_that_came_between() -> None:
    """What another loop leaves behind is forgotten by the next load, also of the loop before it."""
    cache: TTLCache[int] = TTLCache(60)
    calls: list[Any] = []

    async def begin() -> None:
        call: Any = cache.get_or_set("key", never)
        call.send(None)  # driven by hand, so that no loop ends it
        calls.append(call)

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        first.run_until_complete(cache.refresh("other", soon))
        second.run_until_complete(begin())
        second.close()
        assert cache.statistics().in_flight == 1
        first.run_until_complete(cache.refresh("other", soon))
        assert cache.statistics().in_flight == 0
    finally:
        first.close()
        second.close()
    calls.pop().close()
    assert_quiescent(cache)


@pytest.mark.parametrize("way", ["set", "delete", "clear", "tag"])
def test_a_change_overtakes_the_loads_of_all_loops(backend: str, way: str) -> None:
    """What several loops load at once for one key was all read before, and none of it is stored."""
    cache: TTLCache[int] = TTLCache(60)
    calls: list[tuple[contextvars.Context, Any]] = []

    async def late() -> int:
        await Never()
        return 7

    async def begin() -> None:
        call: Any = cache.get_or_set("key", late, tags=["tag"])
        calls.append(started_apart(call))

    async def both() -> None:
        await begin()
        await anyio.to_thread.run_sync(lambda: anyio.run(begin, backend=backend))
        if way == "set":
            cache.set_nowait("key", 1)
        elif way == "tag":
            cache.invalidate_tag_nowait("tag")
        else:
            getattr(cache, f"{way}_nowait")(*(["key"] if way == "delete" else []))
        for context, call in calls:
            with pytest.raises(StopIteration, match=r"^7$"):
                context.run(call.send, None)

    anyio.run(both, backend=backend)
    assert cache.items() == ([("key", 1)] if way == "set" else [])
    assert_quiescent(cache)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["older first", "younger first"])
def test_loads_of_several_loops_end_in_any_order(backend: str, order: tuple[int, int]) -> None:
    """One that fails takes only itself out of the table, wherever it stands, and nothing stays."""
    cache: TTLCache[int] = TTLCache(60)
    calls: list[tuple[contextvars.Context, Any]] = []

    async def fail() -> int:
        await Never()
        raise LookupError

    async def begin() -> None:
        call: Any = cache.get_or_set("key", fail)
        calls.append(started_apart(call))

    async def both() -> None:
        await begin()
        await anyio.to_thread.run_sync(lambda: anyio.run(begin, backend=backend))
        for left, number in zip((1, 0), order, strict=True):
            context, call = calls[number]
            with pytest.raises(LookupError):
                context.run(call.send, None)
            assert cache.statistics().in_flight == left
            assert len(cache._loads.table) == left

    anyio.run(both, backend=backend)
    assert_quiescent(cache)


async def test_a_load_that_is_closed_by_hand() -> None:
    """A caller that waits for a load whose coroutine is closed loads in its place."""
    cache: TTLCache[int] = TTLCache(60)
    call: Any = cache.get_or_set("key", never)
    contextvars.copy_context().run(call.send, None)  # else all that follows is in its course
    answers: list[int] = []

    async def ask() -> None:
        answers.append(await cache.get_or_set("key", soon))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.sleep(1)
        assert answers == []
        call.close()
    assert answers == [1]
    assert_quiescent(cache)


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt], ids=["error", "other"])
async def test_a_load_that_is_closed_in_the_middle_of_a_change(error: type[BaseException]) -> None:
    """It is counted after the change, as one that was cancelled, whatever it raises."""
    cache: TTLCache[int] = TTLCache(60)

    async def stubborn() -> int:
        try:
            await Never()
        finally:
            raise error

    call: Any = cache.get_or_set("key", stubborn)
    call.send(None)
    with cache._lock:
        with pytest.raises(error):
            call.close()
        assert cache.statistics().in_flight == 1
    statistics = cache.statistics()
    assert (statistics.in_flight, statistics.failed, statistics.cancelled) == (0, 0, 1)
    assert_quiescent(cache)


async def test_a_load_that_is_driven_in_the_middle_of_a_change() -> None:
    """Its value cannot be stored then, and it counts as one that was cancelled."""
    cache: TTLCache[int] = TTLCache(60)

    async def load() -> int:
        await Never()
        return 7

    context, call = started_apart(cache.get_or_set("key", load))
    with cache._lock, pytest.raises(RuntimeError, match=r"^a finaliser, a signal handler"):
        context.run(call.send, None)
    assert cache.statistics().cancelled == 1
    assert await cache.get_or_set("key", soon) == 1
    assert_quiescent(cache)
    assert_whole(cache)


def test_waiters_that_are_closed_by_hand() -> None:
    """One that waits and is closed is not counted any more, and the load goes on."""

    async def main() -> None:
        cache: TTLCache[int] = TTLCache(60)
        first: Any = cache.get_or_set("key", never)
        contextvars.copy_context().run(first.send, None)
        second: Any = cache.get_or_set("key", never)
        contextvars.copy_context().run(second.send, None)
        assert cache.statistics().waiting == 1
        second.close()
        assert (cache.statistics().waiting, cache.statistics().in_flight) == (0, 1)
        first.close()
        assert_quiescent(cache)

    run(main, backend="asyncio")  # trio's events wake the task, which here is that of the test


async def test_methods_of_a_cache_that_may_not_change() -> None:
    """Asking for the method of an object is not an error where a call of it would be one."""

    async def hear(*_: object) -> None:
        raise AssertionError

    class Lonely:
        @cached(cache=TTLCache[int](on_removed=hear))
        async def ask(self) -> int:
            """Be cached."""
            return 1

    for _ in range(3):
        lonely = Lonely()
        assert lonely.ask.cache.statistics().size == 0
    with pytest.raises(RuntimeError, match=r"^<TTLCache .*> has an async on_removed, but is not"):
        await lonely.ask()
    async with lonely.ask.cache:
        assert await lonely.ask() == 1
        lonely = Lonely()
        assert await lonely.ask() == 1


async def test_a_load_that_fails_after_its_key_was_changed() -> None:
    """The error of a load that a change overtook goes to who waited, and is not kept."""
    cache: TTLCache[int] = TTLCache(60, error_ttl=5)

    async def fail() -> int:
        cache.delete_nowait("key")
        raise LookupError

    for _ in range(2):
        with pytest.raises(LookupError):
            await cache.get_or_set("key", fail)
    assert (cache.statistics().loads, len(cache)) == (2, 0)
    assert_whole(cache)
