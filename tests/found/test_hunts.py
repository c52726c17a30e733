"""What libraries were hunted for on a simulated network; the guide shows what was found."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import anyio
import asyncpg
import httpx
import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from trio_websocket import DisconnectionTimeout, open_websocket_url
from websockets.asyncio.client import connect

from mtaio.testing import Network, Victim, explore, run, settle
from tests.found import servers
from tests.found.clients import BAD_CLIENTS
from tests.found.findings import HOME, PAGES, litter
from tests.programs import load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

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
            if left and client.name in LITTER:
                gc.collect()
                await anyio.sleep(1)
                left = [str(each) for each in net.open if each.host == "main"]
        assert not left, left

    test()


# Servers


FULL: Final = {"flood", "reads_nothing", "reads_slowly"}
"""Those whose answers do not fit into the buffers on the way."""


async def stops(
    server: Callable[[anyio.Event], Awaitable[None]],
    client: Callable[[SocketStream], Awaitable[None]],
    fault: str,
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
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
            await client(stream)

    streams: list[SocketStream] = []
    async with Network(latency=0.05) as net, anyio.create_task_group() as group:
        net.host("api").start(serve)
        await settle()
        group.start_soon(use)
        await anyio.sleep(5)
        if fault:
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


@pytest.mark.parametrize("fault", ["", "partition"])
@pytest.mark.parametrize(
    ("server", "backend", "grace"),
    [
        (servers.hypercorn, "asyncio", 3),
        (servers.hypercorn, "trio", 3),
        (servers.uvicorn, "asyncio", 3.2),
        (servers.aiohttp, "asyncio", 6),
    ],
)
def test_server_stops_in_time(server: Any, backend: str, grace: float, fault: str) -> None:
    """With one bad client of each kind the server stops in time, unless the answers pile up."""
    late, open_ = set(), set()
    for client in BAD_CLIENTS:
        seconds, left = run(stops, server, client, fault, backend=backend)
        if seconds > grace + 1e-6:
            late.add(client.__name__)
        elif left:
            open_.add(client.__name__)
    assert (late, open_) == ((FULL, set()) if server is servers.hypercorn else (set(), FULL))


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
    """Ask twice, and return the second answer, or the name of the error."""
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
    """Ask twice, and return the second answer, or the name of the error."""
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


# Deadlines in a partition


async def httpx_told(net: Network) -> list[float]:
    """Return how long a request, a new connection and closing take."""
    client = httpx.AsyncClient(timeout=1)
    await client.get("http://api/")
    net.partition("main", "api")
    calls = (lambda: client.get("http://api/"), lambda: client.get("http://api/"), client.aclose)
    return [await PATIENCE.patience(call) for call in calls]


async def aiohttp_told(net: Network) -> list[float]:
    """Return how long a request, a new connection and closing take."""
    session = ClientSession(timeout=ClientTimeout(total=1))

    async def get() -> None:
        async with session.get("http://api/") as response:
            await response.read()

    await get()
    net.partition("main", "api")
    return [await PATIENCE.patience(call) for call in (get, get, session.close)]


async def redis_told(net: Network) -> list[float]:
    """Return how long a command, a new connection and closing take."""
    client = Redis(
        host="api", socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
    )
    await client.ping()
    net.partition("main", "api")
    return [await PATIENCE.patience(call) for call in (client.ping, client.ping, client.aclose)]


async def asyncpg_told(net: Network) -> list[float]:
    """Return how long a command and closing take."""
    client = await asyncpg.connect(
        host="api",
        user="u",
        password="p",  # noqa: S106 - of a server of ours
        database="d",
        command_timeout=1,
    )
    net.partition("main", "api")
    calls = (lambda: client.execute("SELECT"), lambda: client.close(timeout=1))
    return [await PATIENCE.patience(call) for call in calls]


async def websockets_told(net: Network) -> list[float]:
    """Return how long closing and a new connection take; the buffer is empty."""
    client = await connect("ws://api/", close_timeout=1)
    net.partition("main", "api")
    again = connect("ws://api/", open_timeout=1)
    return [await PATIENCE.patience(call) for call in (client.close, again.__aenter__)]


async def trio_websocket_told(net: Network) -> list[float]:
    """Return how long closing and connecting with TCP take."""
    url = "ws://api/"
    took: list[float] = []
    with suppress(DisconnectionTimeout):
        async with open_websocket_url(url, disconnect_timeout=1):
            net.partition("main", "api")
            begin = anyio.current_time()
    took.append(anyio.current_time() - begin)
    took.append(await PATIENCE.patience(open_websocket_url(url, connect_timeout=1).__aenter__))
    return took


@pytest.mark.parametrize(
    ("told", "backend", "server", "seconds"),
    [
        (httpx_told, "asyncio", PATIENCE.serve_http, [1, 1, 0]),
        (httpx_told, "trio", PATIENCE.serve_http, [1, 1, 0]),
        (aiohttp_told, "asyncio", PATIENCE.serve_http, [1, 1, 0]),
        (redis_told, "asyncio", PATIENCE.serve_redis, [1, 1, 0]),
        (asyncpg_told, "asyncio", PATIENCE.serve_postgres, [1, 1]),
        (websockets_told, "asyncio", PATIENCE.serve_websockets, [1, 1]),
        (trio_websocket_told, "trio", PATIENCE.serve_trio_websocket, [1, 1]),
    ],
)
def test_deadlines_hold_in_partition(
    told: Any, backend: str, server: Any, seconds: list[float]
) -> None:
    """A client that was told to wait for a second does so, to ask, to connect and to close."""

    async def main() -> list[float]:
        async with Network(latency=0.05) as net:
            net.host("api").start(server)
            await settle()
            took: list[float] = await told(net)
        return took

    assert run(main, backend=backend) == pytest.approx(seconds, abs=0.01)
