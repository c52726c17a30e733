"""
The samples of a monitor: the latest, its figures by the names of their metrics, and their history.

Promise: the latest sample is replaced whole, so that any thread may read it. The history has at
most as many samples as was said, with eight bytes for each figure. A metric that appears later or
disappears has gaps, and is forgotten once it has nothing but gaps. Of metrics that have
disappeared, at most the last ``MOST_ABSENT`` are kept.
"""

from __future__ import annotations

import math
import threading
from array import array
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Final, get_type_hints

from mtaio._internal.cgroup import Cgroup
from mtaio.monitoring._metrics import Source, flat
from mtaio.monitoring._stats import ResourceStats

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtaio.monitoring._stats import LoopStats
    from mtaio.monitoring._system import SystemReader

__all__ = ["ALIASES", "FIXED", "MOST_ABSENT", "History", "Samples", "with_aliases"]

ALIASES: Final = {
    "cpu_usage": "cpu.usage_percent",
    "memory_usage": "memory.percent",
    "loop_delay": "loop.delay_p99_seconds",
}
"""Short names of metrics."""

MOST_ABSENT: Final = 200


def _kinds_in(cls: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name and the kind of each number in a statistics class."""
    hints = get_type_hints(cls)
    for each in fields(cls):
        if is_dataclass(hints[each.name]):
            yield from _kinds_in(hints[each.name], f"{prefix}{each.name}.")
        elif each.metadata["kind"] != "info":
            yield f"{prefix}{each.name}", each.metadata["kind"]


FIXED: Final = dict(_kinds_in(ResourceStats))
"""The metrics of each sample and their kinds, including those that not every system reports."""


class Samples:
    """
    Takes samples, and keeps what they leave behind.

    Args:
        size: How many samples the history has.

    Attributes:
        lock: Held while a sample is taken and kept, and while the history is read.
        latest: The latest sample.
        values: The figures of all metrics at the latest sample that was kept.
        kept: How many were kept.
        kept_at: When the latest was, in seconds of the clock of the loop that is sampled.

    Invariant: ``latest`` and ``values`` are replaced whole, and read without the lock.
    """

    __slots__ = ("_history", "_reader", "kept", "kept_at", "latest", "lock", "values")

    def __init__(self, size: int) -> None:
        self.lock = threading.Lock()
        self.kept: int = 0
        self.kept_at: float = -math.inf
        self._reset(size)

    def _reset(self, size: int) -> None:
        self.latest: ResourceStats | None = None
        self.values: dict[str, float] = {}
        self._history = History(size)
        self._reader: SystemReader | None = None

    def reset_in_child(self) -> None:
        """Forget what a forked child does not have, or may have half changed."""
        self.lock = threading.Lock()
        self._reset(self._history.size)

    def reader(self) -> SystemReader:
        """Return what reads the system, primed when it was made; ``lock`` is held."""
        if self._reader is None:
            from mtaio.monitoring._system import SystemReader  # noqa: PLC0415 - it needs psutil

            self._reader = SystemReader(Cgroup.find())
        return self._reader

    def take(self, timestamp: float, loop: LoopStats) -> ResourceStats:
        """
        Read the system, and return a sample; ``lock`` is held.

        Args:
            timestamp: The present moment, in seconds since the epoch.
            loop: The figures of the event loop.
        """
        reader = self.reader()
        reading = reader.read()
        self.latest = ResourceStats(
            timestamp=timestamp,
            uptime=reader.uptime(),
            cpu=reading.cpu,
            memory=reading.memory,
            io=reading.io,
            process=reading.process,
            loop=loop,
        )
        return self.latest

    def keep(self, sample: ResourceStats, watched: Mapping[str, float], now: float) -> None:
        """
        Add a sample to the history; ``lock`` is held.

        Args:
            sample: The sample.
            watched: The figures of what is watched besides.
            now: When it was taken.
        """
        self.values = {**flat(Source(kind="", name=None, statistics=sample)), **watched}
        self._history.add(sample.timestamp, self.values)
        self.kept_at = now
        self.kept += 1

    def history(self, metric: str, seconds: float | None) -> list[tuple[float, float]]:
        """Return the times and figures of one metric, of the last ``seconds`` or of all."""
        with self.lock:
            times, values = self._history.times(), self._history.values(metric)
        after = -math.inf if seconds is None or not times else times[-1] - seconds
        return [
            (moment, value)
            for moment, value in zip(times, values, strict=True)
            if moment >= after and not math.isnan(value)
        ]

    def recent(self, points: int) -> tuple[array[float], dict[str, array[float]]]:
        """Return the times of the last ``points`` samples, and the figures of every metric."""
        with self.lock:
            history = self._history
            return history.times(points), {
                name: history.values(name, points) for name in history.names()
            }


def with_aliases(values: dict[str, float]) -> dict[str, float]:
    """Return the figures also by the short names of their metrics."""
    return values | {alias: values[name] for alias, name in ALIASES.items() if name in values}


class History:
    """
    A ring of samples.

    Args:
        size: How many are kept.

    Invariant: every array is as long as ``_times``, and its figure at an index was taken at the
    time at that index; ``_next`` is where the next sample goes, and the oldest is, once full.
    """

    __slots__ = ("_gaps", "_next", "_times", "_values", "size")

    def __init__(self, size: int) -> None:
        self.size: int = size
        self._next = 0
        self._times = array("d")
        self._values: dict[str, array[float]] = {}
        self._gaps: dict[str, int] = {}
        """For how many samples each absent metric has not been there; the first went first."""

    def add(self, timestamp: float, values: Mapping[str, float]) -> None:
        """Keep one sample; drop the oldest if there are too many."""
        index, full = self._next, len(self._times) == self.size
        if full:
            self._times[index] = timestamp
        else:
            self._times.append(timestamp)
        for name in values:
            if name not in self._values:
                self._values[name] = array("d", [math.nan]) * (len(self._times) - (not full))
        for name, column in self._values.items():
            value = values.get(name, math.nan)
            if full:
                column[index] = value
            else:
                column.append(value)
        self._forget(values)
        self._next = (index + 1) % self.size

    def times(self, points: int | None = None) -> array[float]:
        """Return when the samples were taken, the oldest first; the last ``points`` of them."""
        return self._last(self._times, points)

    def values(self, name: str, points: int | None = None) -> array[float]:
        """Return the figures of one metric, one for each of `times`; NaN where there is none."""
        column = self._values.get(name)
        if column is None:
            return array("d", [math.nan]) * len(self.times(points))
        return self._last(column, points)

    def names(self) -> list[str]:
        """Return the metrics of which there are figures."""
        return list(self._values)

    def _forget(self, values: Mapping[str, float]) -> None:
        """Drop metrics that have been absent as long as there is history, or are too many."""
        if len(values) == len(self._values):
            self._gaps.clear()
            return
        gaps = {name: gap + 1 for name, gap in self._gaps.items() if name not in values}
        gaps.update((name, 1) for name in self._values if name not in values and name not in gaps)
        too_many = len(gaps) - MOST_ABSENT
        self._gaps = {}
        for index, (name, gap) in enumerate(gaps.items()):
            if gap >= self.size or index < too_many:
                del self._values[name]
            else:
                self._gaps[name] = gap

    def _last(self, column: array[float], points: int | None) -> array[float]:
        if len(column) == self.size:
            column = column[self._next :] + column[: self._next]
        return column[0 if points is None else max(0, len(column) - points) :]
