"""A consumer that is slower than the work holds the work back."""

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=2)


async def work(number: int) -> int:
    await anyio.sleep(0.1)
    return number


async def main() -> None:
    async with executor.stream(
        work, range(1, 1000), ordered=True, max_pending=1
    ) as results:
        async for result in results:
            await anyio.sleep(1)
            started = executor.statistics().started
            print(f"took {result}, {started} were started")
            if result == 3:
                break


if __name__ == "__main__":
    anyio.run(main)
