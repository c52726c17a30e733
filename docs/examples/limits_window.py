"""Five a second: evenly, with a burst, and in a sliding window."""

import anyio

from mtaio import RateLimiter


async def starts(limiter: RateLimiter) -> str:
    begin = anyio.current_time()
    moments: list[float] = []
    for _ in range(11):
        async with limiter:
            moments.append(anyio.current_time() - begin)
    return " ".join(f"{moment:.1f}" for moment in moments)


async def main() -> None:
    print("even:  ", await starts(RateLimiter(5)))
    print("burst: ", await starts(RateLimiter(5, burst=5)))
    print("window:", await starts(RateLimiter.window(5)))


if __name__ == "__main__":
    anyio.run(main)
