"""A gateway that passes a language model's tokens on as they come."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import httpx
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from mtaio import Application, Breaker, Pipeline, Quota, Retry, Timeout
from mtaio.clients import RateLimitHeaders, StreamedResponse
from mtaio.exceptions import LimitError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

# --8<-- [start:gateway]
app = Application(name="gateway")
quota = Quota(requests=120, tokens=40_000, per=60, name="model")


def is_refusal(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == 429
    return False


def is_failure(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, httpx.HTTPError | TimeoutError)


api = Pipeline(
    Timeout(90, first=15, total=True),
    Retry(3, on=is_failure, throttled=is_refusal, hold=quota, within=10),
    Breaker(0.5, last=20, on=is_failure),
    quota.part(tokens=lambda prompt: len(prompt) // 4 + 50),
    Timeout(60, first=2.0, between=1.0),
    name="model",
)


@app.resource
async def client() -> AsyncIterator[httpx.AsyncClient]:
    url = os.environ.get("MODEL_URL", "http://127.0.0.1:8010")
    async with httpx.AsyncClient(base_url=url, timeout=None) as opened:
        yield opened


@api
async def tokens(prompt: str) -> AsyncIterator[str]:
    body = {"messages": [{"role": "user", "content": prompt}], "stream": True}
    async with client.get().stream(
        "POST", "/v1/chat/completions", json=body
    ) as response:
        RateLimitHeaders.parse(response.headers).observe(quota)
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                yield json.loads(line[6:])["choices"][0]["delta"]["content"]


async def answer(request: Request) -> StreamedResponse:
    return StreamedResponse(tokens((await request.json())["prompt"]))


async def no_answer(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse(
        {"error": type(error).__name__}, 503, headers={"Retry-After": "5"}
    )


errors = dict.fromkeys((LimitError, TimeoutError, httpx.HTTPError), no_answer)
routes = [Route("/answers", answer, methods=["POST"])]
app.serve(
    Starlette(routes=routes, exception_handlers=errors),
    bind=os.environ.get("GATEWAY_BIND", "127.0.0.1:8000"),
)
# --8<-- [end:gateway]

if __name__ == "__main__":
    app.run()
