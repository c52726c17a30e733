"""What a monitor watches: one of each of mtaio's objects, with something to show."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mtaio._internal.statistics import COUNTER, HISTOGRAM, SECONDS, labels
from mtaio.cache import TTLCache
from mtaio.core import TaskExecutor
from mtaio.events import EventEmitter
from mtaio.logging import AsyncFileHandler
from mtaio.monitoring import Metric, Source
from mtaio.monitoring._metrics import kind_of
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
    ResourceLimiter,
    TimeoutManager,
)
from mtaio.statistics import (
    CPUStats,
    HistogramStatistics,
    IOStats,
    LoopStats,
    MemoryStats,
    ProcessStats,
    ResourceStats,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Statistics with histograms, one of them by labels."""

    run_seconds: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM)
    by_route: Mapping[tuple[str, ...], HistogramStatistics] = field(
        default_factory=dict, metadata=HISTOGRAM | SECONDS | labels("method", "route")
    )
    requests: Mapping[tuple[str, ...], int] = field(
        default_factory=dict, metadata=COUNTER | labels("method", "status")
    )


def numbers(metric: Metric) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the values that Prometheus has of a metric, by name and labels."""
    whole, labels = metric.value, frozenset(metric.labels.items())
    if not isinstance(whole, HistogramStatistics):
        return {(metric.name, labels): whole}
    ends = [*(str(float(bound)) for bound in whole.bounds), "+Inf"]
    return {
        **{
            (f"{metric.name}_bucket", labels | {("le", end)}): sum(whole.counts[: index + 1])
            for index, end in enumerate(ends)
        },
        (f"{metric.name}_sum", labels): whole.sum,
        (f"{metric.name}_count", labels): whole.count,
    }


class Objects(NamedTuple):
    """One of each."""

    executor: TaskExecutor
    rate: RateLimiter
    keyed: KeyedRateLimiter
    concurrency: ConcurrencyLimiter
    combined: ResourceLimiter
    timeouts: TimeoutManager
    cache: TTLCache[int]
    emitter: EventEmitter
    log: AsyncFileHandler

    def sources(self, *, mappings: bool = False) -> list[Source]:
        """Return what each shows now, named as users name them."""
        return [source_of(each, name, mappings=mappings) for name, each in self._asdict().items()]

    async def use(self) -> None:
        """Give each of them something to count."""
        async with self.executor:
            await self.executor.map(self.look_up, range(5))
        self.rate.acquire_nowait(2)
        self.keyed.acquire_nowait("a")
        for name in ("order.paid", "order.sent", "order.sent"):
            await self.emitter.emit(name)
        for level in (logging.INFO, logging.ERROR):
            self.log.handle(logging.LogRecord("app", level, __file__, 1, "text", None, None))
        self.log.flush()

    async def look_up(self, number: int) -> int:
        """Pass through everything that limits, and the cache."""
        async with self.combined, self.concurrency:
            with self.timeouts(1.0):
                return await self.cache.get_or_set(str(number % 2), self._load)

    @staticmethod
    async def _load() -> int:
        return 1


def source_of(each: Any, name: str | None, *, mappings: bool = False) -> Source:
    """Return what an object shows now."""
    return Source(
        kind=kind_of(type(each)), name=name, statistics=each.statistics(), mappings=mappings
    )


def objects(folder: Path) -> Iterator[Objects]:
    """Make one of each, and close the log file in the end: for a fixture."""
    log = AsyncFileHandler(folder / "app.log")
    yield Objects(
        TaskExecutor(4),
        RateLimiter(5, burst=5),
        KeyedRateLimiter(5),
        ConcurrencyLimiter(3),
        ResourceLimiter(rate=50, concurrency=2, timeout=3, timeout_total=9),
        TimeoutManager(3),
        TTLCache(60, max_size=100),
        EventEmitter(),
        log,
    )
    log.close()


def sample() -> ResourceStats:
    """Return what a monitor measures in a container with a limit on memory and none on CPU."""
    return ResourceStats(
        timestamp=1_700_000_000.25,
        uptime=12.5,
        cpu=CPUStats(
            usage_percent=41.5,
            process_percent=120.0,
            load_average=1.5,
            count=4,
            limit=None,
            throttled_ratio=None,
            source="host",
        ),
        memory=MemoryStats(
            total=2**31, available=2**30, used=2**30, percent=50.0, rss=2**27, source="cgroup"
        ),
        io=IOStats(read_bytes=4096, write_bytes=None),
        process=ProcessStats(
            threads=5,
            open_files=20,
            max_open_files=1024,
            voluntary_switches=100,
            involuntary_switches=3,
            gc_collections=7,
            gc_collected=70,
        ),
        loop=LoopStats(
            delay_p50_seconds=0.0001,
            delay_p99_seconds=0.002,
            delay_max_seconds=0.25,
            blocked=1,
            blocked_seconds=1.5,
            tasks=3,
        ),
    )
