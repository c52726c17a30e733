"""Times to live: per value, unlimited, restarted, and as long as a value is read."""

import math

import anyio

from mtaio import TTLCache

cache: TTLCache[str] = TTLCache(2, max_size=1000)
sessions: TTLCache[str] = TTLCache(60, max_size=1000, idle_ttl=0.9)


async def main() -> None:
    cache.set_nowait("default", "2 s")
    cache.set_nowait("short", "0.4 s", 0.4)
    cache.set_nowait("constant", "no end", math.inf)
    cache.set_nowait("lease", "2 s, restarted after 1.5")
    await anyio.sleep(1.5)
    cache.touch_nowait("lease")
    print("1.5 s:", *cache)
    await anyio.sleep(1)
    print("2.5 s:", *cache)

    sessions.set_nowait("ann", "reads every 0.3 s")
    sessions.set_nowait("bob", "never reads")
    for _ in range(4):
        await anyio.sleep(0.3)
        sessions.get_nowait("ann")
    print("1.2 s:", *sessions)


if __name__ == "__main__":
    anyio.run(main)
