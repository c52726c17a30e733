"""What belongs together is read, counted and dropped together, in all processes."""

import os

import anyio

from mtaio.redis import RedisStore, TieredCache

store = RedisStore(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
shop = TieredCache[int](store, "shop", default_ttl=600)
prices = {"rice": 3, "tea": 4}


def key_of(item: str) -> str:
    return f"price:{item}"


def tags_of(item: str) -> set[str]:
    return {"prices", f"item:{item}"}


@shop.cached(key_of, tags=tags_of)
async def price(item: str) -> int:
    print(f"looking up {item}")
    return prices[item]


async def main() -> None:
    async with store, shop:
        print(await price("rice"), await price("tea"))
        prices["tea"] = 5
        await shop.invalidate_tag("item:tea")
        print(await shop.get_many(["price:rice", "price:tea"]))
        print(await price("tea"))

        await shop.set_many({"sold:rice": 20, "sold:tea": 10}, ttl=3600)
        print(await shop.increment("sold:tea", 2))
        print(
            await shop.touch("sold:tea", 60), await shop.touch("sold:salt", 60)
        )
        print(await shop.delete_many(["sold:rice", "sold:tea", "sold:salt"]))
        await shop.clear()


if __name__ == "__main__":
    anyio.run(main)
