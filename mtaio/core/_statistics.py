"""
What an executor has done and is doing.

Promise: reading it changes nothing, is not a checkpoint, and works from any thread. Calls in
progress keep their own counts, which are added up on request, so an item pays for two counters.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mtaio._internal.durations import took
from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, SECONDS

if TYPE_CHECKING:
    from mtaio._internal.histogram import Histogram
    from mtaio.core._pool import Pool

__all__ = ["Counters", "ExecutorStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorStatistics:
    """A snapshot of a `TaskExecutor`."""

    max_workers: int | None = field(metadata=LIMIT)
    """The limit on items that run at once; None if there is none."""
    in_flight: int = field(metadata=GAUGE)
    """Items in progress, including submitted tasks and items that wait for a nested call."""
    in_use: int = field(metadata=GAUGE)
    """Slots of ``max_workers`` that are taken; 0 without a limit."""
    waiting: int = field(metadata=GAUGE)
    """Tasks that wait for a free slot."""
    peak: int = field(metadata=GAUGE)
    """The most items that were ever in progress at once."""
    started: int = field(metadata=COUNTER)
    """Items started so far."""
    succeeded: int = field(metadata=COUNTER)
    """Items that returned a result."""
    failed: int = field(metadata=COUNTER)
    """Items that raised an error, including timeouts, however it was reported."""
    cancelled: int = field(metadata=COUNTER)
    """Items that were cancelled while they ran."""
    timed_out: int = field(metadata=COUNTER)
    """Items, or attempts of items with ``retry=``, that exceeded their ``timeout=``."""
    retried: int = field(metadata=COUNTER)
    """Attempts beyond each item's first."""
    waits: int = field(metadata=COUNTER)
    """How often a task had to wait for a slot."""
    wait_seconds: float = field(metadata=COUNTER)
    """Total seconds of those waits."""
    max_wait_seconds: float = field(metadata=GAUGE)
    """The longest of them."""
    wait_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long each of those waits took; None before ``record_durations()``."""
    run_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """
    How long each item ran that ended since ``record_durations()``, however it did, waits for a
    token or a thread and all its attempts included; None before.
    """
    submitted: int = field(metadata=GAUGE)
    """Submitted tasks that have not ended."""
    services: int = field(metadata=GAUGE)
    """Services started with `TaskExecutor.start` that run."""
    threads_in_use: int = field(metadata=GAUGE)
    """Worker threads busy for this executor, including abandoned ones."""
    threads_waiting: int = field(metadata=GAUGE)
    """Calls that wait for a worker thread."""
    processes_in_use: int = field(metadata=GAUGE)
    """Worker processes busy for this executor."""
    processes_waiting: int = field(metadata=GAUGE)
    """Calls that wait for a worker process."""


class Totals(NamedTuple):
    """Items by how they ended."""

    started: int
    succeeded: int
    failed: int
    cancelled: int

    @property
    def in_flight(self) -> int:
        """Items that have not ended."""
        return self.started - self.succeeded - self.failed - self.cancelled


class Counters:
    """
    Totals of an executor's finished work, and the calls in progress.

    Invariants:
    - an item is counted in ``pools`` until its call ends, then here, never in both;
    - an item ends with one addition to one counter, so that between any two steps of the event
      loop's thread the figures fit together; ``version`` is odd where they do not;
    - threads that take items of a call themselves count them under ``lock``;
    - while several calls have items in progress, each of them is ``attentive``: none knows from
      its own figures alone whether more run than ever before.
    """

    __slots__ = (
        "alone",
        "cancelled",
        "failed",
        "lock",
        "peak",
        "pools",
        "retried",
        "run_duration",
        "started",
        "succeeded",
        "timed_out",
        "version",
    )

    def __init__(self) -> None:
        self.started: int = 0
        self.succeeded: int = 0
        self.failed: int = 0
        self.cancelled: int = 0
        self.timed_out: int = 0
        self.retried: int = 0
        self.peak: int = 0
        self.alone: int = 0
        self.pools: set[Pool] = set()
        self.run_duration: Histogram | None = None
        self.version: int = 0
        self.lock: Final = threading.RLock()  # the garbage collector may run anything inside it

    def totals(self) -> Totals:
        """Add up all items so far."""
        pools = list(self.pools)  # in one step: another thread may be asking
        return Totals(
            self.started + sum([pool.started for pool in pools]),
            self.succeeded + sum([pool.succeeded for pool in pools]),
            self.failed + sum([pool.failed for pool in pools]),
            self.cancelled + sum([pool.cancelled for pool in pools]),
        )

    def note_peak(self) -> None:
        """Note how many run now, if that is more than ever before."""
        with self.lock:
            running = self.alone
            for pool in [*self.pools]:  # in one step: threads ask too
                running += pool.started - pool.ended
            self.peak = max(self.peak, running)

    def note_peak_of(self, running: int) -> None:
        """Note how many run now, of which ``running`` are items of the call that begins one."""
        if self.alone or len(self.pools) > 1:
            self.note_peak()
        elif running > self.peak:
            self.peak = running

    def item_starts(self) -> None:
        """Count an item that is a call of its own."""
        self.started += 1
        self.alone += 1
        if self.pools:
            self.note_peak()
            self._alert()
        elif self.alone > self.peak:
            self.peak = self.alone

    def call_starts(self, pool: Pool) -> None:
        """Count the items of ``pool`` from now on."""
        if self.pools:
            self._alert()
        self.pools.add(pool)

    def is_shared(self) -> bool:
        """Return whether several calls are in progress."""
        return self.alone > 0 or len(self.pools) > 1

    def item_took(self, began: float, error: BaseException | None = None) -> None:
        """Record how long an item ran that has begun since that is recorded."""
        durations: Any = self.run_duration  # there is one since
        took(durations, began, error)

    def _alert(self) -> None:
        for pool in self.pools:
            pool.attentive = True

    def absorb(self, pool: Pool) -> None:
        """Take over the figures of a call that ended."""
        self.version += 1
        self.pools.discard(pool)
        if pool.started and not self.peak:  # items that never suspend are not noticed
            self.peak = 1
        self.started += pool.started
        self.succeeded += pool.succeeded
        self.failed += pool.failed
        self.cancelled += pool.cancelled
        self.version += 1
