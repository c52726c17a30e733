"""A client that keeps one connection, makes a new one when it breaks, and can be closed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest

from mtaio.testing import Network, assert_quiescent, explore, settle

if TYPE_CHECKING:
    from anyio.abc import SocketStream


# --8<-- [start:wrong]
class WrongClient:
    """Asks a server over one connection, and connects again when that is broken."""

    def __init__(self) -> None:
        self._stream: SocketStream | None = None
        self._closed = False

    async def ask(self, question: bytes) -> bytes:
        """Return the answer; connect first if there is no connection, or a broken one."""
        while not self._closed:
            try:
                if self._stream is None:
                    await self._connect()
                return await self._exchange(question)
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                await self._disconnect()
        raise anyio.ClosedResourceError

    async def aclose(self) -> None:
        """Close the connection, and make no other."""
        self._closed = True
        await self._disconnect()

    async def _connect(self) -> None:
        self._stream = await anyio.connect_tcp("clock", 80)

    async def _exchange(self, question: bytes) -> bytes:
        stream = self._stream
        if stream is None:
            raise anyio.ClosedResourceError
        await stream.send(question)
        return await stream.receive()

    async def _disconnect(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()


# --8<-- [end:wrong]
# --8<-- [start:right]
class RightClient(WrongClient):
    """Looks again, once it is connected, whether it was closed in the meantime."""

    async def _connect(self) -> None:
        stream = await anyio.connect_tcp("clock", 80)
        if self._closed:
            await stream.aclose()
            raise anyio.ClosedResourceError
        self._stream = stream


# --8<-- [end:right]
# --8<-- [start:test]
async def serve() -> None:
    """Answer one question on each connection, then hang up."""

    async def answer(stream: SocketStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await stream.send(await stream.receive())

    async with await anyio.create_tcp_listener(local_port=80) as listener:
        await listener.serve(answer)


@pytest.mark.parametrize("kind", [WrongClient, RightClient])
@explore(seeds=50)
async def test_closed_while_it_connects(kind: type[WrongClient]) -> None:
    """A client that is closed while it connects again leaves no connection behind."""
    async with Network(latency=0.01) as net:
        net.host("clock").start(serve)
        await settle()
        client = kind()
        await client.ask(b"what time is it?")
        await anyio.sleep(1)  # the server hangs up

        async def ask_again() -> None:
            with suppress(anyio.ClosedResourceError):
                await client.ask(b"and now?")

        async with anyio.create_task_group() as group:
            group.start_soon(ask_again)
            await settle()  # it is connecting
            async with await anyio.connect_tcp(
                "clock", 80
            ):  # which takes just as long
                await client.aclose()
    assert_quiescent(net)


# --8<-- [end:test]
