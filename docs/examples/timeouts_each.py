"""Limit the wait for each item, and not what the consumer does with it."""

from collections.abc import AsyncIterator

import anyio

from mtaio import TimeoutManager

timeouts = TimeoutManager(60.0, name="prices")


async def prices() -> AsyncIterator[int]:
    for seconds in (0.8, 0.2, 0.3, 5.0):
        await anyio.sleep(seconds)
        yield round(seconds * 100)


async def upper() -> AsyncIterator[str]:
    async with timeouts.each(prices(), first=1.0, between=0.5) as items:
        async for item in items:
            yield f"{item} yen"


async def main() -> None:
    try:
        async for line in upper():
            print(line)
            await anyio.sleep(2)  # not limited
    except TimeoutError as error:
        print(error)


if __name__ == "__main__":
    anyio.run(main)
