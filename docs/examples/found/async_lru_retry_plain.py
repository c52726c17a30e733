"""async-lru 2.4.0: after a timeout and a retry, a third call loads again."""

import asyncio

from async_lru import alru_cache

loads = 0


@alru_cache
async def load(key: str) -> str:
    """Load a value, which takes a while."""
    global loads
    loads += 1
    await asyncio.sleep(0.01)
    return key.upper()


async def main() -> None:
    try:
        async with asyncio.timeout(0):
            await load("a")
    except TimeoutError:
        print("the first call has timed out")
    print("the second call:", await load("a"))
    print("in the cache:", load.cache_contains("a"))
    print("the third call:", await load("a"))
    print("loads:", loads)


if __name__ == "__main__":
    asyncio.run(main())
