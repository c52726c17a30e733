"""Is the service well: resources, the event loop, health checks, and metrics of everything."""

from mtaio.monitoring._health import HealthRegistry
from mtaio.monitoring._report import (
    CheckKind,
    CheckResult,
    CheckStatus,
    HealthReport,
    HealthStatistics,
)
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
    "CheckKind",
    "CheckResult",
    "CheckStatus",
    "HealthRegistry",
    "HealthReport",
    "HealthStatistics",
    "IOStats",
    "LoopStats",
    "MemoryStats",
    "ProcessStats",
    "ResourceStats",
    "Stall",
]
