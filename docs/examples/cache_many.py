"""The missing ones of many keys are loaded together, and each only once."""

import anyio

from mtaio import TTLCache

cache = TTLCache[str](60, max_size=1000)
NAMES = {1: "ann", 2: "bob", 3: "cem"}


async def load(users: list[int]) -> dict[int, str]:
    print("loading", users)
    await anyio.sleep(0.1)  # SELECT id, name FROM users WHERE id IN (…)
    return {user: NAMES[user] for user in users if user in NAMES}


async def main() -> None:
    print(await cache.get_or_set_many([1, 2], load))
    print(await cache.get_or_set_many([1, 2, 3, 4], load))  # there is no 4


if __name__ == "__main__":
    anyio.run(main)
