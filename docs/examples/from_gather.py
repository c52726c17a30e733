"""asyncio.gather with a Semaphore, and the same with an executor."""

import asyncio

import anyio

from mtaio import TaskExecutor


async def fetch(number: int) -> str:
    await anyio.sleep(0.01)
    return f"page {number}"


# --8<-- [start:before]
async def before() -> list[str]:
    semaphore = asyncio.Semaphore(3)

    async def limited(number: int) -> str:
        async with semaphore:
            return await fetch(number)

    return await asyncio.gather(*[limited(number) for number in range(5)])


# --8<-- [end:before]
# --8<-- [start:after]
executor = TaskExecutor(max_workers=3)


async def after() -> list[str]:
    return await executor.map(fetch, range(5))


# --8<-- [end:after]
async def main() -> None:
    print("before:", await executor.run_in_thread(asyncio.run, before()))
    print("after: ", await after())


if __name__ == "__main__":
    anyio.run(main)
