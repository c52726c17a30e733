"""Is the service well: resources, the event loop, health checks, and metrics of everything."""

from mtaio.monitoring._stats import (
    CPUStats,
    IOStats,
    LoopStats,
    MemoryStats,
    ProcessStats,
    ResourceStats,
    Stall,
)

__all__ = [
    "CPUStats",
    "IOStats",
    "LoopStats",
    "MemoryStats",
    "ProcessStats",
    "ResourceStats",
    "Stall",
]
