"""A plain function in threads: three equal calls at once, and one query."""

import time

import anyio
from anyio import to_thread

from mtaio import cached


@cached(ttl=60)
def price(item: str) -> float:
    print(f"looking up {item}")
    time.sleep(0.05)  # a query by a library that is not async
    return 9.5


async def main() -> None:
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(to_thread.run_sync, price, "tea")
    print(price("tea"))

    price.invalidate("tea")
    await to_thread.run_sync(price, "tea")
    print(price.cache.statistics().loads, "queries")


if __name__ == "__main__":
    anyio.run(main)
