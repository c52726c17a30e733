"""
Structured concurrency for real work, under limits, in production, on asyncio or trio.

The names used most are here. Each is imported on first use, so that ``import mtaio`` costs no more
than ``import anyio``. Everything else is in the packages: `mtaio.core`,
`mtaio.resources`, `mtaio.resilience`, `mtaio.cache`, `mtaio.events`, `mtaio.logging`,
`mtaio.monitoring`, `mtaio.config`, `mtaio.app`, `mtaio.exceptions`, `mtaio.testing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio.app import Application, ErrorHandler
    from mtaio.cache import TTLCache, cached
    from mtaio.config import Settings
    from mtaio.core import TaskExecutor
    from mtaio.events import Event, EventEmitter, EventKey, EventPriority
    from mtaio.exceptions import MTAIOError
    from mtaio.logging import AsyncFileHandler
    from mtaio.monitoring import HealthRegistry, Probes, ResourceMonitor
    from mtaio.resilience import Retry
    from mtaio.resources import (
        ConcurrencyLimiter,
        KeyedRateLimiter,
        RateLimiter,
        ResourceLimiter,
        TimeoutManager,
    )

__all__ = [
    "Application",
    "AsyncFileHandler",
    "ConcurrencyLimiter",
    "ErrorHandler",
    "Event",
    "EventEmitter",
    "EventKey",
    "EventPriority",
    "HealthRegistry",
    "KeyedRateLimiter",
    "MTAIOError",
    "Probes",
    "RateLimiter",
    "ResourceLimiter",
    "ResourceMonitor",
    "Retry",
    "Settings",
    "TTLCache",
    "TaskExecutor",
    "TimeoutManager",
    "__version__",
    "cached",
]

__version__ = "0.2.0"

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.app": ("Application", "ErrorHandler"),
            "mtaio.cache": ("TTLCache", "cached"),
            "mtaio.config": ("Settings",),
            "mtaio.core": ("TaskExecutor",),
            "mtaio.events": ("Event", "EventEmitter", "EventKey", "EventPriority"),
            "mtaio.exceptions": ("MTAIOError",),
            "mtaio.logging": ("AsyncFileHandler",),
            "mtaio.monitoring": ("HealthRegistry", "Probes", "ResourceMonitor"),
            "mtaio.resilience": ("Retry",),
            "mtaio.resources": (
                "ConcurrencyLimiter",
                "KeyedRateLimiter",
                "RateLimiter",
                "ResourceLimiter",
                "TimeoutManager",
            ),
        },
        modules=(
            "app",
            "cache",
            "config",
            "core",
            "events",
            "exceptions",
            "logging",
            "monitoring",
            "resilience",
            "resources",
            "testing",
        ),
    )
