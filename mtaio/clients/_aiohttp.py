"""
A middleware for aiohttp's client that keeps to the limits of the services it calls.

Promise: that of `LimitedTransport`, on asyncio, where aiohttp runs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, MutableMapping
from contextlib import suppress
from typing import Final, final

import anyio

from mtaio.clients._buckets import ServerBuckets
from mtaio.clients._exchange import Acquires, AcquiresKey, ClientStatistics, Exchange, Options
from mtaio.resilience import Retry
from mtaio.resources import KeyedQuota, Quota

try:
    from aiohttp import ClientError, ClientHandlerType, ClientRequest, ClientResponse
    from aiohttp.payload import BytesPayload
except ImportError as _error:
    _msg = (
        "LimitedMiddleware needs aiohttp 3.12 or later. "
        "Install it with: pip install 'mtaio[aiohttp]'"
    )
    raise ImportError(_msg, name=_error.name) from _error

__all__ = ["LimitedMiddleware"]

_SHORT: Final = 65_536
"""Bytes of a body that are read so that the connection can be used again."""

_SECONDS: Final = 1.0
"""How long that may take."""


class _Adapter:
    """What is special about aiohttp."""

    def host(self, request: ClientRequest) -> str:
        return request.url.authority

    def method(self, request: ClientRequest) -> str:
        return request.method

    def headers(self, request: ClientRequest) -> MutableMapping[str, str]:
        return request.headers

    def can_repeat(self, request: ClientRequest) -> bool:
        return not request.body or isinstance(request.body, BytesPayload)

    def status(self, response: ClientResponse) -> int:
        return response.status

    def said(self, response: ClientResponse) -> Mapping[str, str]:
        return response.headers

    def keep(self, response: ClientResponse, taken: object) -> None:
        """Do nothing: a response of aiohttp has no place for it."""

    async def discard(self, response: ClientResponse) -> None:
        try:
            length = response.content_length
            if (
                length is not None
                and length <= _SHORT
                and "content-encoding" not in response.headers
            ):
                with anyio.move_on_after(_SECONDS), suppress(ClientError):
                    await response.read()
        finally:
            response.close()


@final
class LimitedMiddleware:
    """
    An aiohttp client middleware that keeps to rate limits, and waits when a service refuses.

    It does for aiohttp what `LimitedTransport` does for httpx; ``key``, ``cost`` and ``resend`` are
    called with an ``aiohttp.ClientRequest``. What was taken from a quota cannot be settled, since a
    response has no place for it. aiohttp's total timeout includes the waits. Needs the extra
    ``aiohttp``.

    Args:
        quota: As for `LimitedTransport`.
        limiter: As for `LimitedTransport`.
        retry: A `Retry` policy for errors, such as ``Retry(3, on=aiohttp.ClientError)``, which
            applies to requests that may be sent again; None to not retry. A refusal is not an error
            and does not use up an attempt.
        key: As for `LimitedTransport`.
        cost: As for `LimitedTransport`.
        names: As for `LimitedTransport`.
        resend: As for `LimitedTransport`.
        within: As for `LimitedTransport`.
        jitter: As for `LimitedTransport`.

    Raises:
        TypeError, ValueError: An argument is invalid; the message says what to pass instead.

    Example:
        ```python
        import aiohttp

        from mtaio import RateLimiter
        from mtaio.clients import LimitedMiddleware

        limiter = RateLimiter(10)


        def connect() -> aiohttp.ClientSession:
            limited = LimitedMiddleware(limiter=limiter)
            return aiohttp.ClientSession(middlewares=[limited])
        ```
    """

    def __init__(
        self,
        *,
        quota: Quota | KeyedQuota | None = None,
        limiter: Acquires | AcquiresKey | ServerBuckets | None = None,
        retry: Retry | None = None,
        key: Callable[[ClientRequest], Hashable] | None = None,
        cost: Callable[[ClientRequest], Mapping[str, float]] | None = None,
        names: Mapping[str, str] | None = None,
        resend: Callable[[ClientRequest], bool] | bool | None = None,
        within: float = 60.0,
        jitter: float = 0.1,
    ) -> None:
        options = Options(
            quota=quota,
            limiter=limiter,
            retry=retry,
            key=key,
            cost=cost,
            names=names,
            resend=resend,
            within=within,
            jitter=jitter,
        )
        self._exchange = Exchange(_Adapter(), options)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """
        Send a request when the limits allow it, and return its response.

        A checkpoint. If it is cancelled, nothing is left open; what was taken from the limits for a
        request that was sent stays taken.
        """
        return await self._exchange.run(request, handler, again=None)

    def statistics(self) -> ClientStatistics:
        """
        Return the counts so far.

        Not a checkpoint. It can be called from any thread.
        """
        return self._exchange.statistics()
