"""A line for each request, and its id in all that is logged on the way."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from anyio import to_thread
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from mtaio import TaskExecutor, TTLCache
from mtaio._internal.access_log import Entry
from mtaio._internal.request_context import Trace, trace_from
from mtaio._internal.routes import Routes
from mtaio.asgi import AccessLog, RequestMetrics
from mtaio.events import EventEmitter
from mtaio.logging import JsonFormatter, request_id
from mtaio.logging._text import TextFormatter
from mtaio.testing import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request
    from starlette.websockets import WebSocket

log = logging.getLogger("shop")

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


class Lines(logging.Handler):
    """Formats records where they are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.text = TextFormatter()
        self.entries: list[dict[str, Any]] = []
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line, without when it was written, and by which task."""
        entry = json.loads(self.format(record))
        self.entries.append({k: v for k, v in entry.items() if k not in {"time", "task"}})
        self.texts.append(self.text.format(record))

    def of(self, logger: str) -> list[dict[str, Any]]:
        """Return the entries of a logger."""
        return [each for each in self.entries if each["logger"] == logger]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Return what is logged during a test."""
    kept, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(kept)
    root.setLevel(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        yield kept
    finally:
        root.removeHandler(kept)
        root.setLevel(level)
        logging.getLogger("httpx").setLevel(logging.NOTSET)


async def order(request: Request) -> PlainTextResponse:
    """Take a while, and log."""
    log.info("sold")
    await anyio.sleep(0.25)
    return PlainTextResponse(request.path_params.get("id", ""))


async def fail(_: Request) -> PlainTextResponse:
    """Raise."""
    raise LookupError("that is wrong")


async def own(_: Request) -> PlainTextResponse:
    """Answer with an id of its own, and go on for a while after that."""
    task = BackgroundTask(anyio.sleep, 10)
    return PlainTextResponse("own", headers={"X-Request-ID": "theirs"}, background=task)


async def chat(socket: WebSocket) -> None:
    """Talk, or do not."""
    if "no" in socket.query_params:
        await socket.close()
        return
    await socket.accept()
    await socket.send_text("é")
    await socket.send_bytes(b"abc")
    await socket.close()


ROUTES = [
    Route("/orders/{id}", order),
    Route("/fail", fail),
    Route("/own", own),
    WebSocketRoute("/chat", chat),
]


def client_of(app: Any, host: str = "192.0.2.1") -> httpx.AsyncClient:
    """Return a client with an address."""
    transport = httpx.ASGITransport(app, client=(host, 1234), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://app")


def logged(**options: Any) -> Starlette:
    """Return an application with an access log."""
    app = Starlette(routes=ROUTES)
    app.add_middleware(AccessLog, **options)
    return app


async def test_one_line_a_request(lines: Lines) -> None:
    """The line says what was asked, by whom, with what result, and how long that took."""
    async with client_of(logged()) as client:
        headers = {"X-Request-ID": "abc/1", "traceparent": f"00-{TRACE}-{SPAN}-01"}
        response = await client.get("/orders/7?token=secret", headers=headers)
        assert response.headers["x-request-id"] == "abc/1"
        await client.post("/nowhere")
        await client.get("/fail")
    sold, first, second, third = lines.entries
    ids = {"request_id": "abc/1", "trace_id": TRACE, "span_id": SPAN}
    assert sold == {"level": "INFO", "logger": "shop", "message": "sold", **ids}
    assert first == {
        "level": "INFO",
        "logger": "mtaio.access",
        "message": "192.0.2.1 GET /orders/7 200, 1 bytes in 0.250000 s route=/orders/{id}",
        "client": "192.0.2.1",
        "method": "GET",
        "path": "/orders/7",
        "status": 200,
        "bytes": 1,
        "seconds": 0.25,
        "route": "/orders/{id}",
        **ids,
    }
    assert second["message"] == "192.0.2.1 POST /nowhere 404, 9 bytes in 0.000000 s"
    assert third["message"] == (
        "192.0.2.1 GET /fail 500, 0 bytes in 0.000000 s route=/fail error=LookupError"
    )
    assert third["error"] == "LookupError"
    assert lines.texts[0].endswith(" INFO shop [abc/1]: sold")
    assert request_id.get() is None


@pytest.mark.parametrize("given_id", ["", " a", "a b", "ü", 'a"', "x" * 129, "%00", "a;b"])
async def test_ids_that_will_not_do(given_id: str) -> None:
    """An id that is long or strange is replaced by a new one of 32 hexadecimal digits."""
    async with client_of(logged()) as client:
        made = (
            await client.get("/orders/1", headers={b"X-Request-ID": given_id.encode()})
        ).headers["x-request-id"]
    assert len(made) == 32
    assert int(made, 16) >= 0


async def test_an_id_of_the_application(lines: Lines) -> None:
    """It stays, and the line is there when the answer is, not after what comes behind it."""
    async with client_of(logged()) as client:
        assert (await client.get("/own")).headers.get_list("x-request-id") == ["theirs"]
    assert lines.entries[0]["seconds"] == 0


async def test_all_that_a_request_begins_has_its_id(lines: Lines) -> None:
    """Tasks, threads, items of an executor, loads and event handlers log the request's id."""
    emitter = EventEmitter()
    cache: TTLCache[None] = TTLCache()

    def say(what: object) -> None:
        log.info("%s", what)

    async def answer(scope: Any, _receive: Any, send: Any) -> None:
        async def later(what: object) -> None:
            await anyio.sleep(0.1)
            say(what)

        async with anyio.create_task_group() as group:
            group.start_soon(later, "task")
        await to_thread.run_sync(say, "thread")
        await executor.map(later, ["item"] * 3)
        await executor.map(say, ["plain"] * 3)
        await executor.run(later, "run")
        await executor.run_in_thread(say, "run_in_thread")
        await (await executor.submit(later, "submit"))
        await (await executor.submit(say, "submit, plain"))
        async with executor.stream(later, ["stream"] * 2) as results:
            assert [each async for each in results] == [None, None]
        await cache.get_or_set(scope["path"], partial(later, "load"))
        await emitter.emit("sold")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    @emitter.on("sold")
    async def _(_: object) -> None:
        say("handler")

    async with (
        TaskExecutor(2) as executor,
        cache,
        client_of(AccessLog(answer)) as client,
        anyio.create_task_group() as group,
    ):
        for each in ("a", "b"):
            group.start_soon(partial(client.get, f"/{each}", headers={"X-Request-ID": each}))
    assert sorted(each["request_id"] for each in lines.entries) == ["a"] * 17 + ["b"] * 17


async def test_two_logs_and_two_requests(lines: Lines) -> None:
    """One log in another gives one line; a request that a request makes in here, one of its own."""
    inner = AccessLog(logged())

    async def answer(_: Request) -> PlainTextResponse:
        async with client_of(inner) as client:
            await client.get("/orders/1", headers={"X-Request-ID": "inner"})
        log.info("outer")
        return PlainTextResponse("")

    outer = AccessLog(AccessLog(Starlette(routes=[Route("/", answer)])))
    async with client_of(outer) as client:
        await client.get("/", headers={"X-Request-ID": "outer"})
    found = [(each["logger"], each["request_id"]) for each in lines.entries]
    assert found == [
        ("shop", "inner"),
        ("mtaio.access", "inner"),
        ("shop", "outer"),
        ("mtaio.access", "outer"),
    ]


async def test_behind_proxies(lines: Lines) -> None:
    """The client is who a trusted proxy says, and nobody else's word counts."""
    app = logged(trusted_proxies="192.0.2.0/24")
    headers = {"X-Forwarded-For": "203.0.113.9"}
    async with client_of(app) as client, client_of(app, "198.51.100.1") as other:
        await client.get("/orders/1", headers=headers)
        await other.get("/orders/1", headers=headers)
    assert [each["client"] for each in lines.of("mtaio.access")] == ["203.0.113.9", "198.51.100.1"]
    with pytest.raises(ValueError, match=r"^trusted_proxies='\*' is not a list of addresses"):
        logged(trusted_proxies="*").build_middleware_stack()
    with pytest.raises(TypeError, match=r"^app=None is a NoneType"):
        AccessLog(None)  # type: ignore[arg-type] # refused


async def call(app: Any, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """Have an application answer a websocket or an HTTP request; return what it sends."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect" if scope["type"] == "websocket" else "http.request"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    given_scope = {"headers": [], "path": "/chat", "query_string": b"", "root_path": "", **scope}
    await app(given_scope, receive, send)
    assert "mtaio.access_log" not in given_scope
    return sent


async def test_websockets(lines: Lines) -> None:
    """A websocket has a line when it ends: with 101, 403, or the answer that refuses it."""
    accepted = await call(AccessLog(Starlette(routes=ROUTES)), {"type": "websocket"})
    assert [name for name, _ in accepted[0]["headers"]] == [b"x-request-id"]
    await call(logged(), {"type": "websocket", "query_string": b"no=1"})

    async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 429})
        await send({"type": "websocket.http.response.body", "body": b"later"})

    await call(AccessLog(refuse), {"type": "websocket"})
    found = [(each["method"], each["status"], each["bytes"]) for each in lines.entries]
    assert found == [("WEBSOCKET", 101, 5), ("WEBSOCKET", 403, 0), ("WEBSOCKET", 429, 5)]
    assert lines.entries[0]["client"] == "-"
    started: list[str] = []

    async def lifespan(scope: Any, _receive: Any, _send: Any) -> None:
        started.append(scope["type"])

    await call(AccessLog(lifespan), {"type": "lifespan"})
    assert started == ["lifespan"]
    assert len(lines.entries) == 3


async def test_no_answer(lines: Lines) -> None:
    """What was not answered is logged as what servers then do: 500, or 503 if it was cancelled."""

    async def nothing(scope: Any, _receive: Any, _send: Any) -> None:
        if scope["path"] == "/raise":
            raise LookupError
        if scope["path"] == "/hang":
            await anyio.sleep_forever()

    async def answer_and_raise(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.debug", "info": {}})
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"ab"})
        raise LookupError

    with pytest.raises(LookupError):
        await call(AccessLog(answer_and_raise), {"type": "http", "path": "/" + "é" * 1000})
    (line,) = lines.entries
    assert line["path"] == f"/{'%C3%A9' * 499}..."
    assert (line["status"], line.get("error")) == (200, None)  # it had been answered
    lines.entries.clear()
    app = AccessLog(nothing)
    await call(app, {"type": "http", "method": "GET"})
    with pytest.raises(LookupError):
        await call(app, {"type": "http", "method": "GET", "path": "/raise"})
    with anyio.move_on_after(1):
        await call(app, {"type": "http", "method": "GET", "path": "/hang"})
    assert [each["status"] for each in lines.entries] == [500, 500, 503]
    assert [each.get("error") for each in lines.entries] == [None, "LookupError", "cancelled"]
    left = call(app, {"type": "http", "method": "GET", "path": "/hang"})
    copy_context().run(left.send, None)
    left.close()  # as the garbage collector does, in any context
    assert request_id.get() is None


async def test_without_lines(lines: Lines) -> None:
    """Where the level of the logger is higher there are no lines, but ids."""
    logging.getLogger("mtaio.access").setLevel(logging.WARNING)
    try:
        async with client_of(logged()) as client:
            await client.get("/orders/1")
    finally:
        logging.getLogger("mtaio.access").setLevel(logging.NOTSET)
    (only,) = lines.entries
    assert len(only["request_id"]) == 32


ANYTHING = st.text(st.characters(exclude_categories=()), max_size=600)


@given(path=ANYTHING, method=ANYTHING, host=ANYTHING)
def test_no_line_can_be_forged(path: str, method: str, host: str) -> None:
    """Whatever a client sends is one line of plain text, with its parts where they belong."""
    lines = Lines()
    logger = logging.getLogger("mtaio.access")
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    logger.propagate = False

    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    scope = {"type": "http", "method": method, "path": path, "client": (host, 1)}
    try:
        run(call, AccessLog(answer), scope)
    finally:
        logger.removeHandler(lines)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
    (text,) = lines.texts
    assert text.isascii()
    assert text.isprintable()
    words = text.partition("]: ")[2].split(" ")
    (entry,) = lines.entries
    assert words[:3] == [entry["client"], entry["method"], entry["path"]]
    assert words[3:] == ["204,", "0", "bytes", "in", "0.000000", "s"]
    assert len(text) < 6000


@pytest.mark.parametrize(
    "value",
    [
        f"01-{TRACE}-{SPAN}-00-more",
        f" 00-{TRACE}-{SPAN}-01 ",
        f"00-{TRACE}-{SPAN}-ff",
    ],
)
def test_traceparent(value: str) -> None:
    """What follows the standard is read, also by later versions of it."""
    assert trace_from([(b"traceparent", value.encode())]) == Trace(TRACE, SPAN)


@pytest.mark.parametrize(
    "value",
    [
        "",
        TRACE,
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_traceparent_that_is_not_valid(value: str) -> None:
    """What does not is as if it were not there, and so is what is there twice."""
    assert trace_from([(b"traceparent", value.encode())]) is None
    twice = [(b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())] * 2
    assert trace_from(twice) is None


def scope_of(path: str = "/") -> dict[str, Any]:
    """Return what a server says of a request."""
    return {"type": "http", "method": "GET", "path": path, "headers": [], "client": None}


async def attempt(app: Any, *heard: str) -> list[Any]:
    """Return what an application sends, whatever it raises."""
    sent: list[Any] = []
    messages = [{"type": kind} for kind in heard]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    with suppress(BaseException):
        await app(scope_of(), receive, send)
    return sent


async def test_headers_that_can_be_iterated_once(lines: Lines) -> None:
    """ASGI's headers are an iterable, such as a generator: the client gets them all."""

    async def app(_: Any, __: Any, send: Any) -> None:
        headers = (each for each in [(b"a", b"b"), (b"c", b"d")])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    start, _ = await attempt(AccessLog(app))
    assert [name for name, _ in start["headers"]] == [b"a", b"c", b"x-request-id"]
    assert lines.of("mtaio.access")


async def begin_twice(_: Any, __: Any, send: Any) -> None:
    """Answer, and then try to say something else."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.start", "status": 500})
    await send({"type": "http.response.body"})


async def leave(_: Any, receive: Any, __: Any) -> None:
    """Raise because the client has left."""
    await receive()
    raise ConnectionError


async def answer_nobody(_: Any, receive: Any, send: Any) -> None:
    """Answer a client that has left."""
    await receive()
    await send({"type": "http.response.start", "status": 500})
    await send({"type": "http.response.body"})


async def end_it(_: Any, __: Any, ___: Any) -> None:
    """Raise what is no error, and no cancellation."""
    raise SystemExit


@pytest.mark.parametrize(
    ("app", "status", "error"),
    [
        (begin_twice, 200, None),
        (leave, 499, "ConnectionError"),
        (answer_nobody, 499, None),
        (end_it, 500, "SystemExit"),
    ],
)
async def test_log_and_metrics_agree(
    lines: Lines, app: Any, status: int, error: str | None
) -> None:
    """Both say of a request what the client was told."""
    metrics = RequestMetrics(AccessLog(app))
    await attempt(metrics, "http.disconnect")
    (line,) = lines.of("mtaio.access")
    assert (line["status"], line.get("error")) == (status, error)
    assert [each for *_, each in metrics.statistics().duration_seconds] == [status]


async def test_within_a_span_alone(lines: Lines) -> None:
    """Whoever is around it may have wanted a span and no line: this one wants one."""

    async def app(scope: Any, __: Any, send: Any) -> None:
        assert scope["client"] == ("192.0.2.7", 0)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    scope = scope_of() | {
        "client": ("10.0.0.1", 1),
        "headers": [(b"x-forwarded-for", b"192.0.2.7")],
    }
    entry = Entry(scope, Routes(), log=False)

    async def send(message: Any) -> None:
        entry.note(message)

    await AccessLog(app, trusted_proxies="10.0.0.1")(scope, None, send)  # type: ignore[arg-type] # not read
    entry.leave()
    assert [each["client"] for each in lines.of("mtaio.access")] == ["192.0.2.7"]
