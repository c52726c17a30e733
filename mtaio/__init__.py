"""
Structured concurrency for real work, under limits, in production, on asyncio or trio.

The names used most are here. Each is imported on first use, so that ``import mtaio`` costs no more
than ``import anyio``. Everything else is in the packages: `mtaio.core`,
`mtaio.resources`, `mtaio.resilience`, `mtaio.cache`, `mtaio.events`, `mtaio.logging`,
`mtaio.monitoring`, `mtaio.config`, `mtaio.app`, `mtaio.exceptions`, `mtaio.testing`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mtaio.app import Application, ErrorHandler
    from mtaio.cache import TTLCache, cached
    from mtaio.config import Settings
    from mtaio.core import Retry, TaskExecutor
    from mtaio.events import Event, EventEmitter, EventKey, EventPriority
    from mtaio.exceptions import MTAIOError
    from mtaio.logging import AsyncFileHandler
    from mtaio.monitoring import HealthRegistry, Probes, ResourceMonitor
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

_ROOMS: Final = frozenset(
    {
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
    }
)

_HOMES: Final = {
    "Application": "mtaio.app",
    "AsyncFileHandler": "mtaio.logging",
    "ConcurrencyLimiter": "mtaio.resources",
    "ErrorHandler": "mtaio.app",
    "Event": "mtaio.events",
    "EventEmitter": "mtaio.events",
    "EventKey": "mtaio.events",
    "EventPriority": "mtaio.events",
    "HealthRegistry": "mtaio.monitoring",
    "KeyedRateLimiter": "mtaio.resources",
    "MTAIOError": "mtaio.exceptions",
    "Probes": "mtaio.monitoring",
    "RateLimiter": "mtaio.resources",
    "ResourceLimiter": "mtaio.resources",
    "ResourceMonitor": "mtaio.monitoring",
    "Retry": "mtaio.core",
    "Settings": "mtaio.config",
    "TTLCache": "mtaio.cache",
    "TaskExecutor": "mtaio.core",
    "TimeoutManager": "mtaio.resources",
    "cached": "mtaio.cache",
}


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
