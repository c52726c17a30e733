"""Ask a service for six prices, three at a time."""

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=3)


async def price(item: str) -> int:
    await anyio.sleep(0.2)  # stands for a request
    return 10 * len(item)


async def main() -> None:
    started = anyio.current_time()
    items = ["tea", "cake", "milk", "honey", "rum", "bread"]
    print(await executor.map(price, items))
    print(f"in {anyio.current_time() - started:.1f} s")


if __name__ == "__main__":
    anyio.run(main)  # or anyio.run(main, backend="trio")
