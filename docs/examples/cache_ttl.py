"""How long: a time of its own, for ever, while it is used, and begun anew."""

import math

import anyio

from mtaio.cache import TTLCache

cache: TTLCache[str] = TTLCache(1, max_size=1000)
sessions: TTLCache[str] = TTLCache(60, max_size=1000, idle_ttl=0.6)


async def main() -> None:
    cache.set_nowait("default", "1 s")
    cache.set_nowait("short", "0.2 s", 0.2)
    cache.set_nowait("constant", "for ever", math.inf)
    cache.set_nowait("lease", "1 s, begun anew after 0.8")
    await anyio.sleep(0.8)
    cache.touch_nowait("lease")
    print("0.8 s:", *cache)
    await anyio.sleep(0.4)
    print("1.2 s:", *cache)

    sessions.set_nowait("ann", "reads every 0.3 s")
    sessions.set_nowait("bob", "never reads")
    for _ in range(3):
        await anyio.sleep(0.3)
        sessions.get_nowait("ann")
    print("0.9 s:", *sessions)


if __name__ == "__main__":
    anyio.run(main)
