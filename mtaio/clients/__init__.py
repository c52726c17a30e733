"""
Clients of HTTP APIs with rate limits: they read what services say about limits, and keep to it.

Promise: after a refusal, nothing is sent under the same limits for as long as the service asks;
bodies are not touched.
Cost: each name is imported on first use; httpx, aiohttp and Starlette only with the class for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio.clients._aiohttp import LimitedMiddleware
    from mtaio.clients._buckets import BucketSlot, Route, ServerBuckets
    from mtaio.clients._headers import RateLimitHeaders, ServiceLimit
    from mtaio.clients._httpx import LimitedTransport
    from mtaio.clients._streamed import StreamedResponse

__all__ = [
    "BucketSlot",
    "LimitedMiddleware",
    "LimitedTransport",
    "RateLimitHeaders",
    "Route",
    "ServerBuckets",
    "ServiceLimit",
    "StreamedResponse",
]

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.clients._aiohttp": ("LimitedMiddleware",),
            "mtaio.clients._buckets": ("BucketSlot", "Route", "ServerBuckets"),
            "mtaio.clients._headers": ("RateLimitHeaders", "ServiceLimit"),
            "mtaio.clients._httpx": ("LimitedTransport",),
            "mtaio.clients._streamed": ("StreamedResponse",),
        },
    )
