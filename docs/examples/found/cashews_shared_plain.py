"""cashews 7.6.0: the timeout of one call cancels another."""

import asyncio

from cashews import Cache

cache = Cache()
cache.setup("mem://", check_interval=0)


@cache(ttl="1m", key="value")
async def load() -> str:
    """Load a value, which takes a while."""
    await asyncio.sleep(0.01)
    return "loaded"


async def impatient() -> str:
    async with asyncio.timeout(0):
        return await load()


async def main() -> None:
    calls = [asyncio.create_task(call()) for call in (impatient, load)]
    first, second = await asyncio.gather(*calls, return_exceptions=True)
    print("with a timeout:", type(first).__name__)
    print("without:", type(second).__name__)
    await cache.close()


if __name__ == "__main__":
    asyncio.run(main())
