"""
Reading the processor, memory and this process, from psutil and the container's control groups.

Promise: shares of processor time are of a span of at least 50 ms, because the kernel counts in
ticks of 10 ms and a share of one tick is 0 or 100. They are deltas of our own: psutil's
``cpu_percent`` shares its state among all callers. The container's figures come from its control
groups; where those have no limit, the figures are the host's.
Cost: some 60 µs of processor time for a read on Linux. What changes slowly or costs most (threads,
open files, limits) is read every fifth time.
"""

from __future__ import annotations

import errno
import gc
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from mtaio._internal.cgroup import CPUUse
from mtaio._internal.processes import psutil
from mtaio.monitoring._stats import Counted, CPUStats, IOStats, MemoryStats, ProcessStats

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio._internal.cgroup import Cgroup, CPUGroup

__all__ = ["SystemReader", "SystemReading"]

_SHORTEST: Final = 0.05
"""Seconds over which shares of processor time are measured, at least."""

_SLOW: Final = 5
"""What costs most is read once in so many reads."""

_TOO_MANY_FILES: Final = (errno.EMFILE, errno.ENFILE)
"""Why a file cannot be opened now that may be opened later."""

_NEW: Final = CPUUse(0.0, 0, 0)
"""What a control group has used when it is made."""

T = TypeVar("T")


class SystemReading(NamedTuple):
    """What a `SystemReader` has read."""

    cpu: CPUStats
    memory: MemoryStats
    io: IOStats
    process: ProcessStats


class _Counters(NamedTuple):
    """Seconds of processor time used up to a moment."""

    moment: float
    """When they were read, on the monotonic clock."""
    process: float
    """By this process."""
    host: tuple[float, float] | None
    """By the host, and its idle time; None where the container's quota counts."""
    group: CPUGroup | None
    """The control group with the lowest quota."""
    use: CPUUse | None
    """By that group."""


class _Optional(Generic[T]):
    """What not every system reports, and not to everyone: read until it is refused."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], T] | None) -> None:
        self._read = read

    def __call__(self) -> T | None:
        if self._read is None:
            return None
        try:
            return self._read()
        except (OSError, NotImplementedError, psutil.Error) as error:
            if getattr(error, "errno", None) not in _TOO_MANY_FILES:
                self._read = None
            return None


class SystemReader:
    """
    Reads what this system says of its processors, its memory and this process.

    Used by one thread at a time, in the process that made it: psutil and the control groups belong
    to a process, so after a fork the child makes a reader of its own.

    Until processor time has been measured (see `ready`), its shares are averages over a longer
    time: of the host since it was booted, of this process since it was started; in a container with
    a quota, what this process has used of it.

    Args:
        cgroup: The control groups whose limits count; None for the figures of the host alone.
        clock: Real seconds, for the time that was really used, also under a virtual clock.
        proc: What Linux says of this process.
    """

    def __init__(
        self,
        cgroup: Cgroup | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        proc: Path = Path("/proc/self"),
    ) -> None:
        process = psutil.Process()
        self._process: Final = process
        self._clock: Final = clock
        self._started: Final = clock() - _age(process, proc)
        self._cgroup: Final = cgroup
        self._host_memory: Final = psutil.virtual_memory().total
        self._host_processors: Final = psutil.cpu_count() or 1
        self._load: Final = _Optional(getattr(os, "getloadavg", None))
        # On BSD psutil counts blocks, and gives -1 for bytes.
        self._io: Final = _Optional(None if psutil.BSD else getattr(process, "io_counters", None))
        self._affinity: Final = _Optional(getattr(process, "cpu_affinity", None))
        self._files: Final = _Optional(_files(process, proc))
        self._quota = math.inf
        self._group: CPUGroup | None = None
        self.prime()

    def prime(self) -> None:
        """Begin to measure processor time at this moment."""
        self._reads = 0
        self._read_slow()
        self._measured = False
        counters = self._counters()
        self._before = counters
        age = max(counters.moment - self._started, _SHORTEST)
        self._process_percent = 100 * counters.process / age
        if counters.host is not None:
            busy, idle = counters.host
            self._usage_percent = 100 * busy / (busy + idle) if busy + idle > 0 else 0.0
        else:
            self._usage_percent = min(100.0, self._process_percent / self._quota)
        self._source: Counted = "cgroup" if counters.host is None else "host"
        self._throttled_ratio = None if counters.use is None else _throttled(_NEW, counters.use)

    def ready(self) -> bool:
        """Return whether `read` gives shares of processor time measured since `prime`."""
        return self._measured or self._clock() - self._before.moment >= _SHORTEST

    def uptime(self) -> float:
        """Return for how many seconds this process has been running."""
        return max(0.0, self._clock() - self._started)

    def read(self) -> SystemReading:
        """Return the figures of now; shares of processor time are of the time since the last."""
        self._reads += 1
        if self._reads % _SLOW == 0:
            self._read_slow()
        if self._clock() - self._before.moment >= _SHORTEST:
            self._measure()
        return SystemReading(self._cpu(), self._memory(), self._disk(), self._this_process())

    def _read_slow(self) -> None:
        """Read what changes slowly or costs most."""
        # First what fails if no more files can be opened, so that no limit is lost then.
        self._threads = self._process.num_threads()
        self._open_files = self._files()
        cgroup = self._cgroup
        limit = None if cgroup is None else cgroup.memory_limit()
        self._memory_limit = limit if limit is not None and limit[0] < self._host_memory else None
        quota = None if cgroup is None else cgroup.cpu_quota()
        self._quota, self._group = (math.inf, None) if quota is None else quota
        allowed = self._affinity()
        self._processors = self._host_processors if allowed is None else len(allowed)

    def _counters(self) -> _Counters:
        group = self._group
        use = None if group is None else group.use()
        host = None
        if use is None or self._quota >= self._host_processors:
            times = psutil.cpu_times()
            idle = times.idle + getattr(times, "iowait", 0.0)
            guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
            host = (sum(times) - idle - guests, idle)  # guests are in user and nice, too
        return _Counters(self._clock(), time.process_time(), host, group, use)

    def _measure(self) -> None:
        """Compute the shares of processor time since the last time; keep those that are unclear."""
        before, now = self._before, self._counters()
        self._before = now
        self._measured = True
        span = now.moment - before.moment
        self._process_percent = 100 * (now.process - before.process) / span
        used = None
        if now.use is None:
            self._throttled_ratio = None
        elif before.use is not None and now.group is before.group:
            used = now.use.seconds - before.use.seconds
            self._throttled_ratio = _throttled(before.use, now.use)
        if now.host is None:
            if used is not None and used >= 0:
                self._usage_percent = min(100.0, 100 * used / (span * self._quota))
                self._source = "cgroup"
        elif before.host is not None:
            busy, idle = now.host[0] - before.host[0], now.host[1] - before.host[1]
            # Idle time may go back by a tick; by more than the span, it is another machine's.
            if min(busy, idle) >= -span and max(busy, idle) > 0:
                busy, idle = max(0.0, busy), max(0.0, idle)
                self._usage_percent = 100 * busy / (busy + idle)
                self._source = "host"

    def _cpu(self) -> CPUStats:
        load = self._load()
        return CPUStats(
            usage_percent=self._usage_percent,
            process_percent=self._process_percent,
            load_average=None if load is None else load[0],
            count=self._processors,
            limit=None if self._group is None else self._quota,
            throttled_ratio=self._throttled_ratio,
            source=self._source,
        )

    def _memory(self) -> MemoryStats:
        source: Counted = "cgroup"
        limit = self._memory_limit
        used = None if limit is None else limit[1].used()
        if limit is not None and used is not None:
            total = limit[0]
            available = max(0, total - used)
        else:
            memory = psutil.virtual_memory()
            total, available, source = memory.total, memory.available, "host"
            used = total - available
        return MemoryStats(
            total=total,
            available=available,
            used=used,
            percent=100 * (total - available) / total,
            rss=self._process.memory_info().rss,
            source=source,
        )

    def _disk(self) -> IOStats:
        io = self._io()
        if io is None:
            return IOStats(read_bytes=None, write_bytes=None)
        return IOStats(read_bytes=io.read_bytes, write_bytes=io.write_bytes)

    def _this_process(self) -> ProcessStats:
        voluntary, involuntary = _switches(self._process)
        generations = gc.get_stats()
        return ProcessStats(
            threads=self._threads,
            open_files=self._open_files,
            max_open_files=_most_files(),
            voluntary_switches=voluntary,
            involuntary_switches=involuntary,
            gc_collections=sum(each["collections"] for each in generations),
            gc_collected=sum(each["collected"] for each in generations),
        )


def _throttled(before: CPUUse, now: CPUUse) -> float:
    """Return the share of the periods between that were throttled, from 0 to 1."""
    periods = now.periods - before.periods
    throttled = now.throttled - before.throttled
    return min(1.0, max(0.0, throttled / periods)) if periods > 0 else 0.0


def _files(process: psutil.Process, proc: Path) -> Callable[[], int] | None:
    """Return what counts the open files; None where nothing does."""
    folder = proc / "fd"
    # The size is the number of files since Linux 6.2; listing them costs 1 µs for each.
    if folder.is_dir() and folder.stat().st_size > 0:
        return lambda: folder.stat().st_size
    return getattr(process, "num_fds", None) or getattr(process, "num_handles", None)


if sys.platform != "win32":  # pragma: no branch - coverage is not measured on Windows
    import resource

    def _age(process: psutil.Process, proc: Path) -> float:
        """Return for how many seconds this process has been running."""
        try:
            # psutil knows the time of boot to the second only, and the wall clock may be set.
            fields = (proc / "stat").read_bytes().rpartition(b")")[2].split()
            ticks = int(fields[19]) / os.sysconf("SC_CLK_TCK")
            return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks
        except (OSError, AttributeError):  # not Linux
            return time.time() - process.create_time()

    def _switches(_: psutil.Process) -> tuple[int, int]:
        """Return the context switches of all threads; psutil's are of the first thread alone."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_nvcsw, usage.ru_nivcsw

    def _most_files() -> int | None:
        """Return how many files may be open at once."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return None if limit == resource.RLIM_INFINITY else limit

else:  # pragma: no cover - Windows

    def _age(process: psutil.Process, _: Path) -> float:
        """Return for how many seconds this process has been running."""
        return time.time() - process.create_time()

    def _switches(process: psutil.Process) -> tuple[int, int]:
        """Return the context switches of this process."""
        switches = process.num_ctx_switches()
        return switches.voluntary, switches.involuntary

    def _most_files() -> int | None:
        """Return None: there is no limit to speak of."""
        return None
