"""Prices over HTTP: limits, a cache, health checks and metrics."""

import anyio

from fastapi import FastAPI
from mtaio import Application, KeyedRateLimiter, TTLCache, cached
from mtaio.asgi import RateLimitMiddleware, RequestMetrics

clients = KeyedRateLimiter(
    5, burst=10, name="clients"
)  # 5 requests a second from each client
prices = TTLCache[dict[str, float]](60, max_size=10_000)  # kept for 60 seconds
service = Application(name="shop", cache=prices)
service.monitor.watch(clients)  # in the metrics

app = FastAPI(lifespan=service.lifespan)
app.add_middleware(RateLimitMiddleware, limiter=clients)
app.add_middleware(
    RequestMetrics, monitor=service.monitor
)  # requests by route, in the metrics


@app.get("/prices/{sku}")
@cached(cache=prices)  # one query, however many requests ask for the same price
async def price(sku: str) -> dict[str, float]:
    async with (
        service.concurrency_limiter
    ):  # MTAIO_CONCURRENCY_LIMIT queries at once
        await anyio.sleep(0.2)  # stands for the query
    return {sku: len(sku) * 1.5}


@service.health_check()
async def database() -> None:
    await anyio.sleep(
        0.01
    )  # stands for "SELECT 1"; raises if the database does not answer
