"""The missing ones of many keys are loaded together, and each only once."""

import anyio

from mtaio import TTLCache

cache: TTLCache[str] = TTLCache(60, max_size=1000)
NAMES = {1: "ann", 2: "bob", 3: "cem"}


async def load(users: list[int]) -> dict[int, str]:
    print("  loading", *users)
    await anyio.sleep(0.1)
    return {user: NAMES[user] for user in users if user in NAMES}


async def page(users: list[int]) -> None:
    print(await cache.get_or_set_many(users, load))


async def main() -> None:
    async with cache:
        async with anyio.create_task_group() as group:
            group.start_soon(page, [1, 2])
            await anyio.sleep(0.05)
            group.start_soon(page, [2, 3])  # 2 is on its way
        await page([1, 2, 3, 4])  # there is no user 4


if __name__ == "__main__":
    anyio.run(main)
