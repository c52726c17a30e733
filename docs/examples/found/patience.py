"""How long clients wait inside a partition, with default settings."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    suppress,
)
from dataclasses import dataclass
from importlib.metadata import version

import aiohttp
import anyio
import asyncpg
import httpx
import trio
import trio_websocket
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from mtaio.testing import Network, run, settle

DAY = 86_400.0
ANY = "0.0.0.0"

Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Calls:
    """What a connected client can do: ask for an answer, or wait for news."""

    ask: Call
    listen: Call | None = None


# --8<-- [start:measure]
async def patience(call: Call) -> float:
    """Return after how many seconds a call fails; a day stands for ever."""
    begin = anyio.current_time()
    with anyio.move_on_after(DAY), suppress(Exception):
        await call()
    return anyio.current_time() - begin


async def measure(client: "Client", what: str) -> float | None:
    async with Network(latency=0.05) as net:
        net.host("api").start(client.serve)
        await settle()
        if what == "connect":
            net.partition("main", "api")
            return await patience(client.connect().__aenter__)
        async with client.connect() as calls:
            await calls.ask()
            call = calls.ask if what == "ask" else calls.listen
            if call is None:
                return None
            net.partition("main", "api", required=what == "ask")
            took = await patience(call)
            net.heal()
        return took


# --8<-- [end:measure]


# Servers that speak as much as is needed


async def listen(
    handle: Callable[[SocketStream], Awaitable[None]], port: int
) -> None:
    async def safe(stream: SocketStream) -> None:
        with suppress(
            anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError
        ):
            async with stream:
                await handle(stream)

    await (await anyio.create_tcp_listener(local_port=port)).serve(safe)


async def serve_echo() -> None:
    async def handle(stream: SocketStream) -> None:
        async for data in stream:
            await stream.send(data)

    await listen(handle, 7)


async def serve_http() -> None:
    async def handle(stream: SocketStream) -> None:
        received = BufferedByteReceiveStream(stream)
        while True:
            await received.receive_until(b"\r\n\r\n", 65_536)
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    await listen(handle, 80)


async def serve_redis() -> None:
    async def handle(stream: SocketStream) -> None:
        received = BufferedByteReceiveStream(stream)
        while True:
            count = int((await received.receive_until(b"\r\n", 64))[1:])
            words: list[bytes] = []
            for _ in range(count):
                size = int((await received.receive_until(b"\r\n", 64))[1:])
                words.append((await received.receive_exactly(size + 2))[:-2])
            answer = {
                b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n",
                b"PING": b"+PONG\r\n",
            }
            await stream.send(answer.get(words[0], b"+OK\r\n"))

    await listen(handle, 6379)


async def serve_postgres() -> None:
    def message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!i", len(body) + 4) + body

    ready = message(b"Z", b"I")
    settings = {b"server_version": b"16.0", b"client_encoding": b"UTF8"}

    async def handle(stream: SocketStream) -> None:
        received = BufferedByteReceiveStream(stream)

        async def receive() -> bytes:
            (size,) = struct.unpack("!i", await received.receive_exactly(4))
            return await received.receive_exactly(size - 4)

        if await receive() == struct.pack("!i", 80877103):
            await stream.send(b"N")  # no TLS
            await receive()
        told = b"".join(
            message(b"S", b"%s\0%s\0" % each) for each in settings.items()
        )
        key = message(b"K", struct.pack("!ii", 1, 2))
        await stream.send(
            message(b"R", struct.pack("!i", 0)) + told + key + ready
        )
        while await received.receive_exactly(1) == b"Q":
            await receive()
            await stream.send(message(b"C", b"SELECT 0\0") + ready)

    await listen(handle, 5432)


async def serve_websockets() -> None:
    async def handle(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            async for word in connection:
                await connection.send(word)

    async with serve(handle, ANY, 80):
        await anyio.sleep_forever()


async def serve_trio_websocket() -> None:
    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        with suppress(trio_websocket.ConnectionClosed):
            connection = await request.accept()
            while True:
                await connection.send_message(await connection.get_message())

    await trio_websocket.serve_websocket(handle, ANY, 80, None)


# Clients, as their documentation introduces them


@asynccontextmanager
async def httpx_() -> AsyncIterator[Calls]:
    async with httpx.AsyncClient() as client:
        await client.get("http://api/")
        yield Calls(lambda: client.get("http://api/"))


@asynccontextmanager
async def aiohttp_() -> AsyncIterator[Calls]:
    async with aiohttp.ClientSession() as session:

        async def get() -> None:
            async with session.get("http://api/") as response:
                await response.read()

        await get()
        yield Calls(get)


@asynccontextmanager
async def aiohttp_websocket() -> AsyncIterator[Calls]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect("http://api/") as socket,
    ):

        async def ask() -> None:
            await socket.send_str("word")
            await socket.receive_str()

        yield Calls(ask, socket.receive_str)


@asynccontextmanager
async def websockets_() -> AsyncIterator[Calls]:
    async with connect("ws://api/") as client:

        async def ask() -> None:
            await client.send("word")
            await client.recv()

        yield Calls(ask, client.recv)


@asynccontextmanager
async def trio_websocket_() -> AsyncIterator[Calls]:
    async with trio_websocket.open_websocket_url("ws://api/") as client:

        async def ask() -> None:
            await client.send_message("word")
            await client.get_message()

        yield Calls(ask, client.get_message)


@asynccontextmanager
async def redis_() -> AsyncIterator[Calls]:
    async with Redis(host="api") as client:
        await client.ping()
        yield Calls(
            client.ping
        )  # a subscriber has TCP's keepalive, which is not simulated


@asynccontextmanager
async def asyncpg_() -> AsyncIterator[Calls]:
    client = await asyncpg.connect(
        host="api", user="u", password="p", database="d"
    )
    try:
        yield Calls(lambda: client.execute("SELECT"))
    finally:
        client.terminate()


@asynccontextmanager
async def asyncio_streams() -> AsyncIterator[Calls]:
    reader, writer = await asyncio.open_connection("api", 7)

    async def ask() -> None:
        writer.write(b"word")
        await reader.readexactly(4)

    try:
        yield Calls(ask, lambda: reader.readexactly(1))
    finally:
        writer.close()


@asynccontextmanager
async def anyio_() -> AsyncIterator[Calls]:
    async with await anyio.connect_tcp("api", 7) as stream:

        async def ask() -> None:
            await stream.send(b"word")
            await stream.receive()

        yield Calls(ask, stream.receive)


@asynccontextmanager
async def trio_() -> AsyncIterator[Calls]:
    async with await trio.open_tcp_stream("api", 7) as stream:

        async def ask() -> None:
            await stream.send_all(b"word")
            await stream.receive_some()

        yield Calls(ask, stream.receive_some)


@dataclass(frozen=True)
class Client:
    """A row of the table: what is tried, and against which server."""

    name: str
    package: str | None
    connect: Callable[[], AbstractAsyncContextManager[Calls]]
    serve: Callable[[], Awaitable[None]]
    backends: tuple[str, ...] = ("asyncio",)

    def row(self) -> str:
        """Measure, on all backends, which agree."""
        seconds = {
            tuple(
                run(measure, self, what, backend=backend)
                for what in ("connect", "ask", "listen")
            )
            for backend in self.backends
        }
        (times,) = {tuple(map(said, each)) for each in seconds}
        name, *function = self.name.split(", ")
        number = f" {version(self.package)}" if self.package else ""
        title = ", ".join([name + number, *function])
        return (
            " | ".join([f"| {title}", ", ".join(self.backends), *times]) + " |"
        )


def said(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return "∞" if seconds >= DAY else f"{seconds:.1f}"


BOTH = ("asyncio", "trio")

CLIENTS = (
    Client("httpx", "httpx", httpx_, serve_http, BOTH),
    Client("aiohttp", "aiohttp", aiohttp_, serve_http),
    Client(
        "aiohttp, `ws_connect`", "aiohttp", aiohttp_websocket, serve_websockets
    ),
    Client("websockets", "websockets", websockets_, serve_websockets),
    Client(
        "trio-websocket",
        "trio-websocket",
        trio_websocket_,
        serve_trio_websocket,
        ("trio",),
    ),
    Client("redis-py", "redis", redis_, serve_redis),
    Client("asyncpg", "asyncpg", asyncpg_, serve_postgres),
    Client("AnyIO, `connect_tcp`", "anyio", anyio_, serve_echo, BOTH),
    Client("trio, `open_tcp_stream`", "trio", trio_, serve_echo, ("trio",)),
    Client("asyncio, `open_connection`", None, asyncio_streams, serve_echo),
)


def main() -> None:
    for client in CLIENTS:
        print(client.row())


if __name__ == "__main__":
    main()
