"""Five requests under a limit of ten a second, two of them at once."""

import anyio

from mtaio import RateLimiter

limiter = RateLimiter(10, burst=2)


async def fetch(start: float) -> None:
    async with limiter:  # waits for its turn
        print(f"{anyio.current_time() - start:.1f} s: a request")


async def main() -> None:
    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(fetch, start)


if __name__ == "__main__":
    anyio.run(main)
