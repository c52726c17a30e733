"""How long things take: the histograms of what a monitor watches."""

import anyio

from mtaio import ConcurrencyLimiter, Pipeline, TaskExecutor
from mtaio.monitoring import ResourceMonitor

monitor = ResourceMonitor(interval=0.1)
executor = TaskExecutor(max_workers=40)
database = ConcurrencyLimiter(4, name="database")
api = monitor.watch(Pipeline(database, name="orders"))
monitor.set_threshold("pipeline.orders.call_duration.p99", 0.5)


async def query(number: int) -> None:
    await anyio.sleep(0.04 if number % 10 else 0.7)  # one in ten is slow


async def order(number: int) -> None:
    await api.run(query, number)


async def main() -> None:
    async with monitor:
        await executor.for_each(order, range(40))
        await anyio.sleep(0.2)
        print("firing:", *[alert.metric for alert in monitor.firing])
        now = api.statistics()
        for name, durations in [
            ("calls", now.call_duration),
            ("queries", now.attempt_duration),
            ("waits", now.parts["concurrency_limiter"].wait_duration),
        ]:
            assert durations is not None  # the monitor watches it
            half, most = durations.quantile(0.5), durations.quantile(0.99)
            print(
                f"{durations.count} {name}: half within {half:.2f} s, 99 % within {most:.2f} s"
            )


if __name__ == "__main__":
    anyio.run(main)
