"""Monitoring of a service: resources, the event loop, health checks, and metrics."""

from mtaio.monitoring._health import HealthRegistry
from mtaio.monitoring._health_monitor import HealthMonitor
from mtaio.monitoring._metrics import Metric, Source, metrics, to_prometheus
from mtaio.monitoring._monitor import ResourceMonitor
from mtaio.monitoring._probes import Probes
from mtaio.monitoring._relay import ProbesRelay
from mtaio.monitoring._report import CheckResult, HealthReport
from mtaio.monitoring._stats import Stall
from mtaio.monitoring._thresholds import Alert, Threshold

__all__ = [
    "Alert",
    "CheckResult",
    "HealthMonitor",
    "HealthRegistry",
    "HealthReport",
    "Metric",
    "Probes",
    "ProbesRelay",
    "ResourceMonitor",
    "Source",
    "Stall",
    "Threshold",
    "metrics",
    "to_prometheus",
]
