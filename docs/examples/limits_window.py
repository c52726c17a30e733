"""Five a second: by a bucket, nine in the first second; by a window, never more than five."""

import anyio

from mtaio.resources import RateLimiter


async def starts(limiter: RateLimiter) -> str:
    begin = anyio.current_time()
    moments: list[float] = []
    for _ in range(11):
        async with limiter:
            moments.append(anyio.current_time() - begin)
    return " ".join(f"{moment:.1f}" for moment in moments)


async def main() -> None:
    print("bucket:", await starts(RateLimiter(5)))
    print("window:", await starts(RateLimiter.window(5, per=1)))


if __name__ == "__main__":
    anyio.run(main)
