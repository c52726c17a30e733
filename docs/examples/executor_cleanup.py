"""One item fails, the others are cancelled: each gets two seconds to clean up."""

import anyio

from mtaio import TaskExecutor, TimeoutManager

timeouts = TimeoutManager()
executor = TaskExecutor(10)


async def send(part: int) -> None:
    if part == 3:
        raise ConnectionError("part 3 is lost")
    await anyio.sleep(60)


async def upload(part: int) -> None:
    try:
        await send(part)
    except BaseException:
        with timeouts.shielded(
            grace=2
        ):  # without it, the next await is cancelled, too
            await anyio.sleep(part / 10)  # tell the server to forget the part
            print(f"part {part}: removed")
        raise


async def main() -> None:
    try:
        await executor.map(upload, [1, 2, 3])
    except ConnectionError as error:
        print(error)


if __name__ == "__main__":
    anyio.run(main)
