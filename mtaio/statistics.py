"""
What the objects of this library return from ``statistics()``, and the monitor measures.

All are frozen dataclasses with keywords alone, made for `dataclasses.asdict`, `pickle` and
`copy.deepcopy`. Each is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio._internal.histogram import HistogramStatistics
    from mtaio._internal.periodic import PeriodicStatistics
    from mtaio._internal.timeout_statistics import TimeoutStatistics
    from mtaio.app._application import ApplicationStatistics
    from mtaio.app._error_handler import ErrorHandlerStatistics
    from mtaio.app._server import ServerStatistics
    from mtaio.app._supervisor import SupervisorStatistics
    from mtaio.asgi._request_metrics import RequestStatistics
    from mtaio.cache._statistics import CacheStatistics
    from mtaio.clients._buckets import ServerBucketsStatistics
    from mtaio.clients._exchange import ClientStatistics
    from mtaio.core._statistics import ExecutorStatistics
    from mtaio.core._via import ExternalPoolStatistics
    from mtaio.events._statistics import EmitterStatistics, EventStatistics
    from mtaio.logging._handler import AsyncFileHandlerStatistics
    from mtaio.monitoring._probes import ProbesStatistics
    from mtaio.monitoring._report import HealthStatistics
    from mtaio.monitoring._stats import (
        CPUStats,
        IOStats,
        LoopStats,
        MemoryStats,
        MonitorStatistics,
        ProcessStats,
        ResourceStats,
    )
    from mtaio.redis._breaker import RedisBreakerStatistics
    from mtaio.redis._bridge import BridgeStatistics
    from mtaio.redis._concurrency import RedisConcurrencyStatistics
    from mtaio.redis._keyed import RedisKeyedRateLimiterStatistics
    from mtaio.redis._leader import RedisLeaderStatistics
    from mtaio.redis._quota_tasks import RedisQuotaStatistics
    from mtaio.redis._rate import RedisRateLimiterStatistics
    from mtaio.redis._tiered import TieredCacheStatistics
    from mtaio.resilience._adaptive import AdaptiveStatistics
    from mtaio.resilience._breaker import BreakerStatistics
    from mtaio.resilience._hedge import HedgeStatistics
    from mtaio.resilience._keyed import KeyedStatistics
    from mtaio.resilience._statistics import (
        BudgetStatistics,
        FallbackStatistics,
        PipelineStatistics,
        PolicyStatistics,
        RetryStatistics,
    )
    from mtaio.resources._combined import ResourceStatistics
    from mtaio.resources._concurrency import ConcurrencyStatistics
    from mtaio.resources._keyed import KeyedRateLimiterStatistics, KeyStatistics
    from mtaio.resources._keyed_concurrency import (
        KeyConcurrencyStatistics,
        KeyedConcurrencyStatistics,
    )
    from mtaio.resources._keyed_quota import KeyedQuotaStatistics
    from mtaio.resources._rate import RateLimiterStatistics
    from mtaio.resources._shares import QuotaLimitStatistics, QuotaStatistics

__all__ = [
    "AdaptiveStatistics",
    "ApplicationStatistics",
    "AsyncFileHandlerStatistics",
    "BreakerStatistics",
    "BridgeStatistics",
    "BudgetStatistics",
    "CPUStats",
    "CacheStatistics",
    "ClientStatistics",
    "ConcurrencyStatistics",
    "EmitterStatistics",
    "ErrorHandlerStatistics",
    "EventStatistics",
    "ExecutorStatistics",
    "ExternalPoolStatistics",
    "FallbackStatistics",
    "HealthStatistics",
    "HedgeStatistics",
    "HistogramStatistics",
    "IOStats",
    "KeyConcurrencyStatistics",
    "KeyStatistics",
    "KeyedConcurrencyStatistics",
    "KeyedQuotaStatistics",
    "KeyedRateLimiterStatistics",
    "KeyedStatistics",
    "LoopStats",
    "MemoryStats",
    "MonitorStatistics",
    "PeriodicStatistics",
    "PipelineStatistics",
    "PolicyStatistics",
    "ProbesStatistics",
    "ProcessStats",
    "QuotaLimitStatistics",
    "QuotaStatistics",
    "RateLimiterStatistics",
    "RedisBreakerStatistics",
    "RedisConcurrencyStatistics",
    "RedisKeyedRateLimiterStatistics",
    "RedisLeaderStatistics",
    "RedisQuotaStatistics",
    "RedisRateLimiterStatistics",
    "RequestStatistics",
    "ResourceStatistics",
    "ResourceStats",
    "RetryStatistics",
    "ServerBucketsStatistics",
    "ServerStatistics",
    "SupervisorStatistics",
    "TieredCacheStatistics",
    "TimeoutStatistics",
]

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio._internal.histogram": ("HistogramStatistics",),
            "mtaio._internal.timeout_statistics": ("TimeoutStatistics",),
            "mtaio.app._application": ("ApplicationStatistics",),
            "mtaio.app._error_handler": ("ErrorHandlerStatistics",),
            "mtaio.app._server": ("ServerStatistics",),
            "mtaio.app._supervisor": ("SupervisorStatistics",),
            "mtaio.asgi._request_metrics": ("RequestStatistics",),
            "mtaio.cache._statistics": ("CacheStatistics",),
            "mtaio.clients._buckets": ("ServerBucketsStatistics",),
            "mtaio.clients._exchange": ("ClientStatistics",),
            "mtaio._internal.periodic": ("PeriodicStatistics",),
            "mtaio.core._statistics": ("ExecutorStatistics",),
            "mtaio.core._via": ("ExternalPoolStatistics",),
            "mtaio.events._statistics": ("EmitterStatistics", "EventStatistics"),
            "mtaio.logging._handler": ("AsyncFileHandlerStatistics",),
            "mtaio.monitoring._probes": ("ProbesStatistics",),
            "mtaio.monitoring._report": ("HealthStatistics",),
            "mtaio.monitoring._stats": (
                "CPUStats",
                "IOStats",
                "LoopStats",
                "MemoryStats",
                "MonitorStatistics",
                "ProcessStats",
                "ResourceStats",
            ),
            "mtaio.redis._breaker": ("RedisBreakerStatistics",),
            "mtaio.redis._bridge": ("BridgeStatistics",),
            "mtaio.redis._concurrency": ("RedisConcurrencyStatistics",),
            "mtaio.redis._keyed": ("RedisKeyedRateLimiterStatistics",),
            "mtaio.redis._leader": ("RedisLeaderStatistics",),
            "mtaio.redis._quota_tasks": ("RedisQuotaStatistics",),
            "mtaio.redis._rate": ("RedisRateLimiterStatistics",),
            "mtaio.redis._tiered": ("TieredCacheStatistics",),
            "mtaio.resilience._adaptive": ("AdaptiveStatistics",),
            "mtaio.resilience._breaker": ("BreakerStatistics",),
            "mtaio.resilience._hedge": ("HedgeStatistics",),
            "mtaio.resilience._keyed": ("KeyedStatistics",),
            "mtaio.resilience._statistics": (
                "BudgetStatistics",
                "FallbackStatistics",
                "PipelineStatistics",
                "PolicyStatistics",
                "RetryStatistics",
            ),
            "mtaio.resources._combined": ("ResourceStatistics",),
            "mtaio.resources._concurrency": ("ConcurrencyStatistics",),
            "mtaio.resources._keyed": ("KeyStatistics", "KeyedRateLimiterStatistics"),
            "mtaio.resources._keyed_concurrency": (
                "KeyConcurrencyStatistics",
                "KeyedConcurrencyStatistics",
            ),
            "mtaio.resources._keyed_quota": ("KeyedQuotaStatistics",),
            "mtaio.resources._rate": ("RateLimiterStatistics",),
            "mtaio.resources._shares": ("QuotaLimitStatistics", "QuotaStatistics"),
        },
    )
