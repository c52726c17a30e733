"""Monitoring of a service: resources, the event loop, its tasks, health checks, and metrics."""

from mtaio._internal.task_tree import GroupNode, TaskNode, TaskTree, Wait
from mtaio.monitoring._health import HealthRegistry
from mtaio.monitoring._health_monitor import HealthMonitor
from mtaio.monitoring._metrics import Metric, Source, metrics, to_prometheus
from mtaio.monitoring._monitor import ResourceMonitor
from mtaio.monitoring._probes import Probes
from mtaio.monitoring._relay import ProbesRelay
from mtaio.monitoring._report import CheckResult, HealthReport
from mtaio.monitoring._stats import Stall
from mtaio.monitoring._tasks import tasks, tasks_to_json, tasks_to_text
from mtaio.monitoring._thresholds import Alert, Threshold

__all__ = [
    "Alert",
    "CheckResult",
    "GroupNode",
    "HealthMonitor",
    "HealthRegistry",
    "HealthReport",
    "Metric",
    "Probes",
    "ProbesRelay",
    "ResourceMonitor",
    "Source",
    "Stall",
    "TaskNode",
    "TaskTree",
    "Threshold",
    "Wait",
    "metrics",
    "tasks",
    "tasks_to_json",
    "tasks_to_text",
    "to_prometheus",
]
