"""At shutdown a task that waits for a slot is refused, and one that has a slot finishes."""

import anyio

from mtaio import ConcurrencyLimiter
from mtaio.exceptions import LimitClosedError

database = ConcurrencyLimiter(1, name="database")


async def query(number: int) -> None:
    try:
        async with database:
            await anyio.sleep(1)
            print(f"query {number}: done")
    except LimitClosedError as error:
        print(f"query {number}: {error.name} is closed")


async def main() -> None:
    async with anyio.create_task_group() as group:
        for number in range(2):
            group.start_soon(query, number)
            await anyio.sleep(0.1)
        database.close()


if __name__ == "__main__":
    anyio.run(main)
