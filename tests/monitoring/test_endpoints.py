"""What is answered to whom."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio._internal import loops
from mtaio.monitoring import HealthRegistry, ResourceMonitor
from mtaio.monitoring._endpoints import Access, Endpoints, Request, Response
from mtaio.monitoring._monitor import recent
from mtaio.monitoring._task_reader import TaskReader
from mtaio.testing import run

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable

    from mtaio._internal.task_document import Document
    from mtaio._internal.task_tree import TaskTree
    from mtaio.monitoring import HealthReport
    from mtaio.types import CheckKind

PROBES = ("/livez", "/readyz", "/startupz")
FIGURES = ("/metrics", "/stats", "/tasks", "/")


async def answer_of(endpoints: Endpoints, request: Request) -> Response:
    """Return the one answer to a request, whole."""
    answers: list[Response] = []

    async def send(response: Response) -> None:
        body = [response.body]
        for piece in response.rest or ():
            assert piece
            await anyio.lowlevel.checkpoint()
            body.append(piece)
        answers.append(response._replace(body=b"".join(body), rest=None))

    await endpoints.respond(request, send)
    (answer,) = answers
    return answer


class Service:
    """A monitor, checks, and what answers for them."""

    def __init__(self, token: str | None = None, *, monitor: ResourceMonitor | None = None) -> None:
        self.monitor = monitor or ResourceMonitor(1.0, 10, name="shop")
        self.health = HealthRegistry()
        self.answering = True
        self.in_time = True
        self.endpoints = Endpoints(
            self.monitor,
            self.health,
            access=Access(token),
            report=self._report,
            answering=lambda: self.answering,
            read_tasks=self._read_tasks,
            name=None,
        )

    async def _read_tasks(self, show: Callable[[TaskTree], Document]) -> Document:
        return await TaskReader(loops.current_loop()).read(show)

    async def _report(self, kind: CheckKind | None, *, within: float) -> HealthReport | None:
        assert within <= 2
        return await self.health.report(kind) if self.in_time else None

    async def get(self, target: str, method: str = "GET", **changes: Any) -> Response:
        """Return the answer to a local client, or to another."""
        path, _, query = target.partition("?")
        asked: dict[str, Any] = {
            "authorization": None,
            "host": "localhost",
            "client": "127.0.0.1",
            "forwarded": False,
        }
        return await answer_of(self.endpoints, Request(method, path, query, **(asked | changes)))

    async def status(self, target: str, **changes: Any) -> int:
        """Return the status alone."""
        return (await self.get(target, **changes)).status

    async def stats(self, query: str = "") -> Any:
        """Return the document, read strictly."""
        answer = await self.get(f"/stats{query}")
        assert answer.status == 200
        assert dict(answer.headers)["content-type"] == "application/json"
        return json.loads(answer.body, parse_constant=pytest.fail)


def fail() -> str:
    """Fail as a check."""
    return "secret reason"


@pytest.mark.parametrize("path", PROBES)
async def test_probe(path: str) -> None:
    """A probe's answer is a status and a word, for anyone, and nothing of it is kept."""
    service = Service(token="secret")  # noqa: S106 - of a test
    answer = await service.get(path, client="10.0.0.9", forwarded=True, host="a.example")
    assert answer == Response(
        200,
        (
            ("content-type", "text/plain; charset=utf-8"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-resource-policy", "same-origin"),
        ),
        b"ok\n",
    )


@pytest.mark.parametrize("kind", ["live", "ready", "startup"])
async def test_checks(kind: CheckKind) -> None:
    """Each kind of check has its probe; a service that has not started is not ready either."""
    service = Service()
    service.health.add("database", fail, kind=kind, failure_threshold=1)
    answers = {path: await service.get(path) for path in PROBES}
    failing = {"live": {"/livez"}, "ready": {"/readyz"}, "startup": {"/startupz", "/readyz"}}[kind]
    assert {path for path, answer in answers.items() if answer.status == 503} == failing
    assert {answers[path].body for path in failing} == {b"unavailable\n"}


async def test_draining() -> None:
    """While the service drains it is not ready, and alive."""
    service = Service()
    service.health.set_ready(False)
    assert [await service.status(path) for path in PROBES] == [200, 503, 200]


async def test_loop_does_not_answer() -> None:
    """The service is not alive when its event loop has not answered for long."""
    service = Service()
    service.answering = False
    assert await service.status("/livez") == 503


async def test_no_report_in_time() -> None:
    """Without a report the service is not ready, and as alive as it was before."""
    service = Service()
    service.health.add("memory", fail, kind="live", failure_threshold=1)
    service.in_time = False
    assert [await service.status(path) for path in PROBES] == [200, 503, 503]
    await service.health.report("live")
    assert await service.status("/livez") == 503


async def test_live_checks_are_run_if_there_are_any() -> None:
    """Being alive takes no report where no check is about it."""
    service = Service()
    await service.health.report()
    runs: list[str] = []
    service.health.add("ready", lambda: runs.append("ready"))
    assert await service.status("/livez") == 200
    assert runs == []
    service.health.add("live", lambda: runs.append("live"), kind="live", ttl=0)
    async with service.monitor:
        assert await service.status("/livez") == 200
    assert runs == ["live"]


@pytest.mark.parametrize("path", FIGURES)
async def test_token(path: str) -> None:
    """With a token, figures and the page are for those who send it; a browser is told to ask."""
    service = Service(token="päss")  # noqa: S106 - of a test
    refused = await service.get(path)
    assert refused.status == 401
    assert [value for name, value in refused.headers if name == "www-authenticate"] == [
        'Basic realm="mtaio", charset="UTF-8"',
        'Bearer realm="mtaio"',
    ]
    assert refused.body == b"the token is missing or wrong\n"
    right = "Bearer päss".encode()
    assert await service.status(path, authorization=right, client="10.0.0.9") == 200


@pytest.mark.parametrize("path", FIGURES)
@pytest.mark.parametrize(
    "change", [{"client": "10.0.0.9"}, {"forwarded": True}, {"host": "evil.example"}], ids=str
)
async def test_no_token(path: str, change: dict[str, Any]) -> None:
    """Without a token, figures and the page are for local clients that know whom they ask."""
    service = Service()
    assert await service.status(path) == 200
    answer = await service.get(path, **change)
    assert answer.status == 403
    assert b"without a token" in answer.body


@pytest.mark.parametrize(
    "path", ["/x", "", "/livez/", "//livez", "/LIVEZ", "/%6civez", "/metrics/x"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_not_found(path: str, method: str) -> None:
    """There is nothing else, and what else clients ask for counts as one."""
    service = Service()
    assert (await service.get(path, method)).status == 404
    status = 200 if method == "GET" else 405
    assert (await service.get("/livez", method)).status == status
    assert service.endpoints.answers == {("other", 404): 1, ("/livez", status): 1}


@pytest.mark.parametrize("path", [*PROBES, *FIGURES])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"])
async def test_methods(path: str, method: str) -> None:
    """Nothing can be changed."""
    answer = await Service().get(path, method)
    assert answer.status == 405
    assert ("allow", "GET, HEAD") in answer.headers


@pytest.mark.parametrize("path", [*PROBES, *FIGURES])
async def test_head(path: str) -> None:
    """HEAD is answered as GET is."""
    service = Service()
    assert (await service.get(path, "HEAD")).headers == (await service.get(path)).headers


async def test_metrics() -> None:
    """Prometheus gets every figure in its text format."""
    service = Service()
    async with service.monitor:
        service.monitor.gauge("queue_depth", lambda: 3)
        await service.monitor.tick()
        answer = await service.get("/metrics")
    assert dict(answer.headers)["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.body.decode().splitlines()
    assert any('{name="queue_depth"} 3' in line for line in lines)
    assert any(line.startswith("mtaio_cpu_usage_percent ") for line in lines)


async def test_page() -> None:
    """The page may run its own script and ask its own host, and no page may frame it."""
    answer = await Service().get("/")
    headers = dict(answer.headers)
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert answer.body.startswith(b"<!doctype html>")
    policy = dict(
        part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["script-src"].startswith("'sha256-")
    assert headers["referrer-policy"] == "no-referrer"


async def test_stats_before_a_sample() -> None:
    """Before the first sample there is a document all the same."""
    found = await Service().stats("?points=5")
    assert found["stats"] is found["uptime"] is found["stall"] is None
    assert found["name"] == "shop"
    assert found["interval"] == 1.0
    assert found["values"] == found["limits"] == {}
    assert found["alerts"] == found["firing"] == found["stalls"] == found["thresholds"] == []
    assert found["history"] == {"timestamps": [], "values": {}}


async def test_stats() -> None:
    """All that the monitor knows is in the document: figures, limits, alerts, checks."""
    service = Service()
    service.health.add("database", fail, failure_threshold=1)
    monitor = service.monitor
    depth = 5.0
    monitor.gauge("queue_depth", lambda: depth)
    async with monitor:
        monitor.set_threshold("queue_depth", 4, clear=2.0)
        await monitor.tick()
        depth = 1.0
        await monitor.tick()
        depth = 6.0
        await monitor.tick()
        found = await service.stats()
    assert found["values"]["queue_depth"] == 6
    assert found["values"]["memory.total"] == found["limits"]["memory.total"] > 0
    assert found["stats"]["memory"]["total"] == found["limits"]["memory.total"]
    assert found["kinds"]["queue_depth"] == "gauge"
    assert found["kinds"]["memory.total"] == "limit"
    assert found["kinds"]["loop.blocked"] == "counter"
    assert "cpu.usage_percent" not in found["limits"]
    assert found["uptime"] == found["stats"]["uptime"] > 0
    assert [alert["state"] for alert in found["alerts"]] == ["firing", "recovered", "firing"]
    assert [alert["value"] for alert in found["firing"]] == [6]
    assert found["thresholds"][0]["metric"] == "queue_depth"
    assert found["thresholds"][0]["clear"] == 2
    assert found["health"]["ready"] is False
    assert found["health"]["checks"][0]["error"] == "secret reason"
    assert "history" not in found


async def test_stats_history() -> None:
    """The last points of every metric stand beside their times; a gap is null."""
    service = Service()
    monitor = service.monitor
    async with monitor:
        await monitor.tick()
        monitor.gauge("late", lambda: 7)
        for _ in range(2):
            await anyio.sleep(0.25)
            await monitor.tick()
        full = (await service.stats("?points=1000"))["history"]
        two = (await service.stats("?points=2"))["history"]
        none = await service.stats("?points=0")
    assert full["values"]["late"] == [None, 7, 7]
    assert full["timestamps"] == sorted(full["timestamps"])
    assert all(len(column) == 3 for column in full["values"].values())
    assert two["values"]["late"] == [7, 7]
    assert two["timestamps"] == full["timestamps"][1:]
    assert "history" not in none


async def test_stats_without_nan() -> None:
    """A figure that JSON has not got is left out, and null where there is a place for it."""
    service = Service()
    monitor = service.monitor
    async with monitor:
        monitor.gauge("endless", lambda: math.inf)
        monitor.set_threshold("endless", 5)
        await monitor.tick()
        found = await service.stats("?points=5")
    assert "endless" not in found["values"]
    assert found["history"]["values"]["endless"] == [None]
    assert found["firing"][0]["value"] is None
    assert found["firing"][0]["threshold"] == 5


async def test_stats_is_made_in_pieces() -> None:
    """Other tasks run while an hour of history is written."""
    service = Service()
    monitor = service.monitor
    turns = columns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with monitor, anyio.create_task_group() as group:
        await monitor.tick()
        group.start_soon(count)
        columns = len((await service.stats("?points=5"))["history"]["values"])
        group.cancel_scope.cancel()
    assert turns >= columns > 10


@pytest.mark.parametrize(
    ("target", "accept", "kind"),
    [
        ("/tasks", b"text/html,*/*", "text"),
        ("/tasks?format=text", b"application/json", "text"),
        ("/tasks", b"application/json, text/plain;q=0.5", "json"),
        ("/tasks?format=json", b"", "json"),
    ],
)
async def test_tasks(target: str, accept: bytes, kind: str) -> None:
    """What each task waits for, as text or as JSON; the name is that of the service."""
    service = Service()
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever, name="sleeper")
        await anyio.sleep(1)
        answer = await service.get(target, accept=accept)
        group.cancel_scope.cancel()
    content = dict(answer.headers)["content-type"]
    assert content == ("application/json" if kind == "json" else "text/plain; charset=utf-8")
    if kind == "json":
        found = json.loads(answer.body)
        assert (found["name"], found["complete"], found["stall"]) == ("shop", True, None)
        assert "sleeper" in {line["name"] for line in found["lines"]}
    else:
        assert answer.body.startswith(b"shop: ")
        assert b" sleeper: waiting\n" in answer.body or b" sleeper: sleeps" in answer.body


@pytest.mark.parametrize("query", ["format=xml", "format=", "format=json&format=text"])
async def test_bad_format(query: str) -> None:
    """Tasks have no other format."""
    answer = await Service().get(f"/tasks?{query}")
    assert (answer.status, answer.body) == (400, b"format is neither text nor json\n")


@pytest.mark.parametrize(
    "query",
    [
        *("points=", "points=x", "points=-1", "points=1e3", "points=٣", "points=1&points=2"),
        *("points=" + "9" * 5000, "points=%00", "&".join("a=1" for _ in range(50))),
    ],
    ids=lambda query: query[:12],
)
async def test_bad_query(query: str) -> None:
    """What is no number of points is refused."""
    assert await Service().status(f"/stats?{query}") == 400


async def test_other_query() -> None:
    """Other parameters are not looked at."""
    assert await Service().status("/stats?a=1;b=2&%zz") == 200
    assert await Service().status("/livez?verbose") == 200


async def test_error(caplog: pytest.LogCaptureFixture) -> None:
    """An error of ours is logged, and the client is told nothing of it."""

    class Broken(ResourceMonitor):  # type: ignore[misc] # final, and the test's own double
        def sources(self) -> Any:
            raise RuntimeError("secret reason")

    async def report(kind: CheckKind | None, *, within: float) -> None:
        raise NotImplementedError(kind, within)

    async def read_tasks(show: Callable[[TaskTree], Document]) -> Document:
        raise NotImplementedError(show)

    endpoints = Endpoints(
        Broken(),
        HealthRegistry(),
        access=Access(None),
        report=report,
        answering=lambda: True,
        read_tasks=read_tasks,
        name=None,
    )
    request = Request("GET", "/metrics", "", b"Bearer secret", "localhost", None, forwarded=False)
    answer = await answer_of(endpoints, request)
    assert (answer.status, answer.body) == (500, b"internal error\n")
    assert caplog.messages == ["cannot answer GET /metrics"]
    assert "Bearer" not in caplog.text


def test_repeated_fields() -> None:
    """A request whose access two readers may judge in two ways is refused."""
    for name in (b"host", b"authorization"):
        with pytest.raises(ValueError, match=r"^a header field is repeated"):
            Request.of("GET", "/", "", [(name, b"a"), (name, b"b")], client="127.0.0.1")


class Client:
    """One that reads its answer when it is told to."""

    def __init__(self) -> None:
        self.status = 0
        self.reads = anyio.Event()

    async def receive(self, response: Response) -> None:
        """Take the head of an answer, and after a while its body."""
        self.status = response.status
        if response.rest is not None:
            await self.reads.wait()


HISTORY = Request("GET", "/stats", "points=5", None, "localhost", None, forwarded=False)
TASKS = replace(HISTORY, path="/tasks", query="")


async def test_two_histories_at_once() -> None:
    """Two answers with history are on their way at once; a third has two seconds to be the next."""
    service = Service()
    slow, slower, late, next_one = (Client() for _ in range(4))
    async with anyio.create_task_group() as group:
        for client in (slow, slower):
            group.start_soon(service.endpoints.respond, HISTORY, client.receive)
        await anyio.sleep(0.1)
        started = anyio.current_time()
        await service.endpoints.respond(HISTORY, late.receive)
        assert late.status == 503
        assert anyio.current_time() - started == pytest.approx(2)
        assert await service.status("/stats") == 200
        assert await service.status("/metrics") == 200
        group.start_soon(service.endpoints.respond, HISTORY, next_one.receive)
        await anyio.sleep(1)
        assert next_one.status == 0
        slow.reads.set()
        await anyio.sleep(0.1)
        assert next_one.status == 200
        group.cancel_scope.cancel()
    assert [slow.status, slower.status] == [200, 200]
    assert (await service.stats("?points=5"))["history"] == {"timestamps": [], "values": {}}


async def test_refused_before_a_turn() -> None:
    """Who may not see the history does not wait for it, and takes nobody's turn."""
    service = Service(token="secret")  # noqa: S106 - of a test
    right = b"Bearer secret"
    clients = [Client() for _ in range(2)]
    async with anyio.create_task_group() as group:
        for client in clients:
            request = replace(HISTORY, authorization=right)
            group.start_soon(service.endpoints.respond, request, client.receive)
        await anyio.sleep(0.1)
        started = anyio.current_time()
        assert await service.status("/stats?points=5") == 401
        assert await service.status("/stats?points=x", authorization=right) == 400
        assert anyio.current_time() == started
        group.cancel_scope.cancel()


@pytest.mark.parametrize("request_", [HISTORY, TASKS], ids=["history", "tasks"])
async def test_large_answer_not_taken(request_: Request) -> None:
    """An answer with much that is not taken within a minute is given up, with its turn."""
    service = Service()
    started = anyio.current_time()
    for _ in range(3):
        with pytest.raises(ConnectionAbortedError):
            await service.endpoints.respond(request_, Client().receive)
    assert anyio.current_time() - started == pytest.approx(180)


@pytest.mark.parametrize(("query", "points"), [("points=9999999", 3600), ("points=3599", 3599)])
async def test_points_have_a_limit(
    query: str, points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer has more than 3,600 samples, which is what a monitor keeps by itself."""
    asked: list[int] = []

    def watching(
        monitor: ResourceMonitor, points: int
    ) -> tuple[array[float], dict[str, array[float]]]:
        asked.append(points)
        return recent(monitor, points)

    monkeypatch.setattr("mtaio.monitoring._page.recent", watching)
    await Service().stats(f"?{query}")
    assert asked == [points]


async def test_error_after_the_beginning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in an answer that has begun is logged, and the answer does not look complete."""

    def broken(monitor: ResourceMonitor, points: int) -> Any:
        return recent(monitor, points)[0], {"depth": None}

    monkeypatch.setattr("mtaio.monitoring._page.recent", broken)
    with pytest.raises(ConnectionAbortedError):
        await Service().stats("?points=5")
    assert caplog.messages == ["cannot answer GET /stats to its end"]


async def test_wrong_tokens(caplog: pytest.LogCaptureFixture) -> None:
    """Wrong tokens are counted, and the log says so once a minute at most."""
    service = Service(token="secret")  # noqa: S106 - of a test
    wrong = {"authorization": b"Bearer guess", "client": "10.0.0.9"}
    for _ in range(30):
        assert await service.status("/stats", **wrong) == 401
    assert await service.status("/stats") == 401  # a browser's first request has none
    assert service.endpoints.wrong_tokens.count == 30
    await anyio.sleep(60)
    await service.status("/metrics", authorization=b"Bearer guess", client=None)
    assert caplog.messages == [
        "wrong token for /stats from 10.0.0.9; 1 since the last such line",
        "wrong token for /metrics from a Unix socket; 30 since the last such line",
    ]
    assert "guess" not in caplog.text


async def test_wrong_tokens_are_slow(caplog: pytest.LogCaptureFixture) -> None:
    """For ten seconds after a wrong token each one takes a second to look at, right or wrong."""
    service = Service(token="secret")  # noqa: S106 - of a test
    caplog.clear()

    async def seconds(status: int, **changes: Any) -> float:
        started = anyio.current_time()
        assert await service.status("/stats", **changes) == status
        return anyio.current_time() - started

    right, wrong = {"authorization": b"Bearer secret"}, {"authorization": b"Bearer guess"}
    assert await seconds(200, **right) == 0
    assert await seconds(401, **wrong) == 0
    assert await seconds(401) == 0
    assert await seconds(401, **wrong) == pytest.approx(1)
    assert await seconds(200, **right) == pytest.approx(1)
    assert await service.status("/livez", **wrong) == 200
    await anyio.sleep(9)
    assert await seconds(200, **right) == 0


def test_wrong_token_in_another_loop(backend: str) -> None:
    """A loop whose clock begins anew is not slowed by what came in the one before."""
    service = Service(token="secret")  # noqa: S106 - of a test

    async def guess(after: float) -> float:
        await anyio.sleep(after)
        started = anyio.current_time()
        await service.status("/stats", authorization=b"Bearer guess")
        return anyio.current_time() - started

    assert run(guess, 3600, backend=backend) == 0
    assert run(guess, 0, backend=backend) == 0
    assert service.endpoints.wrong_tokens.count == 2
