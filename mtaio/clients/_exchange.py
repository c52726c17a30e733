"""
What a client does around each request: wait, send, listen to what the service says, obey.

Promise: a request is sent when the limits allow it; a refusal holds them for as long as the service
asks, is closed, and the request is sent again, if that does no harm; whoever is cancelled leaves
nothing open. The response that the caller gets is as it came.
Cost: nothing of a body is read or kept, but that of a refusal that is sent again, if it is short.

The steps of one request:

1. Wait for the quota and the limiter, and take from them.
2. Send. The limits are taken until the response's headers are there; the body comes after that.
3. Tell quota and limiter what the headers say.
4. If it is a refusal, hold both. If the request may be sent again, and the pauses so far leave
   time, close the response and begin again: the limits are held, so step 1 is the pause.

Queueing does not count as a pause: behind a limit, a request may wait for an hour in step 1, and is
no less worth another try. The caller's own deadline bounds it all.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping, MutableMapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

from mtaio._internal import checks, deadlines, spans
from mtaio._internal.callables import close_unstarted, name_of
from mtaio._internal.statistics import COUNTER, GAUGE, snapshot
from mtaio.clients._buckets import ServerBuckets
from mtaio.clients._headers import RateLimitHeaders, ResponseHeaders
from mtaio.exceptions import LimitError
from mtaio.resilience import Retry
from mtaio.resources import KeyedQuota, Quota

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["Acquires", "AcquiresKey", "Adapter", "ClientStatistics", "Exchange", "Options"]

Q = TypeVar("Q")
A = TypeVar("A")
Q_contra = TypeVar("Q_contra", contravariant=True)
A_contra = TypeVar("A_contra", contravariant=True)

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods whose requests may be sent twice (RFC 9110, 9.2.2)."""

_TOO_MANY: Final = 429
_FORBIDDEN: Final = 403
_OVERLOADED: Final = frozenset({503, 529})

_FIRST_PAUSE: Final = 0.5
"""Seconds of the first pause if the service does not say how long."""

_LEAST_PAUSE: Final = 0.05
"""Seconds of the first pause if it says less, or nothing at all. Both double with each refusal."""

_LONGEST_PAUSE: Final = 30.0
"""Seconds of the longest pause that the service has not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientStatistics:
    """What a `LimitedTransport` or a `LimitedMiddleware` has done so far."""

    in_flight: int = field(metadata=GAUGE)
    """Requests that have begun and have no response, those that wait included."""
    requests: int = field(metadata=COUNTER)
    """Requests so far."""
    sent: int = field(metadata=COUNTER)
    """How often one was sent: more than `requests` if some were sent again."""
    refused: int = field(metadata=COUNTER)
    """How often the service refused one."""
    given_up: int = field(metadata=COUNTER)
    """Refusals that callers got, because the request could not be sent again in time."""


class Acquires(Protocol):
    """What limits requests one way or another: a `RateLimiter`, or one of another library."""

    async def acquire(self) -> object:
        """Wait until a request may be sent."""


class AcquiresKey(Protocol):
    """What has a limit for each key: a `KeyedRateLimiter`, or one shared by processes."""

    async def acquire(self, key: Any) -> object:
        """Wait until a request for ``key`` may be sent."""


class Adapter(Protocol[Q_contra, A_contra]):
    """What is special about a library of HTTP clients: its requests ``Q`` and responses ``A``."""

    def host(self, request: Q_contra) -> str:
        """Return whom the request goes to."""
        ...

    def method(self, request: Q_contra) -> str:
        """Return its method."""
        ...

    def headers(self, request: Q_contra) -> MutableMapping[str, str]:
        """Return its headers, which may be changed."""
        ...

    def can_repeat(self, request: Q_contra) -> bool:
        """Return whether its body can be sent a second time."""
        ...

    def status(self, response: A_contra) -> int:
        """Return the status of a response."""
        ...

    def said(self, response: A_contra) -> ResponseHeaders:
        """Return its headers."""
        ...

    def keep(self, response: A_contra, taken: object) -> None:
        """Keep what was taken of a quota where the caller finds it."""
        ...

    async def discard(self, response: A_contra) -> None:
        """Close it; it may keep its connection open, if that is quick."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Generic[Q]):
    """The arguments that all clients have in common."""

    quota: Quota | KeyedQuota | None
    limiter: Acquires | AcquiresKey | ServerBuckets | None
    retry: Retry | None
    key: Callable[[Q], Hashable] | None
    cost: Callable[[Q], Mapping[str, float]] | None
    names: Mapping[str, str] | None
    resend: Callable[[Q], bool] | bool | None
    within: float
    jitter: float


class Exchange(Generic[Q, A]):
    """
    Sends the requests of one client.

    Args:
        adapter: What is special about the library.
        options: The arguments of the client.
    """

    __slots__ = (
        "_adapter",
        "_gates",
        "_given_up",
        "_in_flight",
        "_jitter",
        "_key",
        "_refused",
        "_requests",
        "_resend",
        "_retry",
        "_sent",
        "_within",
    )

    def __init__(self, adapter: Adapter[Q, A], options: Options[Q]) -> None:
        self._adapter = adapter
        given: Any = options.retry
        if given is not None and not isinstance(given, Retry):
            msg = f"retry={given!r} is {checks.type_of(given)}, not a Retry"
            way_out = "Pass Retry(3, on=...) to try again after failures, or None."
            raise checks.refusal(TypeError, msg, way_out)
        self._retry = options.retry
        if options.key is not None:
            way_out = (
                "Pass a function from the request to a key: requests with one key share a limit."
            )
            checks.callable_("key", options.key, way_out=way_out)
        self._key = options.key or adapter.host
        if not isinstance(options.resend, bool | None):
            way_out = "Pass a function from the request to bool, True, False, or None."
            checks.callable_("resend", options.resend, way_out=way_out)
        self._resend = options.resend
        way_out = "Pass seconds >= 0; 0 means that no refused request is sent again."
        self._within = checks.at_least("within", options.within, 0, way_out=way_out)
        way_out = "Pass a fraction from 0 to 1."
        self._jitter = checks.at_least("jitter", options.jitter, 0, way_out=way_out)
        if self._jitter > 1:
            raise checks.refusal(ValueError, f"jitter={self._jitter!r} is more than 1", way_out)
        self._gates = _gates(options)
        self._in_flight = 0
        self._requests = 0
        self._sent = 0
        self._refused = 0
        self._given_up = 0

    async def run(self, request: Q, send: Callable[[Q], Awaitable[A]], *, again: object) -> A:
        """
        Send a request and return the response that counts.

        Args:
            request: The request.
            send: Sends it once.
            again: Whether it may be sent twice, if the caller says so of this one: True or False.
        """
        self._requests += 1
        self._in_flight += 1
        try:
            repeats = self._may_repeat(request, again)
            if self._retry is None or not repeats:
                return await self._obey(request, send, repeats=repeats)

            return await self._try_again(self._retry, request, send)
        finally:
            self._in_flight -= 1

    def statistics(self) -> ClientStatistics:
        """Return the counts so far."""
        return snapshot(ClientStatistics, self)

    async def _try_again(self, retry: Retry, request: Q, send: Callable[[Q], Awaitable[A]]) -> A:
        """Send a request, again as the policy says, which may refuse responses with ``until``."""
        last: A | None = None

        async def attempt() -> A:
            nonlocal last
            if last is not None:
                before, last = last, None
                await self._adapter.discard(before)
            last = await self._obey(request, send, repeats=True)
            return last

        try:
            return await retry.run(attempt)
        except BaseException:
            if last is not None:
                await self._adapter.discard(last)
            raise

    async def _obey(self, request: Q, send: Callable[[Q], Awaitable[A]], *, repeats: bool) -> A:
        """Send a request, again after each refusal, until there is a response that counts."""
        paused, refusals = 0.0, 0
        while True:
            response, pause = await self._send(request, send, refusals)
            if pause is None:
                return response
            refusals += 1
            paused += pause
            if not repeats or paused > self._within or pause >= deadlines.remaining():
                self._given_up += 1
                return response
            await self._adapter.discard(response)

    async def _send(
        self, request: Q, send: Callable[[Q], Awaitable[A]], refusals: int
    ) -> tuple[A, float | None]:
        """
        Send a request when the limits allow it.

        Returns:
            The response, and the seconds for which the limits are held if it is a refusal.
        """
        adapter, key = self._adapter, self._key(request)
        response: A | None = None
        pause: float | None = None
        try:
            async with AsyncExitStack() as stack:
                entered = [
                    (gate, await stack.enter_async_context(gate.block(key, request)))
                    for gate in self._gates
                ]
                self._sent += 1
                if spans.hook is not None:
                    spans.hook.inject(adapter.headers(request))
                response = await send(request)
                status = adapter.status(response)
                said = RateLimitHeaders.parse(adapter.said(response))
                if is_refusal(status, said):
                    self._refused += 1
                    pause = self._pause(said, refusals)
                for gate, block in entered:
                    gate.observe(key, block, said, pause)
                    if isinstance(gate, _QuotaGate):
                        adapter.keep(response, block)
        except BaseException:
            if response is not None:
                await adapter.discard(response)
            raise
        if pause is not None:
            _log(adapter.method(request), adapter.host(request), status, pause)
        return response, pause

    def _pause(self, said: RateLimitHeaders, refusals: int) -> float:
        """Return for how many seconds to hold the limits after a refusal."""
        asked = said.wait
        first = _FIRST_PAUSE if asked is None else _LEAST_PAUSE
        pause = max(asked or 0.0, min(_LONGEST_PAUSE, first * 2.0 ** min(refusals, 30)))
        if self._jitter:
            from random import random  # noqa: PLC0415 - dear to import, and refusals are rare

            pause += pause * self._jitter * random()  # noqa: S311 - no secret depends on it
        return pause

    def _may_repeat(self, request: Q, again: object) -> bool:
        """Return whether a request may be sent a second time, if the service refuses it."""
        if not self._adapter.can_repeat(request):
            return False
        if again is not None:
            return bool(again)
        if callable(self._resend):
            return bool(self._resend(request))
        if self._resend is not None:
            return self._resend
        if self._adapter.method(request).upper() in _SAFE:
            return True
        return "idempotency-key" in self._adapter.headers(request)


def is_refusal(status: int, said: RateLimitHeaders) -> bool:
    """
    Return whether a response says: not now, but later.

    That is 429; or 503 (and Anthropic's 529) with ``Retry-After``; or 403 that says how long, as
    GitHub sends.
    """
    if status == _TOO_MANY:
        return True
    if status in _OVERLOADED:
        return said.retry_after is not None
    return status == _FORBIDDEN and said.wait is not None


# ---- what limits ---------------------------------------------------------------------------------


class _Gate(Protocol):
    """A limit that requests pass."""

    def block(self, key: Hashable, request: Any) -> AbstractAsyncContextManager[Any]:
        """Return a block that is entered when the limit allows a request."""
        ...

    def observe(
        self, key: Hashable, block: Any, said: RateLimitHeaders, pause: float | None
    ) -> None:
        """Tell the limit what the service says, and hold it for so many seconds."""
        ...


class _BucketsGate:
    """That of a `ServerBuckets`."""

    def __init__(self, buckets: ServerBuckets) -> None:
        self._buckets = buckets

    def block(self, key: Hashable, request: object) -> AbstractAsyncContextManager[Any]:
        del request
        return self._buckets.take(key)

    def observe(
        self, key: Hashable, block: Any, said: RateLimitHeaders, pause: float | None
    ) -> None:
        del key
        block.observe(said, refused=pause is not None, pause=pause or 0.0)


class _QuotaGate:
    """That of a `Quota`, or of what has one for each key."""

    def __init__(self, quota: Any, options: Options[Any]) -> None:
        way_out = "Pass a Quota; other limiters are for limiter=."
        for each in ("take", "observe", "hold", "limits"):
            if not hasattr(quota, each):
                msg = f"quota={quota!r} is {checks.type_of(quota)}, not a quota"
                raise checks.refusal(TypeError, msg, way_out)
        self._quota = quota
        self._cost = options.cost
        self._keyed = _is_keyed(quota.take)
        names: Any = options.names
        self._names = quota.limits if names is None else names

    def block(self, key: Hashable, request: object) -> AbstractAsyncContextManager[Any]:
        cost: Any = {} if self._cost is None else self._cost(request)
        if not isinstance(cost, Mapping):
            close_unstarted(cost)
            msg = (
                f"cost={name_of(self._cost)} returned {cost!r}, which is {checks.type_of(cost)}. "
                f'Let it return what a request takes of each limit, as {{"tokens": 1500}}.'
            )
            raise TypeError(msg)
        block = self._quota.take(*self._which(key), **cost)
        return cast("AbstractAsyncContextManager[Any]", block)

    def observe(
        self, key: Hashable, block: object, said: RateLimitHeaders, pause: float | None
    ) -> None:
        del block
        with suppress(LimitError):  # no room for the key, or closed: nobody waits for it then
            if said.limits:
                self._quota.observe(*self._which(key), **said.as_observation(self._names))
            if pause is not None:
                self._quota.hold(*self._which(key), pause)

    def _which(self, key: Hashable) -> tuple[Hashable, ...]:
        return (key,) if self._keyed else ()


class _RateGate:
    """That of a limiter of a rate, or of one for each key."""

    def __init__(self, limiter: Any) -> None:
        self._limiter = limiter
        self._hold: Callable[..., None] | None = getattr(limiter, "hold", None)
        self._keyed = _is_keyed(limiter.acquire)

    @asynccontextmanager
    async def block(self, key: Hashable, request: object) -> AsyncGenerator[None]:
        del request
        await self._limiter.acquire(*self._which(key))
        yield

    def observe(
        self, key: Hashable, block: object, said: RateLimitHeaders, pause: float | None
    ) -> None:
        del block, said
        if pause is not None and self._hold is not None:
            with suppress(LimitError):  # no room for the key, or closed: nobody waits for it then
                self._hold(*self._which(key), pause)

    def _which(self, key: Hashable) -> tuple[Hashable, ...]:
        return (key,) if self._keyed else ()


def _is_keyed(method: Callable[..., Any]) -> bool:
    """Return whether a limiter has limits for each of some keys, which come first."""
    try:
        first = next(iter(signature(method).parameters.values()), None)
    except (ValueError, TypeError):  # written in C
        return False
    return first is not None and first.name == "key"


def _gates(options: Options[Any]) -> tuple[_Gate, ...]:
    """Return the limits that the arguments of a client name, in the order in which they are met."""
    gates: list[_Gate] = []
    quota, limiter = options.quota, options.limiter
    if options.cost is not None:
        way_out = "Pass a function from the request to what it costs, by the names of the quota."
        checks.callable_("cost", options.cost, way_out=way_out)
    can_hold = False
    if quota is not None:
        gates.append(_QuotaGate(quota, options))
        can_hold = True
    if isinstance(limiter, ServerBuckets):
        gates.append(_BucketsGate(limiter))
        can_hold = True
    elif limiter is not None:
        if not callable(getattr(limiter, "acquire", None)):
            msg = f"limiter={limiter!r} is {checks.type_of(limiter)}, which has no acquire()"
            way_out = "Pass a RateLimiter, a KeyedRateLimiter or a ServerBuckets."
            raise checks.refusal(TypeError, msg, way_out)
        gates.append(_RateGate(limiter))
        can_hold = can_hold or hasattr(limiter, "hold")
    if not can_hold:
        gates.append(_BucketsGate(ServerBuckets(unknown=math.inf)))
    return tuple(gates)


def _log(method: str, host: str, status: int, pause: float) -> None:
    """Say that a service has refused a request."""
    global _logger  # noqa: PLW0603 - it is always the same
    if _logger is None:
        from logging import getLogger  # noqa: PLC0415 - dear to import, and refusals are rare

        _logger = getLogger("mtaio.clients")
    _logger.warning("%s %s: refused with %d; held for %.3g s", method, host, status, pause)


_logger: Logger | None = None
