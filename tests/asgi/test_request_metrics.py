"""Metrics of the requests to an ASGI application."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from mtaio.asgi import RequestMetrics
from mtaio.monitoring import ResourceMonitor, metrics, to_prometheus
from mtaio.statistics import RequestStatistics
from mtaio.testing import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


START = {"type": "http.response.start", "status": 200, "headers": []}
PIECE = {"type": "http.response.body", "body": b"12345", "more_body": True}
END = {"type": "http.response.body", "body": b"123"}
TRAILERS = {"type": "http.response.trailers", "headers": []}
DISCONNECT = {"type": "http.disconnect"}


def connect(app: Any) -> httpx.AsyncClient:
    """Return a client, which gets a 500 where an application raises."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://app")


def counts(seen: RequestStatistics) -> dict[tuple[str, str, int], int]:
    """Return how many requests there were."""
    return {key: each.count for key, each in seen.duration_seconds.items()}


class Requests:
    """Calls an application as a server does."""

    def __init__(self, app: Any, **options: Any) -> None:
        self.metrics = RequestMetrics(app, **options)
        self.sent: list[Any] = []
        self.messages: list[Any] = []
        self.fails: Exception | None = None

    async def receive(self) -> Any:
        """Return what is next, after a second."""
        await anyio.sleep(1)
        return self.messages.pop(0)

    async def send(self, message: Any) -> None:
        """Take a message, in a second."""
        await anyio.sleep(1)
        if self.fails is not None:
            raise self.fails
        self.sent.append(message)

    async def ask(self, method: str = "GET", *messages: Any, **scope: Any) -> None:
        """Send a request."""
        self.messages = [*messages]
        scope = {"type": "http", "method": method, "path": "/", **scope}
        await self.metrics(scope, self.receive, self.send)

    @property
    def statuses(self) -> dict[int, int]:
        """How many requests there were by status."""
        return {status: n for (_, _, status), n in counts(self.metrics.statistics()).items()}


async def test_by_method_route_and_status() -> None:
    """Each request is counted once, as what it was answered; clients cannot make up labels."""
    app = FastAPI()
    monitor = ResourceMonitor()
    app.add_middleware(RequestMetrics, monitor=monitor, name="shop")

    @app.get("/items/{item}")
    @app.post("/items/{item}")
    async def get(item: int, request: Request) -> int:
        await anyio.sleep(item)
        return len(await request.body())

    @app.get("/busy")
    async def busy() -> Response:
        return Response("busy", 503)

    @app.get("/fails")
    async def fails() -> None:
        raise LookupError

    @app.get("/gone/{thing}")
    async def gone(thing: str) -> None:
        raise HTTPException(404, thing)

    async with connect(app) as client, anyio.create_task_group() as group:
        for item in (1, 2, 3):
            group.start_soon(client.get, f"/items/{item}")
        await anyio.sleep(0.5)
        await client.post("/items/0", content=b"x" * 1000)
        for path in ("/busy", "/fails", "/gone/1", "/gone/2", "/a", "/a?b", "/items/x"):
            await client.get(path)
        for method in ("PUT", "BREW", "brew"):
            await client.request(method, "/items/1")
    async with monitor:
        await monitor.get_current_stats()
        text = to_prometheus(metrics(monitor.sources()))
    (seen,) = [
        each.statistics
        for each in monitor.sources()
        if isinstance(each.statistics, RequestStatistics)
    ]
    assert counts(seen) == {
        ("GET", "/items/{item}", 200): 3,
        ("POST", "/items/{item}", 200): 1,
        ("GET", "/busy", 503): 1,
        ("GET", "/fails", 500): 1,
        ("GET", "/gone/{thing}", 404): 2,
        ("GET", "other", 404): 2,
        ("GET", "/items/{item}", 422): 1,
        ("PUT", "/items/{item}", 405): 1,
        ("other", "/items/{item}", 405): 2,
    }
    assert seen.duration_seconds["GET", "/items/{item}", 200].sum == pytest.approx(6)
    assert seen.request_bytes["POST", "/items/{item}"].sum == 1000
    assert seen.response_bytes["GET", "/busy"].sum == 4
    assert (seen.in_flight, seen.peak) == (0, 4)
    assert not seen.first_byte_seconds
    assert not seen.unfinished
    labels = 'name="shop",method="GET",route="/items/{item}",status="200"'
    assert f"mtaio_request_metrics_duration_seconds_count{{{labels}}} 3\n" in text
    labels = 'name="shop",method="POST",route="/items/{item}",le="1024'
    assert f"mtaio_request_metrics_request_bytes_bucket{{{labels}" in text


async def test_many_routes() -> None:
    """Beyond the most, routes are one; what was told apart before stays so."""
    app = FastAPI()
    for n in range(5):
        app.get(f"/{n}")(lambda: 0)
    counting = RequestMetrics(app, max_routes=2)
    async with connect(counting) as client:
        for n in (0, 1, 2, 3, 4, 0, 1):
            await client.get(f"/{n}")
    assert counts(counting.statistics()) == {
        ("GET", "/0", 200): 2,
        ("GET", "/1", 200): 2,
        ("GET", "other", 200): 3,
    }


async def test_streams() -> None:
    """A stream lasts until its last piece is taken; when the first was is known as well."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            await anyio.sleep(1)
            yield b"12345"

    async def late() -> None:
        assert counting.statistics().in_flight == 0
        await anyio.sleep(10)

    app = FastAPI()

    @app.get("/")
    async def stream(request: Request) -> Response:
        assert counting.statistics().in_flight == 1
        response = StreamingResponse(pieces())
        response.background = request.app.state.background
        return response

    from starlette.background import BackgroundTask  # noqa: PLC0415 - beside its use

    app.state.background = BackgroundTask(late)
    counting = RequestMetrics(app)
    async with connect(counting) as client:
        assert len((await client.get("/")).content) == 15
    assert anyio.current_time() == 13
    seen = counting.statistics()
    assert seen.first_byte_seconds["GET", "/"].sum == 1
    assert seen.duration_seconds["GET", "/", 200].sum == 3
    assert seen.response_bytes["GET", "/"].sum == 15
    assert seen.unfinished == {}


def ends(*messages: Any, error: BaseException | None = None, receives: int = 0) -> Any:
    """Return an application that receives and sends, and ends in that way."""

    async def app(_: Any, receive: Any, send: Any) -> None:
        for _ in range(receives):
            await receive()
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    return app


@pytest.mark.parametrize(
    ("app", "messages", "status", "unfinished"),
    [
        (ends(START, END), [], 200, False),
        (ends({**START, "status": 204}, PIECE, END, TRAILERS, END), [], 204, False),
        (ends(START, {"type": "http.response.pathsend", "path": "/f"}), [], 200, False),
        (ends(), [], 500, False),
        (ends(START), [], 200, True),
        (ends(error=LookupError()), [], 500, False),
        (ends(START, error=LookupError()), [], 200, True),
        (ends(START, END, error=LookupError()), [], 200, False),
        (ends(error=SystemExit()), [], 500, False),
        (ends(receives=1), [DISCONNECT], 499, False),
        (ends(error=LookupError(), receives=1), [DISCONNECT], 499, False),
        (ends({**START, "status": 500}, END, receives=1), [DISCONNECT], 499, False),
        (ends(receives=2), [{"type": "http.request"}, DISCONNECT], 499, False),
    ],
    ids=(
        "answers",
        "answers and goes on",
        "answers with a file",
        "returns",
        "returns amid",
        "raises",
        "raises amid",
        "raises after",
        "exits",
        "client gone",
        "client gone, raises",
        "client gone, answers",
        "client gone after the body",
    ),
)
async def test_ends(app: Any, messages: list[Any], status: int, unfinished: bool) -> None:  # noqa: FBT001 - a parameter
    """A request counts as what its client was told; else as left by it, or failed."""
    requests = Requests(app)
    with contextlib.suppress(LookupError, SystemExit):
        await requests.ask("GET", *messages)
    assert requests.statuses == {status: 1}
    assert requests.metrics.statistics().unfinished == ({("GET", "other"): 1} if unfinished else {})
    assert requests.metrics.statistics().in_flight == 0


async def test_a_server_that_raises() -> None:
    """Where sending raises, as some servers do when the client has left, an answer breaks off."""
    requests = Requests(ends(START, END))
    requests.fails = ConnectionResetError()
    with pytest.raises(ConnectionResetError):
        await requests.ask()
    assert requests.statuses == {200: 1}
    assert requests.metrics.statistics().unfinished == {("GET", "other"): 1}


@pytest.mark.parametrize("native", [False, True])
async def test_cancelled(native: bool, backend: str) -> None:  # noqa: FBT001 - a parameter
    """A cancelled request is a 503 unless its answer had begun; the cancellation passes on."""
    for begins, status in ((False, 503), (True, 200)):

        async def app(_: Any, __: Any, send: Any, begins: bool = begins) -> None:  # noqa: FBT001 - a default
            if begins:
                await send(START)
            await anyio.sleep_forever()

        requests = Requests(app)
        if native:
            if backend == "trio":
                pytest.skip("only asyncio's tasks have cancel()")
            import asyncio  # noqa: PLC0415 - of this backend

            task = asyncio.create_task(requests.ask())
            await anyio.sleep(2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            with anyio.move_on_after(2) as scope:
                await requests.ask()
            assert scope.cancelled_caught
        assert requests.statuses == {status: 1}
        assert requests.metrics.statistics().in_flight == 0
        assert requests.metrics.statistics().unfinished == ({("GET", "other"): 1} if begins else {})


async def test_others_pass() -> None:
    """Websockets and the lifespan get what the server has given; around another, one counts."""
    given: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        given.append((scope["type"], receive, send))
        if scope["type"] == "http":
            await send(START)
            await send(END)

    inner = RequestMetrics(app)
    requests = Requests(inner)
    for kind in ("lifespan", "websocket"):
        await requests.ask(type=kind)
        assert given.pop() == (kind, requests.receive, requests.send)
    assert requests.statuses == {}
    await requests.ask()
    assert requests.statuses == {200: 1}
    assert inner.statistics().duration_seconds == {}
    assert repr(inner) == "<RequestMetrics 0 in flight>"
    assert repr(RequestMetrics(app, name="a")) == "<RequestMetrics 'a' 0 in flight>"


async def test_what_is_read_counts() -> None:
    """Of a body counts what the application reads, in pieces or not."""
    pieces = [{"type": "http.request", "body": b"abc", "more_body": True}] * 3
    requests = Requests(ends(START, END, receives=2))
    await requests.ask("POST", *pieces)
    assert requests.metrics.statistics().request_bytes["POST", "other"].sum == 6
    assert requests.metrics.statistics().duration_seconds["POST", "other", 200].sum == 4


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: RequestMetrics(None), TypeError, r"^app=None .* Pass an ASGI application\."),  # type: ignore[arg-type] # refused
        (lambda: RequestMetrics(ends(), max_routes=0), ValueError, "^max_routes=0 .* at least 1"),
        (lambda: RequestMetrics(ends(), monitor=ends), TypeError, "^monitor=.* watches nothing"),  # type: ignore[arg-type] # refused
        (lambda: RequestMetrics(ends(), name=1), TypeError, "^name=1 "),  # type: ignore[arg-type] # refused
    ],
    ids=["app", "max_routes", "monitor", "name"],
)
def test_refused(make: Callable[[], object], error: type[Exception], match: str) -> None:
    """What makes no sense is refused."""
    with pytest.raises(error, match=match):
        make()


def test_threads() -> None:
    """Statistics may be read in any thread, while requests are counted; one loop after another."""
    app = FastAPI()
    for n in range(30):
        app.get(f"/{n}")(lambda: 0)
    counting = RequestMetrics(app)
    over = threading.Event()
    read: list[int] = []

    def look() -> None:
        while not over.is_set():
            read.append(sum(counts(counting.statistics()).values()))

    async def ask() -> None:
        async with connect(counting) as client:
            for n in range(30):
                await client.get(f"/{n}")

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(2):
            run(ask)
    finally:
        over.set()
        thread.join()
    assert read == sorted(read)
    assert set(counts(counting.statistics()).values()) == {2}
