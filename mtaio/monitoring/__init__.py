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
from mtaio.monitoring._thresholds import Alert, Threshold

__all__ = [
    "Alert",
    "CPUStats",
    "IOStats",
    "LoopStats",
    "MemoryStats",
    "ProcessStats",
    "ResourceStats",
    "Stall",
    "Threshold",
]
