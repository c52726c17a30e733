"""Exchange rates from a slow service, each asked for once a minute at most."""

import anyio

from mtaio import cached


@cached(ttl=60)
async def rate(currency: str) -> float:
    print(f"asking for {currency}")
    await anyio.sleep(0.1)  # a request to the service
    return {"USD": 1.16, "JPY": 180.5}[currency]


async def main() -> None:
    print(await rate("USD"))
    print(await rate("USD"))  # from the cache
    print(await rate("JPY"))

    await rate.invalidate("USD")
    print(await rate("USD"))


if __name__ == "__main__":
    anyio.run(main)
