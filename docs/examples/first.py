"""Fetch six pages: four at once, ten per second, half a second for each."""

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=4)


async def fetch(page: int) -> str:
    """Stand in for a request; page 4 never answers."""
    await anyio.sleep(60 if page == 4 else 0.05)
    return f"page {page}"


async def main() -> None:
    start = anyio.current_time()
    answers = await executor.map(
        fetch, range(1, 7), rate=10, timeout=0.5, errors="return"
    )
    print(*answers, sep="\n")
    print(f"in {anyio.current_time() - start:.1f} s")


if __name__ == "__main__":
    anyio.run(main)  # or anyio.run(main, backend="trio")
