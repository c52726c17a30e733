"""Four items, two of which fail, under each of the three policies."""

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=4)


async def invert(number: int) -> float:
    await anyio.sleep(0.1 * number)
    if number == 4:
        raise LookupError("no fours today")
    return 10 / (number - 2)


async def main() -> None:
    numbers = [1, 2, 3, 4]
    try:
        await executor.map(invert, numbers)
    except ZeroDivisionError as error:
        print("raise:", repr(error), error.__notes__)
    try:
        await executor.map(invert, numbers, errors="collect")
    except* ZeroDivisionError as group:
        print("collect:", group.exceptions)
    except* LookupError as group:
        print("collect:", group.exceptions)
    for result in await executor.map(invert, numbers, errors="return"):
        print("return:", repr(result))


if __name__ == "__main__":
    anyio.run(main)
