"""In real time, on every event loop: HTTP by hypercorn, which ends when its owner says so."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import h2.connection
import h2.events
import httpx
import pytest
from anyio import to_thread
from anyio.streams.tls import TLSStream
from hypercorn.config import Config
from hypercorn.logging import Logger
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from mtaio._internal import loops
from mtaio._internal.proxies import Proxies
from mtaio.app._certificate import Certificate
from mtaio.app._request import Request
from mtaio.app._server import Server
from mtaio.monitoring import traces

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import AnyByteReceiveStream, SocketStream
    from starlette.requests import Request as StarletteRequest

HERE = "127.0.0.1:0"
LARGE = 6_000_000
LOCALHOST = Path(__file__).with_name("localhost.pem")
PROXIES = Proxies.parse("trusted_proxies", "127.0.0.1,unix")
GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class App:
    """An ASGI application whose requests begin, wait and end as their paths say."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go_on = anyio.Event()
        self.ends: list[str] = []

    async def wait_begun(self, count: int) -> None:
        """Wait until ``count`` requests have begun."""
        while len(self.begun) < count:  # noqa: ASYNC110 - what a client does in another thread
            await anyio.sleep(0.01)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        path = scope["path"]
        self.begun.append(path)
        try:
            handler = getattr(self, path[1:])
            await (handler(send, receive) if path in {"/ws", "/ws_late"} else handler(send))
        except anyio.get_cancelled_exc_class():
            self.ends.append("cancelled")
            raise
        self.ends.append("returned")

    async def start(self, send: Any, *headers: tuple[bytes, bytes]) -> None:
        """Begin a response."""
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def body(self, send: Any, body: bytes, *, more: bool = False) -> None:
        """Send a piece of it."""
        await send({"type": "http.response.body", "body": body, "more_body": more})

    async def hello(self, send: Any) -> None:
        """Answer at once."""
        await self.start(send, (b"content-length", b"5"))
        await self.body(send, b"hello")

    livez = hello

    async def large(self, send: Any) -> None:
        """Answer with more than fits on the way."""
        await self.start(send, (b"content-length", b"%d" % LARGE))
        await self.body(send, b"x" * LARGE)

    async def wait(self, send: Any) -> None:
        """Answer when told to."""
        await self.go_on.wait()
        await self.hello(send)

    async def events(self, send: Any) -> None:
        """Begin a response that has no end."""
        await self.start(send)
        await self.body(send, b"data: 1\n\n", more=True)
        await anyio.sleep_forever()

    async def flood(self, send: Any) -> None:
        """Send for ever, whether anyone reads or not."""
        await self.start(send)
        while True:
            await self.body(send, b"x" * 65536, more=True)

    async def shielded(self, send: Any) -> None:
        """Go on for a second, cancelled or not."""
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)
            await self.hello(send)

    async def swallows(self, send: Any) -> None:
        """Take a cancellation for nothing."""
        with contextlib.suppress(anyio.get_cancelled_exc_class()):
            await anyio.sleep_forever()
        await self.hello(send)

    async def pieces(self, send: Any) -> None:
        """Send piece by piece, and wrap what sending raises."""
        await self.start(send)
        try:
            while True:
                await self.body(send, b"x", more=True)
        except OSError as error:
            disconnected = LookupError("no client")
            disconnected.__cause__ = error
            msg = "errors in a task group"
            raise ExceptionGroup(msg, [disconnected]) from None

    async def thread(self, _: Any) -> None:
        """Work in a thread, which cannot be cancelled."""
        await to_thread.run_sync(partial(socket.create_connection, ("127.0.0.1", 1), 0.1))

    async def ws(self, send: Any, receive: Any) -> None:
        """Accept a websocket, and listen."""
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def ws_wait(self, _: Any) -> None:
        """Do not accept a websocket yet."""
        await anyio.sleep_forever()

    async def ws_late(self, send: Any, receive: Any) -> None:
        """Accept a websocket after a while, and listen."""
        await anyio.sleep(0.2)
        await self.ws(send, receive)

    async def ws_deaf(self, send: Any) -> None:
        """Accept a websocket, and do not listen."""
        await send({"type": "websocket.accept"})
        await anyio.sleep_forever()

    async def slow(self, send: Any) -> None:
        """Let the body of a request pile up, and answer without it."""
        await anyio.sleep(0.3)
        await self.hello(send)

    async def breaks_off(self, send: Any) -> None:
        """Begin a response, let the body of the request pile up, and return."""
        await self.start(send, (b"content-length", b"5"))
        await anyio.sleep(0.3)

    async def fails(self, _: Any) -> None:
        """Raise."""
        msg = "no database"
        raise LookupError(msg)

    async def silent(self, _: Any) -> None:
        """Return without an answer."""


@contextlib.asynccontextmanager
async def serving(
    app: Any, bind: str = HERE, *, state: Any = None, **options: Any
) -> AsyncIterator[Server]:
    """Serve in a block, which ends when serving has ended."""
    server = Server(app, bind, **options)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            await group.start(partial(server.serve, state=state))
            yield server


async def connect(server: Server) -> SocketStream:
    """Return a connection to the server."""
    host, _, port = server.address.rpartition(":")
    return await anyio.connect_tcp(host, int(port))


def counted(server: Server) -> dict[int, int]:
    """Return how many requests there were by status, in the metrics; websockets are in none."""
    durations = server.requests.statistics().duration_seconds
    assert {key[:2] for key in durations} <= {("GET", "other"), ("POST", "other")}
    answers: dict[int, int] = {}
    for (_, _, status), each in durations.items():
        answers[status] = answers.get(status, 0) + each.count
    return answers


async def wait_ended(server: Server) -> None:
    """Wait until serving has ended."""
    while server.address != HERE:  # noqa: ASYNC110 - it has no event of its own
        await anyio.sleep(0.01)


async def read(stream: AnyByteReceiveStream, until: bytes = b"") -> bytes:
    """Return what comes until a text has come, or until the end."""
    seen = b""
    with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while not until or until not in seen:
            seen += await stream.receive()
    return seen


async def test_answers_and_closes() -> None:
    """Fifty connections at once, most of them kept alive, are answered and then closed."""
    app = App()
    async with serving(app, name="api") as server, contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(await connect(server)) for _ in range(50)]
        for stream in streams[1:]:
            await stream.send(GET % b"/hello")
        for stream in streams[1:]:
            assert (await read(stream, b"hello")).startswith(b"HTTP/1.1 200")
        pipelined = (GET % b"/hello") * 3
        await streams[1].send(pipelined)
        seen = b""
        while seen.count(b"hello") < 3:
            seen += await streams[1].receive()
        assert repr(server) == f"<Server 'api' at {server.address}>"
        server.close()
        for stream in streams:
            assert await read(stream) == b""
    assert server.statistics().requests == 52
    assert counted(server) == {200: 52}
    assert server.in_flight == 0
    assert server.address == HERE


async def test_close_waits() -> None:
    """What is in flight when the server closes is answered in full, and told not to come again."""
    app = App()
    async with serving(app) as server, await connect(server) as stream:
        await stream.send(GET % b"/wait")
        await app.wait_begun(1)
        server.close()
        with anyio.move_on_after(0.2):
            await read(stream, b"hello")
        assert server.in_flight == 1
        app.go_on.set()
        answer = (await read(stream)).lower()
        assert answer.endswith(b"hello")
        assert answer.count(b"connection: close") == 1
    assert app.ends == ["returned"]
    assert server.statistics().cancelled == 0


async def test_cancel() -> None:
    """Whatever the clients hold open, serving ends soon after it was cancelled."""
    app = App()
    tasks = loops.count_tasks(loops.current_loop()) + 1  # one serves until the block ends
    paths = [b"/wait", b"/events", b"/flood", b"/flood", b"/shielded", b"/hello"]
    async with serving(app) as server, contextlib.AsyncExitStack() as stack:
        streams = {}
        for path in paths:
            streams[path] = await stack.enter_async_context(await connect(server))
            await streams[path].send(GET % path)
        silent = await stack.enter_async_context(await connect(server))
        partial_head = await stack.enter_async_context(await connect(server))
        await partial_head.send(b"GET /hello HT")
        socket_ = await stack.enter_async_context(await connect(server))
        await socket_.send(UPGRADE)
        await read(socket_, b"\r\n\r\n")
        await app.wait_begun(7)
        await anyio.sleep(0.1)
        before = anyio.current_time()
        assert server.cancel() == 6
        assert server.cancel() == 0
        answer = await read(streams[b"/wait"])
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"connection: close" in answer.lower()
        assert (await read(streams[b"/events"])).endswith(b"data: 1\n\n\r\n")
        assert (await read(streams[b"/shielded"])).endswith(b"hello")
        assert await read(silent) == b""
        assert (await read(socket_)).endswith(b"\x88\x02\x03\xe9")  # 1001
        await wait_ended(server)
        assert anyio.current_time() - before < 10
        await anyio.sleep(0.01)
        assert loops.count_tasks(loops.current_loop()) <= tasks
    assert sorted(app.ends) == ["cancelled"] * 5 + ["returned"] * 2
    assert server.statistics().cancelled == 6
    assert server.statistics().failed == 0
    assert counted(server) == {200: 5, 503: 1}
    assert server.requests.statistics().unfinished == {("GET", "other"): 3}


@pytest.mark.parametrize("path", [b"/slow", b"/breaks_off"])
async def test_body_not_read(path: bytes) -> None:
    """A request whose body piles up unread is answered, and holds nothing up."""
    app = App()
    async with serving(app) as server, await connect(server) as stream:
        await stream.send(b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n" % path)
        answers: list[bytes] = []
        async with anyio.create_task_group() as group:

            async def listen() -> None:
                answers.append(await read(stream))

            group.start_soon(listen)
            with contextlib.suppress(anyio.BrokenResourceError):
                await stream.send(b"x" * 2_000_000)
        assert answers[0].startswith(b"HTTP/1.1 200")
        server.close()
    assert app.ends == ["returned"]


async def test_failures() -> None:
    """What a handler raises is reported with its request; a client is answered in any case."""
    app = App()
    seen: list[Any] = []
    async with (
        serving(app, on_error=lambda error, context: seen.append((error, context))) as server,
        httpx.AsyncClient(base_url=f"http://{server.address}") as http,
    ):
        assert (await http.get("/fails?secret=1")).status_code == 500
        assert (await http.get("/silent")).status_code == 500
        address = server.address
        server.close()
    ((error, context),) = seen
    assert repr(error) == "LookupError('no database')"
    assert context == {"method": "GET", "path": "/fails", "server": address}
    assert server.statistics().failed == 1
    assert counted(server) == {500: 2}


async def test_clients_that_are_gone() -> None:
    """A client that has gone ends the handler that goes on sending, which is no failure."""
    app = App()
    async with serving(app) as server:
        async with contextlib.AsyncExitStack() as stack:
            for request in (GET % b"/flood", GET % b"/pieces", UPGRADE):
                stream = await stack.enter_async_context(await connect(server))
                await stream.send(request)
                await read(stream, b"\r\n\r\n")
        while server.in_flight:  # noqa: ASYNC110 - until their handlers have seen it
            await anyio.sleep(0.01)
        server.close()
    assert app.begun == ["/flood", "/pieces", "/ws"]
    assert app.ends == ["returned"]
    assert server.statistics().failed == 0
    assert counted(server) == {200: 2}
    assert server.requests.statistics().unfinished == {("GET", "other"): 2}


class Http2:
    """A client that speaks HTTP/2 from the beginning."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._state = h2.connection.H2Connection()
        self._state.initiate_connection()
        self.statuses: dict[int, bytes] = {}
        self.ended: list[int] = []

    async def get(self, path: str, *, method: str = "GET") -> int:
        """Ask for a path, without the body of a POST; return the number of the stream."""
        number = self._state.get_next_available_stream_id()
        headers = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "a")]
        self._state.send_headers(number, headers, end_stream=method == "GET")
        await self._stream.send(self._state.data_to_send())
        return number

    async def read(self, ended: int) -> None:
        """Read until ``ended`` streams have ended, or the connection has."""
        with contextlib.suppress(anyio.EndOfStream):
            while len(self.ended) < ended:
                for event in self._state.receive_data(await self._stream.receive()):
                    if isinstance(event, h2.events.ResponseReceived):
                        self.statuses[event.stream_id] = dict(event.headers)[b":status"]
                    elif isinstance(event, h2.events.StreamEnded):
                        self.ended.append(event.stream_id)


async def test_http_2() -> None:
    """HTTP/2 with prior knowledge: streams end one by one, and then the connection does."""
    app = App()
    async with serving(app) as server, await connect(server) as stream:
        client = Http2(stream)
        first, second = await client.get("/hello"), await client.get("/silent")
        await client.read(2)
        waiting = [await client.get("/wait") for _ in range(3)]
        await app.wait_begun(5)
        server.close()
        with anyio.move_on_after(0.1):
            await client.read(3)
        assert server.cancel() == 3
        await client.read(100)
    assert client.statuses == {first: b"200", second: b"500"} | dict.fromkeys(waiting, b"503")
    assert len(client.ended) == 5


async def test_client_that_breaks_hypercorn() -> None:
    """A request that makes hypercorn raise ends its own connection, and no other."""
    app = App()
    async with serving(app) as server, await connect(server) as other:
        await other.send(GET % b"/wait")
        await app.wait_begun(1)
        async with await connect(server) as stream:
            await stream.send(
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                b"Upgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n"
            )
            assert (await read(stream)).startswith(b"HTTP/1.1 101")
        server.close()
        app.go_on.set()
        assert (await read(other)).endswith(b"hello")


async def test_cancelled_before_sending() -> None:
    """A handler that swallows its cancellation and then answers, answers in full."""
    app = App()
    async with serving(app) as server, await connect(server) as stream:
        await stream.send(GET % b"/swallows")
        await app.wait_begun(1)
        assert server.cancel() == 1
        assert (await read(stream)).startswith(b"HTTP/1.1 200")
    assert server.statistics().failed == 0


async def test_frameworks() -> None:
    """Starlette sees that a client has gone, and its requests have the state of its lifespan."""
    seen: list[Any] = []

    async def stream(request: StarletteRequest) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            try:
                await anyio.sleep_forever()
            finally:
                seen.append(request.state.pool)

        return StreamingResponse(pieces())

    app = Starlette(routes=[Route("/", stream)])
    pool = object()
    async with serving(app, state={"pool": pool}) as server:
        async with await connect(server) as client:
            await client.send(GET % b"/")
            await read(client, b"data: 1")
        while server.in_flight:  # noqa: ASYNC110 - until it has been seen
            await anyio.sleep(0.01)
        server.close()
    assert seen == [pool]
    assert server.statistics().failed == 0


async def test_websocket_not_accepted() -> None:
    """A websocket that is cancelled before it was accepted is refused with 503."""
    app = App()
    async with serving(app) as server, await connect(server) as stream:
        await stream.send(UPGRADE.replace(b"/ws", b"/ws_wait"))
        await app.wait_begun(1)
        assert server.cancel() == 1
        answer = await read(stream)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"connection: close" in answer.lower()


def trusting() -> ssl.SSLContext:
    """Return what a client trusts."""
    return ssl.create_default_context(cafile=LOCALHOST)


async def connect_tls(server: Server) -> TLSStream:
    """Return a connection with TLS to the server."""
    stream = await anyio.connect_tcp(
        "127.0.0.1",
        int(server.address.rpartition(":")[2]),
        tls_hostname="localhost",
        ssl_context=trusting(),
        tls_standard_compatible=False,
    )
    assert isinstance(stream, TLSStream)
    return stream


async def test_tls_closes() -> None:
    """
    Closing waits neither for a client that does not begin nor for one that does not take its leave.

    One that takes its time to read the last of its answer gets all of it.
    """
    app = App()
    certificate = Certificate(str(LOCALHOST), str(LOCALHOST))
    async with (
        serving(app, certificate=certificate, proxies=PROXIES) as server,
        await connect(server),  # and says nothing
        await connect(server) as plain,
        await connect_tls(server) as idle,
        await connect_tls(server) as slow,
    ):
        await plain.send(GET % b"/hello")
        assert await read(plain) == b""
        await idle.send(GET % b"/hello")
        assert (await read(idle, b"hello")).startswith(b"HTTP/1.1 200")
        await slow.send(GET % b"/large")
        await app.wait_begun(2)
        await anyio.sleep(0.1)
        before = anyio.current_time()
        server.close()
        await anyio.sleep(1.4)
        assert len((await read(slow)).partition(b"\r\n\r\n")[2]) == LARGE
        await wait_ended(server)
        assert anyio.current_time() - before < 10
    assert app.ends == ["returned"] * 2
    assert server.statistics().cancelled == 0


async def test_certificate_that_is_none(tmp_path: Path) -> None:
    """It is named before anything listens."""
    with pytest.raises(OSError, match=r"^cannot read the certificate '.*none\.pem': No such file"):
        await Server(App(), HERE, certificate=Certificate(str(tmp_path / "none.pem"), "")).serve()


@pytest.mark.parametrize("where", ["tcp", "unix"])
async def test_proxies(where: str, tmp_path: Path) -> None:
    """Client and scheme are what a trusted proxy says, in requests and in websockets."""
    if where == "unix" and sys.platform == "win32":
        pytest.skip("there are no Unix sockets")
    bind = f"unix:{tmp_path / 's'}" if where == "unix" else HERE
    seen: list[tuple[Any, str]] = []

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["client"], scope["scheme"]))
        await App()(scope, receive, send)

    said = b"X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\r\n"
    for proxies in (PROXIES, None):
        async with serving(asgi, bind, proxies=proxies) as server:
            for request, answer in ((GET % b"/hello", b"hello"), (UPGRADE, b"101")):
                stream = await (
                    anyio.connect_unix(str(tmp_path / "s")) if where == "unix" else connect(server)
                )
                async with stream:
                    await stream.send(request.removesuffix(b"\r\n") + said)
                    await read(stream, answer)
            server.close()
    peers = [client and client[0] for client, _ in seen[2:]]
    assert seen[:2] == [(("1.2.3.4", 0), "https"), (("1.2.3.4", 0), "wss")]
    assert peers == [None if where == "unix" else "127.0.0.1"] * 2
    assert [scheme for _, scheme in seen[2:]] == ["http", "ws"]


async def test_connection_of_a_proxy() -> None:
    """What a proxy says of the client does not hide which connection a handler answers on."""
    app = App()
    async with serving(app, proxies=PROXIES) as server, await connect(server) as stream:
        await stream.send(b"GET /shielded HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")
        await app.wait_begun(1)
        assert server.cancel() == 1
        assert (await read(stream)).endswith(b"hello")


async def test_too_many_requests() -> None:
    """Beyond the limit clients are told to come again, on the same connection; probes are not."""
    app = App()
    async with (
        serving(app, max_in_flight=2) as server,
        await connect(server) as first,
        await connect(server) as second,
        await connect(server) as other,
        await connect(server) as upgrade,
        await connect(server) as upload,
        await connect(server) as probe,
        await connect(server) as streams,
    ):
        client = Http2(streams)
        await first.send(GET % b"/wait")
        waiting = await client.get("/wait")
        await app.wait_begun(2)
        for _ in range(2):
            await other.send(GET % b"/hello")
            answer = (await read(other, b"\r\n\r\n")).lower()
            assert answer.startswith(b"http/1.1 503")
            assert b"\r\nretry-after: 1\r\n" in answer
            assert b"connection" not in answer
        await upgrade.send(UPGRADE)
        assert (await read(upgrade)).startswith(b"HTTP/1.1 503")
        await upload.send(b"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n123456789")
        assert b"connection: close" in (await read(upload)).lower()
        refused = await client.get("/hello")
        await client.read(1)
        assert client.statuses == {refused: b"503"}
        await probe.send(GET % b"/livez")
        assert (await read(probe, b"hello")).startswith(b"HTTP/1.1 200")
        assert server.statistics().rejected == 5
        app.go_on.set()
        assert (await read(first, b"hello")).startswith(b"HTTP/1.1 200")
        await client.read(2)
        assert client.statuses[waiting] == b"200"
        for stream in (other, second):
            await stream.send(GET % b"/hello")
            assert (await read(stream, b"hello")).startswith(b"HTTP/1.1 200")
        server.close()
    assert server.statistics().peak == 3
    assert counted(server) == {200: 5, 503: 4}
    assert app.ends == ["returned"] * 5


class Uploads:
    """An application that reads a body, and one that reads it while it answers."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Read until there is no more, and answer then."""
        streams = scope["path"] == "/streams"
        if streams:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (message := await receive()).get("more_body"):
            self.heard.append(message["body"].decode())
        self.heard.append(message["type"])
        assert message["type"] == (await receive())["type"] == "http.disconnect"
        if not streams:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"dropped", "more_body": False})


UPLOAD = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"


async def test_body_that_does_not_come() -> None:
    """A client that stops in the middle of a body gets 408, or its answer breaks off."""
    app = Uploads()
    async with (
        serving(app, body_timeout=0.2) as server,
        await connect(server) as stream,
        await connect(server) as other,
        await connect(server) as streams,
    ):
        await stream.send(UPLOAD % b"/")
        answer = (await read(stream)).lower()
        assert answer.startswith(b"http/1.1 408")
        assert b"\r\nconnection: close\r\n" in answer
        assert b"dropped" not in answer
        await other.send(UPLOAD % b"/streams")
        answer = await read(other)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"begun" in answer
        assert not answer.endswith(b"0\r\n\r\n")
        client = Http2(streams)
        late = await client.get("/", method="POST")
        await client.read(1)
        assert client.statuses == {late: b"408"}
        server.close()
    assert app.heard == ["abc", "http.disconnect"] * 2 + ["http.disconnect"]
    assert server.statistics().late == 3
    assert counted(server) == {200: 1, 408: 2}


async def test_probes_take_no_place() -> None:
    """A probe that is being answered keeps no request out, and is not kept out by one."""
    app = App()
    app.readyz = app.wait  # type: ignore[attr-defined]
    async with (
        serving(app, max_in_flight=1) as server,
        await connect(server) as probe,
        await connect(server) as stream,
        await connect(server) as other,
    ):
        for asking, path in ((probe, b"/readyz"), (stream, b"/wait"), (other, b"/livez")):
            await asking.send(GET % path)
        assert (await read(other, b"hello")).startswith(b"HTTP/1.1 200")
        await app.wait_begun(3)
        await other.send(GET % b"/hello")
        assert (await read(other, b"\r\n\r\n")).startswith(b"HTTP/1.1 503")
        app.go_on.set()
        for asking in (probe, stream):
            assert (await read(asking, b"hello")).startswith(b"HTTP/1.1 200")
        server.close()


async def test_access_log(caplog: pytest.LogCaptureFixture) -> None:
    """Each request has a line, also one that fails, is refused or cancelled; each answer an id."""
    app = App()
    get = b"GET /%s HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Request-ID: %s\r\n\r\n"
    caplog.set_level(logging.INFO, "mtaio.access")

    async def ask(stream: SocketStream, path: bytes, status: bytes) -> None:
        await stream.send(get % (path, path))
        answer = await read(stream, b"\r\n\r\nhello" if status == b"200" else b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"\r\nx-request-id: %s\r\n" % path in answer

    async def nothing_in_flight() -> None:
        while server.in_flight:  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.01)

    options: dict[str, Any] = {"max_in_flight": 1, "on_error": lambda _error, _context: None}
    async with (
        serving(app, access_log=True, proxies=PROXIES, **options) as server,
        await connect(server) as stream,
        await connect(server) as waiting,
    ):
        await ask(stream, b"hello", b"200")
        await nothing_in_flight()
        await waiting.send(get % (b"wait", b"wait"))
        await app.wait_begun(2)
        await ask(stream, b"hello", b"503")
        app.go_on.set()
        await read(waiting, b"hello")
        await nothing_in_flight()
        await ask(stream, b"fails", b"500")
        await nothing_in_flight()
        await waiting.send(get % (b"events", b"events"))
        await app.wait_begun(4)
        server.cancel()
    async with serving(app, **options) as server, await connect(server) as stream:
        await stream.send(GET % b"/hello")
        assert b"x-request-id" not in await read(stream, b"hello")
        server.close()
    async with (  # what nobody reports is raised, for hypercorn to log
        serving(app, access_log=True, proxies=PROXIES) as server,
        await connect(server) as stream,
    ):
        await ask(stream, b"fails", b"500")
        server.close()
    lines = [each for each in caplog.records if each.name == "mtaio.access"]
    assert [each.getMessage().partition(" bytes")[0] for each in lines] == [
        "1.2.3.4 GET /hello 200, 5",
        "1.2.3.4 GET /hello 503, 0",
        "1.2.3.4 GET /wait 200, 5",
        "1.2.3.4 GET /fails 500, 0",
        "1.2.3.4 GET /events 200, 9",
        "1.2.3.4 GET /fails 500, 0",
    ]
    assert [each.getMessage().partition(" error=")[2] for each in lines] == [
        *[""] * 3,
        "LookupError",
        "cancelled",
        "LookupError",
    ]


async def test_spans_without_a_log() -> None:
    """Requests have spans also where they have no lines; what went wrong is in them."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traces.record(provider.get_tracer("tests"))
    app = App()
    try:
        async with serving(app) as server, await connect(server) as stream:
            await stream.send((GET % b"/hello") + (GET % b"/wait"))
            await app.wait_begun(2)
            server.cancel()
            await read(stream)
    finally:
        traces.record(None)
    attributes = [each.attributes or {} for each in exporter.get_finished_spans()]
    assert [each["http.response.status_code"] for each in attributes] == [200, 503]
    assert [each.get("mtaio.cancelled") for each in attributes] == [None, True]


async def test_tls() -> None:
    """With TLS a client that does not answer the farewell is not waited for."""
    config = Config()
    config.certfile = config.keyfile = str(LOCALHOST)
    async with serving(App(), config=config) as server, await connect_tls(server) as stream:
        await stream.send(GET % b"/hello")
        assert (await stream.receive()).startswith(b"HTTP/1.1 200")
        server.close()
        await anyio.sleep(0.1)
        assert server.cancel() == 0
        await wait_ended(server)


class Stuck(Request):
    """A request whose client takes nothing, on a connection that cannot be shut down."""

    def __init__(self) -> None:
        self.abandoned = False
        self.client = None
        self.sending = True

    def cancel(self) -> None:
        """Take no notice."""

    def abandon(self) -> None:
        """End at last."""
        self.abandoned = True


@pytest.mark.parametrize("pause", [0.0, 0.05])
async def test_websocket_that_is_refused(pause: float) -> None:
    """A client that sends before it is let in is refused, and the application hears of the end."""
    app = App()
    path = b"/ws_late" if pause else b"/ws"
    async with serving(app) as server:
        async with await connect(server) as stream:
            await stream.send(UPGRADE.replace(b"/ws", path) + b"\x81" * (not pause))
            await anyio.sleep(pause)
            await stream.send(b"\x81")
            assert (await read(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 400")
        with anyio.fail_after(5):
            while server.in_flight:  # noqa: ASYNC110 - nobody tells
                await anyio.sleep(0.01)
        server.close()


async def test_websocket_flood() -> None:
    """A websocket whose messages nobody takes does not keep serving from ending."""
    app = App()
    async with serving(app) as server, await connect(server) as stream:
        await stream.send(UPGRADE.replace(b"/ws", b"/ws_deaf"))
        await read(stream, b"\r\n\r\n")
        with anyio.move_on_after(0.3):
            while True:
                await stream.send((b"\x81\x81\0\0\0\0a") * 1000)
        run = server._run
        assert run is not None
        stuck = Stuck()
        run.in_flight.add(stuck)
        assert server.cancel() == 2
    assert stuck.abandoned


async def test_serve_cancelled() -> None:
    """Serving that is cancelled cancels its requests and waits for them, at whatever moment."""
    app = App()
    for moment in (0.0, 0.001, 0.01, 0.1):
        server = Server(app, HERE)
        with anyio.fail_after(20), anyio.move_on_after(moment):
            await server.serve()
        assert server.address == HERE
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            await group.start(server.serve)
            stream = await connect(server)
            await stream.send(GET % b"/wait")
            await app.wait_begun(1)
            group.cancel_scope.cancel()
    assert app.ends == ["cancelled"]
    assert server.statistics().cancelled == 1
    assert (await read(stream)).startswith(b"HTTP/1.1 503")
    await stream.aclose()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither")
async def test_other_binds(tmp_path: Path) -> None:
    """A Unix socket, and one that was inherited, are served; clients need not read there either."""
    if sys.platform == "win32":
        return
    config = Config()
    config.umask, config.user, config.group = 0o177, os.getuid(), os.getgid()
    path = tmp_path / "s"
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        for bind in (f"unix:{path}", f"fd://{inherited.fileno()}"):
            app = App()
            async with serving(app, bind, config=config) as server:
                address = server.address
                for sent in (b"/fails", b"/flood"):
                    stream = await (connect(server) if bind[0] == "f" else anyio.connect_unix(path))
                    async with stream:
                        await stream.send(GET % sent)
                        await stream.receive()
                        if sent == b"/flood":
                            assert server.cancel() == 1
            assert app.ends == ["cancelled"]
            assert server.statistics().failed == 1
            port = inherited.getsockname()[1]
            assert address == (bind if bind[0] == "u" else f"127.0.0.1:{port}")
    assert not path.exists()


async def test_logger_that_waits() -> None:
    """A logger may be slow, with a timeout of its own, while it is told of a response."""
    seen: list[object] = []

    class Slow(Logger):
        async def access(self, *_: object) -> None:
            with anyio.fail_after(20):
                await anyio.sleep(0.01)
            seen.append("response")

    config = Config()
    config.logger_class = Slow
    app = App()
    async with serving(app, config=config) as server, await connect(server) as stream:
        await stream.send(GET % b"/hello")
        assert (await read(stream, b"hello")).endswith(b"hello")
        server.close()
    assert "response" in seen  # on trio hypercorn says so twice
    assert app.ends == ["returned"]
    assert server.statistics().failed == 0


async def test_closed_at_once() -> None:
    """A server may be told to end as soon as it is there."""
    for end in (Server.close, Server.cancel):
        async with serving(App()) as server:
            end(server)
            with pytest.raises(RuntimeError, match=r"^<Server at .*> is serving already"):
                await server.serve()
        end(server)


async def test_late_request() -> None:
    """What still comes after cancel() is answered with 503, and the application not asked."""
    app = App()
    async with serving(app) as server, await connect(server) as stream:
        run = server._run
        assert run is not None
        run.cancelling = True  # as it is for a request that hypercorn had begun to read
        await stream.send(GET % b"/hello")
        assert (await read(stream)).startswith(b"HTTP/1.1 503")
        run.cancelling = False
        server.close()
    assert app.begun == []
    assert server.statistics().rejected == 1
    assert counted(server) == {503: 1}


async def ask_without_pause(server: Server, answers: list[bytes]) -> None:
    """Ask on one connection, again and again, until it is closed or told to be the last time."""
    async with await connect(server) as stream:
        with contextlib.suppress(anyio.BrokenResourceError):
            while not answers or b"connection: close" not in answers[-1].lower():
                await stream.send(GET % b"/hello")
                answer = await read(stream, b"hello")
                if not answer:
                    return
                answers.append(answer)


@pytest.mark.parametrize("last_call", [0.1, -1e9])
async def test_closed_under_load(last_call: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request of clients that ask without pause is answered, or not begun."""
    monkeypatch.setattr("mtaio.app._server._LAST_CALL", last_call)
    app = App()
    clients: list[list[bytes]] = [[] for _ in range(50)]
    async with serving(app) as server:
        async with anyio.create_task_group() as group:
            for answers in clients:
                group.start_soon(ask_without_pause, server, answers)
            await app.wait_begun(1000)
            server.close()
        before = anyio.current_time()
    assert anyio.current_time() - before < 5
    assert len(app.ends) == sum(map(len, clients))


def connected(address: Any, family: int = socket.AF_INET) -> socket.socket:
    """Return a connection which the system has made, whatever the event loop does meanwhile."""
    client = socket.socket(family)
    try:
        client.connect(address)
    except OSError:
        client.close()
        raise
    return client


def ask_in_thread(client: socket.socket) -> bytes:
    """Return all that comes from the server."""
    client.settimeout(20)
    with client, client.makefile("rb") as stream:
        return stream.read()


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "unix", "inherited"])
async def test_closed_with_clients_in_the_queue(bind: str, tmp_path: Path) -> None:
    """Clients whom only the system has let in are answered, whether they have asked yet or not."""
    if sys.platform == "win32" and bind != "127.0.0.1:0":
        return
    app, path = App(), tmp_path / "s"
    inherited = socket.create_server(("127.0.0.1", 0))
    where = {"unix": f"unix:{path}", "inherited": f"fd://{inherited.fileno()}"}.get(bind, bind)
    async with serving(app, where) as server:
        port = int(server.address.rpartition(":")[2]) if bind != "unix" else 0
        clients = [
            connected(str(path), getattr(socket, "AF_UNIX", socket.AF_INET))
            if bind == "unix"
            else connected(("127.0.0.1", port))
            for _ in range(40)
        ]
        for client in clients[::2]:
            client.sendall(GET % b"/hello")
        server.close()
        for client in clients[1::2]:
            client.sendall(GET % b"/hello")
        answers: list[bytes] = []

        async def ask(client: socket.socket) -> None:
            answers.append(await to_thread.run_sync(ask_in_thread, client))

        async with anyio.create_task_group() as group:
            for client in clients:
                group.start_soon(ask, client)
    assert [each[:12] for each in answers] == [b"HTTP/1.1 200"] * 40
    assert all(each.endswith(b"hello") for each in answers)
    inherited.close()


async def test_closed_with_silent_clients_in_the_queue() -> None:
    """They are let in, and not waited for."""
    async with serving(App()) as server:
        port = int(server.address.rpartition(":")[2])
        clients = [connected(("127.0.0.1", port)) for _ in range(10)]
        server.close()
        for client in clients:
            assert await to_thread.run_sync(ask_in_thread, client) == b""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere one may connect at that moment")
async def test_closed_while_clients_connect() -> None:
    """Each connection is refused, or its request is answered: none is made and then reset."""
    app, answers = App(), list[bytes]()
    stopped = False

    def connect_without_pause(address: tuple[str, int]) -> None:
        while True:
            try:
                client = connected(address)
            except OSError:
                if stopped:
                    return
                continue
            client.sendall(GET.replace(b"a\r\n", b"a\r\nConnection: close\r\n") % b"/hello")
            answers.append(ask_in_thread(client))

    for _ in range(2):
        async with anyio.create_task_group() as group:
            async with serving(app) as server:
                address = "127.0.0.1", int(server.address.rpartition(":")[2])
                for _ in range(8):
                    group.start_soon(to_thread.run_sync, connect_without_pause, address)
                await app.wait_begun(len(app.begun) + 100)
                server.close()
            stopped = True
        stopped = False
    assert [each for each in answers if not each.endswith(b"hello")] == []


async def test_hypercorn_is_what_it_was() -> None:
    """Serving changes nothing for those who use hypercorn by themselves, meanwhile or later."""
    names = [f"hypercorn.{backend}.run" for backend in ("asyncio", "trio")]
    before = [vars(importlib.import_module(name)).copy() for name in names]
    async with serving(App()) as server:
        assert [vars(importlib.import_module(name)) for name in names] == before
        server.close()
    assert [vars(importlib.import_module(name)) for name in names] == before


async def test_closed_with_a_request_in_line() -> None:
    """A request that came behind another one on its connection does not keep a server open."""
    app = App()
    async with serving(app) as server, await connect(server) as stream:
        await stream.send(GET % b"/wait" + GET % b"/hello")
        await app.wait_begun(1)
        server.close()
        app.go_on.set()
        assert (await read(stream)).endswith(b"hello")
    assert app.begun == ["/wait"]


async def test_idle_for_too_long() -> None:
    """A connection ends when it was idle for the keep-alive time, and not while it is at work."""
    config = Config()
    config.keep_alive_timeout = 0.5
    app = App()
    async with serving(app, config=config) as server, await connect(server) as stream:
        await stream.send(GET % b"/wait")
        await app.wait_begun(1)
        await anyio.sleep(0.7)
        app.go_on.set()
        assert (await read(stream, b"hello")).endswith(b"hello")
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        server.close()


def open_files() -> int:
    """Return how many descriptors this process has."""
    return sum(1 for _ in Path("/dev/fd").iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such folder")
async def test_clients_that_leave() -> None:
    """A connection that its client has closed is gone at once, whatever the keep-alive time."""
    config = Config()
    config.keep_alive_timeout = 600
    async with serving(App(), config=config) as server:
        before = open_files()
        for _ in range(10):
            async with await connect(server) as stream:
                await stream.send(GET % b"/hello")
                await read(stream, b"hello")
        while open_files() > before:  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.01)
        server.close()
