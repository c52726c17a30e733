"""What the system says of the processor, memory and this process."""

from __future__ import annotations

import gc
import os
import time
from typing import NamedTuple

import psutil

from mtaio.monitoring._stats import CPUStats, IOStats, MemoryStats, ProcessStats

__all__ = ["SystemReader"]


class SystemReading(NamedTuple):
    """One reading."""

    cpu: CPUStats
    memory: MemoryStats
    io: IOStats
    process: ProcessStats


class SystemReader:
    """Stands for the reader until it is there."""

    def __init__(self) -> None:
        self._p = psutil.Process()
        self._primed = 0.0

    def prime(self) -> None:
        """Prime."""
        psutil.cpu_percent()
        self._p.cpu_percent()
        self._primed = time.monotonic()

    def ready(self) -> bool:
        """Return whether there is something."""
        return time.monotonic() - self._primed > 0.05

    def uptime(self) -> float:
        """Return it."""
        return time.time() - self._p.create_time()

    def read(self) -> SystemReading:
        """Read."""
        v = psutil.virtual_memory()
        return SystemReading(
            CPUStats(
                usage_percent=psutil.cpu_percent(),
                process_percent=self._p.cpu_percent(),
                load_average=os.getloadavg()[0],
                count=os.cpu_count() or 1,
                limit=None,
                throttled_ratio=None,
                source="host",
            ),
            MemoryStats(
                total=v.total,
                available=v.available,
                used=v.used,
                percent=v.percent,
                rss=self._p.memory_info().rss,
                source="host",
            ),
            IOStats(read_bytes=None, write_bytes=None),
            ProcessStats(
                threads=self._p.num_threads(),
                open_files=None,
                max_open_files=None,
                voluntary_switches=0,
                involuntary_switches=0,
                gc_collections=sum(each["collections"] for each in gc.get_stats()),
                gc_collected=0,
            ),
        )
