"""The block of `RedisStore`, with connections that are not made."""

from __future__ import annotations

import math
from typing import Any

import anyio
import pytest

from mtaio._internal import clock
from mtaio.exceptions import StoreError
from mtaio.redis import RedisStore
from mtaio.redis._store import Script, start


class Links:
    """Stands for the endpoint of a server, which is down from the beginning or answers."""

    name = "nowhere"
    timeout = 0.5

    def __init__(self, kind: type[AnsweringLink | FailingLink]) -> None:
        self.kind = kind
        self.opened: list[AnsweringLink | FailingLink] = []

    async def open(self) -> AnsweringLink | FailingLink:
        """Be opened."""
        self.opened.append(self.kind())
        return self.opened[-1]

    def is_unread(self, _: object) -> bool:
        """Say whether answers arrive."""
        return False


class AnsweringLink:
    """A connection over which each call is answered by what was asked."""

    def __init__(self) -> None:
        self.failing_since = math.inf
        self.closed = 0

    async def command(self, *args: object, timeout: float | None = None) -> object:
        """Answer."""
        await anyio.sleep(0.001)
        return [*args, timeout]

    async def script(self, script: Script, keys: list[str], args: list[str]) -> object:
        """Answer."""
        await anyio.sleep(0.001)
        return [script.source, *keys, *args]

    async def close(self, reason: str = "") -> None:
        """Be closed."""
        del reason
        self.closed += 1


class FailingLink:
    """A connection over which nothing is answered."""

    def __init__(self) -> None:
        self.failing_since = clock.now()
        self.closed = 0

    async def command(self, *_: object, timeout: float | None = None) -> None:
        """Fail."""
        del timeout
        msg = "nowhere"
        raise StoreError(msg)

    async def close(self, reason: str = "") -> None:
        """Be closed."""
        del reason
        self.closed += 1


async def test_connection_made_at_the_end_is_closed() -> None:
    """A task that says goodbye to a server that is down for long leaves no connection behind."""
    pytest.importorskip("glide")
    store: Any = RedisStore("redis://127.0.0.1:1")
    store._endpoint = links = Links(FailingLink)

    async def say_goodbye() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True), pytest.raises(StoreError):
                await store.ping()

    async with store:
        start(store, say_goodbye)
        await anyio.sleep(10)
    assert [link.closed for link in links.opened] == [1, 1]


@pytest.mark.parametrize(
    ("command", "would"),
    [
        (("blpop", "a", 0), "hold up everything else that uses"),
        ((b"WAIT", 1, 0), "hold up everything else that uses"),
        (("XREAD", "BLOCK", 5, "STREAMS", "a", 0), "hold up everything else that uses"),
        (("XREAD", "block"), "hold up everything else that uses"),
        (("select", 3), "change the connection that everything else"),
        ((b"MULTI",), "change the connection that everything else"),
    ],
    ids=str,
)
async def test_commands_that_need_a_connection(command: tuple[Any, ...], would: str) -> None:
    """They would hold up the connection of the block, or change it: they need one of their own."""
    pytest.importorskip("glide")
    store: Any = RedisStore("redis://127.0.0.1:1")
    store._endpoint = Links(AnsweringLink)
    async with store:
        with pytest.raises(ValueError, match=rf"would {would}"):
            await store.command(*command)
        async with store.dedicated() as connection:
            assert await connection.command(*command) == [*command, None]


async def test_commands_of_all_kinds() -> None:
    """What neither waits nor changes the connection is passed on; what cannot be is refused."""
    pytest.importorskip("glide")
    store: Any = RedisStore("redis://127.0.0.1:1")
    store._endpoint = Links(AnsweringLink)
    async with store:
        for passed in (("XREAD", "STREAMS", "block", 0), ("CLIENT", "INFO")):
            assert await store.command(*passed) == [*passed, None]
        with pytest.raises(
            ValueError, match=r"^'subscribe' is followed by messages, which command"
        ):
            await store.command("subscribe", "a")
        with pytest.raises(TypeError, match=r"^command\(\) was called without a command\."):
            await store.command()


async def test_calls() -> None:
    """Calls go over the connection of the block, or one of their own; both are closed."""
    pytest.importorskip("glide")
    store: Any = RedisStore("redis://127.0.0.1:1")
    store._endpoint = links = Links(AnsweringLink)
    async with store:
        assert await store.command("GET", "a", timeout=2) == ["GET", "a", 2]
        assert await store.script(Script("source"), ["a"], ["b"]) == ["source", "a", "b"]
        assert await store.publish("news", "hello") is None
        assert await store.ping() == pytest.approx(0.001)
        async with store.dedicated() as connection:
            assert await connection.command("BLPOP", "a", 0) == ["BLPOP", "a", 0, None]
            assert [link.closed for link in links.opened] == [0, 0]
        assert [link.closed for link in links.opened] == [0, 1]
    assert [link.closed for link in links.opened] == [1, 1]
