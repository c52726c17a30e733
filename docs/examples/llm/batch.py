"""A batch of prompts for a language model, under its two limits."""

import os
from functools import partial

import anyio
import httpx

from mtaio import Quota, Retry, TaskExecutor
from mtaio.clients import LimitedTransport

quota = Quota(requests=120, tokens=40_000, per=60, name="model")


def estimate(request: httpx.Request) -> dict[str, float]:
    return {"tokens": len(request.content) // 4 + 50}


def is_failure(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


@Retry(4, on=is_failure)
async def ask(client: httpx.AsyncClient, prompt: str) -> str:
    body = {"messages": [{"role": "user", "content": prompt}]}
    response = await client.post("/v1/chat/completions", json=body)
    response.raise_for_status()
    answer = response.json()
    response.extensions["taken"].settle(tokens=answer["usage"]["total_tokens"])
    return str(answer["choices"][0]["message"]["content"])


async def ask_all(url: str, prompts: list[str]) -> list[str]:
    transport = LimitedTransport(
        quota=quota, cost=estimate, resend=True, within=900
    )
    async with (
        httpx.AsyncClient(
            base_url=url, transport=transport, timeout=20
        ) as client,
        TaskExecutor(50) as executor,
    ):
        return await executor.map(partial(ask, client), prompts)


async def main() -> None:
    url = os.environ.get("MODEL_URL", "http://127.0.0.1:8010")
    answers = await ask_all(url, [f"What is {n}?" for n in range(200)])
    print(len(answers), "answers")


if __name__ == "__main__":
    anyio.run(main)
