"""Runs at a fixed pace, by the time of day, and what becomes of those that are late or fail."""

import anyio

from mtaio import TaskExecutor
from mtaio.core import Cron

executor = TaskExecutor(max_workers=4)
prices: list[str] = []


# --8<-- [start:every]
async def refresh() -> None:
    prices.append("new")
    if len(prices) == 2:
        raise ConnectionError(
            "no prices this time"
        )  # logged; the next run comes all the same


async def compare() -> None:
    await anyio.sleep(0.5)  # longer than its period


def report(name: str) -> None:  # a sync function: it runs in a worker thread
    print("report:", name)


async def main() -> None:
    async with executor:
        refreshing = executor.every(0.2, refresh, timeout=0.1)
        comparing = executor.every(0.3, compare, overlap="cancel")
        executor.every(60, report, "stock", jitter=0.1)
        executor.every(
            Cron("30 6 * * MON-FRI", tz="Asia/Tokyo"), report, "sales"
        )
        await anyio.sleep(1.1)
    for each in (refreshing, comparing):
        done = each.statistics()
        print(
            f"{each.name}: {done.runs} runs, {done.failed} failed, {done.cancelled} cancelled"
        )


# --8<-- [end:every]
if __name__ == "__main__":
    anyio.run(main)
