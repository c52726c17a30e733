"""A few different calls with asyncio.TaskGroup, and with an executor."""

import asyncio

import anyio

from mtaio import TaskExecutor


async def get_name(user: int) -> str:
    await anyio.sleep(0.01)
    return f"user {user}"


async def count_posts(user: int) -> int:
    await anyio.sleep(0.01)
    return 10 * user


# --8<-- [start:before]
async def before() -> tuple[str, int]:
    async with asyncio.TaskGroup() as group:
        name = group.create_task(get_name(7))
        posts = group.create_task(count_posts(7))
    return name.result(), posts.result()


# --8<-- [end:before]
# --8<-- [start:after]
executor = TaskExecutor()


async def after() -> tuple[str, int]:
    return await executor.gather(get_name(7), count_posts(7))


# --8<-- [end:after]
async def main() -> None:
    print("before:", await executor.run_in_thread(asyncio.run, before()))
    print("after: ", await after())


if __name__ == "__main__":
    anyio.run(main)
