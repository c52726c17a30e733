"""What libraries were hunted for on a simulated network, and what held beside what the guide shows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from mtaio.testing import Network, Victim, explore, run, settle
from tests.found.findings import HOME, HUNTED, PAGES, litter
from tests.programs import load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

if not HUNTED:
    pytest.skip("needs the libraries of the group found", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
PATIENCE: Final = load(HOME / "patience.py", "docs.examples.found.patience")
CLIENTS: Final = {
    f"{client.name}-{backend}": (client, backend)
    for client in PATIENCE.CLIENTS
    for backend in client.backends
}


@pytest.fixture(autouse=True)
def no_litter() -> Iterator[None]:
    """Collect no garbage during a hunt, which has to see what is left."""
    with litter():
        yield


LITTER: Final = {"redis-py", "trio-websocket"}
"""Those that leave a socket to the garbage collector, if they are cancelled at one moment."""


def test_table_of_patience(capsys: pytest.CaptureFixture[str]) -> None:
    """The program prints the table of the guide, and each of its rows stands on the pages."""
    PATIENCE.main()
    table = capsys.readouterr().out
    assert table == (HOME / "patience.out").read_text(encoding="utf-8")
    for page in PAGES:
        rows = (page.parent / "patience.md").read_text(encoding="utf-8").splitlines()
        for line in table.splitlines():
            assert [row for row in rows if row.startswith(line)], line


@pytest.mark.parametrize(("client", "backend"), CLIENTS.values(), ids=list(CLIENTS))
def test_cancelled_client_leaves_no_socket(client: Any, backend: str) -> None:
    """Cancelled at any moment of connecting, asking and closing, a client closes its sockets."""

    @explore(seeds=0, exhaustive=0, backends=(backend,))
    async def test(victim: Victim) -> None:
        async def use() -> None:
            async with client.connect() as calls:
                await calls.ask()

        async with Network(latency=0.05) as net:
            net.host("api").start(client.serve)
            await settle()
            await victim(use)
            await anyio.sleep(1)
            left = [str(each) for each in net.open if each.host == "main"]
        assert not left, left

    if client.name in LITTER:
        with pytest.raises(AssertionError):
            test()
    else:
        test()


# Servers


GRACE: Final = 3
"""Seconds that each server is told to give its clients."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer at once, after a long time or with much, as the path says."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    while (message := await receive()).get("more_body", False):
        pass
    if message["type"] == "http.disconnect":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/late":
        await anyio.sleep(1000)
    for _ in range(100 if scope["path"] == "/much" else 1):
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def hypercorn(stop: anyio.Event) -> None:
    import sniffio
    from hypercorn import asyncio as on_asyncio
    from hypercorn import trio as on_trio
    from hypercorn.config import Config

    config = Config()
    config.bind = ["0.0.0.0:80"]
    config.errorlog = None
    config.graceful_timeout = config.shutdown_timeout = GRACE
    config.keep_alive_timeout = 1000
    serve = on_trio.serve if sniffio.current_async_library() == "trio" else on_asyncio.serve
    await serve(app, config, shutdown_trigger=stop.wait, mode="asgi")


async def uvicorn(stop: anyio.Event) -> None:
    from uvicorn import Config, Server

    config = Config(
        app,
        host="0.0.0.0",  # noqa: S104 - of a host that is simulated
        port=80,
        http="h11",
        log_level="critical",
        lifespan="off",
        timeout_keep_alive=1000,
        timeout_graceful_shutdown=GRACE,
    )
    server = Server(config)
    async with anyio.create_task_group() as group:
        group.start_soon(server._serve)
        await stop.wait()
        server.should_exit = True


async def aiohttp(stop: anyio.Event) -> None:
    from aiohttp import web

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse()
        await response.prepare(request)
        if request.path == "/late":
            await anyio.sleep(1000)
        for _ in range(100 if request.path == "/much" else 1):
            await response.write(b"x" * 100_000)
        return response

    site = web.Application()
    site.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(site, shutdown_timeout=GRACE, keepalive_timeout=1000)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 80).start()  # noqa: S104 - of a host that is simulated
    await stop.wait()
    await runner.cleanup()


HEAD: Final = b" HTTP/1.1\r\nHost: api\r\n"


async def silent(_: SocketStream) -> None:
    """Say nothing."""


async def half_a_head(stream: SocketStream) -> None:
    await stream.send(b"GET /" + HEAD)


async def slow_head(stream: SocketStream) -> None:
    await stream.send(b"GET /" + HEAD)
    while True:
        await stream.send(b"X: y\r\n")
        await anyio.sleep(1)


async def half_a_body(stream: SocketStream) -> None:
    await stream.send(b"POST /" + HEAD + b"Content-Length: 10\r\n\r\nhalf")


async def slow_body(stream: SocketStream) -> None:
    await stream.send(b"POST /" + HEAD + b"Content-Length: 1000\r\n\r\n")
    while True:
        await stream.send(b"x")
        await anyio.sleep(1)


async def idle(stream: SocketStream) -> None:
    await stream.send(b"GET /" + HEAD + b"\r\n")
    size = 0
    while size < 100_000:
        size += len(await stream.receive())


async def waits(stream: SocketStream) -> None:
    await stream.send(b"GET /late" + HEAD + b"\r\n")


async def half_open(stream: SocketStream) -> None:
    await stream.send(b"GET /late" + HEAD + b"\r\n")
    await stream.send_eof()


async def garbage(stream: SocketStream) -> None:
    await stream.send(bytes(range(256)) * 10)


async def flood(stream: SocketStream) -> None:
    for _ in range(20):
        await stream.send((b"GET /" + HEAD + b"\r\n") * 20)


async def reads_nothing(stream: SocketStream) -> None:
    await stream.send(b"GET /much" + HEAD + b"\r\n")


async def reads_slowly(stream: SocketStream) -> None:
    await reads_nothing(stream)
    while True:
        await stream.receive(1000)
        await anyio.sleep(1)


BAD_CLIENTS: Final = (
    *(silent, half_a_head, slow_head, half_a_body, slow_body, idle, waits, half_open),
    *(garbage, flood, reads_nothing, reads_slowly),
)
FULL: Final = {"flood", "reads_nothing", "reads_slowly"}
"""Those whose answers do not fit into the buffers on the way."""


async def stops(
    server: Callable[[anyio.Event], Awaitable[None]],
    client: Callable[[SocketStream], Awaitable[None]],
    partition: bool,  # noqa: FBT001 - of this module
) -> tuple[float, bool]:
    """Return after how many seconds a server has stopped, and whether it left a socket open."""
    stop = anyio.Event()
    stopped: list[float] = []

    async def serve() -> None:
        await server(stop)
        stopped.append(anyio.current_time())

    async def use() -> None:
        stream = await anyio.connect_tcp("api", 80)
        streams.append(stream)
        try:
            await client(stream)
        except (anyio.BrokenResourceError, anyio.EndOfStream):
            pass

    streams: list[SocketStream] = []
    async with Network(latency=0.05) as net, anyio.create_task_group() as group:
        net.host("api").start(serve)
        await settle()
        group.start_soon(use)
        await anyio.sleep(5)
        if partition:
            net.partition("main", "api", required=False)
        begin = anyio.current_time()
        stop.set()
        await anyio.sleep(100)
        left = any(each.host == "api" for each in net.open)
        group.cancel_scope.cancel()
        net.heal()
        for stream in streams:  # hypercorn on trio ends with its clients only
            await anyio.aclose_forcefully(stream)
        await anyio.sleep(1)
    return (stopped[0] - begin if stopped else float("inf")), left


@pytest.mark.parametrize("partition", [False, True], ids=["", "partition"])
@pytest.mark.parametrize(
    ("server", "backend", "grace"),
    [
        (hypercorn, "asyncio", 3),
        (hypercorn, "trio", 3),
        (uvicorn, "asyncio", 3.2),
        (aiohttp, "asyncio", 6),
    ],
)
def test_server_stops_in_time(server: Any, backend: str, grace: float, partition: bool) -> None:
    """One bad client of each kind: the server stops within its grace, unless the answers pile up."""
    late, open_ = set(), set()
    for client in BAD_CLIENTS:
        seconds, left = run(stops, server, client, partition, backend=backend)
        if seconds > grace + 1e-6:
            late.add(client.__name__)
        elif left:
            open_.add(client.__name__)
    assert (late, open_) == ((FULL, set()) if server is hypercorn else (set(), FULL))


# The race between a request and the end of an idle connection


async def serve_for_five_seconds() -> None:
    """Answer requests, and close a connection that has been idle for five seconds."""

    async def handle(stream: SocketStream) -> None:
        received = BufferedByteReceiveStream(stream)
        async with stream:
            try:
                while True:
                    with anyio.fail_after(5):
                        head = await received.receive_until(b"\r\n\r\n", 10_000)
                    if head.startswith(b"POST"):
                        await received.receive_exactly(2)
                    await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            except (TimeoutError, anyio.EndOfStream):
                pass

    await (await anyio.create_tcp_listener(local_port=80)).serve(handle)


async def again_with_httpx(method: str, pause: float) -> str:
    import httpx

    body = b"xx" if method == "POST" else None
    async with Network(latency=0.05) as net:
        net.host("api").start(serve_for_five_seconds)
        await settle()
        async with httpx.AsyncClient(limits=httpx.Limits(keepalive_expiry=60)) as client:
            await client.get("http://api/")
            await anyio.sleep(pause)
            try:
                return (await client.request(method, "http://api/", content=body)).text
            except httpx.HTTPError as error:
                return type(error).__name__


async def again_with_aiohttp(method: str, pause: float) -> str:
    from aiohttp import ClientError, ClientSession

    body = b"xx" if method == "POST" else None
    async with Network(latency=0.05) as net:
        net.host("api").start(serve_for_five_seconds)
        await settle()
        async with ClientSession() as session:
            async with session.get("http://api/") as response:
                await response.read()
            await anyio.sleep(pause)
            try:
                async with session.request(method, "http://api/", data=body) as response:
                    return await response.text()
            except ClientError as error:
                return type(error).__name__


@pytest.mark.parametrize(
    ("again", "backend", "method", "outcome"),
    [
        (again_with_httpx, "asyncio", "GET", "RemoteProtocolError"),
        (again_with_httpx, "trio", "GET", "RemoteProtocolError"),
        (again_with_httpx, "asyncio", "POST", "RemoteProtocolError"),
        (again_with_aiohttp, "asyncio", "GET", "ok"),
        (again_with_aiohttp, "asyncio", "POST", "ServerDisconnectedError"),
    ],
)
def test_request_meets_end_of_idle_connection(
    again: Any, backend: str, method: str, outcome: str
) -> None:
    """For one round trip a request is lost on a connection that the server is closing."""
    outcomes = [
        run(again, method, pause, backend=backend) for pause in (4.89, 4.91, 4.95, 4.99, 5.01)
    ]
    assert outcomes == ["ok", outcome, outcome, outcome, "ok"]
