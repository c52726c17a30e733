"""
What a `ResourceMonitor` measures: the processor, memory, this process and its event loop.

Promise: sizes are in bytes, durations in seconds, shares in percent. None means that this system
does not report the figure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias, final

from mtaio._internal.statistics import BYTES, CORES, COUNTER, GAUGE, INFO, LIMIT, SECONDS

__all__ = [
    "CPUStats",
    "Cause",
    "Counted",
    "IOStats",
    "LoopStats",
    "MemoryStats",
    "MonitorStatistics",
    "ProcessStats",
    "ResourceStats",
    "Stall",
]

Counted: TypeAlias = Literal["cgroup", "host"]
"""Whose figures they are: those of the container, or of all the machine."""


Cause: TypeAlias = Literal["loop", "gil", "not_running"]
"""Why an event loop was blocked."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CPUStats:
    """The processor, since the previous sample."""

    usage_percent: float = field(metadata=GAUGE)
    """
    Processor use from 0 to 100, as a share of the container's quota, or of the host if there is
    none.
    """
    process_percent: float = field(metadata=GAUGE)
    """Processor use of this process, in percent of one processor; it may exceed 100."""
    load_average: float | None = field(metadata=GAUGE)
    """The host's load average over one minute."""
    count: int = field(metadata=GAUGE | CORES)
    """Processors of the host that this process may run on."""
    limit: float | None = field(metadata=LIMIT | CORES)
    """The quota of the container in processors; None if there is none."""
    throttled_ratio: float | None = field(metadata=GAUGE)
    """The share of periods, from 0 to 1, in which the container's quota ran out."""
    source: Counted = field(metadata=INFO)
    """Where ``usage_percent`` comes from."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStats:
    """The memory of the container if it has a limit, otherwise of the host."""

    total: int = field(metadata=LIMIT | BYTES)
    """Total bytes: the container's limit, or the memory of the host."""
    available: int = field(metadata=GAUGE | BYTES)
    """Bytes available without swapping."""
    used: int = field(metadata=GAUGE | BYTES)
    """Bytes that cannot be reclaimed; in a container, its usage without inactive file pages."""
    percent: float = field(metadata=GAUGE)
    """The share of ``total`` that is not available, from 0 to 100."""
    rss: int = field(metadata=GAUGE | BYTES)
    """Bytes of physical memory that this process holds."""
    source: Counted = field(metadata=INFO)
    """Where the figures come from."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class IOStats:
    """What this process has read from and written to storage."""

    read_bytes: int | None = field(metadata=COUNTER)
    """Bytes read."""
    write_bytes: int | None = field(metadata=COUNTER)
    """Bytes written."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStats:
    """This process."""

    threads: int = field(metadata=GAUGE)
    """Threads of the operating system."""
    open_files: int | None = field(metadata=GAUGE)
    """File descriptors, including sockets; handles on Windows."""
    max_open_files: int | None = field(metadata=LIMIT)
    """The most open files that the system allows; None for no limit."""
    voluntary_switches: int = field(metadata=COUNTER)
    """Context switches because the process waited for something."""
    involuntary_switches: int = field(metadata=COUNTER)
    """Context switches because another process was due to run."""
    gc_collections: int = field(metadata=COUNTER)
    """Runs of Python's garbage collector, of all generations."""
    gc_collected: int = field(metadata=COUNTER)
    """Objects that it has collected."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LoopStats:
    """How long the event loop takes to answer, over at least the last half minute."""

    delay_p50_seconds: float = field(metadata=GAUGE)
    """The median of the seconds that a call into the event loop takes."""
    delay_p99_seconds: float = field(metadata=GAUGE)
    """The 99th percentile of these seconds."""
    delay_max_seconds: float = field(metadata=GAUGE)
    """The longest of these calls, including one that is not answered yet."""
    blocked: int = field(metadata=COUNTER)
    """Stalls, including one in progress."""
    blocked_seconds: float = field(metadata=COUNTER)
    """Total seconds of the stalls."""
    tasks: int | None = field(metadata=GAUGE)
    """Tasks of the event loop."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceStats:
    """One sample."""

    timestamp: float = field(metadata=GAUGE | SECONDS)
    """When it was taken, in seconds since the epoch (``time.time()``)."""
    uptime: float = field(metadata=GAUGE | SECONDS)
    """Seconds since this process was started."""
    cpu: CPUStats
    memory: MemoryStats
    io: IOStats
    process: ProcessStats
    loop: LoopStats


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """A period in which the event loop was blocked."""

    seconds: float
    """How long it lasted, with the accuracy of ``loop_interval``."""
    place: str
    """Where the loop's thread was, as in ``file.py:12 in name``; if possible, a line of your own
    code."""
    stack: str = field(repr=False)
    """The whole stack, as text."""
    cause: Cause
    """
    ``"loop"``: the loop's thread waited or computed. ``"gil"``: C code held the interpreter lock,
    so that no other thread could run. ``"not_running"``: the process was stopped, throttled, or had
    no processor.
    """
    timestamp: float
    """When it was noticed, in seconds since the epoch."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorStatistics:
    """What a `ResourceMonitor` has done so far."""

    samples: int = field(metadata=COUNTER)
    """Samples taken."""
    failed: int = field(metadata=COUNTER)
    """Samples and readings of watched objects and gauges that raised an error."""
    watched: int = field(metadata=GAUGE)
    """Objects and gauges watched."""
    firing: int = field(metadata=GAUGE)
    """Alerts that are firing now."""
    alerts: int = field(metadata=COUNTER)
    """Times a threshold was exceeded."""
    handled: int = field(metadata=COUNTER)
    """Calls of handlers that returned."""
    handlers_failed: int = field(metadata=COUNTER)
    """Calls of handlers that raised an error."""
    handlers_timed_out: int = field(metadata=COUNTER)
    """Calls of handlers that were cancelled after ``handler_timeout`` seconds."""
    dropped: int = field(metadata=COUNTER)
    """Events that were dropped, because too many were waiting."""
