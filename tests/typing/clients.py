"""What type checkers make of clients, and of limits for clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

import aiohttp
import httpx

from mtaio import KeyedRateLimiter, Quota, RateLimiter
from mtaio.asgi import RateLimitMiddleware, forwarded_host, limit
from mtaio.clients import LimitedMiddleware, LimitedTransport, RateLimitHeaders, ServerBuckets
from mtaio.redis import RedisKeyedRateLimiter, RedisRateLimiter
from mtaio.resources import KeyedQuota
from mtaio.statistics import ClientStatistics

if TYPE_CHECKING:
    from mtaio.types import ASGIApp


class Foreign:
    """A limiter of somebody else's."""

    async def acquire(self, amount: float = 1) -> None:
        """Wait."""


def clients(shared: RedisRateLimiter, keyed: RedisKeyedRateLimiter) -> None:
    """Whatever limits is taken; what does not is refused."""
    LimitedTransport(quota=Quota(requests=1), limiter=RateLimiter(1))
    LimitedTransport(quota=KeyedQuota(requests=1), limiter=KeyedRateLimiter(1))
    LimitedTransport(limiter=ServerBuckets(), key=lambda request: request.url.path)
    LimitedTransport(limiter=Foreign(), resend=lambda request: request.method == "POST")
    LimitedMiddleware(limiter=shared, key=lambda request: request.url.path)
    LimitedMiddleware(limiter=keyed, cost=lambda request: {"tokens": len(request.headers)})
    LimitedTransport(limiter=5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - an int
    LimitedTransport(quota=RateLimiter(1))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - no quota
    httpx.AsyncClient(transport=LimitedTransport())
    aiohttp.ClientSession(middlewares=[LimitedMiddleware()])
    assert_type(LimitedTransport().statistics(), ClientStatistics)


def headers(response: httpx.Response, other: aiohttp.ClientResponse, quota: Quota) -> None:
    """The headers of any library are headers."""
    said = RateLimitHeaders.parse(response.headers)
    RateLimitHeaders.parse(other.headers)
    RateLimitHeaders.parse([(b"a", b"b")])
    RateLimitHeaders.parse({"a": "b"})
    said.observe(quota)
    quota.observe(**said.as_observation(["requests"]))
    quota.observe(**said.as_observation({"default": "requests"}))
    assert_type(said.limits["requests"].reset, float | None)


def serving(app: ASGIApp, keyed: RedisKeyedRateLimiter) -> None:
    """A limiter with keys is needed."""
    RateLimitMiddleware(app, keyed)
    RateLimitMiddleware(app, KeyedRateLimiter(1), key=forwarded_host(1))
    RateLimitMiddleware(app, RateLimiter(1))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - no keys
    limit(KeyedRateLimiter(1), key=lambda scope: scope["client"])
