"""Clients that a server has to get rid of when it ends; each does its worst with a connection."""

from __future__ import annotations

from typing import Final

import anyio
from anyio.abc import SocketStream

HEAD: Final = b" HTTP/1.1\r\nHost: api\r\n"


async def silent(_: SocketStream) -> None:
    """Say nothing."""


async def half_a_head(stream: SocketStream) -> None:
    """Send half of a request's head."""
    await stream.send(b"GET /" + HEAD)


async def slow_head(stream: SocketStream) -> None:
    """Send a head that does not end, slowly."""
    await stream.send(b"GET /" + HEAD)
    while True:
        await stream.send(b"X: y\r\n")
        await anyio.sleep(1)


async def half_a_body(stream: SocketStream) -> None:
    """Send half of a body."""
    await stream.send(b"POST /" + HEAD + b"Content-Length: 10\r\n\r\nhalf")


async def slow_body(stream: SocketStream) -> None:
    """Send a byte a second."""
    await stream.send(b"POST /" + HEAD + b"Content-Length: 1000\r\n\r\n")
    while True:
        await stream.send(b"x")
        await anyio.sleep(1)


async def idle(stream: SocketStream) -> None:
    """Read an answer, and keep the connection."""
    await stream.send(b"GET /" + HEAD + b"\r\n")
    size = 0
    while size < 100_000:
        size += len(await stream.receive())


async def waits(stream: SocketStream) -> None:
    """Ask for what takes long."""
    await stream.send(b"GET /late" + HEAD + b"\r\n")


async def half_open(stream: SocketStream) -> None:
    """Ask for what takes long, and say that this is all."""
    await stream.send(b"GET /late" + HEAD + b"\r\n")
    await stream.send_eof()


async def garbage(stream: SocketStream) -> None:
    """Send what is no HTTP."""
    await stream.send(bytes(range(256)) * 10)


async def flood(stream: SocketStream) -> None:
    """Send many requests at once, and read nothing."""
    for _ in range(20):
        await stream.send((b"GET /" + HEAD + b"\r\n") * 20)


async def reads_nothing(stream: SocketStream) -> None:
    """Ask for much, and read nothing."""
    await stream.send(b"GET /much" + HEAD + b"\r\n")


async def reads_slowly(stream: SocketStream) -> None:
    """Ask for much, and read a little of it every ten seconds."""
    await reads_nothing(stream)
    while True:
        await stream.receive(1000)
        await anyio.sleep(10)


BAD_CLIENTS: Final = (
    *(silent, half_a_head, slow_head, half_a_body, slow_body, idle, waits, half_open),
    *(garbage, flood, reads_nothing, reads_slowly),
)
