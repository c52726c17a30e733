"""
Middleware for ASGI applications: rate limits for clients, metrics and an access log.

Promise: it is plain ASGI and works with any framework and server; nothing that a client sends makes
    memory grow or raises an error.
Cost: each name is imported on first use. Only `limit`, the dependency for FastAPI, imports a
    framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio.asgi._access_log import AccessLog
    from mtaio.asgi._rate_limit import RateLimitMiddleware, client_host, forwarded_host, limit
    from mtaio.asgi._request_metrics import RequestMetrics

__all__ = [
    "AccessLog",
    "RateLimitMiddleware",
    "RequestMetrics",
    "client_host",
    "forwarded_host",
    "limit",
]

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.asgi._access_log": ("AccessLog",),
            "mtaio.asgi._rate_limit": (
                "RateLimitMiddleware",
                "client_host",
                "forwarded_host",
                "limit",
            ),
            "mtaio.asgi._request_metrics": ("RequestMetrics",),
        },
    )
