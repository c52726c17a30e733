"""A monitor with a gauge, a threshold and handlers."""

import anyio

from mtaio.monitoring import ResourceMonitor

orders: list[int] = []
monitor = ResourceMonitor(interval=0.1)
monitor.gauge("queue_depth", lambda: len(orders))
monitor.set_threshold("queue_depth", 100, clear=20)


@monitor.on_threshold_exceeded
async def tell(metric: str, value: float, threshold: float) -> None:
    print(f"{metric} is {value:g}, above {threshold:g}")


@monitor.on_recovered
async def tell_the_end(metric: str, value: float, threshold: float) -> None:
    print(f"{metric} is {value:g}, below {threshold:g} again")


async def main() -> None:
    async with monitor:
        stats = await monitor.get_current_stats()
        print("memory is known:", stats.memory.rss > 0)
        orders.extend(range(120))  # too many at once
        await anyio.sleep(0.35)
        del orders[:60]  # still above clear: no handler is called
        await anyio.sleep(0.3)
        print("firing:", [alert.metric for alert in monitor.firing])
        orders.clear()
        await anyio.sleep(0.3)


if __name__ == "__main__":
    anyio.run(main)
