"""A watched limiter: its statistics become metrics."""

import anyio

from mtaio import ConcurrencyLimiter, TaskExecutor
from mtaio.monitoring import ResourceMonitor

monitor = ResourceMonitor(interval=0.1)
database = monitor.watch(ConcurrencyLimiter(4, name="database"))
monitor.set_threshold("concurrency_limiter.database.waiting", 8)


@monitor.on_threshold_exceeded
def tell(metric: str, value: float, threshold: float) -> None:
    print(f"{metric} is {value:g}, above {threshold:g}")


async def query(_: int) -> None:
    async with database:
        await anyio.sleep(0.25)


async def main() -> None:
    async with monitor, TaskExecutor(max_workers=50) as executor:
        await executor.for_each(query, range(20))
        busy = monitor.history("concurrency_limiter.database.in_use")
        print("most at once:", max(value for _, value in busy))


if __name__ == "__main__":
    anyio.run(main)
