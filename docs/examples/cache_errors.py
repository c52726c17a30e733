"""Who gets a failure: waiting callers, and those soon after; nobody, if there is an old value."""

import logging

import anyio

from mtaio import TTLCache

logging.getLogger("mtaio.cache").setLevel(
    "ERROR"
)  # serving an old value logs a warning

plain: TTLCache[str] = TTLCache(60, max_size=1000)
sparing: TTLCache[str] = TTLCache(60, max_size=1000, error_ttl=0.3)
lenient: TTLCache[str] = TTLCache(0.1, max_size=1000, stale_if_error=60)


async def load() -> str:
    await anyio.sleep(0.05)
    raise ConnectionError("no route to host")


async def ask(cache: TTLCache[str]) -> None:
    try:
        print(await cache.get_or_set("key", load))
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

    lenient.set_nowait("key", "an old value")
    await anyio.sleep(0.2)
    await ask(lenient)
    print("served:", lenient.statistics().served_stale)


if __name__ == "__main__":
    anyio.run(main)
