"""A batch of prompts for a language model, under its two limits; `model.py` is the server."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import anyio
import httpx
from model import Model, running

from mtaio import Pipeline, Quota, Retry, TaskExecutor, Timeout
from mtaio.clients import RateLimitHeaders

# --8<-- [start:batch]
quota = Quota(requests=120, tokens=40_000, per=60, name="model")


def is_refusal(error: Exception) -> bool:
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 429


def is_failure(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, httpx.TransportError | TimeoutError)


def estimate(_: httpx.AsyncClient, prompt: str) -> int:
    return len(prompt) // 4 + 50


def used(answer: dict[str, Any]) -> dict[str, int]:
    return {"tokens": answer["usage"]["total_tokens"]}


api = Pipeline(
    Retry(4, on=is_failure, throttled=is_refusal, hold=quota, within=900),
    quota.part(tokens=estimate, used=used),
    Timeout(20),
    name="model",
)


@api
async def ask(client: httpx.AsyncClient, prompt: str) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": prompt}]}
    response = await client.post("/v1/chat/completions", json=body)
    RateLimitHeaders.parse(response.headers).observe(quota)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


async def run(url: str, prompts: list[str]) -> list[dict[str, Any]]:
    async with (
        httpx.AsyncClient(base_url=url, timeout=None) as client,  # noqa: S113 - Timeout(20)
        TaskExecutor(50) as executor,
    ):
        return await executor.map(partial(ask, client), prompts)


# --8<-- [end:batch]
async def main(backend: str = "asyncio") -> None:
    """Ask a server that allows half of what it says, and breaks every twentieth time."""
    model = Model(requests=120, tokens=40_000, allows=0.5, breaks=20)
    prompts = [f"Prompt {number}: {'a few more words ' * (number % 30)}" for number in range(200)]
    async with running(model) as url:
        started = anyio.current_time()
        answers = await run(url, prompts)
        seconds = anyio.current_time() - started
    print(f"{len(answers)} answers after {seconds:.0f} s, {model.refused} refusals")


if __name__ == "__main__":
    anyio.run(main, backend=sys.argv[1] if sys.argv[1:] else "asyncio")
