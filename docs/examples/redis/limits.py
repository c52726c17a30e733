"""A rate limit for all processes together: start it several times at once."""

import os

import anyio

from mtaio.exceptions import StoreError
from mtaio.redis import RedisRateLimiter, RedisStore

store = RedisStore(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
limiter = RedisRateLimiter(store, "geocoder", 50, burst=10)


@limiter
async def geocode(place: str) -> str:
    return place.title()


async def main() -> None:
    async with store:
        try:
            for place in ("osaka", "naha", "sapporo"):
                print(await geocode(place))
        except StoreError as error:
            print(f"not limited, hence not asked: {error}")


if __name__ == "__main__":
    anyio.run(main)
