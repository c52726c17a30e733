"""Runs at a fixed pace and by the time of day; some are late, one fails."""

import anyio

from mtaio import TaskExecutor
from mtaio.core import Cron

executor = TaskExecutor(max_workers=4)
prices: list[str] = []


async def refresh() -> None:
    prices.append("new")
    if len(prices) == 2:
        raise ConnectionError("no prices")  # logged; the next run comes


async def compare() -> None:
    await anyio.sleep(0.5)  # longer than its period


def report(name: str) -> None:  # a sync function runs in a worker thread
    print("report:", name)


async def main() -> None:
    async with executor:
        refreshing = executor.every(0.2, refresh, timeout=0.1)
        comparing = executor.every(0.3, compare, overlap="cancel")
        executor.every(60, report, "stock", jitter=0.1)
        weekdays = Cron("30 6 * * MON-FRI", tz="Asia/Tokyo")
        executor.every(weekdays, report, "sales")
        await anyio.sleep(1.1)
    print("refresh:", refreshing.statistics().failed, "failed")
    print("compare:", comparing.statistics().cancelled, "cancelled")


if __name__ == "__main__":
    anyio.run(main)
