"""Each user may make two requests at once, and then one a second."""

import math

import anyio

from mtaio import KeyedRateLimiter
from mtaio.exceptions import RateLimitError

per_user = KeyedRateLimiter(1, burst=2, max_keys=10_000)


def answer(user: str) -> str:
    try:
        per_user.acquire_nowait(user)
    except RateLimitError as error:
        return f"429, Retry-After: {math.ceil(error.retry_after)}"
    return "200"


async def main() -> None:
    for user in ("ann", "ann", "ann", "bob"):
        print(f"{user}: {answer(user)}")


if __name__ == "__main__":
    anyio.run(main)
