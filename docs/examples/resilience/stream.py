"""Tokens as they come: each has its time, and a failed start is retried."""

from collections.abc import AsyncIterator
from itertools import count

import anyio

from mtaio import Pipeline, Retry, Timeout

attempts = count(1)
started: list[float] = []


def say(text: str) -> None:
    print(f"{anyio.current_time() - started[-1]:.1f} s  {text}")


# --8<-- [start:pipeline]
api = Pipeline(
    Retry(3, wait_initial=0.1, jitter=0),
    Timeout(30, first=2.0, between=0.5),
    name="model",
)


@api
async def tokens(prompt: str) -> AsyncIterator[str]:
    attempt = next(attempts)
    say(f"attempt {attempt}")
    if attempt == 1:
        raise ConnectionError("reset")
    for word in prompt.split():
        await anyio.sleep(9 if word == "you?" else 0.1)  # the last one hangs
        yield word


async def ask(prompt: str) -> None:
    async with tokens(prompt) as items:
        async for item in items:
            say(item)


# --8<-- [end:pipeline]


async def main() -> None:
    started.append(anyio.current_time())
    try:
        await ask("how are you?")
    except TimeoutError as error:
        say(str(error))


if __name__ == "__main__":
    anyio.run(main)
