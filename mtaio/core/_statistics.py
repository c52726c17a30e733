"""
What an executor has done and is doing, as a frozen picture.

Promise: reading it changes nothing and is no checkpoint. Calls in progress count for themselves;
they are added up when somebody asks, so that items pay for two counters and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtaio.core._pool import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorStatistics:
    """A picture of a `TaskExecutor` at one moment."""

    max_workers: int | None
    """The limit on items that run at once; None if there is none."""
    running: int
    """Items in progress now, submitted tasks and items that wait for a nested call included."""
    in_use: int
    """Slots of ``max_workers`` that are held now; 0 without a limit."""
    waiting: int
    """Tasks that wait for a free slot now."""
    peak: int
    """The most items that were ever in progress at once."""
    started: int
    """Items started so far."""
    succeeded: int
    """Items that returned a result."""
    failed: int
    """Items that raised an error, timeouts included, however it was reported."""
    cancelled: int
    """Items that were cancelled while they ran."""
    timed_out: int
    """Items, or attempts of items with ``retry=``, that exceeded their ``timeout=``."""
    retried: int
    """Attempts beyond each item's first."""
    slot_waits: int
    """How often somebody had to wait for a slot."""
    slot_wait_seconds: float
    """Seconds spent on those waits, added up."""
    submitted: int
    """Submitted tasks that have not finished yet."""
    services: int
    """Services started with `TaskExecutor.start` that run now."""
    threads: int
    """Worker threads busy now for this executor, abandoned ones included."""
    threads_waiting: int
    """Calls that wait for a worker thread now."""
    processes: int
    """Worker processes busy now for this executor."""
    processes_waiting: int
    """Calls that wait for a worker process now."""


class Counters:
    """
    Totals of an executor's finished work, and the calls in progress.

    Invariants:
    - an item is counted in ``pools`` until its call ends, then here, never in both;
    - while several calls have items in progress, each of them is attentive: none can tell by its
      own figures alone whether more run than ever before.
    """

    __slots__ = (
        "cancelled",
        "failed",
        "finished",
        "peak",
        "pools",
        "retried",
        "started",
        "timed_out",
    )

    def __init__(self) -> None:
        self.started: int = 0
        self.finished: int = 0
        self.failed: int = 0
        self.cancelled: int = 0
        self.timed_out: int = 0
        self.retried: int = 0
        self.peak: int = 0
        self.pools: set[Pool] = set()

    def all_started(self) -> int:
        """Return the number of items started so far."""
        return self.started + sum(pool.started for pool in self.pools)

    def all_finished(self) -> int:
        """Return the number of items that came to an end, whichever."""
        return self.finished + sum(pool.finished for pool in self.pools)

    def note_peak(self) -> None:
        """Look whether more run now than ever before."""
        self.peak = max(self.peak, self.all_started() - self.all_finished())

    def item_began(self) -> None:
        """Count an item that is a call of its own."""
        self.started += 1
        self.note_peak()
        self._alert()

    def call_began(self, pool: Pool) -> None:
        """Count the items of ``pool`` from now on."""
        self._alert()
        self.pools.add(pool)

    def crowded(self) -> bool:
        """Tell whether several calls are in progress."""
        return len(self.pools) > 1 or self.started > self.finished

    def _alert(self) -> None:
        for pool in self.pools:
            pool.attentive = True

    def absorb(self, pool: Pool) -> None:
        """Take over the figures of a call that ended."""
        self.pools.discard(pool)
        self.started += pool.started
        self.finished += pool.finished
