"""In real time, on every event loop: a cache that loads, renews and sweeps."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint

from mtaio.cache import TTLCache, cached
from mtaio.testing import assert_quiescent


@pytest.mark.parametrize("entered", [True, False], ids=["entered", "not entered"])
@pytest.mark.parametrize("suspends", [True, False], ids=["suspends", "at once"])
async def test_one_load_for_all(*, entered: bool, suspends: bool) -> None:
    """Twenty who ask at once share a load, also where tasks run at once and it never suspends."""
    cache: TTLCache[int] = TTLCache(60, max_size=10)
    loads = 0
    answers: list[int] = []

    async def load() -> int:
        nonlocal loads
        loads += 1
        if suspends:
            await anyio.sleep(0.01)
        return loads

    async def ask() -> None:
        answers.append(await cache.get_or_set("key", load))

    async with AsyncExitStack() as stack:
        if entered:
            await stack.enter_async_context(cache)
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask)
    assert (loads, answers) == (1, [1] * 20)
    assert_quiescent(cache)


@pytest.mark.parametrize("entered", [True, False], ids=["entered", "not entered"])
async def test_first_caller_cancelled(*, entered: bool) -> None:
    """The others get a value when the first who asked has run out of time."""
    cache: TTLCache[str] = TTLCache(60, max_size=10)
    answers: list[str] = []
    go_on = anyio.Event()
    scope = anyio.CancelScope()

    async def load() -> str:
        await go_on.wait()
        return "value"

    async def ask() -> None:
        answers.append(await cache.get_or_set("key", load))

    async def first() -> None:
        with scope:
            await ask()

    async with AsyncExitStack() as stack:
        if entered:
            await stack.enter_async_context(cache)
        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await waiting(cache, 1 if entered else 0)
            for _ in range(5):
                group.start_soon(ask)
            await waiting(cache, 6 if entered else 5)
            scope.cancel()
            await waiting(cache, 5 if entered else 4)
            go_on.set()
    assert answers == ["value"] * 5
    assert cache.statistics().loads == (1 if entered else 2)
    assert_quiescent(cache)


async def waiting(cache: TTLCache[str], number: int) -> None:
    """Wait until a load is in flight, and so many wait for it."""
    with anyio.fail_after(10):
        while True:
            now = cache.statistics()
            if now.in_flight == 1 and now.waiting == number:
                return
            await checkpoint()


async def test_renewed_in_the_background() -> None:
    """A stale value is served while a new one is loaded."""
    calls = 0

    @cached(cache=TTLCache(0.01, stale_while_revalidate=60))
    async def fetch() -> int:
        nonlocal calls
        calls += 1
        await anyio.sleep(0.001)
        return calls

    async with fetch.cache:
        assert await fetch() == 1
        await anyio.sleep(0.02)
        assert await fetch() == 1
        with anyio.fail_after(10):
            while await fetch() == 1:
                await checkpoint()
    assert_quiescent(fetch.cache)


async def test_swept_in_the_background() -> None:
    """What expires is removed without being asked for, also if a worker thread has set it."""
    heard: list[object] = []
    cache: TTLCache[int] = TTLCache(
        60, on_removed=lambda key, _, cause: heard.append((key, str(cause)))
    )
    async with cache:
        await checkpoint()
        await to_thread.run_sync(lambda: cache.set_nowait("key", 1, 0.01))
        with anyio.fail_after(10):
            while len(cache):  # noqa: ASYNC110 - there is no event
                await anyio.sleep(0.01)
    assert heard == [("key", "expired")]
