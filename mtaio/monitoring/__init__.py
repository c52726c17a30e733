"""Monitoring of a service: resources, the event loop, health checks, and metrics."""

from mtaio.monitoring._health import HealthRegistry
from mtaio.monitoring._health_monitor import HealthMonitor
from mtaio.monitoring._metrics import Metric, Source, metrics, to_prometheus
from mtaio.monitoring._monitor import ResourceMonitor
from mtaio.monitoring._probes import Probes, ProbesStatistics
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
    MonitorStatistics,
    ProcessStats,
    ResourceStats,
    Stall,
)
from mtaio.monitoring._thresholds import Alert, Threshold

__all__ = [
    "Alert",
    "CPUStats",
    "CheckKind",
    "CheckResult",
    "CheckStatus",
    "HealthMonitor",
    "HealthRegistry",
    "HealthReport",
    "HealthStatistics",
    "IOStats",
    "LoopStats",
    "MemoryStats",
    "Metric",
    "MonitorStatistics",
    "Probes",
    "ProbesStatistics",
    "ProcessStats",
    "ResourceMonitor",
    "ResourceStats",
    "Source",
    "Stall",
    "Threshold",
    "metrics",
    "to_prometheus",
]
