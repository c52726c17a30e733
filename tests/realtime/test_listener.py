"""In real time, on every event loop: the HTTP server of the probes, and clients of all kinds."""

from __future__ import annotations

import random
import socket
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.monitoring._endpoints import Request, Response
from mtaio.monitoring._listener import Limits, Listener

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

    from anyio.abc import ByteStream

HEAD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
GET = HEAD + b"\r\n"
LONG = 1000.0
"""Seconds that no test lasts."""


class Server:
    """A listener at a free port, and what it was asked."""

    def __init__(self, limits: Limits, body: bytes = b"ok\n") -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)  # noqa: FBT003 - its only argument
        self.port: int = listening.getsockname()[1]
        self.asked: list[str] = []
        self.body = body
        self.pieces = 0
        self.listener = Listener(listening, self._respond, limits)

    async def _respond(self, request: Request, send: Callable[[Response], Awaitable[None]]) -> None:
        self.asked.append(f"{request.method} {request.path}")
        if request.path == "/slow":
            await anyio.sleep(LONG)
        rest = self._rest() if request.path == "/pieces" else None
        await send(Response(200, (("content-type", "text/plain"),), self.body, rest))

    def _rest(self) -> Iterator[bytes]:
        """Return the rest of an answer, in a hundred pieces."""
        for _ in range(100):
            self.pieces += 1
            yield self.body

    async def connect(self) -> ByteStream:
        """Return a connection to it."""
        return await anyio.connect_tcp("127.0.0.1", self.port)

    async def ask(self, data: bytes) -> bytes:
        """Send ``data`` and return all that comes until the connection is closed."""
        async with await self.connect() as stream:
            with suppress(anyio.BrokenResourceError):
                await stream.send(data)
            return await everything(stream)


@asynccontextmanager
async def serving(body: bytes = b"ok\n", **limits: Any) -> AsyncGenerator[Server]:
    """Serve inside the block; for less than a test may take, also on a busy machine."""
    server = Server(Limits(**limits), body)
    try:
        with anyio.fail_after(100):
            async with anyio.create_task_group() as group:
                group.start_soon(server.listener.serve)
                try:
                    yield server
                finally:
                    group.cancel_scope.cancel()
    finally:
        server.listener.close()
    assert len(server.listener) == 0


async def everything(stream: ByteStream) -> bytes:
    """Return what comes until the end; a reset is an end."""
    data = b""
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            data += await stream.receive()
    return data


async def one_answer(stream: ByteStream) -> bytes:
    """Return one answer with the body ``ok``."""
    data = b""
    while not data.endswith(b"ok\n"):
        data += await stream.receive()
    return data


def status(answer: bytes) -> int:
    """Return the status of an answer, 0 if there is none."""
    assert answer.count(b"HTTP/1.1 ") == (1 if answer else 0)
    return int(answer.split(b" ")[1]) if answer else 0


async def test_kept_alive() -> None:
    """A connection serves one request after another until the client has had enough."""
    async with serving() as server, await server.connect() as stream:
        for _ in range(3):
            await stream.send(GET)
            assert (await one_answer(stream)).startswith(b"HTTP/1.1 200 OK\r\n")
        await stream.send(HEAD + b"Connection: close\r\n\r\n")
        assert b"connection: close" in await everything(stream)
        assert server.listener.counts.requests == 4
        assert server.listener.counts.peak == 1


async def test_pipelined() -> None:
    """Requests sent without waiting are answered in order."""
    heads = [b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(50)]
    async with serving() as server:
        answer = await server.ask(b"".join(heads) + b"GET /50 HTTP/1.0\r\n\r\n")
        assert answer.count(b"HTTP/1.1 200 OK") == 51
        assert server.asked == [f"GET /{number}" for number in range(51)]


async def test_head_and_old_version() -> None:
    """HEAD has no body; HTTP/1.0 is answered and closed."""
    async with serving() as server:
        answer = await server.ask(b"HEAD / HTTP/1.0\r\n\r\n")
        assert answer.endswith(b"\r\n\r\n")
        assert b"content-length: 3\r\nconnection: close\r\n" in answer


async def test_byte_by_byte() -> None:
    """A head may come in any pieces, in its time."""
    async with serving(head_seconds=LONG) as server, await server.connect() as stream:
        for byte in GET:
            await stream.send(bytes([byte]))
            await checkpoint()
        assert status(await one_answer(stream)) == 200


async def test_client_that_leaves() -> None:
    """A client may leave at any time, also by a reset, and no other notices."""
    async with serving() as server:
        for data in (b"", b"GET", GET, GET * 20, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", b"\0"):
            raw = socket.create_connection(("127.0.0.1", server.port))
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.sendall(data)
            await anyio.sleep(0.01)
            raw.close()
        assert status(await server.ask(b"GET / HTTP/1.0\r\n\r\n")) == 200


BODIES = {
    "length": HEAD + b"Content-Length: 41\r\n\r\n",
    "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 41\r\n\r\n",
    "bare LF": b"GET /livez HTTP/1.1\nHost: a\n\n",
    "LF inside": HEAD.replace(b"\r\n", b"\n") + b"\r\n\r\n",
    "folded": HEAD + b" Content-Length: 41\r\n\r\n",
}


@pytest.mark.parametrize("data", BODIES.values(), ids=BODIES)
async def test_smuggling(data: bytes) -> None:
    """Where two readers may disagree on the end of a request, nothing after it is answered."""
    async with serving() as server:
        answer = await server.ask(data + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert 400 <= status(answer) < 500
        assert server.asked == []


async def test_random_bytes() -> None:
    """Whatever comes is answered with a refusal or not at all."""
    noise = random.Random(5)  # noqa: S311 - the same in each run
    async with serving(head_seconds=0.05, linger_seconds=0.05) as server:
        for length in [1, 2, 3, 10, 100, 1000, 8191, 8192, 9000, 70000] * 3:
            answer = await server.ask(noise.randbytes(length))
            assert 400 <= status(answer) < 500 or not answer
        for data in (
            b"\0" * 9000,
            b"\r\n\r\n",
            b"GET " + b"a" * 9000,
            b"G\r\n\r\n",
            b"\x16\x03\x01",
        ):
            answer = await server.ask(data)
            assert 400 <= status(answer) < 500 or not answer
        assert server.asked == []
        while status(await server.ask(b"GET / HTTP/1.0\r\n\r\n")) != 200:
            pass  # the machine stood still while a head had its time


async def test_greatest_head() -> None:
    """A head may have 8 KiB, and not a byte more."""
    filler = b"X: " + b"a" * (8192 - len(HEAD) - len(b"X: "))
    async with serving() as server, await server.connect() as stream:
        await stream.send(HEAD + filler + b"\r\n\r\n")
        assert status(await one_answer(stream)) == 200
        assert status(await server.ask(HEAD + filler + b"a\r\n\r\n")) == 431


async def test_great_head() -> None:
    """A megabyte of header fields is cut off, and the client gets to read why."""
    async with serving() as server:
        answer = await server.ask(HEAD + b"X: a\r\n" * 175_000)
        assert status(answer) == 431
        assert answer.endswith(b"the request head has more than 8192 bytes\n")
        assert server.listener.counts.rejected == 1


async def test_silent_client() -> None:
    """A client that sends nothing is closed, and so is one that has no further request."""
    async with serving(head_seconds=0.1) as server:
        assert await server.ask(b"") == b""
        assert server.listener.counts.timed_out == 0
    async with serving(idle_seconds=0.1) as server:
        assert status(await server.ask(GET)) == 200
        assert server.listener.counts.timed_out == 0


async def test_slow_head() -> None:
    """A head that trickles is cut off after its time, no matter how steadily it comes."""
    async with serving(head_seconds=0.2) as server:
        async with await server.connect() as stream, anyio.create_task_group() as group:

            async def trickle() -> None:
                with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    for byte in b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 1000:
                        await stream.send(bytes([byte]))
                        await anyio.sleep(0.01)

            group.start_soon(trickle)
            assert status(await everything(stream)) == 408
            group.cancel_scope.cancel()
        assert server.listener.counts.timed_out == 1


async def test_answer_not_taken() -> None:
    """A client that does not read its answer is given up after its time."""
    body = b"a" * 20_000_000
    async with (
        serving(body, answer_seconds=0.2, slowest=10**9) as server,
        await server.connect() as stream,
    ):
        await stream.send(GET)
        while not server.listener.counts.timed_out:  # noqa: ASYNC110 - a count, without an event
            await anyio.sleep(0.01)
        assert len(await everything(stream)) < len(body)


async def test_great_answer() -> None:
    """An answer of any size arrives whole."""
    body = bytes(range(256)) * 20_000
    async with serving(body) as server:
        assert (await server.ask(b"GET / HTTP/1.0\r\n\r\n")).endswith(b"\r\n\r\n" + body)


async def test_answer_in_pieces() -> None:
    """An answer in pieces arrives whole, in chunks or up to the end, and another may follow."""
    async with serving() as server:
        ask = b"GET /pieces HTTP/1.1\r\nHost: a\r\n\r\n"
        answers = await server.ask(ask + ask + b"GET /pieces HTTP/1.0\r\n\r\n")
        _, *bodies = answers.split(b"HTTP/1.1 200 OK\r\n")
        chunks = b"3\r\nok\n\r\n" * 101 + b"0\r\n\r\n"
        assert [body.endswith(chunks) for body in bodies] == [True, True, False]
        assert bodies[2].endswith(b"\r\n\r\n" + b"ok\n" * 101)
        assert server.pieces == 300


async def test_answer_in_pieces_not_taken() -> None:
    """Of an answer that is not taken no more is made than what the sockets hold."""
    async with (
        serving(b"a" * 1_000_000, answer_seconds=0.2, slowest=10**9) as server,
        await server.connect() as stream,
    ):
        await stream.send(b"GET /pieces HTTP/1.1\r\nHost: a\r\n\r\n")
        while not server.listener.counts.timed_out:  # noqa: ASYNC110 - a count, without an event
            await anyio.sleep(0.01)
        assert 0 < server.pieces < 100


async def test_refused_client_that_goes_on() -> None:
    """What a refused client sends afterwards is read for a while only."""
    async with serving(linger_seconds=0.2) as server, await server.connect() as stream:
        await stream.send(b"POST\r\n\r\n")
        with suppress(anyio.BrokenResourceError):
            while True:
                await stream.send(b"a" * 10_000)
                await anyio.sleep(0.001)


async def test_too_many() -> None:
    """The connection that has been quiet for the longest time makes room for a new one."""
    async with serving(connections=3, head_seconds=LONG) as server:
        streams: list[ByteStream] = []
        for _ in range(3):
            streams.append(await server.connect())
            await streams[-1].send(GET)
            await one_answer(streams[-1])
        await streams[0].send(GET)
        await one_answer(streams[0])  # now the second has been quiet for the longest time
        assert status(await server.ask(b"GET / HTTP/1.0\r\n\r\n")) == 200
        assert await everything(streams[1]) == b""
        for stream in (streams[0], streams[2]):
            await stream.send(GET)
            assert status(await one_answer(stream)) == 200
        assert server.listener.counts.dropped == 1
        assert server.listener.counts.peak == 3
        for stream in streams:
            await stream.aclose()


async def test_slow_clients() -> None:
    """Two hundred clients that trickle keep no probe from being answered."""
    async with serving(head_seconds=LONG, linger_seconds=0.05) as server:
        async with anyio.create_task_group() as group:

            async def trickle() -> None:
                while True:
                    async with await server.connect() as stream:
                        with suppress(anyio.BrokenResourceError):
                            for byte in GET[:-1]:
                                await stream.send(bytes([byte]))
                                await anyio.sleep(0.05)
                    await anyio.sleep(0.1)

            for _ in range(200):
                group.start_soon(trickle)
            while server.listener.counts.dropped < 100:  # noqa: ASYNC110 - as above
                await anyio.sleep(0.01)
            for _ in range(20):
                assert status(await server.ask(b"GET / HTTP/1.0\r\n\r\n")) == 200
            group.cancel_scope.cancel()
        assert server.listener.counts.peak == 100


async def test_waiting_requests_make_room() -> None:
    """Requests that wait for their answers keep no probe from being answered either."""
    async with serving(connections=10) as server:
        streams = [await server.connect() for _ in range(30)]
        for stream in streams:
            await stream.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        assert status(await server.ask(b"GET / HTTP/1.0\r\n\r\n")) == 200
        for stream in streams:
            await stream.aclose()


async def test_many_requests() -> None:
    """A thousand requests from fifty connections: none is lost."""
    async with serving() as server:
        answers: list[int] = []

        async def ask() -> None:
            async with await server.connect() as stream:
                for _ in range(20):
                    await stream.send(GET)
                    answers.append(status(await one_answer(stream)))

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(ask)
        assert answers == [200] * 1000
        assert server.listener.counts.requests == 1000
        assert server.listener.counts.rejected == server.listener.counts.dropped == 0
