"""Documents are cut into pieces, and the pieces sent in batches, until the program is to stop."""

from collections.abc import AsyncIterator

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor()
stop = anyio.Event()


async def documents() -> AsyncIterator[str]:
    yield "one two three"
    yield "four five"
    stop.set()  # as a signal does: app.wait_draining
    await anyio.sleep_forever()  # the next document may come in an hour


async def cut(document: str) -> list[str]:
    return document.split()


async def embed(pieces: list[str]) -> None:
    print("embed", ", ".join(pieces))
    await anyio.sleep(0.1)


async def main() -> None:
    async with executor.stream(
        cut, documents(), flatten=True, ordered=True, until=stop.wait
    ) as pieces:
        await executor.for_each(embed, pieces, batch=2, within=0.5, limit=5)


if __name__ == "__main__":
    anyio.run(main)
