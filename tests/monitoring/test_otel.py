"""OpenTelemetry's SDK sees what Prometheus sees."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum

from mtaio.monitoring import Source, metrics
from mtaio.monitoring.otel import observe
from mtaio.resources import RateLimiter
from tests.monitoring.watched import Objects, objects, sample, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Watched:
    """A monitor, as far as `observe` knows one."""

    def __init__(self, *sources: Source) -> None:
        self.shown = list(sources)
        self.reads = 0

    def sources(self) -> list[Source]:
        """Return what is to be shown now."""
        self.reads += 1
        return self.shown


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
    monitor = Watched(
        Source("", None, sample()),
        *each.sources(mappings=True),
        Source("gauge", "queue_depth", 3.0),
    )
    observe(export.meter, monitor)
    expected = {
        (metric.dotted, frozenset(metric.labels.items())): metric.value
        for metric in metrics(monitor.sources())
    }
    assert export.values() == expected


def test_kinds_and_units(export: Export) -> None:
    """Counters are monotonic sums, all else is a gauge; units are those of UCUM."""
    limiter = RateLimiter(5)
    observe(export.meter, Watched(Source("", None, sample()), source_of(limiter, "api")))
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


def test_sources_are_read_once_for_each_collection(export: Export) -> None:
    """All instruments show one moment, and a collection shows the values of now."""
    monitor = Watched(Source("pool", "a", {"used": 1, "free": 2}))
    observe(export.meter, monitor)
    name = frozenset({("name", "a")})
    for number in range(3):
        before = monitor.reads
        monitor.shown = [Source("pool", "a", {"used": number, "free": number})]
        assert export.values() == {
            ("mtaio.pool.used", name): number,
            ("mtaio.pool.free", name): number,
        }
        assert monitor.reads == before + 1


def test_what_is_watched_later_shows_up(export: Export) -> None:
    """A metric that a collection sees first is exported from the next one on."""
    monitor = Watched()
    observe(export.meter, monitor)
    assert export.values() == {}
    monitor.shown.append(Source("pool", "a", {"used": 1}))
    assert export.values() == {}
    assert export.values() == {("mtaio.pool.used", frozenset({("name", "a")})): 1}
    monitor.shown.append(Source("pool", "b", {"used": 2}))
    assert len(export.values()) == 2
    monitor.shown.clear()
    assert export.values() == {}


def test_two_readers(export: Export) -> None:
    """Each reader of one provider gets the values of the moment at which it collects."""
    monitor = Watched(Source("pool", None, {"used": 1}))
    observe(export.meter, monitor)
    first, second = export.reader, export.second
    for number, export.reader in enumerate((first, second, second, first)):
        monitor.shown = [Source("pool", None, {"used": number})]
        assert export.values() == {("mtaio.pool.used", frozenset()): number}


def test_no_infinity_and_no_nan(export: Export, caplog: pytest.LogCaptureFixture) -> None:
    """What OpenTelemetry does not take is left out before the SDK complains."""
    values = {"inf": float("inf"), "nan": float("nan"), "used": 1}
    observe(export.meter, Watched(Source("pool", "a", values)))
    assert export.values() == {("mtaio.pool.used", frozenset({("name", "a")})): 1}
    assert caplog.messages == []


PROGRAM = """
import threading
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from mtaio.monitoring import Source
from mtaio.monitoring.otel import observe

class Watched:
    shown = [Source("pool", "a", {"used": 1})]

    def sources(self):
        return self.shown

provider = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())])
observe(provider.get_meter("tests"), Watched())
Watched.shown.append(Source("late", "b", {"used": 2}))
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
    assert "mtaio.pool.used" in done.stdout


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
