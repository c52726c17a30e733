"""Sources for map: several iterables at once, and an async generator."""

from collections.abc import AsyncIterator

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=3)


async def price(item: str, amount: int) -> str:
    await anyio.sleep(0.1)
    return f"{amount} x {item}"


async def lines() -> AsyncIterator[str]:
    for line in ("one two", "three", "four five six"):
        await anyio.sleep(0.1)  # as if read from a connection
        yield line


def count_words(line: str) -> int:
    return len(line.split())


async def main() -> None:
    print(await executor.map(price, ["tea", "cake"], [2, 3]))
    print(await executor.map(count_words, lines()))


if __name__ == "__main__":
    anyio.run(main)
