"""
A limit for each client of an ASGI application: 429, and when to come back.

Promise: plain ASGI, under any framework and server; what a client sends neither grows memory nor
raises; an address that a client may have made up is not believed.
Cost: for a request that is allowed, that of the limiter and two headers.

Sources: RFC 6585 (429), RFC 9110 (``Retry-After``), draft-ietf-httpapi-ratelimit-headers
(``RateLimit``, ``RateLimit-Policy``).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable, MutableMapping
from typing import Any, Final, Protocol, TypeAlias, cast, final

from mtaio._internal import checks
from mtaio._internal.asgi import ASGIApp, Message, Receive, Send
from mtaio.exceptions import LimitError, LimitTimeoutError

__all__ = ["RateLimitMiddleware", "client_host", "forwarded_host", "limit"]

ClientKey: TypeAlias = Callable[[MutableMapping[str, Any]], Hashable]
"""A function of an ASGI scope that returns the key for which a request counts, or None not to count
it."""

_LONGEST_KEY: Final = 100
"""Characters of a key; of a longer one a digest is kept."""

_LONGEST_WAIT: Final = 86_400
"""The most seconds that a client is told to wait."""


class ClientLimiter(Protocol):
    """
    The protocol of a limiter with a limit for each client, such as a `KeyedRateLimiter`.

    Other limiters can be used if they have these attributes.
    """

    @property
    def rate(self) -> float:
        """Tokens for each key every `per` seconds."""
        ...

    @property
    def per(self) -> float:
        """The period of `rate`, in seconds."""
        ...

    @property
    def burst(self) -> float:
        """Tokens that a full bucket holds."""
        ...

    async def acquire(self, key: Any, tokens: Any = 1, *, timeout: float | None = None) -> None:
        """Take tokens of a key; raise `LimitTimeoutError` if they are not available in time."""
        ...


def client_host(scope: MutableMapping[str, Any]) -> str:
    """
    Return the address from which a request came, as a key.

    For IPv6, it is the /64 network, because a client can use all addresses of its network. Behind a
    proxy, it is the proxy's address: use `forwarded_host` there. On a Unix socket there is no
    address, and all requests have the same key.

    Args:
        scope: The scope of an ASGI request.
    """
    client = scope.get("client")
    return _network(str(client[0])) if client else "unknown"


def forwarded_host(proxies: int) -> ClientKey:
    """
    Return a key function for an application behind proxies.

    The key is the client's address as the outermost of your proxies saw it. Each proxy appends the
    address of its caller to ``X-Forwarded-For``. Earlier entries may be forged by the client and
    are ignored.

    Args:
        proxies: The number of your proxies that each request passes, at least 1. A request with
            fewer entries has not passed them, and counts for the address from which it came.

    Returns:
        The key, for `RateLimitMiddleware` and `limit`.

    Raises:
        TypeError, ValueError: ``proxies`` is not an int, or is less than 1.
    """
    checks.count("proxies", proxies, way_out="Pass how many proxies of yours there are.")

    def key(scope: MutableMapping[str, Any]) -> str:
        lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        hosts = b",".join(lines).rsplit(b",", proxies)[-proxies:] if lines else []
        host = hosts[0].strip().decode("latin-1") if len(hosts) == proxies else ""
        return _network(host) if host else client_host(scope)

    return key


def _network(host: str) -> str:
    """Return the network of an IPv6 address, and any other text as it is."""
    if ":" not in host:
        return host
    from ipaddress import IPv6Address, IPv6Network  # noqa: PLC0415 - few clients have one

    try:
        address = IPv6Address(host.partition("%")[0].strip("[]"))
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address), 64), strict=False))


class _Limit:
    """
    A limit for each client.

    Args:
        limiter: What limits.
        key: Whom a request is counted for.
        tokens: The tokens that a request takes.
        wait: Maximum seconds that a request may wait.
        name: The name of the limit in headers.
    """

    def __init__(
        self, limiter: ClientLimiter, key: ClientKey, *, tokens: float, wait: float, name: str
    ) -> None:
        given: Any = limiter
        for each in ("acquire", "rate", "per", "burst"):
            if not hasattr(given, each):
                msg = f"limiter={given!r} is {checks.type_of(given)}, which has no {each}"
                way_out = "Pass a KeyedRateLimiter(10, burst=20), or a RedisKeyedRateLimiter."
                raise checks.refusal(TypeError, msg, way_out)
        self._limiter = limiter
        way_out = "Pass a function from the scope to what can be the key of a dict."
        checks.callable_("key", key, way_out=way_out)
        self._key = key
        way_out = "Pass how many tokens a request costs, more than 0."
        self._tokens = checks.positive("tokens", tokens, way_out=way_out)
        if tokens > limiter.burst:
            msg = f"tokens={tokens!r} is more than {limiter!r} ever has"
            raise checks.refusal(ValueError, msg, "Raise its burst.")
        self._wait = checks.at_least("wait", wait, 0, way_out="Pass seconds >= 0; 0 for none.")
        plain = isinstance(cast("Any", name), str) and name.isascii() and name.isprintable()
        if not plain or set(name) & set('"\\'):
            msg = f"name={name!r} cannot be sent in a header"
            raise checks.refusal(ValueError, msg, "Pass a short name of letters.")
        self._name = name

    async def check(self, scope: MutableMapping[str, Any]) -> tuple[int | None, dict[str, str]]:
        """
        Count a request.

        Returns:
            The status of the refusal, None if the request is allowed; and headers.
        """
        key = self._key(scope)
        if key is None:
            return None, {}
        if isinstance(key, str) and len(key) > _LONGEST_KEY:
            from hashlib import blake2b  # noqa: PLC0415 - few keys are so long

            key = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()
        refusal: LimitError | None = None
        try:
            await self._limiter.acquire(key, self._tokens, timeout=self._wait)
        except LimitError as error:
            refusal = error
        headers = self._said(key, refusal)
        if refusal is None:
            return None, headers
        # A new client that there is no room for has done nothing wrong.
        return 429 if isinstance(refusal, LimitTimeoutError) else 503, headers

    def _said(self, key: Hashable, refusal: LimitError | None) -> dict[str, str]:
        """Return the headers that say how things stand for a key."""
        limiter = self._limiter
        rate, burst = limiter.rate / limiter.per, limiter.burst
        headers: dict[str, str] = {}
        if 0 < rate < math.inf:
            window = _seconds(burst / rate)
            headers["RateLimit-Policy"] = f'"{self._name}";q={math.floor(burst)};w={window}'
        if refusal is not None:
            after = refusal.retry_after
            wait = _seconds(after)
            headers["Retry-After"] = str(wait)
            if isinstance(refusal, LimitTimeoutError):
                headers["RateLimit"] = f'"{self._name}";r=0;t={wait}'
            return headers
        look = getattr(limiter, "statistics_for", None)
        if look is not None and headers:
            left = look(key)
            tokens = max(0.0, left.tokens)
            more = (burst - tokens) / rate if tokens >= 1 else left.next_grant_seconds
            headers["RateLimit"] = f'"{self._name}";r={math.floor(tokens)};t={_seconds(more, 0)}'
        return headers


def _seconds(seconds: float | None, least: int = 1) -> int:
    """Return whole seconds, which nobody comes back before."""
    if seconds is None or not seconds < _LONGEST_WAIT:
        return least if seconds is None else _LONGEST_WAIT
    return max(least, math.ceil(seconds - 1e-6))


@final
class RateLimitMiddleware:
    """
    An ASGI middleware that limits the request rate of each client.

    Refused requests get 429 with ``Retry-After``. All responses have the header
    ``RateLimit-Policy`` and, with a limiter of this process, ``RateLimit``, which says how much is
    left and when there is more. If the limiter has no room for a client because ``max_keys`` others
    are active, the client gets 503. A WebSocket is limited when it opens.

    In Starlette and FastAPI write ``app.add_middleware(RateLimitMiddleware, limiter=limiter)``,
    elsewhere ``RateLimitMiddleware(app, limiter)``. With a `mtaio.redis.RedisKeyedRateLimiter`,
    whose store has to be entered, all processes share the limit.

    Args:
        app: The application.
        limiter: A `mtaio.resources.KeyedRateLimiter`, or a shared one.
        key: Called with the scope; returns the key for which the request counts, or None not to
            count it.
        tokens: The tokens that a request takes.
        wait: Maximum seconds that a request waits for its tokens before it is refused.
        name: The name of the limit in headers.

    Raises:
        TypeError, ValueError: An argument is refused. The message names it and says what to pass.

    Example:
        ```python
        from starlette.applications import Starlette

        from mtaio import KeyedRateLimiter
        from mtaio.asgi import RateLimitMiddleware

        app = Starlette()
        app.add_middleware(RateLimitMiddleware, limiter=KeyedRateLimiter(10, burst=20))
        ```
    """

    def __init__(
        self,
        app: ASGIApp,
        limiter: ClientLimiter,
        *,
        key: ClientKey = client_host,
        tokens: float = 1,
        wait: float = 0.0,
        name: str = "default",
    ) -> None:
        self._app = app
        self._limit = _Limit(limiter, key, tokens=tokens, wait=wait, name=name)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        status, headers = await self._limit.check(scope)
        if status is not None:
            await _refuse(scope, receive, send, status, headers)
            return
        raw = _raw(headers)

        async def send_with_headers(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.accept"}:
                message = {**message, "headers": [*message.get("headers", ()), *raw]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


async def _refuse(
    scope: Message, receive: Receive, send: Send, status: int, headers: dict[str, str]
) -> None:
    """Answer a request with a refusal."""
    body = f"Too many requests. Try again in {headers['Retry-After']} s.\n".encode()
    start = {
        "status": status,
        "headers": [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            *_raw(headers),
        ],
    }
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # that it wants to connect
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1013, "reason": "Try again later"})
            return
        kind = "websocket.http.response"
    await send({"type": f"{kind}.start", **start})
    await send({"type": f"{kind}.body", "body": b"" if scope.get("method") == "HEAD" else body})


def limit(
    limiter: ClientLimiter,
    *,
    key: ClientKey = client_host,
    tokens: float = 1,
    wait: float = 0.0,
    name: str = "default",
) -> Callable[..., Awaitable[None]]:
    """
    Return a dependency of FastAPI that limits each client of a route: ``Depends(limit(...))``.

    It does the same as `RateLimitMiddleware` for the routes that depend on it. A refusal is an
    ``HTTPException``, which the application can handle in its own way.

    Args:
        limiter: A `mtaio.resources.KeyedRateLimiter`, or a shared one. Routes with the same limiter
            are counted together.
        key: As for `RateLimitMiddleware`.
        tokens: The tokens that a request takes.
        wait: Maximum seconds that a request waits for its tokens before it is refused.
        name: The name of the limit in headers.

    Returns:
        The dependency.

    Raises:
        TypeError, ValueError: An argument is refused. The message names it and says what to pass.
        ImportError: Starlette, on which FastAPI is based, is not installed.

    Example:
        ```python
        from fastapi import Depends, FastAPI

        from mtaio import KeyedRateLimiter
        from mtaio.asgi import limit

        app = FastAPI()
        searches = KeyedRateLimiter(1, burst=5)


        @app.get("/search", dependencies=[Depends(limit(searches))])
        async def search(text: str) -> list[str]:
            return [text]
        ```
    """
    # FastAPI reads the annotations of the dependency, so they have to be the classes themselves.
    from starlette.exceptions import HTTPException  # noqa: PLC0415 - of the framework
    from starlette.requests import HTTPConnection  # noqa: PLC0415 - as above
    from starlette.responses import Response  # noqa: PLC0415 - as above

    each = _Limit(limiter, key, tokens=tokens, wait=wait, name=name)

    async def check(connection: Any, response: Any) -> None:
        status, headers = await each.check(connection.scope)
        if status is not None:
            raise HTTPException(status, "Too many requests", headers=headers)
        for header, value in headers.items():
            response.headers[header] = value

    check.__annotations__ = {"connection": HTTPConnection, "response": Response, "return": None}
    return check
