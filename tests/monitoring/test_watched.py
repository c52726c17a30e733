"""What a monitor watches: every primitive, gauges, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import sys
import threading
import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio._internal.histogram import Histogram, HistogramStatistics
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, labels
from mtaio.cache import TTLCache
from mtaio.core import TaskExecutor
from mtaio.events import EventEmitter
from mtaio.logging import AsyncFileHandler
from mtaio.monitoring import ResourceMonitor
from mtaio.monitoring._monitor import kinds_of, recent
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedConcurrencyLimiter,
    KeyedQuota,
    KeyedRateLimiter,
    Quota,
    RateLimiter,
    ResourceLimiter,
    TimeoutManager,
)
from mtaio.testing import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PumpStatistics:
    """What a pump has done."""

    pumped: int = field(metadata=COUNTER)
    level: float = field(metadata=GAUGE)


class HTTPPump:
    """An object of a user's own, which works now and then."""

    def __init__(self, name: str | None = None) -> None:
        if name is not None:
            self.name = name
        self.fails = False
        self.pumped = 0

    def statistics(self) -> PumpStatistics:
        """Return what it has done."""
        if self.fails:
            raise OSError
        return PumpStatistics(pumped=self.pumped, level=0.5)


MADE: dict[str, Callable[[], Any]] = {
    "concurrency_limiter": lambda: ConcurrencyLimiter(1),
    "resource_limiter": lambda: ResourceLimiter(concurrency=1, rate=1000, burst=1000, timeout=60),
    "rate_limiter": lambda: RateLimiter(1),
    "keyed_rate_limiter": lambda: KeyedRateLimiter(1),
    "keyed_concurrency_limiter": lambda: KeyedConcurrencyLimiter(1),
    "quota": lambda: Quota(requests=1, tokens=9),
    "keyed_quota": lambda: KeyedQuota(requests=1, tokens=9),
    "timeout_manager": TimeoutManager,
    "ttl_cache": lambda: TTLCache[int](60, max_size=4),
    "event_emitter": EventEmitter,
    "task_executor": lambda: TaskExecutor(1),
    "http_pump": HTTPPump,
}


@pytest.mark.parametrize("kind", MADE)
async def test_every_primitive(kind: str) -> None:
    """Each has metrics under its kind and name, which thresholds and history know."""
    monitor = ResourceMonitor()
    made = MADE[kind]()
    assert monitor.watch(made, name="it") is made
    names = [name for name in monitor.metric_names() if name.startswith(f"{kind}.it.")]
    assert names
    await monitor.tick()
    values = monitor.values()
    for name in names:
        monitor.set_threshold(name, 1e6)
        shown = [value for _, value in monitor.history(name)]
        assert shown == ([values[name]] if name in values else [])
        assert name in values or name.endswith((".p50", ".p99"))  # of nothing there are none
        assert kinds_of(monitor)[name] in {"counter", "gauge", "limit"}
    assert monitor.sources()[-1].statistics == made.statistics()
    monitor.unwatch(made)
    assert monitor.statistics().watched == 0
    await monitor.tick()
    assert not any(name in monitor.values() for name in names)


async def test_log_handler(tmp_path: Path) -> None:
    """A log handler is watched as well."""
    handler = AsyncFileHandler(tmp_path / "app.log")
    monitor = ResourceMonitor()
    monitor.watch(handler, name="app")
    await monitor.tick()
    assert any(name.startswith("async_file_handler.app.") for name in monitor.values())
    handler.close()


def test_own_name_is_the_default() -> None:
    """An object that has a name keeps it; one without has only its kind."""
    monitor = ResourceMonitor()
    monitor.watch(HTTPPump("left"))
    monitor.watch(HTTPPump())
    names = monitor.metric_names()
    assert "http_pump.left.pumped" in names
    assert "http_pump.pumped" in names


def test_unnamed_twins_are_refused() -> None:
    """Two objects of one kind and name would have one metric; the same one twice is fine."""
    monitor = ResourceMonitor()
    pump = monitor.watch(HTTPPump())
    monitor.watch(pump)
    assert monitor.statistics().watched == 1
    with pytest.raises(
        ValueError, match=r"^cannot watch <.*> as 'http_pump': <.* is watched under"
    ):
        monitor.watch(HTTPPump())
    monitor.watch(HTTPPump(), name="other")
    with pytest.raises(ValueError, match=r"^cannot watch <.*> as 'http_pump\.other': "):
        monitor.watch(HTTPPump("other"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorStatistics:
    """What a door has let in, and how fast."""

    open_seconds: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM)
    by_side: Mapping[tuple[str, ...], HistogramStatistics] = field(
        default_factory=dict, metadata=HISTOGRAM | labels("side")
    )


class Door:
    """An object with histograms: one that it records when it is told to, and one by labels."""

    def __init__(self) -> None:
        self.open_seconds: Histogram | None = None
        self.by_side: dict[tuple[str, ...], Histogram] = {}

    def record_durations(self) -> None:
        """Record from now on."""
        self.open_seconds = self.open_seconds or Histogram()

    def statistics(self) -> DoorStatistics:
        """Return what it has recorded."""
        return DoorStatistics(
            open_seconds=None if self.open_seconds is None else self.open_seconds.snapshot(),
            by_side={side: each.snapshot() for side, each in self.by_side.items()},
        )


async def test_quantiles_of_the_last_minute() -> None:
    """Watched, an object records; thresholds are on quantiles of at least the last 30 seconds."""
    door = Door()
    monitor = ResourceMonitor(interval=10)
    assert door.statistics().open_seconds is None
    monitor.watch(door)
    monitor.watch(door)
    monitor.set_threshold("door.open_seconds.p99", 0.5)
    monitor.set_threshold("door.by_side.p99", 0.5)
    assert door.open_seconds is not None
    async with monitor:
        await anyio.sleep(5)
        assert "door.open_seconds.p99" not in monitor.values()
        for _ in range(100):
            door.open_seconds.observe(2.0)
        west = door.by_side["west",] = Histogram()
        east = door.by_side["east",] = Histogram()
        west.observe(0.1)
        east.observe(0.3)
        shown = list[tuple[float, float | None]]()
        for _ in range(13):
            await anyio.sleep(10)
            door.open_seconds.observe(0.002)
            values = monitor.values()
            shown.append((values["door.open_seconds.count"], values.get("door.open_seconds.p99")))
        assert monitor.values()["door.by_side.count"] == 2
        assert "door.by_side.p99" not in monitor.values()  # nobody came of late
    slow, fast = 2.485, 0.00249
    assert [count for count, _ in shown] == list(range(100, 113))
    assert [value for _, value in shown] == pytest.approx([slow] * 5 + [fast] * 8, rel=0.01)
    assert [alert.state for alert in monitor.alerts] == ["firing", "recovered"]


async def test_histogram_that_begins_again() -> None:
    """One that counts less than before is another one, of which everything is recent."""
    door = Door()
    monitor = ResourceMonitor(interval=10)
    monitor.watch(door)
    assert door.open_seconds is not None
    for _ in range(100):
        door.open_seconds.observe(20.0)
    async with monitor:
        await anyio.sleep(65)
        assert "door.open_seconds.p50" not in monitor.values()
        door.open_seconds = Histogram()
        door.open_seconds.observe(0.002)
        await anyio.sleep(10)
        assert monitor.values()["door.open_seconds.p50"] == pytest.approx(0.00175)


def test_windows_go_from_one_clock_to_another() -> None:
    """A monitor that was used under one virtual clock measures its windows by the next one."""
    door = Door()
    monitor = ResourceMonitor(interval=10)
    monitor.watch(door)

    async def minute() -> bool:
        assert door.open_seconds is not None
        door.open_seconds.observe(0.002)
        async with monitor:
            await anyio.sleep(25)
            return "door.open_seconds.p50" in monitor.values()

    assert run(minute)
    assert run(minute)  # 25 s later, not 25 s before it began


class Process:
    """A class whose metrics would be those of the process."""

    def statistics(self) -> dict[str, int]:
        """Return the number of threads."""
        return {"threads": 99}


def test_metrics_of_one_name_are_refused() -> None:
    """A watched object hides neither the figures of the system nor a gauge."""
    monitor = ResourceMonitor()
    with pytest.raises(
        ValueError, match=r"^cannot watch <.*> as 'process': there is a metric 'process\.threads' a"
    ):
        monitor.watch(Process())
    monitor.watch(Process(), name="mine")
    monitor.gauge("http_pump.pumped", lambda: 7)
    with pytest.raises(ValueError, match=r"^cannot watch <.*> as 'http_pump': there is a metric '"):
        monitor.watch(HTTPPump())
    assert monitor.statistics().watched == 2


def test_watched_in_many_threads() -> None:
    """What one thread watches or forgets is not lost because another does so at that moment."""
    monitor = ResourceMonitor()
    monitor.gauge("level", lambda: 1)
    switching = sys.getswitchinterval()
    missing: list[str] = []

    def churn(number: int) -> None:
        for turn in range(100):
            name = f"{number}-{turn}"
            pump = monitor.watch(HTTPPump(), name=name)
            if f"http_pump.{name}.pumped" not in monitor._watched.names():
                missing.append(name)
            monitor.unwatch(pump)

    threads = [threading.Thread(target=churn, args=[number]) for number in range(4)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            monitor._watched.read()
    finally:
        sys.setswitchinterval(switching)
    assert missing == []
    assert monitor._watched.names() == ["level"]


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, GeneratorExit])
async def test_gauge_that_is_cancelled_or_exits(error: type[BaseException]) -> None:
    """Whatever a gauge raises, others are read, and the event loop goes on."""
    monitor = ResourceMonitor()
    raises = False

    def level() -> int:
        if raises:
            raise error
        return 1

    monitor.gauge("level", level)
    monitor.gauge("other", lambda: 2)
    raises = True
    await monitor.tick()
    assert "level" not in monitor.values()
    assert monitor.values()["other"] == 2
    assert monitor.statistics().failed == 1


def test_gauge_that_is_interrupted() -> None:
    """Control-C is for the program, wherever it arrives."""
    monitor = ResourceMonitor()

    def level() -> float:
        raise KeyboardInterrupt

    monitor.gauge("level", level)
    with pytest.raises(KeyboardInterrupt):
        monitor._watched.read()


@pytest.mark.parametrize("name", ["a b", "a.b", 'quo"te', "läuft", "日本", "new\nline"])
async def test_names_may_be_odd(name: str) -> None:
    """A name is a label, and may have any characters."""
    monitor = ResourceMonitor()
    monitor.watch(HTTPPump(), name=name)
    monitor.gauge(name, lambda: 3)
    await monitor.tick()
    assert monitor.values()[f"http_pump.{name}.pumped"] == 0
    assert monitor.values()[name] == 3
    monitor.set_threshold(name, 1)
    await monitor.tick()
    assert [alert.metric for alert in monitor.firing] == [name]


def test_what_cannot_be_watched() -> None:
    """Each refusal says what is wrong, and the way out."""
    monitor = ResourceMonitor()
    with pytest.raises(TypeError, match=r"^cannot watch 7: it has no method statistics\(\)\. Give"):
        monitor.watch(7)  # type: ignore[type-var]  # the mistake itself
    with pytest.raises(TypeError, match=r"^name=7 is an int, not a str\."):
        monitor.watch(HTTPPump(), name=7)  # type: ignore[arg-type]  # the mistake itself
    with pytest.raises(ValueError, match=r"^name=' ' is empty\. Pass a short name\."):
        monitor.watch(HTTPPump(), name=" ")
    with pytest.raises(TypeError, match=r"^fn=7 is an int, which is not callable\."):
        monitor.gauge("depth", 7)  # type: ignore[call-overload]  # the mistake itself
    with pytest.raises(TypeError, match=r"^fn=.*: missing a required argument: 'x'"):
        monitor.gauge("depth", lambda x: x)  # type: ignore[type-var]  # the mistake itself
    with pytest.raises(
        TypeError, match=r"^name=<function .*> is not a str\. Write @monitor\.gauge"
    ):
        monitor.gauge(lambda: 1)  # type: ignore[call-overload]  # the mistake itself
    with pytest.raises(TypeError, match=r"^cannot watch <class .*HTTPPump'>: it is a class\. Pass"):
        monitor.watch(HTTPPump)  # type: ignore[type-var]  # the mistake itself
    with pytest.raises(ValueError, match=r"^name='' is empty"):
        monitor.gauge("", lambda: 1)
    pump = HTTPPump()
    pump.fails = True
    with pytest.raises(OSError, match=r"^$"):
        monitor.watch(pump)
    assert monitor.statistics().watched == 0


async def test_async_gauge_is_refused() -> None:
    """A gauge is read without waiting, so an async function is refused before it is ever called."""
    monitor = ResourceMonitor()

    async def depth() -> float:
        raise AssertionError

    with pytest.raises(TypeError, match=r"^fn=<function .*depth.*> is async, and a gauge is read"):
        monitor.gauge("depth", depth)  # type: ignore[type-var]  # the mistake itself


async def test_gauge_that_returns_a_coroutine(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, and Python does not warn at each sample that it was never awaited."""
    monitor = ResourceMonitor()

    async def depth(_: object) -> float:
        raise AssertionError

    monitor.gauge("depth", lambda: depth(monitor))  # type: ignore[type-var]  # the mistake itself
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        await monitor.tick()
        await monitor.tick()
        caplog.clear()  # the record holds the error, which holds the coroutine
        gc.collect()
    assert monitor.statistics().failed == 2
    assert not warned


async def test_gauge_is_known_by_its_name() -> None:
    """The gauge of a lambda, which nobody keeps, is taken away by its name; others are not."""
    monitor = ResourceMonitor()
    monitor.gauge("depth", lambda: 1)
    monitor.watch(HTTPPump("depth"))
    monitor.unwatch("http_pump.depth")
    monitor.unwatch("other")
    assert monitor.statistics().watched == 2
    monitor.unwatch("depth")
    assert "depth" not in monitor.metric_names()
    assert monitor.statistics().watched == 1


@pytest.mark.parametrize("taken", ["cpu_usage", "cpu.usage_percent", "depth", "http_pump.level"])
def test_gauge_of_a_name_that_is_taken(taken: str) -> None:
    """A metric has one meaning."""
    monitor = ResourceMonitor()
    monitor.gauge("depth", lambda: 1)
    monitor.watch(HTTPPump())
    with pytest.raises(ValueError, match=rf"^cannot add the gauge '{taken}': there is a metric"):
        monitor.gauge(taken, lambda: 2)


async def test_gauges_come_and_go() -> None:
    """A gauge is known by its function, a method too, and its name is free afterwards."""
    monitor = ResourceMonitor()
    items = [1, 2, 3]

    @monitor.gauge("decorated")
    def decorated() -> float:
        return 1.5

    monitor.gauge("items", items.__len__)
    await monitor.tick()
    assert (monitor.values()["decorated"], monitor.values()["items"]) == (1.5, 3)
    assert decorated() == 1.5
    monitor.unwatch(items.__len__)
    monitor.unwatch(decorated)
    monitor.unwatch("nothing")
    monitor.gauge("items", lambda: 4)
    await monitor.tick()
    assert monitor.values()["items"] == 4
    assert "decorated" not in monitor.values()


@pytest.mark.parametrize("bad", [math.nan, "7", True, None, 10**400])
async def test_gauge_that_is_no_number(bad: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once and counted, and has no figures until it returns a number again."""
    monitor = ResourceMonitor()
    answers = [bad, bad, 5, bad]
    monitor.gauge("depth", lambda: answers.pop(0))
    monitor.watch(HTTPPump())
    for expected in (None, None, 5, None):
        await monitor.tick()
        assert monitor.values().get("depth") == expected
        assert monitor.values()["http_pump.level"] == 0.5
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["cannot read depth; there are no figures from it until that works"] * 2
    assert monitor.statistics().failed == 3


async def test_statistics_that_fail_at_times(caplog: pytest.LogCaptureFixture) -> None:
    """An object that cannot be read now and then is no error of those who ask for figures."""
    monitor = ResourceMonitor()
    pump = monitor.watch(HTTPPump())
    await monitor.tick()
    pump.fails = True
    await monitor.tick()
    monitor.set_threshold("http_pump.pumped", 7)
    assert len(monitor.history("http_pump.pumped")) == 1
    assert "http_pump.pumped" in monitor.metric_names()
    assert [source.kind for source in monitor.sources()] == ["", "monitor"]
    pump.fails = False
    pump.pumped = 8
    await monitor.tick()
    assert [alert.metric for alert in monitor.firing] == ["http_pump.pumped"]
    assert len(caplog.records) == 1


def test_reads_under_load(backend: str) -> None:
    """Whoever reads figures from another thread, while all is busy, gets no error."""
    monitor = ResourceMonitor(0.005, 50, loop_interval=0.002)
    executor, limiter = TaskExecutor(4), ConcurrencyLimiter(2)
    cache, emitter = TTLCache[int](0.01, max_size=50), EventEmitter()
    for each in (executor, limiter, cache, emitter):
        monitor.watch(each)
    monitor.set_threshold("concurrency_limiter.in_use", 1)
    errors: list[BaseException] = []
    counts = {"reads": 0}
    done = threading.Event()

    def read() -> None:
        try:
            # The sampler, a thread as well, may get no turn for long.
            while counts["reads"] < 10_000 or not monitor.statistics().samples:
                values = monitor.values()
                assert all(value >= 0 for value in values.values()), values
                assert monitor.statistics().samples >= 0
                assert monitor.sources()
                assert monitor.history("cpu_usage") is not None
                assert recent(monitor, 5)
                assert len(monitor.alerts) <= 100
                counts["reads"] += 6
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)
        finally:
            done.set()

    async def work(number: int) -> None:
        async with limiter:
            await cache.set(f"{number % 70}", number)
            await emitter.emit(f"event.{number % 9}", number)
            await anyio.lowlevel.checkpoint()

    async def main() -> None:
        emitter.on("event.*", lambda _: None)
        async with monitor:
            thread = threading.Thread(target=read)
            thread.start()
            while not done.is_set():
                await executor.map(work, range(50))
            thread.join()

    logging.getLogger("mtaio.monitoring").setLevel(logging.CRITICAL)
    try:
        anyio.run(main, backend=backend)
    finally:
        logging.getLogger("mtaio.monitoring").setLevel(logging.NOTSET)
    assert errors == []
    assert monitor.statistics().failed == 0
    assert monitor.statistics().samples > 0


def test_mappings_when_asked_for(backend: str) -> None:
    """The numbers of each name of an emitter are metrics if its watcher wants them."""
    monitor = ResourceMonitor()
    emitter = monitor.watch(EventEmitter(), name="bus", mappings=True)
    emitter.on("saved", lambda _: None)

    async def main() -> None:
        await emitter.emit("saved", 1)
        await monitor.tick()

    run(partial(main), backend=backend)
    assert set(monitor.values()) <= {*monitor.metric_names()}
