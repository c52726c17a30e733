"""Four items, two of which fail."""

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=4)


async def invert(number: int) -> float:
    await anyio.sleep(0.1 * number)
    if number == 4:
        raise LookupError("no fours today")
    return 10 / (number - 2)


async def main() -> None:
    try:
        await executor.map(invert, [1, 2, 3, 4])
    except ZeroDivisionError as error:
        print("raised:", repr(error), error.__notes__)

    for result in await executor.map(invert, [1, 2, 3, 4], errors="return"):
        print(repr(result))


if __name__ == "__main__":
    anyio.run(main)
