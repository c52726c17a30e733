"""OpenTelemetry's SDK gets a span of each request, item, load and attempt."""

from __future__ import annotations

import gc
import json
import logging
import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from mtaio import Pipeline, Retry, TaskExecutor, TTLCache
from mtaio._internal import spans
from mtaio.asgi import AccessLog
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
        """Return the last words of each span's name and its parent's, sorted."""
        ended = self.exporter.get_finished_spans()
        names = {each.context.span_id: short(each.name) for each in ended if each.context}
        return sorted(
            (short(each.name), names[each.parent.span_id] if each.parent else None)
            for each in ended
        )


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
            assert [each async for each in executor.stream(work, range(2))] == [0, 1]
            assert await executor.gather(lambda: work(1), work(2)) == [1, 2]
            assert await executor.run(work, 1) == 1
            handle = await executor.submit(work, 1)
        assert await handle == 1
        inner()
    names = [("item work", "outer")] * 8 + [("item plain", "outer")] * 5
    names += [("item <lambda>", "outer"), ("outer", None), ("own", None)]
    names += [("own", "item work")] * 8 + [("own", "item plain")] * 5
    names += [("own", "item <lambda>")]
    assert recorded.edges() == sorted(names, key=lambda each: (each[0], str(each[1])))


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
    assert recorded.edges() == [("attempt fetch", "item fetch")] * 3 + [("item fetch", None)]
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
        await cache.get_or_load(key, fetch, key)

    @cache.cached()
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
    await cache.get_many(["d", "e"], fetch_many)
    assert recorded.edges() == sorted(
        [
            ("load fetch", "outer"),
            ("load fetch", "outer"),
            ("load fetch_many", None),
            ("load load", None),
            ("outer", None),
            ("outer", None),
            ("own", "load fetch"),
            ("own", "load fetch"),
            ("own", "load fetch_many"),
            ("own", "load load"),
        ],
        key=lambda each: (each[0], str(each[1])),
    )
