"""
Structured concurrency under limits, for programs in production, on asyncio or trio.

The most used names are here, and are imported on first use, so that ``import mtaio`` costs no more
than ``import anyio``. Everything else is in the packages, which are attributes of this one:
`mtaio.core`, `mtaio.resources`, `mtaio.resilience`, `mtaio.clients`, `mtaio.asgi`, `mtaio.cache`,
`mtaio.events`, `mtaio.logging`, `mtaio.monitoring`, `mtaio.redis`, `mtaio.config`, `mtaio.app` and
`mtaio.testing`. All errors are in `mtaio.exceptions`, what ``statistics()`` returns in
`mtaio.statistics`, and the types for annotations in `mtaio.types`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio.app import Application
    from mtaio.cache import TTLCache, cached
    from mtaio.config import Settings
    from mtaio.core import TaskExecutor
    from mtaio.events import EventEmitter
    from mtaio.exceptions import MTAIOError
    from mtaio.resilience import Breaker, Pipeline, Retry, Timeout
    from mtaio.resources import (
        ConcurrencyLimiter,
        KeyedConcurrencyLimiter,
        KeyedRateLimiter,
        Quota,
        RateLimiter,
        TimeoutManager,
        time_left,
    )

__all__ = [
    "Application",
    "Breaker",
    "ConcurrencyLimiter",
    "EventEmitter",
    "KeyedConcurrencyLimiter",
    "KeyedRateLimiter",
    "MTAIOError",
    "Pipeline",
    "Quota",
    "RateLimiter",
    "Retry",
    "Settings",
    "TTLCache",
    "TaskExecutor",
    "Timeout",
    "TimeoutManager",
    "__version__",
    "cached",
    "time_left",
]

__version__ = "0.3.0"

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.app": ("Application",),
            "mtaio.cache": ("TTLCache", "cached"),
            "mtaio.config": ("Settings",),
            "mtaio.core": ("TaskExecutor",),
            "mtaio.events": ("EventEmitter",),
            "mtaio.exceptions": ("MTAIOError",),
            "mtaio.resilience": ("Breaker", "Pipeline", "Retry", "Timeout"),
            "mtaio.resources": (
                "ConcurrencyLimiter",
                "KeyedConcurrencyLimiter",
                "KeyedRateLimiter",
                "Quota",
                "RateLimiter",
                "TimeoutManager",
                "time_left",
            ),
        },
        modules=(
            "app",
            "asgi",
            "cache",
            "clients",
            "config",
            "core",
            "events",
            "exceptions",
            "logging",
            "monitoring",
            "redis",
            "resilience",
            "resources",
            "statistics",
            "testing",
            "types",
        ),
    )
