"""A function and a method whose results are cached."""

import anyio

from mtaio import cached


@cached(ttl=60)
async def rate(base: str, to: str = "EUR") -> float:
    print(f"asking for {base} in {to}")
    await anyio.sleep(0.1)
    return 0.92


class Shop:
    """One of several shops, each with its own prices."""

    def __init__(self, name: str) -> None:
        self.name = name

    @cached(ttl=60, max_size=500)
    async def price(self, item: str) -> float:
        """Return what an item costs here."""
        print(f"{self.name} looks up {item}")
        return 9.5


async def main() -> None:
    await rate("USD", to="JPY")
    await rate("USD", to="JPY")  # from the cache
    await rate.invalidate("USD", to="JPY")
    await rate("USD", to="JPY")
    await rate.refresh(
        "USD", to="JPY"
    )  # asks again; the old result serves until then

    north, south = Shop("north"), Shop("south")
    await north.price("tea")
    await south.price("tea")  # another shop, another result
    await north.price("tea")
    print(rate.cache.statistics().loads, north.price.cache.statistics().hits)


if __name__ == "__main__":
    anyio.run(main)
