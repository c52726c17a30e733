"""What libraries were hunted for on a simulated network; the guide shows what was found."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import anyio
import httpx
import pytest
from aiohttp import ClientError, ClientSession
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

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
