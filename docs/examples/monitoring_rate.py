"""A counter only grows, so the threshold is on its growth in the last minute."""

import anyio

import mtaio.testing
from mtaio.monitoring import ResourceMonitor

failures: list[str] = []
monitor = ResourceMonitor(interval=5)
monitor.gauge("failed_payments", lambda: len(failures))


def growth() -> float:
    past = monitor.history("failed_payments", seconds=60)
    return len(failures) - past[0][1] if past else 0.0


monitor.gauge("failed_payments_a_minute", growth)
monitor.set_threshold("failed_payments_a_minute", 10, clear=5, cooldown=300)


@monitor.on_threshold_exceeded
def tell(metric: str, value: float, threshold: float) -> None:
    print(
        f"{anyio.current_time():g} s: {metric} {value:g}, above {threshold:g}"
    )


@monitor.on_recovered
def tell_the_end(metric: str, value: float, threshold: float) -> None:
    print(
        f"{anyio.current_time():g} s: {metric} {value:g}, no longer above {threshold:g}"
    )


async def main() -> None:
    async with monitor:
        await anyio.sleep(0.5)  # between two samples
        for second in range(600):
            await anyio.sleep(1)
            if second % 60 == 0 or 200 <= second < 220:
                failures.append("card declined")  # one a minute is usual


if __name__ == "__main__":
    mtaio.testing.run(main)
