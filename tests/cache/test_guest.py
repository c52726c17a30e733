"""A trio that runs as a guest of asyncio: two event loops by turns in one thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio import ConcurrencyLimiter
from mtaio.cache import TTLCache

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

trio = pytest.importorskip("trio")


async def both(ask: Callable[[], Coroutine[Any, Any, None]], ends: anyio.Event) -> None:
    """Have two tasks ask, then let the load end that they wait for."""
    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        ends.set()


def test_a_guest_loads_for_itself() -> None:
    """A task of the guest waits for no load of its host, whose context it has, nor the host's."""
    cache: TTLCache[str] = TTLCache(60)
    started: list[str] = []

    async def load(name: str, ends: Any) -> str:
        started.append(name)
        await ends.wait()
        return name

    async def main() -> tuple[str, str, str]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        host_ends = asyncio.Event()

        async def guest() -> tuple[str, str]:
            ends = anyio.Event()
            answers: list[str] = []

            async def ask() -> None:
                answers.append(await cache.get_or_set("key", lambda: load("guest", ends)))

            with anyio.fail_after(5):  # else they wait for the host's load
                await both(ask, ends)
            first, second = answers
            return first, second

        host = asyncio.create_task(cache.get_or_set("key", lambda: load("host", host_ends)))
        await asyncio.sleep(0)
        await cache.get_or_set("other", lambda: asyncio.sleep(0, "known"))  # notes the loop
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        first, second = (await done).unwrap()
        host_ends.set()
        return first, second, await host

    assert asyncio.run(main()) == ("guest", "guest", "host")
    assert started == ["host", "guest"]


def test_a_guest_waits_in_its_own_loop() -> None:
    """A queue in which the host waited before parks a task of the guest as trio wants it."""
    limiter = ConcurrencyLimiter(1)

    async def use() -> None:
        async with limiter:
            await anyio.sleep(0.01)

    async def both_wait() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(use)
            group.start_soon(use)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        await both_wait()
        trio.lowlevel.start_guest_run(
            both_wait,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        (await done).unwrap()

    asyncio.run(main())
    assert limiter.statistics().in_use == 0


def test_a_host_is_another_loop_than_its_guest() -> None:
    """It is refused while tasks of the guest wait; what it gives back wakes them in their loop."""
    limiter = ConcurrencyLimiter(1)
    refused: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        async def guest() -> None:
            with anyio.fail_after(5):
                await limiter.acquire()
                asyncio.run_coroutine_threadsafe(host(), loop)  # it has the guest's context
                await limiter.acquire()
            limiter.release()

        async def host() -> None:
            try:
                await limiter.acquire()
            except RuntimeError as error:
                refused.append(str(error))
            limiter.release()

        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        (await done).unwrap()
        async with limiter:
            with pytest.raises(TimeoutError):
                await limiter.acquire(timeout=0.01)

    asyncio.run(main())
    assert [text.split("> ")[1][:39] for text in refused] == [
        "is in use by tasks of another running e"
    ]
    assert limiter.statistics().in_use == 0


def test_a_host_s_task_with_the_context_of_its_guest() -> None:
    """A load that a task of the guest's wants is not joined by a task that it has started there."""
    cache: TTLCache[str] = TTLCache(60)

    async def main() -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        answers: list[asyncio.Task[str]] = []

        async def load_there() -> str:
            await asyncio.sleep(0)
            return "host"

        async def load() -> str:
            answers.append(loop.create_task(cache.get_or_set("key", load_there)))
            await trio.sleep(0.05)
            return "guest"

        async def guest() -> str:
            await cache.get_or_set("other", lambda: trio.sleep(0))  # notes the loop
            return await cache.get_or_set("key", load)

        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        first = (await done).unwrap()
        return first, await answers[0]

    assert asyncio.run(main()) == ("guest", "host")
