"""Is the service well: resources, the event loop, health checks, and metrics of everything."""

from mtaio.monitoring._metrics import Metric, Source, flat, kind_of, metrics
from mtaio.monitoring._prometheus import to_prometheus
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
    "Metric",
    "ProcessStats",
    "ResourceStats",
    "Source",
    "Stall",
    "flat",
    "kind_of",
    "metrics",
    "to_prometheus",
]
