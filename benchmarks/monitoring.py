"""The monitor: what a sample costs, and what it costs to be there while nothing happens."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from benchmarks._harness import OURS, Contest, Figure, maybe
from mtaio.cache import TTLCache
from mtaio.core import TaskExecutor
from mtaio.events import EventEmitter
from mtaio.logging import AsyncFileHandler
from mtaio.monitoring import ResourceMonitor
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
    ResourceLimiter,
    TimeoutManager,
)

if TYPE_CHECKING:
    from collections.abc import Generator

aiomonitor, hang_inspection = maybe("aiomonitor"), maybe("aiodebug.hang_inspection")
monitor_loop_lag = maybe("aiodebug.monitor_loop_lag")
otel_sdk, otel_export = (
    maybe("opentelemetry.sdk.metrics"),
    maybe("opentelemetry.sdk.metrics.export"),
)
otel_instrumentation = maybe("opentelemetry.instrumentation.system_metrics")

SAMPLES = 500
IDLE = 4.0
"""Seconds in which nothing happens."""

OTEL = "OpenTelemetry's system metrics"
"""What is measured on both sides."""
ALIKE = {
    "system.cpu.utilization": ["idle", "user", "system"],
    "system.memory.usage": ["used", "free"],
    "system.memory.utilization": ["used", "free"],
    "process.context_switches": ["involuntary", "voluntary"],
    "process.cpu.utilization": ["user", "system"],
    "process.memory.usage": None,
    "process.open_file_descriptor.count": None,
    "process.thread.count": None,
    "process.disk.io": ["read", "write"],
    "cpython.gc.collections": None,
    "cpython.gc.collected_objects": None,
}


def everything(folder: str) -> list[object]:
    """Return one of each primitive."""
    return [
        TaskExecutor(4),
        RateLimiter(5),
        KeyedRateLimiter(5),
        ConcurrencyLimiter(3),
        ResourceLimiter(rate=5, concurrency=2, timeout=3),
        TimeoutManager(3),
        TTLCache[str](3, max_size=100),
        EventEmitter(),
        AsyncFileHandler(str(Path(folder) / "a.log")),
    ]


async def samples_of(monitor: ResourceMonitor) -> float:
    """Return the microseconds of processor time that a sample costs."""
    for _ in range(10):
        await monitor.tick()
    started = time.thread_time()
    for _ in range(SAMPLES):
        await monitor.tick()
    return (time.thread_time() - started) / SAMPLES * 1e6


async def sample_ours() -> float:
    return await samples_of(ResourceMonitor())


async def sample_otel() -> float:
    """Have its collector read once for each of ours."""
    reader = otel_export.InMemoryMetricReader()
    instrumentor = otel_instrumentation.SystemMetricsInstrumentor(config=ALIKE)
    instrumentor.instrument(meter_provider=otel_sdk.MeterProvider([reader]))
    try:
        reader.get_metrics_data()
        started = time.thread_time()
        for _ in range(SAMPLES):
            reader.get_metrics_data()
        return (time.thread_time() - started) / SAMPLES * 1e6
    finally:
        instrumentor.uninstrument()


async def watched_object() -> float:
    """Return what each of nine watched objects adds to a sample."""
    bare = await samples_of(ResourceMonitor())
    with tempfile.TemporaryDirectory() as folder:
        monitor = ResourceMonitor()
        objects = everything(folder)
        for each in objects:
            monitor.watch(each)  # type: ignore[type-var] # a list of many classes
        return (await samples_of(monitor) - bare) / len(objects)


async def idle() -> float:
    """Return how much of a processor is used while nothing happens, in percent."""
    await anyio.sleep(0.2)
    started, before = time.perf_counter(), time.process_time()
    await anyio.sleep(IDLE)
    return (time.process_time() - before) / (time.perf_counter() - started) * 100


async def idle_ours() -> float:
    async with ResourceMonitor():
        return await idle()


async def idle_nothing() -> float:
    return await idle()


async def idle_aiomonitor() -> float:
    """Have its three servers wait for somebody who wants to look."""
    with aiomonitor.start_monitor(asyncio.get_running_loop(), port=0, webui_port=0, console_port=0):
        return await idle()


class _Nowhere:
    def timing(self, metric: str, value: float) -> None:
        """Take what is measured."""


@contextmanager
def inspected(folder: str) -> Generator[None]:
    """Look for hanging loops, and measure their lag, ten times a second each, as ours does."""
    dumper, task = hang_inspection.start(folder, 0.1)
    monitor_loop_lag.enable(_Nowhere(), 0.1)
    try:
        yield
    finally:
        dumper.stop = True
        task.cancel()


async def idle_aiodebug() -> float:
    with tempfile.TemporaryDirectory() as folder, inspected(folder):
        return await idle()


EVENTS = [
    Figure(title="a sample", measure=sample_ours, unit="µs of CPU", most=100.0),
    Figure(title="each watched object, in a sample", measure=watched_object, unit="µs", most=20.0),
    Contest(
        title="a sample, beside a collection of as much",
        contenders={OURS: sample_ours, OTEL: sample_otel},
        targets={OTEL: 1.0},
        unit="µs of CPU",
        loops=("asyncio",),
    ),
    Figure(title="an idle monitor", measure=idle_ours, unit="% of a core", most=0.5, isolated=True),
    Contest(
        title="an idle monitor",
        contenders={
            OURS: idle_ours,
            "aiodebug": idle_aiodebug,
            "aiomonitor": idle_aiomonitor,
            "none": idle_nothing,
        },
        unit="% of a core",
        asyncio_only=frozenset({"aiodebug", "aiomonitor"}),
    ),
]
