"""OpenTelemetry's SDK sees what Prometheus sees."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import fields
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum

from mtaio.monitoring import ResourceMonitor, Source, metrics
from mtaio.monitoring.otel import observe
from mtaio.resources import RateLimiter
from mtaio.statistics import HistogramStatistics, MonitorStatistics
from tests.monitoring.watched import Objects, Timed, objects

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Counting(ResourceMonitor):  # type: ignore[misc] # final, and the test's own double
    """A monitor that counts how often it is read."""

    reads = 0

    def sources(self) -> list[Source]:
        """Return what the monitor shows."""
        self.reads += 1
        return super().sources()


class Export:
    """An SDK with a reader, a second one, and a meter."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.second = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader, self.second], shutdown_on_exit=False)
        self.meter = self.provider.get_meter("tests")

    def collect(self) -> dict[str, Any]:
        """Make a collection, and return its metrics by name."""
        data = self.reader.get_metrics_data()
        for thread in threading.enumerate():
            if thread.name == "mtaio.otel":  # what makes the instruments of new metrics
                thread.join()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def values(self) -> dict[tuple[str, frozenset[tuple[str, Any]]], float]:
        """Make a collection, and return its values by name and attributes."""
        return {
            (name, frozenset(point.attributes.items())): point.value
            for name, metric in self.collect().items()
            for point in metric.data.data_points
        }


@pytest.fixture
def export() -> Iterator[Export]:
    """Return an SDK that is shut down in the end."""
    made = Export()
    yield made
    made.provider.shutdown()


@pytest.fixture
def each(tmp_path: Path) -> Iterator[Objects]:
    """Return one of each of mtaio's objects."""
    yield from objects(tmp_path)


async def test_values_are_those_of_prometheus(each: Objects, export: Export) -> None:
    """Every metric of every object is exported, with its labels as attributes."""
    await each.use()
    monitor = ResourceMonitor(name="main")
    for name, thing in each._asdict().items():
        monitor.watch(thing, name=name, mappings=True)
    monitor.gauge("queue_depth", lambda: 3.0)
    await monitor.tick()
    observe(export.meter, monitor)
    expected = {
        (metric.dotted, frozenset(metric.labels.items())): metric.value
        for metric in metrics(monitor.sources())
        if metric.kind != "histogram"
    }
    assert ("mtaio.value", frozenset({("name", "queue_depth")})) in expected
    assert len(expected) > 150
    found = export.values()
    assert {key: found[key] for key in expected} == expected


async def test_histograms_are_counters_by_bound(export: Export) -> None:
    """A histogram is exported as Prometheus has it: its sum, its count, and one for each bound."""
    whole = HistogramStatistics(bounds=(0.1, 1.0), counts=(4, 3, 2), sum=9.5)

    class Pool:
        def statistics(self) -> Timed:
            """Return histograms."""
            return Timed(run_seconds=whole, by_route={("GET", "/a"): whole})

    monitor = ResourceMonitor()
    monitor.watch(Pool())
    await monitor.tick()
    observe(export.meter, monitor)
    values = {key: value for key, value in export.values().items() if ".pool." in key[0]}
    route = {("method", "GET"), ("route", "/a")}
    assert values == {
        (f"mtaio.pool.{name}.{end}", frozenset(labels | le)): value
        for name, labels in (("run_seconds", set[Any]()), ("by_route", route))
        for end, le, value in (
            ("bucket", {("le", "0.1")}, 4),
            ("bucket", {("le", "1.0")}, 7),
            ("bucket", {("le", "+Inf")}, 9),
            ("sum", set(), 9.5),
            ("count", set(), 9),
        )
    }
    found = export.collect()
    assert found["mtaio.pool.by_route.sum"].unit == "s"
    assert found["mtaio.pool.by_route.bucket"].data.is_monotonic


async def test_kinds_and_units(export: Export) -> None:
    """Counters are monotonic sums, all else is a gauge; units are those of UCUM."""
    monitor = ResourceMonitor()
    monitor.watch(RateLimiter(5, burst=5, name="api"))
    await monitor.tick()
    observe(export.meter, monitor)
    found = export.collect()
    switches = found["mtaio.process.voluntary_switches"]
    assert isinstance(switches.data, Sum)
    assert switches.data.is_monotonic
    units = {
        "mtaio.cpu.usage_percent": "%",
        "mtaio.cpu.count": "{cpu}",
        "mtaio.memory.used": "By",
        "mtaio.loop.delay_p99_seconds": "s",
        "mtaio.loop.blocked_seconds": "s",
        "mtaio.rate_limiter.waiting": "",
    }
    assert {name: found[name].unit for name in units} == units
    assert found["mtaio.memory.used"].description == "MemoryStats.used, in bytes"
    assert not isinstance(found["mtaio.memory.used"].data, Sum)
    assert "mtaio.sources" not in found


async def test_names_that_are_too_long(export: Export) -> None:
    """A name that OpenTelemetry refuses keeps no other from being exported."""

    class Sites:
        def statistics(self) -> dict[str, int]:
            """Return a number for each site."""
            return {"a" * 243: 1, "b" * 244: 2, "c": 3}

    monitor = ResourceMonitor()
    monitor.watch(Sites())
    await monitor.tick()
    observe(export.meter, monitor)
    found = [name for name in export.collect() if ".sites." in name]
    assert found == ["mtaio.sites." + "a" * 243, "mtaio.sites.c"]


async def test_one_collection_shows_one_moment(export: Export) -> None:
    """The monitor is read once for each collection, which shows what there is then."""
    monitor = Counting()
    number = 0
    for name in ("used", "free"):
        monitor.gauge(name, lambda: number)
    await monitor.tick()
    observe(export.meter, monitor)
    for number in (1, 2, 3):
        await monitor.tick()
        before = monitor.reads
        (found,) = [each for name, each in export.collect().items() if name == "mtaio.value"]
        assert [point.value for point in found.data.data_points] == [number, number]
        assert monitor.reads == before + 1


async def test_what_is_watched_later_shows_up(export: Export) -> None:
    """A metric that a collection sees first is exported from the next one on."""
    monitor = ResourceMonitor()
    observe(export.meter, monitor)
    assert set(export.collect()) == {
        f"mtaio.monitor.{field.name}" for field in fields(MonitorStatistics)
    }
    limiter = monitor.watch(RateLimiter(5, burst=5, name="api"))
    await monitor.tick()
    export.collect()
    api = "mtaio.rate_limiter.tokens", frozenset({("name", "api")})
    found = export.values()
    assert found[api] == 5
    assert ("mtaio.memory.percent", frozenset()) in found
    monitor.watch(RateLimiter(7, burst=7, name="db"))
    await monitor.tick()
    assert export.values()["mtaio.rate_limiter.tokens", frozenset({("name", "db")})] == 7
    monitor.unwatch(limiter)
    await monitor.tick()
    assert api not in export.values()


async def test_two_readers(export: Export) -> None:
    """Each reader of one provider gets the values of the moment at which it collects."""
    monitor = ResourceMonitor()
    observe(export.meter, monitor)
    first, second = export.reader, export.second
    for number, export.reader in enumerate((first, second, second, first), 1):
        await monitor.tick()
        assert export.values()["mtaio.monitor.samples", frozenset()] == number


async def test_no_infinity_and_no_nan(export: Export, caplog: pytest.LogCaptureFixture) -> None:
    """What OpenTelemetry does not take is left out before the SDK complains."""
    monitor = ResourceMonitor()
    monitor.watch(RateLimiter(inf, name="free"))
    await monitor.tick()
    observe(export.meter, monitor)
    found = export.collect()
    assert "mtaio.rate_limiter.tokens" not in found
    assert "mtaio.rate_limiter.waiting" in found
    assert caplog.messages == []


PROGRAM = """
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from mtaio.monitoring import ResourceMonitor
from mtaio.monitoring.otel import observe

provider = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())])
monitor = ResourceMonitor()
observe(provider.get_meter("tests"), monitor)

async def main():
    await monitor.tick()

import anyio
anyio.run(main)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own."""
    return subprocess.run(  # noqa: S603 - this very Python, with a program of this file
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )


def test_last_collection_is_quiet() -> None:
    """The SDK's own collection at the interpreter's exit exports, and prints no error."""
    done = run(PROGRAM)
    assert done.stderr == ""
    assert done.returncode == 0
    assert "mtaio.monitor.samples" in done.stdout


def test_missing_extra() -> None:
    """Without opentelemetry-api the rest works, and the module says what to install."""
    done = run(
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "import mtaio.monitoring\n"
        "try:\n"
        "    import mtaio.monitoring.otel\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert done.stderr == ""
    assert done.stdout == (
        "mtaio.monitoring.otel needs opentelemetry-api. "
        "Install it with: pip install 'mtaio[otel]'\n"
    )
