"""A source that goes down: the old value is served while it is."""

import logging

import anyio

from mtaio import TTLCache

# Each failed load is logged as a warning, which this program does not show.
logging.getLogger("mtaio.cache").setLevel("ERROR")

cache = TTLCache[str](60, max_size=1000, stale_if_error=3600, error_ttl=5)


async def load() -> str:
    raise ConnectionError("no route to host")


async def main() -> None:
    cache.set_nowait("weather", "sunny")
    await anyio.sleep(61)
    print(await cache.get_or_set("weather", load))  # one load, which fails
    print(await cache.get_or_set("weather", load))  # none within five seconds

    try:
        await cache.get_or_set("news", load)  # there is no old value
    except ConnectionError as error:
        print(error)

    print(cache.statistics().loads, "loads")


if __name__ == "__main__":
    anyio.run(main)
