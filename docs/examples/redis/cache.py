"""A cache that processes share: start it several times, for one load."""

import os

import anyio

from mtaio.redis import RedisStore, TieredCache

store = RedisStore(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
weather = TieredCache[str](store, "weather", default_ttl=600, near_ttl=30)


def key_of(city: str) -> str:
    return f"city:{city}"


@weather.cached(key_of)
async def forecast(city: str) -> str:
    print(f"asking for {city}")
    await anyio.sleep(0.1)
    return f"sunny in {city}"


async def main() -> None:
    async with store, weather:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(forecast, "naha")
        print(await forecast("naha"))

        await weather.delete(key_of("naha"))  # all processes forget it
        print(await forecast("naha"))
        await weather.delete(key_of("naha"))


if __name__ == "__main__":
    anyio.run(main)
