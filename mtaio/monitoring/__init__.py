"""Is the service well: resources, the event loop, health checks, and metrics of everything."""

from mtaio.monitoring._metrics import Metric, Source, metrics
from mtaio.monitoring._monitor import ResourceMonitor
from mtaio.monitoring._prometheus import to_prometheus
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
    "Metric",
    "MonitorStatistics",
    "ProcessStats",
    "ResourceMonitor",
    "ResourceStats",
    "Source",
    "Stall",
    "Threshold",
    "metrics",
    "to_prometheus",
]
