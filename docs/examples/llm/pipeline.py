"""A language model behind a client library that takes no transport."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

# --8<-- [start:pipeline]
from mtaio import Pipeline, Quota, Retry, Timeout

quota = Quota(requests=120, tokens=40_000, per=60, name="model")


class RateLimitError(Exception):
    """What the library raises for a 429."""

    retry_after = 2.0


@dataclass
class Answer:
    """What the library returns."""

    text: str
    total_tokens: int


api = Pipeline(
    Retry(
        4,
        on=(OSError, TimeoutError),
        throttled=RateLimitError,
        hold=quota,
        within=300,
    ),
    quota.part(
        tokens=lambda prompt: len(prompt) // 4 + 50,
        used=lambda answer: {"tokens": answer.total_tokens},
    ),
    Timeout(20),
)
# --8<-- [end:pipeline]

asked = 0


@api
async def ask(prompt: str) -> Answer:
    """Ask the library, which is refused the first time."""
    global asked
    asked += 1
    if asked == 1:
        raise RateLimitError
    return Answer(prompt.upper(), total_tokens=40)


async def main() -> None:
    """Ask, and show when the answer came."""
    started = anyio.current_time()
    answer = await ask("hello")
    seconds = anyio.current_time() - started
    print(f"{answer.text} after {seconds:.0f} s, in {asked} attempts")


if __name__ == "__main__":
    anyio.run(main)
