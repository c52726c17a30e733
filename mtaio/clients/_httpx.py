"""
A transport for httpx that keeps to the limits of the services it calls.

Promise: on asyncio and on trio; whoever is cancelled leaves no connection in use; the body of a
response passes as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, MutableMapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, final

import anyio

from mtaio.clients._buckets import ServerBuckets
from mtaio.clients._exchange import Acquires, AcquiresKey, ClientStatistics, Exchange, Options
from mtaio.resilience import Retry
from mtaio.resources import KeyedQuota, Quota

try:
    import httpx
except ImportError as _error:
    _msg = "LimitedTransport needs httpx. Install it with: pip install 'mtaio[httpx]'"
    raise ImportError(_msg, name=_error.name) from _error

__all__ = ["LimitedTransport"]

_SHORT: Final = 65_536
"""Bytes of a body that are read so that the connection can be used again."""

_SECONDS: Final = 1.0
"""How long that, and closing, may take."""


class _Adapter:
    """What is special about httpx."""

    def host(self, request: httpx.Request) -> str:
        return request.url.netloc.decode("ascii", "replace")

    def method(self, request: httpx.Request) -> str:
        return request.method

    def headers(self, request: httpx.Request) -> MutableMapping[str, str]:
        return request.headers

    def can_repeat(self, request: httpx.Request) -> bool:
        return isinstance(request.stream, httpx.ByteStream)

    def status(self, response: httpx.Response) -> int:
        return response.status_code

    def said(self, response: httpx.Response) -> Mapping[str, str]:
        return response.headers

    def keep(self, response: httpx.Response, taken: object) -> None:
        response.extensions["taken"] = taken

    async def discard(self, response: httpx.Response) -> None:
        length = response.headers.get("content-length", "")
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - of an async transport
        try:
            if length.isascii() and length.isdigit() and len(length) < 9 and int(length) <= _SHORT:  # noqa: PLR2004 - so that int() is quick
                with anyio.move_on_after(_SECONDS), suppress(httpx.TransportError):
                    async for _ in stream:
                        pass
        finally:
            with anyio.move_on_after(_SECONDS, shield=True), suppress(httpx.TransportError):
                await stream.aclose()


@final
class LimitedTransport(httpx.AsyncBaseTransport):
    """
    An httpx transport that keeps to rate limits, and waits when a service refuses.

    Before each request, it takes what the request costs from ``quota`` and ``limiter``; afterwards,
    it adjusts both to what the response says about limits (see `RateLimitHeaders`). Without quota
    and limiter, it limits by what each host says; see `ServerBuckets`.

    If the service refuses (429; 503 with ``Retry-After``; 403 as GitHub sends it), both are paused
    for as long as it asks, and the request is sent again if that is allowed: its method is safe to
    repeat, it has an ``Idempotency-Key``, or ``resend`` says so, and its body is in memory.
    Otherwise, or if the pauses would exceed ``within`` or the caller's deadline, the caller gets
    the refusal.

    httpx's timeouts apply each time the request is sent, and not to waits. A request's
    ``extensions={"resend": True}`` takes precedence over ``resend``. What was taken from a quota is
    in the response's ``extensions["taken"]``, to be settled. Needs the extra ``httpx``.

    Args:
        transport: The transport that sends the requests; None for httpx's own.
        quota: A `mtaio.resources.Quota` or `mtaio.resources.KeyedQuota`.
        limiter: A `ServerBuckets`, a rate limiter, or one with a rate for each key.
        retry: A `Retry` policy for errors, such as ``Retry(3, on=httpx.TransportError)``, which
            applies to requests that may be sent again; None to not retry. A refusal is not an error
            and does not use up an attempt.
        key: A function that returns the key of a request, for limiters with keys; None for the
            host.
        cost: A function that returns what a request costs of the quota, such as ``{"tokens":
            1500}``; 1 of the limits not named.
        names: What the quota calls the service's limits, such as ``{"default": "requests"}``; None
            if the names are the same.
        resend: Whether a request may be sent again: a function of it, or True or False for all;
            None for those that are safe to repeat.
        within: Maximum seconds that the pauses of one request may last together. Waiting in a queue
            is not a pause.
        jitter: Random fraction, from 0 to 1, that is added to each pause, so that several processes
            do not come back at the same moment.

    Raises:
        TypeError, ValueError: An argument is invalid; the message says what to pass instead.

    Example:
        ```python
        import httpx

        from mtaio import Quota
        from mtaio.clients import LimitedTransport

        quota = Quota(requests=120, tokens=40_000, per=60)
        client = httpx.AsyncClient(transport=LimitedTransport(quota=quota))
        ```
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        quota: Quota | KeyedQuota | None = None,
        limiter: Acquires | AcquiresKey | ServerBuckets | None = None,
        retry: Retry | None = None,
        key: Callable[[httpx.Request], Hashable] | None = None,
        cost: Callable[[httpx.Request], Mapping[str, float]] | None = None,
        names: Mapping[str, str] | None = None,
        resend: Callable[[httpx.Request], bool] | bool | None = None,
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
        self._transport = httpx.AsyncHTTPTransport() if transport is None else transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send a request when the limits allow it, and return its response.

        A checkpoint. If it is cancelled, nothing is left open; what was taken from the limits for a
        request that was sent stays taken.
        """
        return await self._exchange.run(
            request,
            self._transport.handle_async_request,
            again=request.extensions.get("resend"),
        )

    def statistics(self) -> ClientStatistics:
        """
        Return the counts so far.

        Not a checkpoint. It can be called from any thread.
        """
        return self._exchange.statistics()

    async def aclose(self) -> None:
        """Close the transport that sends the requests."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        """Enter the transport that sends the requests."""
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Leave the transport that sends the requests."""
        await self._transport.__aexit__(exc_type, exc_value, traceback)
