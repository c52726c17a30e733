"""Cut documents into pieces, and send the pieces in batches."""

from collections.abc import AsyncIterator

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor()


async def documents() -> AsyncIterator[str]:
    for text in ("one two", "three four", "five"):
        await anyio.sleep(0.1)  # as if read from a connection
        yield text


async def cut(document: str) -> list[str]:
    return document.split()


async def embed(pieces: list[str]) -> None:
    await anyio.sleep(0.2)  # stands for a request
    print("embedded:", ", ".join(pieces))


async def main() -> None:
    pieces = executor.stream(cut, documents(), ordered=True, flatten=True)
    await executor.for_each(embed, pieces, batch=3, within=0.5, limit=5)


if __name__ == "__main__":
    anyio.run(main)
