"""A threshold on the growth of a counter in the last minute."""

import anyio

import mtaio.testing
from mtaio.monitoring import ResourceMonitor

failures: list[str] = []
monitor = ResourceMonitor(interval=5)
monitor.gauge("failed", lambda: len(failures))


def growth() -> float:
    past = monitor.history("failed", seconds=60)
    return len(failures) - past[0][1] if past else 0.0


monitor.gauge("failed_a_minute", growth)
monitor.set_threshold("failed_a_minute", 10, clear=5, cooldown=300)


async def main() -> None:
    async with monitor:
        await anyio.sleep(0.5)  # between two samples
        for second in range(600):
            await anyio.sleep(1)
            if second % 60 == 0 or 200 <= second < 220:
                failures.append("card declined")  # one a minute is usual
    for alert in monitor.alerts:
        print(f"{alert.metric} {alert.state} at {alert.value:g}")


if __name__ == "__main__":
    mtaio.testing.run(main)
