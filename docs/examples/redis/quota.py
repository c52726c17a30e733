"""Requests and tokens a minute of a language model, for all processes."""

import os

import anyio

from mtaio.redis import RedisQuota, RedisStore

store = RedisStore(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
quota = RedisQuota(store, "model", requests=600, tokens=1_000_000, per=60)


async def complete(prompt: str) -> tuple[str, int]:
    await anyio.sleep(0.01)  # a request to the model
    return prompt.upper(), len(prompt) + 7


async def ask(prompt: str) -> str:
    async with quota.take(tokens=len(prompt) + 500) as taken:
        answer, used = await complete(prompt)
        taken.settle(tokens=used)
    return answer


async def main() -> None:
    async with store:
        for prompt in ("hello", "goodbye"):
            print(await ask(prompt))
    tokens = quota.statistics().limits["tokens"]
    print(f"{tokens.acquired:g} tokens taken, {tokens.used:g} used")


if __name__ == "__main__":
    anyio.run(main)
