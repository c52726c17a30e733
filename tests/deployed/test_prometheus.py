"""
Debian's own Prometheus reads what mtaio exports, and the example rules and dashboard understand it.

They run in real time, and need the programs ``prometheus`` and ``promtool`` (``apt-get install
prometheus``): pytest leaves them out unless they are named, as the session ``service`` does.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlencode

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from mtaio.asgi import RequestMetrics
from mtaio.monitoring import Metric, ResourceMonitor, Source, metrics, to_prometheus
from mtaio.monitoring._metrics import CONTENT_TYPE
from mtaio.statistics import HistogramStatistics
from tests.monitoring.watched import numbers, objects, sample
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from starlette.requests import Request

    from mtaio._internal.asgi import ASGIApp

T = TypeVar("T")

EXAMPLES = ROOT / "docs" / "examples" / "prometheus"
HOUR = 3600
PATIENCE = 90.0
"""Seconds for what takes two: a machine may stand still in between."""


def tool(name: str) -> str:
    """Return where a program is; without it the test is skipped, but fails in CI."""
    found = shutil.which(name)
    if found is None:
        message = f"{name} is missing: apt-get install prometheus"
        if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
            pytest.fail(message)
        pytest.skip(message)
    return found


def promtool(*arguments: str | Path, text: str | None = None) -> str:
    """Run promtool, which must be content, and return what it says."""
    done = subprocess.run(  # noqa: S603 - a program of this machine, on files of this repository
        [tool("promtool"), *arguments],
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Still(ResourceMonitor):  # type: ignore[misc] # final, and the test's own double
    """A monitor that shows the same at all times, so that there is something to compare with."""

    def __init__(self, shown: list[Source]) -> None:
        super().__init__()
        self._shown = shown

    def sources(self) -> list[Source]:
        """Return what the monitor shows."""
        return self._shown


@contextmanager
def serving(monitor: ResourceMonitor) -> Iterator[str]:
    """Serve what a monitor shows under ``/metrics`` on this machine, and give the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = to_prometheus(metrics(monitor.sources())).encode()
            self.send_response(200 if self.path == "/metrics" else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(ConnectionError):  # Prometheus is being stopped
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Prometheus(NamedTuple):
    """A Prometheus that runs, as its HTTP API shows it."""

    port: int

    def is_ready(self) -> bool:
        """Return whether the API answers: it listens before it has read its data."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/-/ready")
            return connection.getresponse().status == 200
        finally:
            connection.close()

    def get(self, path: str, **parameters: str) -> Any:
        """Ask the API, and return the data of its answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
            answer = json.load(connection.getresponse())
        finally:
            connection.close()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, query: str) -> dict[tuple[str, frozenset[tuple[str, str]]], str]:
        """Return the values that a query finds, as they are written."""
        result = self.get("query", query=query)["result"]
        found = {}
        for each in result:
            labels = {key: value for key, value in each["metric"].items() if key not in OWN}
            name = labels.pop("__name__", "")
            found[name, frozenset(labels.items())] = each["value"][1]
        return found


OWN = {"job", "instance"}
"""The labels that Prometheus adds."""

LISTENING = re.compile(r"Listening on.*address=127\.0\.0\.1:(\d+)")


@contextmanager
def running(config: Path, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus on a port that is free."""
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - a program of this machine, with our own options
            [
                tool("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        started = Prometheus(int(until(lambda: LISTENING.search(log.read_text("utf-8")))[1]))
        until(started.is_ready)
        yield started
    except AssertionError:
        print(log.read_text("utf-8"))  # noqa: T201 - pytest shows it with the failure
        raise
    finally:
        process.terminate()
        process.wait(PATIENCE)


def until(look: Callable[[], T | None]) -> T:
    """Look again and again until something is there."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, f"still {found!r} after {PATIENCE:.0f} s"
        time.sleep(0.1)
    return found


async def item(request: Request) -> Response:
    """Answer at once or a moment later, well or not."""
    number = int(request.path_params["id"])
    await anyio.sleep(number / 100)
    return Response("x" * 100 * number, 503 if number == 3 else 200)


async def ask(app: ASGIApp) -> None:
    """Ask an application for some of its items, and for what it does not have."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        for path in ("/items/0", "/items/1", "/items/2", "/items/3", "/none"):
            await client.get(path)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Still]:
    """Return a monitor that shows one of everything, twice, and names that are hard to write."""
    measured = sample()
    measured = replace(
        measured,
        cpu=replace(measured.cpu, limit=2.0, throttled_ratio=0.125),
        io=replace(measured.io, write_bytes=512),
    )
    for each in objects(tmp_path_factory.mktemp("log")):
        monitor = ResourceMonitor()
        requests = RequestMetrics(Starlette(routes=[Route("/items/{id}", item)]))
        for name, thing in {**each._asdict(), "requests": requests}.items():
            monitor.watch(thing, name=name)  # from here on durations are recorded
            monitor.watch(thing, name=f"{name} again")
        anyio.run(each.use)
        anyio.run(ask, requests)
        anyio.run(monitor.tick)
        sources = [
            Source(kind="", name=None, statistics=measured),
            *monitor.sources()[1:],
            Source(kind="gauge", name="queue_depth", statistics=3.0),
            Source(kind="gauge", name='hard"\\\n日本\r', statistics=float("inf")),
            Source(kind="gauge", name="lowest", statistics=float("-inf")),
            Source(kind="gauge", name="none", statistics=float("nan")),
            Source(kind="gauge", name="great", statistics=10**15 + 1),
            Source(kind="gauge", name="exact", statistics=0.1 + 0.2),
        ]
        yield Still(sources)


@pytest.fixture(scope="module")
def exported(still: Still) -> list[Metric]:
    """Return what is exported."""
    return list(metrics(still.sources()))


@pytest.fixture(scope="module")
def prometheus(still: Still, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Run Prometheus with the example's own files, but in a hurry."""
    folder = tmp_path_factory.mktemp("prometheus")
    rules = (EXAMPLES / "alerts.yml").read_text("utf-8")
    (folder / "alerts.yml").write_text(re.sub(r"for: \d+m", "for: 0s", rules), "utf-8")
    with serving(still) as address:
        config = (EXAMPLES / "prometheus.yml").read_text("utf-8")
        config = config.replace("127.0.0.1:9464", address).replace("15s", "1s")
        (folder / "prometheus.yml").write_text(config, "utf-8")
        with running(folder / "prometheus.yml", folder) as started:
            yield started


def test_prometheus_has_the_values(prometheus: Prometheus, exported: list[Metric]) -> None:
    """What Prometheus has scraped is what was exported, each number to its last bit."""
    found = until(lambda: prometheus.values('{__name__=~"mtaio_.+"}'))
    expected = {key: value for metric in exported for key, value in numbers(metric).items()}
    assert found.keys() == expected.keys()
    for key, written in found.items():
        assert float(written) == expected[key] or (written == "NaN" and math.isnan(expected[key]))


def test_quantiles_are_those_of_prometheus(prometheus: Prometheus, exported: list[Metric]) -> None:
    """What thresholds know as ``p50`` and ``p99`` is what Prometheus computes."""
    histograms = [each for each in exported if isinstance(each.value, HistogramStatistics)]
    assert len({each.name for each in histograms}) > 5
    for name in {each.name for each in histograms}:
        for share in (0.5, 0.99):
            query = f"histogram_quantile({share}, {name}_bucket)"
            found = prometheus.values(query)
            for each in histograms:
                if each.name == name and isinstance(each.value, HistogramStatistics):
                    quantile = each.value.quantile(share)
                    value = float(found["", frozenset(each.labels.items())])
                    expected = math.nan if quantile is None else quantile
                    assert value == pytest.approx(expected, nan_ok=True)


def test_prometheus_knows_the_types(prometheus: Prometheus, exported: list[Metric]) -> None:
    """Prometheus knows of each family whether it is a counter, and its help."""
    found = until(lambda: prometheus.get("metadata"))
    assert {name: (each["type"], each["help"]) for name, (each,) in found.items()} == {
        metric.name: (metric.kind, metric.help) for metric in reversed(exported)
    }


def test_target_is_healthy(prometheus: Prometheus) -> None:
    """The scrape has no error, and an alert that applies fires with its text."""
    assert until(lambda: prometheus.values("up == 1"))
    (target,) = prometheus.get("targets")["activeTargets"]
    assert target["lastError"] == ""

    def look() -> list[Any]:
        alerts = prometheus.get("alerts")["alerts"]
        return [each for each in alerts if each["labels"]["alertname"] == "MtaioSamplesStale"]

    (stale,) = until(look)
    assert re.match(
        r"Its last sample is \d+d \d+h \d+m \d+s old", stale["annotations"]["description"]
    )


def test_lint(exported: list[Metric]) -> None:
    """The linter finds nothing to say about names, types, units and helps."""
    assert promtool("check", "metrics", text=to_prometheus(exported)) == ""


def test_examples_are_valid() -> None:
    """The configuration and the rules can be loaded, with nothing to warn of."""
    assert "20 rules found" in promtool(
        "check", "rules", "--lint=all", "--lint-fatal", EXAMPLES / "alerts.yml"
    )
    promtool("check", "config", EXAMPLES / "prometheus.yml")


@pytest.mark.parametrize("name", ["alerts.yml", "dashboard.json"])
def test_examples_name_what_is_exported(name: str, exported: list[Metric]) -> None:
    """No rule and no panel waits for a metric that there is not."""
    text = (EXAMPLES / name).read_text("utf-8")
    names = {series for metric in exported for series, _ in numbers(metric)}
    assert set(re.findall(r"mtaio_\w+", text)) <= names


def strings(value: object, key: str) -> Iterator[str]:
    """Yield every string that stands under ``key``, anywhere in what JSON holds."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == key and isinstance(item, str):
                yield item
            yield from strings(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item, key)


DASHBOARD = json.loads((EXAMPLES / "dashboard.json").read_text("utf-8"))
EXPRESSIONS = sorted(set(strings(DASHBOARD, "expr")))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_dashboard_shows_something(prometheus: Prometheus, expression: str) -> None:
    """Each expression of the dashboard can be evaluated, and finds what a service exports."""
    query = expression.replace("$__rate_interval", "1m")
    query = query.replace("$job", "my-service").replace("$instance", ".*")
    assert "$" not in query
    assert until(lambda: prometheus.values(query))


def test_dashboard_is_whole() -> None:
    """Panels have ids of their own, do not overlap, and stand within Grafana's 24 columns."""
    panels = DASHBOARD["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        names = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(names)) == len(names)
        assert panel["type"] == "row" or names


class Case(NamedTuple):
    """What an alert is about, as series of one value a minute."""

    alert: str
    minutes: int
    firing: dict[str, str]
    quiet: dict[str, str]


def latency(route: str, instance: str, *, fast: int, slow: int) -> dict[str, str]:
    """Return the buckets of a route that has so many requests a minute, below a second and not."""
    labels = f"job='shop',instance='{instance}',method='GET',route='{route}',status='200'"
    bucket = f"mtaio_request_metrics_duration_seconds_bucket{{{labels},le="
    return {
        f"{bucket}'0.1'}}": f"0+{fast}x19",
        f"{bucket}'1.0'}}": f"0+{fast}x19",
        f"{bucket}'10.0'}}": f"0+{fast + slow}x19",
        f"{bucket}'+Inf'}}": f"0+{fast + slow}x19",
    }


def answers(route: str, status: str, a_minute: int) -> dict[str, str]:
    """Return how many answers of a status a route has given."""
    labels = f"job='shop',method='GET',route='{route}',status='{status}'"
    return {f"mtaio_request_metrics_duration_seconds_count{{{labels}}}": f"0+{a_minute}x19"}


CASES = [
    Case("MtaioDown", 3, {"up{job='my-service'}": "0x9"}, {"up{job='my-service'}": "1x9"}),
    Case(
        "MtaioSamplesStale",
        5,
        {"mtaio_timestamp_seconds": "0x9"},
        {"mtaio_timestamp_seconds": "0+60x9"},
    ),
    Case(
        "MtaioThresholdExceeded",
        2,
        {"mtaio_monitor_firing": "0 1 2 2"},
        {"mtaio_monitor_firing": "1 1 0 0"},
    ),
    Case(
        "MtaioEventLoopBlocked",
        4,
        {"mtaio_loop_blocked_total": "0 0 0 1 1"},
        {"mtaio_loop_blocked_total": "3x9"},
    ),
    Case(
        "MtaioEventLoopSlow",
        6,
        {"mtaio_loop_delay_p99_seconds": "0.2x9"},
        {"mtaio_loop_delay_p99_seconds": "0.2 0.2 0.05 0.2x9"},
    ),
    Case(
        "MtaioMemoryAlmostFull",
        6,
        {"mtaio_memory_percent": "95x9"},
        {"mtaio_memory_percent": "80x9"},
    ),
    Case(
        "MtaioMemoryFillsUp",
        95,
        {"mtaio_memory_available_bytes": "1000-10x99", "mtaio_memory_percent": "75x99"},
        {"mtaio_memory_available_bytes": "1000x99", "mtaio_memory_percent": "75x99"},
    ),
    Case(
        "MtaioCPUBusy",
        16,
        {"mtaio_cpu_usage_percent": "95x19"},
        {"mtaio_cpu_usage_percent": "95x9 50 95x19"},
    ),
    Case(
        "MtaioCPUThrottled",
        16,
        {"mtaio_cpu_throttled_ratio": "0.5x19"},
        {"mtaio_cpu_throttled_ratio": "0.1x19"},
    ),
    Case(
        "MtaioFilesRunOut",
        6,
        {"mtaio_process_open_files": "900x9", "mtaio_process_max_open_files": "1000x9"},
        {"mtaio_process_open_files": "700x9", "mtaio_process_max_open_files": "1000x9"},
    ),
    Case(
        "MtaioRequestsSlow",
        11,
        # Of one instance all are fast, of the other one in ten is slow: one in twenty of both.
        {
            **latency("/a", "one", fast=60, slow=0),
            **latency("/a", "two", fast=54, slow=6),
            **latency("/b", "one", fast=60, slow=0),
        },
        {
            **latency("/a", "one", fast=600, slow=0),
            **latency("/a", "two", fast=600, slow=6),
        },
    ),
    Case(
        "MtaioRequestsFail",
        11,
        {
            **answers("/a", "200", 60),
            **answers("/a", "503", 6),
            **answers("/b", "200", 60),
        },
        {
            **answers("/a", "200", 600),
            **answers("/a", "500", 3),
            **answers("/a", "404", 60),
        },
    ),
    Case(
        "MtaioLimiterSaturated",
        6,
        {
            "mtaio_concurrency_limiter_in_use{name='api'}": "3x9",
            "mtaio_concurrency_limiter_limit{name='api'}": "3x9",
            "mtaio_concurrency_limiter_waiting{name='api'}": "2x9",
        },
        {
            "mtaio_concurrency_limiter_in_use{name='api'}": "3x9",
            "mtaio_concurrency_limiter_limit{name='api'}": "3x9",
            "mtaio_concurrency_limiter_waiting{name='api'}": "0x9",
        },
    ),
    Case(
        "MtaioLimiterSaturated",
        6,
        {
            "mtaio_resource_limiter_concurrency_in_use{name='api'}": "3x9",
            "mtaio_resource_limiter_concurrency_limit{name='api'}": "3x9",
            "mtaio_resource_limiter_concurrency_waiting{name='api'}": "2x9",
        },
        {
            "mtaio_resource_limiter_concurrency_in_use{name='api'}": "2x9",
            "mtaio_resource_limiter_concurrency_limit{name='api'}": "3x9",
            "mtaio_resource_limiter_concurrency_waiting{name='api'}": "1x9",
        },
    ),
    Case(
        "MtaioLimiterRejects",
        10,
        {"mtaio_keyed_rate_limiter_rejected_keys_total{name='api'}": "0+6x19"},
        {"mtaio_keyed_rate_limiter_rejected_keys_total{name='api'}": "6x19"},
    ),
    Case(
        "MtaioRateLimiterBacklog",
        6,
        {
            "mtaio_rate_limiter_next_grant_seconds{name='api'}": "10x9",
            "mtaio_rate_limiter_waiting{name='api'}": "3x9",
        },
        {
            "mtaio_rate_limiter_next_grant_seconds{name='api'}": "10x9",
            "mtaio_rate_limiter_waiting{name='api'}": "0x9",
        },
    ),
    Case(
        "MtaioExecutorFailures",
        12,
        {
            "mtaio_task_executor_failed_total{name='jobs'}": "0+6x19",
            "mtaio_task_executor_started_total{name='jobs'}": "0+60x19",
        },
        {
            "mtaio_task_executor_failed_total{name='jobs'}": "0+1x19",
            "mtaio_task_executor_started_total{name='jobs'}": "0+60x19",
        },
    ),
    Case(
        "MtaioCacheHitsFew",
        45,
        {
            "mtaio_ttl_cache_hits_total{name='users'}": "0+60x59",
            "mtaio_ttl_cache_misses_total{name='users'}": "0+120x59",
        },
        {
            "mtaio_ttl_cache_hits_total{name='users'}": "0+6x59",
            "mtaio_ttl_cache_misses_total{name='users'}": "0+12x59",
        },
    ),
    Case(
        "MtaioCacheLoadsFail",
        12,
        {
            "mtaio_ttl_cache_failed_total{name='users'}": "0+12x19",
            "mtaio_ttl_cache_loads_total{name='users'}": "0+60x19",
        },
        {
            "mtaio_ttl_cache_failed_total{name='users'}": "0x19",
            "mtaio_ttl_cache_loads_total{name='users'}": "0x19",
        },
    ),
    Case(
        "MtaioEventsDropped",
        4,
        {"mtaio_event_emitter_dropped_total{name='bus'}": "0 0 0 1 1"},
        {"mtaio_event_emitter_dropped_total{name='bus'}": "1x9"},
    ),
    Case(
        "MtaioLogRecordsLost",
        4,
        {
            "mtaio_async_file_handler_dropped_total{name='app',level='INFO'}": "0 0 0 1 1",
            "mtaio_async_file_handler_lost_total{name='app'}": "0x9",
        },
        {
            "mtaio_async_file_handler_dropped_total{name='app'}": "5x9",
            "mtaio_async_file_handler_lost_total{name='app'}": "2x9",
        },
    ),
]


def unit_test(case: Case, series: dict[str, str], firing: int) -> dict[str, Any]:
    """Return a test as promtool runs it; it reads YAML, hence JSON."""
    alerts = f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}'
    return {
        "name": f"{case.alert}: {firing}",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f"count({alerts}) or vector(0)",
                "eval_time": f"{case.minutes}m",
                "exp_samples": [{"labels": "{}", "value": firing}],
            }
        ],
    }


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Each alert fires for what it is about, and is quiet while that is well."""
    rules = EXAMPLES / "alerts.yml"
    names = re.findall(r"- alert: (\w+)", rules.read_text("utf-8"))
    assert list(dict.fromkeys(case.alert for case in CASES)) == names
    tests = [unit_test(case, case.firing, 1) for case in CASES]
    tests += [unit_test(case, case.quiet, 0) for case in CASES]
    file = tmp_path / "alerts_test.json"
    file.write_text(
        json.dumps({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests})
    )
    assert "SUCCESS" in promtool("test", "rules", file)


def test_a_day_of_the_example_service(tmp_path: Path) -> None:
    """A day later Prometheus shows p99 by route, when it was slow, and when it failed."""
    midnight = int(time.time()) - 25 * HOUR
    texts = tmp_path / "day.txt"
    with texts.open("wb") as output:
        subprocess.run(  # noqa: S603 - a program of these tests
            [sys.executable, "-m", "tests.deployed.day", str(midnight)],
            cwd=ROOT,
            stdout=output,
            check=True,
            timeout=PATIENCE,
        )
    promtool("tsdb", "create-blocks-from", "openmetrics", texts, tmp_path / "data")
    (tmp_path / "prometheus.yml").write_text("global: {}")
    rules = (EXAMPLES / "alerts.yml").read_text("utf-8")
    expressions = dict(re.findall(r"alert: (\w+)\n +expr: >-\n(.+?)\n +for:", rules, re.DOTALL))
    with running(tmp_path / "prometheus.yml", tmp_path) as prometheus:

        def hours(query: str) -> dict[tuple[str, ...], dict[int, float]]:
            """Return what a query finds at the end of each hour, by the labels."""
            result = prometheus.get(
                "query_range",
                query=query,
                start=str(midnight + HOUR),
                end=str(midnight + 24 * HOUR),
                step=str(HOUR),
            )["result"]
            return {
                tuple(each["metric"].values()): {
                    round((moment - midnight) / HOUR) - 1: float(value)
                    for moment, value in each["values"]
                }
                for each in result
            }

        duration = "mtaio_request_metrics_duration_seconds"
        p99 = hours(f"histogram_quantile(0.99, sum by (route, le) (rate({duration}_bucket[1h])))")
        assert p99.keys() == {("/prices",), ("/feed",)}
        assert {hour for hour, value in p99["/prices",].items() if value > 1} == {12, 13}
        assert all(0.01 < value < 1 for h, value in p99["/prices",].items() if h not in {12, 13})
        counts = hours(f'sum by (status) ({duration}_count{{route="/prices"}})')
        assert (counts["200",][23], counts["503",][23]) == (690, 30)
        for alert, expected in (("MtaioRequestsSlow", {12, 13}), ("MtaioRequestsFail", {18})):
            found = hours(expressions[alert])
            assert {hour for each in found.values() for hour in each} == expected, alert
