"""What the store promises, with a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from mtaio.events import EventEmitter
from mtaio.exceptions import StoreError
from mtaio.redis import RedisStore, bridge
from mtaio.redis._store import Script
from tests.redis.servers import free_port, serving

if TYPE_CHECKING:
    from mtaio.redis._store import Connection
    from tests.redis.servers import Server

ECHO = Script("return {KEYS[1], ARGV[1], 5, redis.call('GET', KEYS[1])}")


async def test_scripts_and_commands(shared_server: Server) -> None:
    """Answers are what the server said: bytes, ints and None."""
    async with RedisStore(shared_server.url) as store:
        assert await store.script(ECHO, ["none"], [1.5]) == [b"none", b"1.5", 5, None]
        assert await store.command("SET", "some", b"\xff") == "OK"
        assert await store.command("GET", "some") == b"\xff"
        assert await store.ping() < store.timeout


async def test_a_bridge_outside_of_the_store() -> None:
    """It is refused at once, as everything is that needs the store."""
    store = RedisStore("redis://127.0.0.1:1")
    with pytest.raises(RuntimeError, match="is not entered in this event loop"):
        await bridge(EventEmitter(), store, stream="orders", group="ship").__aenter__()


async def test_refused_commands_name_the_server(shared_server: Server) -> None:
    """What the server refuses is an error that names it, and so is a script that fails."""
    async with RedisStore(shared_server.url) as store:
        with pytest.raises(
            StoreError, match=r"^redis://127\.0\.0\.1:\d+/0: .*unknown command"
        ) as caught:
            await store.command("NONSENSE")
        assert caught.value.server == shared_server.url
        assert caught.value.refused
        await store.command("RPUSH", "other", "a")
        with pytest.raises(StoreError, match=r"WRONGTYPE") as caught:
            await store.script(ECHO, ["other"], [""])
        assert caught.value.refused


async def test_no_call_waits_longer_than_its_timeout() -> None:
    """Neither without a server nor with one that stands still; afterwards it is used again."""
    port = free_port()
    async with RedisStore(f"redis://127.0.0.1:{port}", timeout=0.3, name="limits") as store:
        start = anyio.current_time()
        with pytest.raises(StoreError, match=r"^limits") as caught:
            await store.ping()
        assert not caught.value.refused
        assert anyio.current_time() - start < 3
        with serving(port=port) as server:
            await until_up(store)
            server.freeze()
            start = anyio.current_time()
            with pytest.raises(StoreError, match=r"^limits"):
                await store.ping()
            assert anyio.current_time() - start < 3
            server.thaw()
            await until_up(store)


async def test_connection_of_its_own(shared_server: Server) -> None:
    """A command that waits at the server holds up nothing but its own connection."""
    async with (
        RedisStore(shared_server.url, timeout=10) as store,
        store.dedicated() as connection,
        anyio.create_task_group() as group,
    ):
        group.start_soon(waits, connection)
        await store.command("RPUSH", "list", "a")


async def waits(connection: Connection) -> None:
    """Wait at the server for an item."""
    assert await connection.command("BLPOP", "list", 0, timeout=20) == [b"list", b"a"]


async def test_subscriptions_come_back(shared_server: Server) -> None:
    """Messages are delivered in order; a lost connection is told, also one restored in silence."""
    async with RedisStore(shared_server.url) as store:
        got: list[bytes] = []
        subscribed = Signals()

        def receive(channel: str, message: bytes) -> None:
            assert channel in {"a", "b"}
            got.append(message)
            heard.set()

        async with store.subscribe(["a", "b"], receive, subscribed.count, check_interval=0.05):
            await subscribed.wait(1)
            for number in range(20):
                heard = anyio.Event()
                await store.publish("ab"[number % 2], str(number))
            while len(got) < 20:
                heard = anyio.Event()
                with anyio.move_on_after(0.05):
                    await heard.wait()
            assert got == [str(number).encode() for number in range(20)]
            await store.command("CLIENT", "KILL", "TYPE", "PUBSUB")
            await subscribed.wait(2)


async def test_subscriptions_end_among_messages(shared_server: Server) -> None:
    """Leaving one while messages arrive leaves no error behind: on asyncio pytest would see it."""
    async with RedisStore(shared_server.url) as store, anyio.create_task_group() as group:

        async def send() -> None:
            while True:
                await store.publish("a", "message")

        for _ in range(4):
            group.start_soon(send)
        for _ in range(10):
            subscribed = Signals()
            async with store.subscribe(
                ["a"], lambda *_: None, subscribed.count, check_interval=0.05
            ):
                await subscribed.wait(1)
        group.cancel_scope.cancel()


class Signals:
    """Counts calls, and waits for them."""

    def __init__(self) -> None:
        self.calls = 0
        self._called = anyio.Event()

    def count(self) -> None:
        """Be called."""
        self.calls += 1
        self._called.set()
        self._called = anyio.Event()

    async def wait(self, calls: int) -> None:
        """Wait until there have been so many."""
        while self.calls < calls:
            await self._called.wait()


async def until_up(store: RedisStore) -> None:
    """Wait until the server answers."""
    while True:
        try:
            await store.ping()
        except StoreError:
            await anyio.sleep(0.01)
        else:
            return
