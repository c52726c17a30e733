"""A failure reaches those who waited for it; with ``error_ttl``, those who come soon after too."""

import anyio

from mtaio.cache import TTLCache

plain: TTLCache[str] = TTLCache(60, max_size=1000)
sparing: TTLCache[str] = TTLCache(60, max_size=1000, error_ttl=0.3)


async def load() -> str:
    await anyio.sleep(0.05)
    raise ConnectionError("no route to host")


async def ask(cache: TTLCache[str]) -> None:
    try:
        await cache.get_or_set("key", load)
    except ConnectionError as error:
        print(error)


async def main() -> None:
    for cache in (plain, sparing):
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(ask, cache)
        await ask(cache)
        print("loads:", cache.statistics().loads)
    await anyio.sleep(0.4)
    await ask(sparing)
    print("loads:", sparing.statistics().loads)


if __name__ == "__main__":
    anyio.run(main)
