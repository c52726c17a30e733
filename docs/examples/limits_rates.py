"""Two a second, and five in any ten seconds: every rate of a list is kept."""

import anyio

from mtaio import RateLimiter, TaskExecutor

rates = [RateLimiter(2), RateLimiter.window(5, per=10)]


async def main() -> None:
    start = anyio.current_time()
    moments: list[float] = []

    async def request(_: int) -> None:
        moments.append(anyio.current_time() - start)

    await TaskExecutor().for_each(request, range(7), rate=rates)
    print(" ".join(f"{moment:.1f}" for moment in moments))


if __name__ == "__main__":
    anyio.run(main)
