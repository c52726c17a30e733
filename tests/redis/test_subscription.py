"""Subscriptions on the virtual clock, with connections that fail in each way."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import anyio

from mtaio.exceptions import StoreError
from mtaio.redis._subscription import Subscription
from tests.redis.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import pytest

INFO = b"id=%d addr=127.0.0.1:%d laddr=127.0.0.1:6379 fd=12 name= age=%d idle=0 flags=P"


class Links:
    """Stands for a server's endpoint, and for the connections to it."""

    def __init__(self) -> None:
        self.opened = self.closed = 0
        self.refuses = self.refused = 0
        self.answers: list[object] = []
        self.number = 1
        self.deaf = self.unread = False
        self._send, self._receive = anyio.create_memory_object_stream["tuple[str, bytes] | None"](
            100
        )

    async def open(self, channels: set[str], *, attempt: int) -> Any:
        """Be opened."""
        assert attempt == self.opened
        assert "news" in channels
        self.opened += 1
        self.unread = False
        self.publish((channels - {"news"}).pop(), b"a message of before")
        await anyio.sleep(0.001)
        if self.refuses:
            self.refuses -= 1
            self.refused += 1
            raise StoreError
        return self

    def is_unread(self, _: object) -> bool:
        """Say whether answers arrive."""
        return self.unread

    async def close(self) -> None:
        """Be closed, which ends the wait for a message."""
        self.closed += 1
        self._send.send_nowait(None)

    async def command(self, *args: str) -> object:
        """Say which connection this is."""
        assert args == ("CLIENT", "INFO")
        await anyio.sleep(0.001)
        if self.answers:
            answer = self.answers.pop()
            if isinstance(answer, Exception):
                raise answer
            return answer
        return INFO % (self.number, self.number, int(anyio.current_time()))

    async def message(self) -> tuple[str, bytes] | None:
        """Return the next message, or None once it is closed; not to be cancelled."""
        got: list[tuple[str, bytes] | None] = []
        with anyio.CancelScope(shield=True):
            got.append(await self._receive.receive())
        return got[0]

    def publish(self, channel: str, message: bytes) -> None:
        """Deliver a message."""
        if not self.deaf:
            self._send.send_nowait((channel, message))

    def end(self) -> None:
        """Free what there is."""
        self._send.close()
        self._receive.close()


@asynccontextmanager
async def subscribed(links: Links, told: list[object], **options: Any) -> AsyncGenerator[Any]:
    """Have a subscription in the block, which is told of in ``told``."""

    class Store(MemoryStore):
        async def publish(self, channel: str, message: str | bytes) -> None:
            """Send it to the connection."""
            await anyio.sleep(0.001)
            links.publish(channel, message.encode() if isinstance(message, str) else message)

    store = Store(timeout=1)
    subscription = Subscription(
        store,
        cast("Any", links),
        lambda channel, message: told.append((channel, message)),
        lambda: told.append("subscribed"),
        options.get("on_lost", lambda: told.append("lost")),
        check_interval=0.5,
    )
    async with anyio.create_task_group() as group:
        group.start_soon(subscription.run, frozenset({"news"}))
        yield store
        group.cancel_scope.cancel()
    assert links.closed == links.opened - links.refused
    links.end()


async def test_messages_and_looks() -> None:
    """Messages are delivered, and its own are not; a connection that stays is told of once."""
    links, told = Links(), list[object]()
    async with subscribed(links, told) as store:
        await anyio.sleep(5)
        await store.publish("news", "hello")
        await anyio.sleep(1)
    assert told == ["subscribed", ("news", b"hello")]


async def test_connection_restored_in_silence() -> None:
    """Another number of the connection means that messages may be missing."""
    links, told = Links(), list[object]()
    async with subscribed(links, told):
        await anyio.sleep(2)
        links.number += 1
        await anyio.sleep(2)
    assert told == ["subscribed", "subscribed"]


async def test_odd_answers() -> None:
    """An answer that is none is a loss, until the next look."""
    links, told = Links(), list[object]()
    async with subscribed(links, told):
        await anyio.sleep(2)
        links.answers.append({b"kind": b"Subscribe"})
        await anyio.sleep(2)
    assert told == ["subscribed", "lost", "subscribed"]


async def test_silence(caplog: pytest.LogCaptureFixture) -> None:
    """A subscription that hears nothing is told of, and opened again after some seconds."""
    links, told = Links(), list[object]()
    async with subscribed(links, told):
        await anyio.sleep(2)
        links.deaf = True
        await anyio.sleep(10)
        assert links.opened > 2
        assert caplog.messages == [
            (
                "memory://: a subscription has received nothing for some seconds, and keeps "
                "trying: it does not receive what it sends to itself"
            )
        ]
        links.deaf = False
        await anyio.sleep(3)
    assert told == ["subscribed", "lost", "subscribed"]


async def test_refused_questions(caplog: pytest.LogCaptureFixture) -> None:
    """A user without permission learns from the log why nothing is heard, once."""
    links, told = Links(), list[object]()
    links.answers = [StoreError("memory://: PermissionDenied")] * 1000
    async with subscribed(links, told):
        await anyio.sleep(20)
    assert links.opened > 2
    (message,) = caplog.messages
    assert message.endswith("keeps trying: memory://: PermissionDenied")
    assert told == []


async def test_unread_answers() -> None:
    """When the event loop that read the answers is over, a new connection is opened at once."""
    links, told = Links(), list[object]()
    async with subscribed(links, told):
        await anyio.sleep(2)
        links.unread = True
        await anyio.sleep(1)
        assert links.opened == 2
        links.publish("news", b"hello")
        await anyio.sleep(1)
    assert told == ["subscribed", ("news", b"hello")]


async def test_refused_connections() -> None:
    """It tries again where it is refused; a loss that nobody wants to know of is not told."""
    links, told = Links(), list[object]()
    links.refuses = 3
    async with subscribed(links, told, on_lost=None):
        await anyio.sleep(3)
        links.deaf = True
        await anyio.sleep(3)
        links.deaf = False
        await anyio.sleep(3)
    assert told == ["subscribed", "subscribed"]
