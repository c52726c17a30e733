"""Is the service well: resources, the event loop, health checks, and metrics of everything."""

from mtaio.monitoring._monitor import ResourceMonitor
from mtaio.monitoring._stats import (
    CPUStats,
    IOStats,
    LoopStats,
    MemoryStats,
    MonitorStatistics,
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
    "MonitorStatistics",
    "ProcessStats",
    "ResourceMonitor",
    "ResourceStats",
    "Stall",
    "Threshold",
]
