"""
Prices over HTTP, from an upstream that is slow and fails now and then.

    pip install httpx starlette    # beside mtaio with its extra "app"
    SHOP_UPSTREAM=http://prices.internal mtaio run shop:app
"""

import logging
import os
from collections.abc import AsyncIterator
from functools import partial
from typing import cast

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mtaio import Application, Retry
from mtaio.app import ErrorHandler
from mtaio.events import Event

log = logging.getLogger("shop")
# Otherwise httpx logs each request to the upstream.
logging.getLogger("httpx").setLevel(logging.WARNING)
errors = ErrorHandler()
app = Application(name="shop", error_handler=errors)
retry = Retry(
    attempts=3,
    on=(httpx.HTTPError, TimeoutError),
    wait_initial=0.05,
    wait_max=1.0,
)


@app.resource  # opened before anything is served, closed when nothing is
async def upstream() -> AsyncIterator[httpx.AsyncClient]:
    url = os.environ["SHOP_UPSTREAM"]
    async with httpx.AsyncClient(base_url=url, timeout=None) as client:
        yield client


async def fetch(sku: str) -> float:
    """Ask the upstream, within the limits agreed with it."""
    async with app.concurrency_limiter:
        await app.rate_limiter.acquire()
        async with app.timeout_manager():
            answer = await upstream.get().get(f"/prices/{sku}")
    return float(answer.raise_for_status().json()["price"])


async def price(sku: str) -> float:
    """Return a price, which is fetched once, however many ask for it."""
    return cast("float", await app.cache.get_or_set(sku, lambda: fetch(sku)))


async def prices(request: Request) -> Response:
    """``GET /prices?sku=pen&sku=ink``: all at once, each tried three times."""
    skus = request.query_params.getlist("sku")
    try:
        found = await app.executor.map(price, skus, retry=retry)
    except (httpx.HTTPError, TimeoutError, ExceptionGroup) as error:
        errors.report(error, {"skus": skus})
        return JSONResponse(
            {"error": "try again"}, 503, headers={"Retry-After": "1"}
        )
    log.info("prices of %s", ", ".join(skus))
    return JSONResponse(dict(zip(skus, found, strict=True)))


async def feed(_: Request) -> Response:
    """``GET /feed``: each second the number of prices, until the drain."""

    async def lines() -> AsyncIterator[str]:
        while not app.draining:
            yield f"data: {app.cache.statistics().size}\n\n"
            with anyio.move_on_after(1.0):
                await app.wait_draining()
        yield "event: end\ndata:\n\n"  # clients reconnect, to another instance

    return StreamingResponse(lines(), media_type="text/event-stream")


@app.service(restart=Retry(attempts=5, wait_initial=1.0))
async def keep_fresh() -> None:
    """Renew known prices before they expire."""
    while True:
        await anyio.sleep(app.settings.cache_ttl / 2)
        for sku, before in app.cache.items():
            try:
                now = await app.cache.refresh(sku, partial(fetch, sku))
            except (httpx.HTTPError, TimeoutError) as error:
                errors.report(error, {"sku": sku})
            else:
                if now != before:
                    log.info("%s costs %s now", sku, now)


@app.emitter.on("monitor.threshold_exceeded")
async def alert(event: Event[dict[str, object]]) -> None:
    log.critical("call someone: %s", event.data)  # or ask your pager to


# While the upstream is down, old prices are served.
@app.health_check("upstream", critical=False, timeout=1.0)
async def ask_upstream() -> None:
    (await upstream.get().get("/health")).raise_for_status()


routes = [Route("/prices", prices), Route("/feed", feed)]
bind = os.environ.get("SHOP_BIND", "127.0.0.1:8000")
app.serve(Starlette(routes=routes), bind=bind)

if __name__ == "__main__":
    app.run()
