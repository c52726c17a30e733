"""Stores in several event loops of one process, each in a thread."""

from __future__ import annotations

from functools import partial
from threading import Event, Thread
from typing import TYPE_CHECKING

import anyio
import pytest

from mtaio._internal import loops
from mtaio.redis import RedisStore
from mtaio.redis._link import ConnectedLoops
from tests.backends import BACKENDS
from tests.redis.server.test_store import Signals

if TYPE_CHECKING:
    from tests.redis.servers import Server


@pytest.mark.parametrize("other", BACKENDS)
async def test_two_at_once(redis_server: Server, backend: str, other: str) -> None:
    """Two loops on asyncio work side by side; one on trio is alone, until it is over."""

    async def use() -> None:
        async with RedisStore(redis_server.url, timeout=10) as store:
            await store.ping()

    async with RedisStore(redis_server.url, timeout=10) as store:
        await store.ping()
        run = partial(anyio.run, use, backend=other)
        if backend == other == "asyncio":
            await anyio.to_thread.run_sync(run)
        else:
            with pytest.raises(RuntimeError, match=r"^redis://.* cannot be reached from this"):
                await anyio.to_thread.run_sync(run)
        await store.ping()


def test_the_one_that_connected_first_ends(redis_server: Server) -> None:
    """A loop whose answers were read by another one gets its answers when that one is over."""
    ready, done = Event(), Event()

    async def first() -> None:
        async with RedisStore(redis_server.url, timeout=10) as store:
            await store.ping()
            ready.set()
            await anyio.to_thread.run_sync(done.wait)

    async def second(thread: Thread) -> None:
        await anyio.to_thread.run_sync(ready.wait)
        heard, subscribed = anyio.Event(), Signals()
        async with (
            RedisStore(redis_server.url, timeout=10) as store,
            store.subscribe(["a"], lambda *_: heard.set(), subscribed.count, check_interval=100),
        ):
            await subscribed.wait(1)
            done.set()
            await anyio.to_thread.run_sync(thread.join)
            await store.publish("a", "hello")
            await heard.wait()

    thread = Thread(target=anyio.run, args=(first,))
    thread.start()
    try:
        anyio.run(second, thread)
    finally:
        done.set()
        thread.join()


def test_a_fork_knows_none(backend: str) -> None:
    """What a parent process has connected does not matter to its child."""
    connected = ConnectedLoops()

    async def join() -> None:
        connected.join("nowhere")
        connected.join("nowhere")
        assert not connected.is_unread(loops.current_loop())

    async def main() -> None:
        await join()
        connected.forget()
        await anyio.to_thread.run_sync(partial(anyio.run, join, backend=backend))
        assert connected.is_unread(loops.current_loop())
        await join()

    assert not connected.is_unread(None)
    anyio.run(main, backend=backend)
