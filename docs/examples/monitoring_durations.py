"""An alert when one item in a hundred takes more than two seconds."""

import anyio

import mtaio.testing
from mtaio import TaskExecutor
from mtaio.monitoring import ResourceMonitor

executor = TaskExecutor(max_workers=10, name="reports")
monitor = ResourceMonitor(interval=5)
monitor.watch(executor)  # records durations from now on
monitor.set_threshold("task_executor.reports.run_duration.p99", 2.0, clear=1.0)


@monitor.on_threshold_exceeded
def tell(metric: str, value: float, threshold: float) -> None:
    print(f"{anyio.current_time():g} s: {metric} is {value:.2f}, above {threshold:g}")


@monitor.on_recovered
def tell_the_end(metric: str, value: float, threshold: float) -> None:
    print(f"{anyio.current_time():g} s: {metric} is {value:.2f} again")


async def report(number: int) -> None:
    await anyio.sleep(4.0 if 2000 <= number < 2400 and number % 10 == 0 else 0.4)


async def main() -> None:
    async with monitor, executor:
        await executor.for_each(report, range(4000))
        whole = executor.statistics().run_duration
        assert whole is not None
        print(f"{whole.count} items, in the median about {whole.quantile(0.5):.1f} s")


if __name__ == "__main__":
    mtaio.testing.run(main)
