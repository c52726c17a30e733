"""A limit for each client of an ASGI application."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from fastapi import Depends, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mtaio import KeyedRateLimiter
from mtaio.asgi import RateLimitMiddleware, client_host, forwarded_host, limit
from mtaio.exceptions import LimitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request


async def hello(_: Request) -> PlainTextResponse:
    """Answer."""
    return PlainTextResponse("hello")


def connect(app: Any, host: str = "192.0.2.1") -> httpx.AsyncClient:
    """Return a client with an address."""
    transport = httpx.ASGITransport(app, client=(host, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://app")


def behind(limiter: Any, **options: Any) -> Starlette:
    """Return an application behind the middleware."""
    app = Starlette(routes=[Route("/", hello)])
    app.add_middleware(RateLimitMiddleware, limiter=limiter, **options)
    return app


def said(response: httpx.Response) -> tuple[int, str | None, str | None, str | None]:
    """Return the status, and what the headers say."""
    names = ("RateLimit", "RateLimit-Policy", "Retry-After")
    return response.status_code, *[response.headers.get(name) for name in names]


async def test_each_client_is_limited_and_told() -> None:
    """What is left, when there is more, and when to come back; other clients notice nothing."""
    app = behind(KeyedRateLimiter(1, per=10, burst=3))
    policy = '"default";q=3;w=30'
    async with connect(app) as client, connect(app, "192.0.2.2") as other:
        assert said(await client.get("/")) == (200, '"default";r=2;t=10', policy, None)
        assert said(await client.get("/")) == (200, '"default";r=1;t=20', policy, None)
        await anyio.sleep(2.5)
        assert said(await client.get("/")) == (200, '"default";r=0;t=8', policy, None)
        refused = await client.get("/")
        assert said(refused) == (429, '"default";r=0;t=8', policy, "8")
        assert refused.text == "Too many requests. Try again in 8 s.\n"
        assert said(await other.get("/"))[0] == 200
        head = await client.head("/")
        assert (head.status_code, head.text, head.headers["content-length"]) == (429, "", "37")
        await anyio.sleep(8)
        assert said(await client.get("/"))[0] == 200


async def test_options() -> None:
    """Requests may cost more, wait for their turn, have a name of their own, and not be counted."""
    limiter = KeyedRateLimiter(2, burst=4)
    app = behind(limiter, tokens=4, wait=2, name="api", key=lambda scope: scope.get("user"))
    async with connect(app) as client:
        assert said(await client.get("/")) == (200, None, None, None)  # nobody's

    async def as_user(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "user": "ada" * 100}, receive, send)

    async with connect(as_user) as client:
        assert said(await client.get("/")) == (200, '"api";r=0;t=1', '"api";q=4;w=2', None)
        assert said(await client.get("/"))[0] == 200
        assert anyio.current_time() == 2
        async with anyio.create_task_group() as group:
            group.start_soon(client.get, "/")
            await anyio.sleep(0.5)
            assert said(await client.get("/")) == (429, '"api";r=0;t=4', '"api";q=4;w=2', "4")
    assert limiter.statistics().keys == 1


@pytest.mark.parametrize(("rate", "wait"), [(0, "86400"), (1e-9, "86400")])
async def test_waits_that_never_end(rate: float, wait: str) -> None:
    """The client is told to come back tomorrow; while all is paused there is no policy."""
    async with connect(behind(KeyedRateLimiter(rate))) as client:
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/")).headers["Retry-After"] == wait
    async with connect(behind(KeyedRateLimiter(math.inf))) as client:
        assert said(await client.get("/")) == (200, None, None, None)


async def test_no_room_for_a_new_client() -> None:
    """It has done nothing wrong: 503, not 429."""
    app = behind(KeyedRateLimiter(1, burst=1, max_keys=1))
    async with connect(app) as client, connect(app, "192.0.2.2") as other:
        await client.get("/")
        assert said(await other.get("/")) == (503, None, '"default";q=1;w=1', "1")


async def test_a_limiter_of_another_kind() -> None:
    """One that several processes share says less; what it asks for is told."""

    class Shared:
        rate, per, burst = 5.0, 1.0, 5.0
        error: Exception | None = None

        async def acquire(
            self, key: str, tokens: float = 1, *, timeout: float | None = None
        ) -> None:
            assert (key, tokens, timeout) == ("192.0.2.1", 1, 0)
            if self.error is not None:
                raise self.error

    shared = Shared()
    async with connect(behind(shared)) as client:
        assert said(await client.get("/")) == (200, None, '"default";q=5;w=1', None)
        shared.error = LimitTimeoutError(retry_after=1.2)
        assert said(await client.get("/")) == (429, '"default";r=0;t=2', '"default";q=5;w=1', "2")


async def test_a_dependency_of_fastapi() -> None:
    """Routes that have one limiter are counted together; others not at all."""
    app = FastAPI()
    limiter = KeyedRateLimiter(1, burst=2)

    @app.get("/a", dependencies=[Depends(limit(limiter))])
    @app.get("/b", dependencies=[Depends(limit(limiter, tokens=2))])
    @app.get("/free")
    async def answer(text: str = "x") -> str:
        return text

    async with connect(app) as client:
        assert said(await client.get("/a?text=y"))[:2] == (200, '"default";r=1;t=1')
        refused = await client.get("/b")
        assert said(refused)[0] == 429
        assert refused.headers["Retry-After"] == "1"
        assert refused.json() == {"detail": "Too many requests"}
        assert said(await client.get("/free")) == (200, None, None, None)
        assert "connection" not in (await client.get("/openapi.json")).text


async def exchange(app: Any, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """Open a connection of another type than HTTP, and return what is sent."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": f"{scope['type']}.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def test_websockets_and_the_lifespan() -> None:
    """A WebSocket is limited when it opens; the lifespan is nobody's request."""
    scopes: list[str] = []

    async def accept(scope: Any, _: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        scopes.append(scope["type"])
        await send({"type": f"{scope['type']}.accept"})

    app = RateLimitMiddleware(accept, KeyedRateLimiter(1))
    scope = {"type": "websocket", "client": ("192.0.2.1", 1), "headers": []}
    (accepted,) = await exchange(app, scope)
    assert (b"ratelimit", b'"default";r=0;t=1') in accepted["headers"]
    (closed,) = await exchange(app, scope)
    assert (closed["type"], closed["code"]) == ("websocket.close", 1013)
    start, body = await exchange(app, scope | {"extensions": {"websocket.http.response": {}}})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 429)
    assert body["body"].startswith(b"Too many requests")
    assert await exchange(app, {"type": "lifespan"}) == [{"type": "lifespan.accept"}]
    assert scopes == ["websocket", "lifespan"]


def seen(key: Callable[[Any], object], client: object, *lines: bytes) -> object:
    """Return the key of a request with these lines of X-Forwarded-For."""
    return key({"client": client, "headers": [(b"x-forwarded-for", line) for line in lines]})


def test_addresses() -> None:
    """IPv6 by its network; what a client may have made up does not count unless it is asked for."""
    ada = ("2001:db8:1:2:3:4:5:6", 1)
    assert seen(client_host, ("192.0.2.1", 1), b"10.0.0.1") == "192.0.2.1"
    assert seen(client_host, ada) == seen(client_host, ("2001:db8:1:2::9%eth0", 1))
    assert seen(client_host, ("::ffff:192.0.2.1", 1)) == "192.0.2.1"
    assert seen(client_host, ("no:address", 1)) == "no:address"
    assert seen(client_host, None) == "unknown"
    one, two = forwarded_host(1), forwarded_host(2)
    lines = (b"6.6.6.6, 192.0.2.7", b"10.0.0.1")
    assert seen(one, ("10.0.0.2", 1), *lines) == "10.0.0.1"
    assert seen(two, ("10.0.0.2", 1), *lines) == "192.0.2.7"
    assert seen(two, ("10.0.0.2", 1), b"192.0.2.7") == "10.0.0.2"
    assert seen(one, ("10.0.0.2", 1)) == "10.0.0.2"
    assert seen(one, ("10.0.0.2", 1), b" ") == "10.0.0.2"


@given(st.lists(st.binary(max_size=40), max_size=4), st.integers(1, 5))
def test_headers_of_any_bytes(lines: list[bytes], proxies: int) -> None:
    """They give a key, or the address that the request came from."""
    assert isinstance(seen(forwarded_host(proxies), ("10.0.0.2", 1), *lines), str)


LIMITER = KeyedRateLimiter(1, burst=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limiter": 5}, r"^limiter=5 is an int, which has no acquire"),
        ({"key": 5}, r"^key=5 is an int, which is not callable"),
        ({"tokens": 0}, r"^tokens=0 is not a finite number"),
        ({"tokens": 3}, r"^tokens=3 is more than <KeyedRateLimiter"),
        ({"wait": -1}, r"^wait=-1 is less than 0"),
        ({"name": 'a"b'}, r"^name='a\"b' cannot be sent"),
        ({"name": "ä"}, r"^name='ä' cannot be sent"),
        ({"name": 5}, r"^name=5 cannot be sent"),
    ],
)
def test_misuse_is_refused(options: dict[str, Any], message: str) -> None:
    """With the value, the reason and the way out, when the application is made."""
    with pytest.raises((TypeError, ValueError), match=message):
        RateLimitMiddleware(Starlette(), **{"limiter": LIMITER, **options})
    with pytest.raises((TypeError, ValueError), match=message):
        limit(**{"limiter": LIMITER, **options})
    with pytest.raises(ValueError, match=r"^proxies=0 is less than 1"):
        forwarded_host(0)
