"""Fetch six pages: four requests at once, ten per second, half a second for each."""

import anyio

from mtaio import RateLimiter, TaskExecutor

executor = TaskExecutor(max_workers=4)
ten_a_second = RateLimiter(rate=10, burst=2)


async def fetch(page: int) -> str:
    """Stand in for a request; page 4 never answers."""
    await anyio.sleep(60 if page == 4 else 0.05)
    return f"page {page}"


async def main() -> None:
    start = anyio.current_time()
    answers = await executor.map(
        fetch, range(1, 7), rate=ten_a_second, timeout=0.5, errors="return"
    )
    for answer in answers:
        print(answer if isinstance(answer, str) else type(answer).__name__)
    print(f"in {anyio.current_time() - start:.1f} s")


if __name__ == "__main__":
    anyio.run(main)  # or anyio.run(main, backend="trio")
