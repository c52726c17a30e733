"""OpenTelemetry's SDK gets a span of each request, item, load and attempt."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from mtaio import Pipeline, Retry, TaskExecutor, TTLCache, cached
from mtaio._internal import spans
from mtaio.asgi import AccessLog
from mtaio.clients import LimitedTransport
from mtaio.logging import JsonFormatter
from mtaio.monitoring import traces

if TYPE_CHECKING:
    from collections.abc import Iterator

PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
"""Ids of a trace and a span, as in the standard's example."""


class Recorded:
    """An SDK that keeps spans, and its tracer."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("tests")

    def spans(self, name: str = "") -> list[ReadableSpan]:
        """Return the spans that have ended, in that order, whose names begin like this."""
        return [each for each in self.exporter.get_finished_spans() if each.name.startswith(name)]

    def edges(self) -> list[tuple[str, str | None]]:
        """Return the kind and function of each span, and its parent's."""
        ended = self.exporter.get_finished_spans()
        names = {each.context.span_id: short(each.name) for each in ended if each.context}
        return [
            (short(each.name), names[each.parent.span_id] if each.parent else None)
            for each in ended
        ]


def short(name: str) -> str:
    """Return the kind of a span, and the last part of its function's name."""
    kind, _, rest = name.partition(" ")
    return f"{kind} {rest.rpartition('.')[2]}".strip()


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """Record spans during a test."""
    made = Recorded()
    traces.record(made.tracer)
    try:
        yield made
    finally:
        traces.record(None)


def inner() -> None:
    """Record a span of the user's own."""
    assert isinstance(spans.hook, traces._Hook)
    spans.hook._tracer.start_span("own").end()


async def work(item: object) -> object:
    """Suspend, and record a span."""
    await anyio.sleep(0.1)
    inner()
    return item


def plain(item: object) -> object:
    """Record a span, in a thread."""
    inner()
    return item


async def test_items(recorded: Recorded) -> None:
    """Each item is a child of what began it, in whatever call, task or thread, and has children."""
    async with TaskExecutor(2) as executor:
        with recorded.tracer.start_as_current_span("outer"):
            assert await executor.map(work, range(3)) == [0, 1, 2]
            assert await executor.map(plain, range(3)) == [0, 1, 2]
            assert await executor.map(plain, range(2), timeout=1) == [0, 1]
            async with executor.stream(work, range(2)) as results:
                assert {each async for each in results} == {0, 1}
            assert await executor.gather(partial(work, 1), work(2)) == (1, 2)
            assert await executor.run(work, 1) == 1
            handle = await executor.submit(work, 1)
        assert await handle == 1
        inner()
    assert Counter(recorded.edges()) == {
        ("item work", "outer"): 9,
        ("own", "item work"): 9,
        ("item plain", "outer"): 5,
        ("own", "item plain"): 5,
        ("outer", None): 1,
        ("own", None): 1,
    }


async def test_attempts(recorded: Recorded) -> None:
    """The first attempt has a span as well; each says which it is, and those that fail, why."""
    left = 0

    async def fetch() -> int:
        nonlocal left
        left -= 1
        if left > 0:
            raise ConnectionError(left)
        return left

    async def block() -> None:
        async for attempt in retry:
            async with attempt:
                await fetch()

    retry = Retry(3, wait_initial=0, on=ConnectionError)
    pipeline = Pipeline(retry)
    executor = TaskExecutor(2)
    ways: list[Any] = [
        lambda: retry.run(fetch),
        retry(fetch),
        block,
        lambda: pipeline.run(fetch),
        pipeline(fetch),
        lambda: executor.run(fetch, retry=retry),
    ]
    for way in ways:
        left = 3
        await way()
        attempts = recorded.spans("attempt")
        assert [each.attributes for each in attempts] == [
            {"mtaio.attempt": 1, "error.type": "ConnectionError"},
            {"mtaio.attempt": 2, "error.type": "ConnectionError"},
            {"mtaio.attempt": 3},
        ]
        assert [len(each.events) for each in attempts] == [1, 1, 0]
        assert [each.status.is_unset for each in attempts] == [False, False, True]
        if way is not ways[-1]:
            recorded.exporter.clear()
    assert recorded.edges() == [*[("attempt fetch", "item fetch")] * 3, ("item fetch", None)]
    assert pipeline.statistics().calls == 2
    assert pipeline.statistics().parts["retry"].calls == 2
    with pytest.raises(TypeError, match=r"^<.*> returned None, which cannot be awaited"):
        await retry.run(lambda: None)  # type: ignore[arg-type, return-value] # refused


async def test_loads(recorded: Recorded) -> None:
    """One load for all who want it: in a task of a caller, in the block of a cache, in a thread."""
    cache: TTLCache[Any] = TTLCache()

    async def fetch(key: str) -> object:
        return await work(key)

    async def fetch_many(keys: list[str]) -> dict[str, object]:
        inner()
        return dict.fromkeys(keys, 1)

    async def ask(key: str) -> None:
        await cache.get_or_set(key, partial(fetch, key))

    @cached(cache=cache)
    def load(key: str) -> object:
        return plain(key)

    async def ask_both(key: str) -> None:
        with recorded.tracer.start_as_current_span("outer"):
            async with anyio.create_task_group() as group:
                group.start_soon(ask, key)
                group.start_soon(ask, key)

    await ask_both("a")
    async with cache:
        await ask_both("b")
    load("c")
    await cache.get_or_set_many(["d", "e"], fetch_many)
    assert Counter(recorded.edges()) == {
        ("load fetch", "outer"): 2,
        ("own", "load fetch"): 2,
        ("load fetch_many", None): 1,
        ("own", "load fetch_many"): 1,
        ("load load", None): 1,
        ("own", "load load"): 1,
        ("outer", None): 2,
    }


async def test_cancelled_and_failed(recorded: Recorded) -> None:
    """A span ends with its work, however that ends, and says how; the error is the same."""
    executor = TaskExecutor(2)

    async def hang(_: object = None) -> None:
        await anyio.sleep(math.inf)

    def fail(_: object) -> None:
        raise KeyError(1)

    with anyio.move_on_after(1):
        await executor.run(hang)
    with pytest.raises(TimeoutError):
        await executor.map(hang, [1], timeout=1)
    with pytest.raises(KeyError) as caught:
        await executor.map(fail, [1])
    assert caught.value.args == (1,)
    left = executor.run(hang)
    with recorded.tracer.start_as_current_span("x"):
        left.send(None)
    left.close()  # as the garbage collector does, wherever it comes by
    cancelled = {"mtaio.cancelled": True}
    assert [each.attributes for each in recorded.spans("item")] == [
        cancelled,
        cancelled,
        {"error.type": "KeyError"},
        cancelled,
    ]
    assert not trace.get_current_span().get_span_context().is_valid


async def in_pieces(request: Any) -> Any:
    """Answer in pieces, which another task sends."""

    async def pieces() -> Any:
        yield b"a"
        await work(1)
        yield b"b"

    return StreamingResponse(pieces(), request.path_params.get("status", 200))


async def raise_error(_: Any) -> Any:
    """Fail."""
    await work(1)
    raise ValueError("that is wrong")


APP = AccessLog(
    Starlette(
        routes=[
            Route("/pieces/{status:int}", in_pieces, methods=["GET", "POST"]),
            Route("/error", raise_error),
            Route("/", lambda _: PlainTextResponse("hello")),
        ]
    )
)


async def test_requests(recorded: Recorded) -> None:
    """A request has a span under that of its client, and above what it does."""
    headers = {"traceparent": "-".join(("00", *PARENT, "01")), "x-request-id": "mine"}
    transport = httpx.ASGITransport(APP, raise_app_exceptions=False, client=("192.0.2.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        assert (await client.get("/pieces/200?secret=1", headers=headers)).text == "ab"
        assert (await client.post("/pieces/503")).text == "ab"
        assert (await client.get("/error")).status_code == 500
        assert (await client.request("FORGED", "/%20%0a")).status_code == 404
    ok, unavailable, failed, missing = (
        each for each in recorded.spans() if each.kind is trace.SpanKind.SERVER
    )
    assert ok.parent is not None
    assert trace.format_span_id(ok.parent.span_id) == PARENT[1]
    assert ok.context is not None
    assert trace.format_trace_id(ok.context.trace_id) == PARENT[0]
    assert ok.name == "GET /pieces/{status}"
    assert ok.attributes == {
        "http.request.method": "GET",
        "url.path": "/pieces/200",
        "url.scheme": "http",
        "http.route": "/pieces/{status}",
        "http.response.status_code": 200,
    }
    assert ok.status.is_unset
    assert unavailable.parent is None
    assert unavailable.status.status_code is trace.StatusCode.ERROR
    assert [each.name for each in failed.events] == ["exception"]
    assert failed.attributes
    assert failed.attributes["error.type"] == "ValueError"
    assert missing.name == "HTTP"
    assert missing.attributes
    assert missing.attributes["url.path"] == "/%20%0A"
    own = recorded.spans("own")
    assert [each.parent and each.parent.span_id for each in own] == [
        each.context and each.context.span_id for each in (ok, unavailable, failed)
    ]
    assert not trace.get_current_span().get_span_context().is_valid


async def test_logged(recorded: Recorded) -> None:
    """A record has the ids of the span in which it is logged."""
    formatter = JsonFormatter()
    record = logging.makeLogRecord({"msg": "x"})
    assert "trace_id" not in formatter.format(record)
    with recorded.tracer.start_as_current_span("outer") as span:
        line = json.loads(formatter.format(record))
    found = span.get_span_context()
    assert line["trace_id"] == trace.format_trace_id(found.trace_id)
    assert line["span_id"] == trace.format_span_id(found.span_id)


async def test_clients(recorded: Recorded) -> None:
    """A limited client tells the service which span it is called in."""
    said: list[str] = []

    async def service(request: httpx.Request) -> httpx.Response:
        said.append(request.headers["traceparent"])
        return httpx.Response(200)

    transport = LimitedTransport(httpx.MockTransport(service))
    async with httpx.AsyncClient(transport=transport) as client:
        with recorded.tracer.start_as_current_span("outer") as span:
            await client.get("http://service")
    found = span.get_span_context()
    ids = f"{trace.format_trace_id(found.trace_id)}-{trace.format_span_id(found.span_id)}"
    assert [each.rpartition("-")[0] for each in said] == [f"00-{ids}"]


async def test_not_sampled(recorded: Recorded) -> None:
    """What the SDK does not sample is not recorded, nor what is inside of it."""
    recorded.provider.sampler = ALWAYS_OFF
    traces.record(recorded.provider.get_tracer("others"))
    assert await TaskExecutor(2).map(work, [1]) == [1]
    assert recorded.spans() == []


async def test_switched_off(recorded: Recorded) -> None:
    """A call that has begun ends as it would have; the next has no spans, and logs no ids."""

    async def switch_off(number: int) -> int:
        traces.record(None)
        await anyio.sleep(0.1)
        return number

    executor = TaskExecutor(1)
    assert await executor.map(switch_off, [1, 2]) == [1, 2]
    assert await executor.map(switch_off, [1, 2]) == [1, 2]
    assert await Retry(2).run(switch_off, 1) == 1
    assert len(recorded.spans()) == 1
    record = logging.makeLogRecord({"msg": "x"})
    assert "trace_id" not in JsonFormatter().format(record)


def test_interrupted(recorded: Recorded) -> None:
    """What is no error and no cancellation is recorded as what it is, also in a thread."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spans.call("load", interrupt, interrupt)
    assert [each.attributes for each in recorded.spans()] == [{"error.type": "KeyboardInterrupt"}]


def test_refused() -> None:
    """What is no tracer is refused: a provider, above all."""
    with pytest.raises(TypeError, match=r"^tracer=<.*> is a TracerProvider, not a tracer\. Pass"):
        traces.record(TracerProvider(shutdown_on_exit=False))  # type: ignore[arg-type] # refused


def test_missing_extra() -> None:
    """Without opentelemetry-api the rest works, and the module says what to install."""
    program = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "try:\n"
        "    import mtaio.monitoring.traces\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(  # noqa: S603 - this very Python, with a program of this file
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout == (
        "mtaio.monitoring.traces needs opentelemetry-api. "
        "Install it with: pip install 'mtaio[otel]'\n"
    )
