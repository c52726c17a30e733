"""Two at once, one more may wait, and the rest are refused at once."""

import anyio

from mtaio import ConcurrencyLimiter
from mtaio.exceptions import ConcurrencyLimitError

bulkhead = ConcurrencyLimiter(2, max_waiting=1)


async def handle(number: int) -> None:
    try:
        async with bulkhead:
            await anyio.sleep(0.1)
            print(f"{number}: done")
    except ConcurrencyLimitError:
        print(f"{number}: busy, come back later")


async def main() -> None:
    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(handle, number)
            await anyio.sleep(0.01)
    figures = bulkhead.statistics()
    print(f"served {figures.acquired}, turned away {figures.rejected}")


if __name__ == "__main__":
    anyio.run(main)
