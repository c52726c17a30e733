"""Prices over HTTP: limits, a cache, health checks and metrics."""

import anyio
from fastapi import FastAPI

from mtaio import Application, KeyedRateLimiter, TTLCache, cached
from mtaio.asgi import RateLimitMiddleware, RequestMetrics

clients = KeyedRateLimiter(5, burst=10, name="clients")  # 5 requests a second
prices = TTLCache[dict[str, float]](60, max_size=10_000)  # for 60 seconds
service = Application(name="shop", cache=prices)
service.monitor.watch(clients)  # in the metrics

app = FastAPI(lifespan=service.lifespan)
app.add_middleware(RateLimitMiddleware, limiter=clients)
app.add_middleware(RequestMetrics, monitor=service.monitor)


@app.get("/prices/{sku}")
@cached(cache=prices)  # one query, however many ask for the same price
async def price(sku: str) -> dict[str, float]:
    await anyio.sleep(0.2)  # stands for the query
    return {sku: len(sku) * 1.5}


@service.health_check()
async def database() -> None:
    await anyio.sleep(0.01)  # stands for "SELECT 1", which raises if it fails
