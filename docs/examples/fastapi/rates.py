"""Exchange rates from an API that is slow, has limits and sometimes fails."""

import logging
import os
from collections.abc import AsyncIterator

import httpx
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from mtaio import (
    Application,
    Breaker,
    Pipeline,
    RateLimiter,
    Retry,
    Timeout,
    TTLCache,
    cached,
)
from mtaio.exceptions import LimitError

log = logging.getLogger("rates")
rates = TTLCache[float](60, max_size=1000, stale_if_error=3600)
service = Application(name="rates", cache=rates)


def is_failure(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in {500, 502, 503, 504}
    return isinstance(error, httpx.TransportError | TimeoutError)


api = Pipeline(
    Timeout(3, total=True),  # all attempts together
    Retry(3, on=is_failure),
    Breaker(0.5, last=20, on=is_failure),  # fails at once if the API is down
    RateLimiter(10, name="calls"),  # 10 calls a second
    Timeout(1),  # each attempt
    name="api",
)
service.monitor.watch(api)


@service.resource
async def client() -> AsyncIterator[httpx.AsyncClient]:
    url = os.environ["RATES_API"]
    async with httpx.AsyncClient(base_url=url, timeout=None) as client:
        yield client


@cached(cache=rates)
@api
async def fetch(currency: str) -> float:
    answer = await client.get().get(f"/rates/{currency}")
    if answer.status_code == 404:
        raise HTTPException(404, "no such currency")
    return float(answer.raise_for_status().json()["rate"])


app = FastAPI(lifespan=service.lifespan)


@app.get("/rates/{currency}")
async def rate(currency: str) -> dict[str, float]:
    return {currency: await fetch(currency)}


@app.exception_handler(httpx.HTTPError)
@app.exception_handler(TimeoutError)
@app.exception_handler(LimitError)
async def no_answer(_: Request, error: Exception) -> JSONResponse:
    log.warning("no rate: %r", error)
    return JSONResponse({"detail": "try again"}, 503, {"Retry-After": "1"})
