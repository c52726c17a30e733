"""The probes as an ASGI application, in frameworks and by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from mtaio.monitoring import HealthMonitor, HealthRegistry, Probes, ResourceMonitor
from mtaio.monitoring.asgi import health_app

if TYPE_CHECKING:
    from collections.abc import Callable

PATHS = ["/livez", "/readyz", "/startupz", "/metrics", "/stats", "/"]


def client(app: Any, base: str = "http://localhost", **options: Any) -> httpx.AsyncClient:
    """Return a client of ``app``, on this machine."""
    transport = httpx.ASGITransport(app=app, **options)
    return httpx.AsyncClient(transport=transport, base_url=base)


def bare() -> Any:
    """Return the application itself."""
    return health_app(ResourceMonitor())


def mounted() -> Any:
    """Return it mounted in Starlette."""
    return Starlette(routes=[Mount("/health", health_app(ResourceMonitor()))])


def mounted_twice() -> Any:
    """Return it mounted in what is mounted."""
    return Starlette(routes=[Mount("/a", mounted())])


PLACES: dict[str, tuple[Callable[[], Any], str]] = {
    "bare": (bare, ""),
    "mounted": (mounted, "/health"),
    "mounted twice": (mounted_twice, "/a/health"),
}


@pytest.mark.parametrize(("make", "root"), PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("path", PATHS)
async def test_paths(make: Callable[[], Any], root: str, path: str) -> None:
    """Every path is answered below the one at which the application is mounted."""
    async with client(make()) as http:
        answer = await http.get(root + path)
        head = await http.head(root + path)
        assert answer.status_code == head.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert head.content == b""
        assert (await http.post(root + path)).status_code == 405
        assert (await http.get(f"{root}/nothing")).status_code == 404


async def test_tasks() -> None:
    """The tasks of the loop that answers are shown too, in pieces; its own task runs."""
    async with client(mounted_twice()) as http:
        answer = await http.get("/a/health/tasks")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert "content-length" not in answer.headers
        assert "1 running" in answer.text
        assert (await http.head("/a/health/tasks")).content == b""
        found = await http.get("/a/health/tasks", headers={"accept": "application/json"})
        assert found.json()["complete"]


@pytest.mark.parametrize("root", ["/health", "/a/b c/été"])
async def test_without_a_slash(root: str) -> None:
    """The page's own path ends in a slash, without which it would not find its figures."""
    async with client(bare(), root_path=root) as http:
        answer = await http.get(root)
    assert answer.status_code == 307
    assert str(answer.next_request.url if answer.next_request else "") == (
        str(httpx.URL(f"http://localhost{root}/"))
    )


async def test_root_path_not_in_path() -> None:
    """A framework that takes the root path off the path is answered too."""
    async with client(bare(), root_path="/health") as http:
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/healthy")).status_code == 404


async def test_checks_and_token() -> None:
    """Checks are those of the registry, and figures are for those with the token."""
    health = HealthRegistry()
    health.add("never", lambda: False)
    app = health_app(ResourceMonitor(), health, token="secret")  # noqa: S106 - of a test
    async with client(app, "http://a.example", client=("10.0.0.1", 5)) as http:
        assert (await http.get("/readyz")).status_code == 503
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/stats")).status_code == 401
        found = await http.get("/stats?points=3", headers={"authorization": "Bearer secret"})
        assert found.json()["health"]["checks"][0]["name"] == "never"
        assert (await http.get("/", auth=("", "secret"))).status_code == 200


async def test_monitor_does_not_run() -> None:
    """Being answered proves that the loop runs, whether the monitor does or not."""
    monitor = ResourceMonitor()
    async with client(health_app(monitor)) as http:
        assert (await http.get("/livez")).status_code == 200
        async with monitor:
            assert (await http.get("/livez")).status_code == 200


FOREIGN: dict[str, tuple[dict[str, Any], dict[str, str], int]] = {
    "local": ({"client": ("::1", 5)}, {}, 200),
    "remote": ({"client": ("10.0.0.1", 5)}, {}, 403),
    "a name": ({"client": ("testclient", 5)}, {}, 403),
    "through a proxy": ({}, {"X-Forwarded-For": "127.0.0.1"}, 403),
    "forwarded": ({}, {"Forwarded": "for=127.0.0.1"}, 403),
    "rebound": ({}, {"Host": "evil.example"}, 403),
}


@pytest.mark.parametrize(("options", "headers", "status"), FOREIGN.values(), ids=FOREIGN)
async def test_without_token(options: dict[str, Any], headers: dict[str, str], status: int) -> None:
    """Without a token only local clients see figures; anyone may probe."""
    async with client(bare(), **options) as http:
        assert (await http.get("/stats", headers=headers)).status_code == status
        assert (await http.get("/livez", headers=headers)).status_code == 200


class Server:
    """An ASGI server that sends what it is given to send, and keeps what comes back."""

    def __init__(self, *messages: dict[str, Any], gone: bool = False) -> None:
        self.messages = list(messages)
        self.gone = gone
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        """Return the next message."""
        return self.messages.pop(0)

    async def send(self, message: Any) -> None:
        """Keep a message."""
        if self.gone:
            raise ConnectionResetError
        self.sent.append(message)

    async def run(self, **scope: Any) -> list[Any]:
        """Call the application."""
        await bare()(scope, self.receive, self.send)
        return self.sent


async def test_unix_socket() -> None:
    """A client of a Unix socket has no address, and is local; the Host field counts there too."""
    scope = {"type": "http", "method": "GET", "path": "/stats", "client": None}
    for host, status in ((b"localhost", 200), (b"a.example", 403)):
        sent = await Server().run(**scope, headers=[(b"host", host)])
        assert sent[0]["status"] == status


async def test_no_client_in_scope() -> None:
    """A server need not say who the client is, nor that there is no query."""
    sent = await Server().run(type="http", method="GET", path="/livez", headers=[])
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 200
    assert sent[1]["body"] == b"ok\n"


@pytest.mark.parametrize("name", [b"authorization", b"host"])
async def test_repeated_fields(name: bytes) -> None:
    """A request with two answers to who asks is refused."""
    sent = await Server().run(
        type="http", method="GET", path="/livez", headers=[(name, b"a"), (name, b"b")]
    )
    assert sent[0]["status"] == 400


async def test_client_is_gone() -> None:
    """A client that has closed its connection is no error."""
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/livez", "headers": []}
    assert await Server(gone=True).run(**scope) == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_history_in_pieces(method: str) -> None:
    """History goes in one message for each metric, without a length; HEAD makes none of it."""
    monitor = ResourceMonitor()
    app, server = health_app(monitor, name="shop"), Server()
    scope = {"type": "http", "method": method, "path": "/stats", "query_string": b"points=5"}
    async with monitor:
        await monitor.tick()
        await app(scope | {"headers": [(b"host", b"localhost")]}, server.receive, server.send)
    start, *bodies, last = server.sent
    assert b"content-length" not in dict(start["headers"])
    assert all(message["more_body"] for message in bodies)
    assert "more_body" not in last
    if method == "HEAD":
        assert (bodies, last["body"]) == ([], b"")
    else:
        found = json.loads(b"".join(message["body"] for message in (*bodies, last)))
        assert found["name"] == "shop"
        assert len(bodies) == len(found["history"]["values"]) + 2


async def test_history_not_taken() -> None:
    """A client that does not read history is given up after a minute, and is no error."""

    class Stuck(Server):
        async def send(self, message: Any) -> None:
            await super().send(message)
            if message.get("more_body"):
                await anyio.sleep_forever()

    server = Stuck()
    scope = {"type": "http", "method": "GET", "path": "/stats", "query_string": b"points=5"}
    started = anyio.current_time()
    assert len(await server.run(**scope, headers=[(b"host", b"localhost")])) == 2
    assert anyio.current_time() - started == pytest.approx(60)


async def test_lifespan() -> None:
    """The application has nothing to start, and says so."""
    sent = await Server({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}).run(
        type="lifespan"
    )
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_websocket() -> None:
    """A websocket is refused, before it is accepted."""
    sent = await Server({"type": "websocket.connect"}).run(type="websocket", path="/")
    assert sent == [{"type": "websocket.close", "code": 1000}]


async def test_other_scope() -> None:
    """Another protocol is an error, as ASGI wants it."""
    with pytest.raises(ValueError, match=r"^the probes serve http, not 'mqtt'"):
        await Server().run(type="mqtt")


@pytest.mark.parametrize("serve", [health_app, Probes], ids=["asgi", "probes"])
def test_what_is_not_a_monitor(serve: Callable[..., object]) -> None:
    """The wrong order and the wrong objects are refused at once, not at the first request."""
    monitor, health = ResourceMonitor(), HealthRegistry()
    with pytest.raises(TypeError, match=r"^monitor=<HealthRegistry: .*> is not a ResourceMonitor"):
        serve(health, monitor)
    with pytest.raises(TypeError, match=r"^monitor=<HealthMonitor of .* Pass a ResourceMonitor f"):
        serve(HealthMonitor(monitor), health)
    with pytest.raises(TypeError, match=r"^health=<ResourceMonitor .*> is not a HealthRegistry\."):
        serve(monitor, monitor)


@pytest.mark.parametrize("token", ["", " ", "secret\n"])
def test_bad_token(token: str) -> None:
    """A token that cannot be sent is refused when the application is made."""
    with pytest.raises(ValueError, match=r"^token "):
        health_app(ResourceMonitor(), token=token)
