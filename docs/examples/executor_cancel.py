"""Cancel a call: the running items clean up before it returns."""

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=3)
cleaned_up: list[int] = []


async def work(number: int) -> None:
    try:
        await anyio.sleep(1)
    finally:
        cleaned_up.append(number)


async def main() -> None:
    with anyio.move_on_after(1.5):
        await executor.for_each(work, range(1000))
    print("cleaned up:", sorted(cleaned_up))
    statistics = executor.statistics()
    print(f"{statistics.succeeded} succeeded, {statistics.cancelled} cancelled")
    print(f"{statistics.failed} failed, {statistics.in_flight} running")


if __name__ == "__main__":
    anyio.run(main)
