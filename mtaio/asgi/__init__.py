"""
Around an ASGI application: a limit for each client, metrics and a log of its requests.

Promise: plain ASGI, under any framework and server; what a client sends neither grows memory nor
raises.
Cost: each name is imported on first use; a framework never, but for the dependency that is for one.
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
