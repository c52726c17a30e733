"""
A gateway: passes requests on to one upstream, and protects it.

    pip install httpx starlette    # beside mtaio with its extra "app"
    export GATEWAY_UPSTREAM=http://quotes.internal GATEWAY_KEYS=ada,bob
    python gateway.py
"""

from __future__ import annotations

import argparse
import logging
import math
import os
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mtaio import Application, ConcurrencyLimiter, KeyedRateLimiter, TTLCache
from mtaio.exceptions import ConcurrencyLimitError, RateLimitError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

log = logging.getLogger("gateway")
logging.getLogger("httpx").setLevel(logging.WARNING)

keys = frozenset(os.environ.get("GATEWAY_KEYS", "").split(",")) - {""}
clients = KeyedRateLimiter(5, burst=10, max_keys=10_000, name="clients")
answers = TTLCache[tuple[int, bytes, str]](
    5.0, max_size=10_000, jitter=0.1, stale_if_error=300.0
)
app = Application(
    name="gateway",
    concurrency_limiter=ConcurrencyLimiter(8, max_waiting=16, name="upstream"),
    cache=answers,
)


@app.resource
async def upstream() -> AsyncIterator[httpx.AsyncClient]:
    app.monitor.watch(clients)
    limits = httpx.Limits(max_connections=None)  # the limiter limits
    url = os.environ["GATEWAY_UPSTREAM"]
    async with httpx.AsyncClient(
        base_url=url, limits=limits, timeout=None
    ) as client:
        yield client


class UpstreamError(Exception):
    """The upstream answered with this status."""


async def fetch(path: str) -> tuple[int, bytes, str]:
    """Ask the upstream when there is room, for as long as there is time."""
    async with app.timeout_manager(), app.concurrency_limiter:
        answer = await upstream.get().get(path)
    if answer.is_server_error or answer.status_code == 429:
        raise UpstreamError(answer.status_code)
    return (
        answer.status_code,
        answer.content,
        answer.headers.get("Content-Type", ""),
    )


def lasts(answer: tuple[int, bytes, str]) -> float:
    """Return how many seconds to keep an answer."""
    return 5.0 if answer[0] == 200 else 1.0


async def get_quote(request: Request) -> Response:
    """``GET /quotes/{symbol}``."""
    key = request.headers.get("X-API-Key")
    if key not in keys:  # otherwise a new key would evade the limit
        return JSONResponse({"error": "unknown key"}, 401)
    clients.acquire_nowait(key)
    path = f"/quotes/{quote(request.path_params['symbol'])}"
    status, body, media_type = await answers.get_or_set(
        path, partial(fetch, path), ttl=lasts
    )
    return Response(body, status, media_type=media_type)


def refusal(status: int, text: str, retry_after: float) -> Response:
    seconds = str(math.ceil(min(retry_after, 60.0)))
    return JSONResponse(
        {"error": text}, status, headers={"Retry-After": seconds}
    )


async def too_many(_: Request, error: Exception) -> Response:
    return refusal(429, "too many requests", getattr(error, "retry_after", 1.0))


async def full(_: Request, __: Exception) -> Response:
    return refusal(503, "busy", 1.0)


async def no_answer(request: Request, error: Exception) -> Response:
    log.warning("%s: %s: %s", request.url.path, type(error).__name__, error)
    return refusal(
        504 if isinstance(error, TimeoutError) else 502,
        "no answer from upstream",
        5.0,
    )


asgi = Starlette(
    routes=[Route("/quotes/{symbol}", get_quote)],
    exception_handlers={
        RateLimitError: too_many,
        ConcurrencyLimitError: full,
        TimeoutError: no_answer,
        UpstreamError: no_answer,
        httpx.HTTPError: no_answer,
    },
)
app.serve(asgi, bind=os.environ.get("GATEWAY_BIND", "127.0.0.1:8000"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Pass requests on to an upstream."
    )
    parser.add_argument(
        "--backend", choices=["asyncio", "uvloop", "trio"], default="asyncio"
    )
    options = parser.parse_args()
    if not os.environ.get("GATEWAY_UPSTREAM", "").startswith(
        ("http://", "https://")
    ):
        parser.error("set GATEWAY_UPSTREAM to the URL of the upstream")
    app.run(options.backend)
