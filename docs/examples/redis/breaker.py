"""A breaker that opens in one process, and so in all: here two of them share a program."""

import os

import anyio

from mtaio.exceptions import BreakerOpenError
from mtaio.redis import RedisBreaker, RedisStore

store = RedisStore(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
here, there = (
    RedisBreaker(
        store, "payments", 0.5, last=4, open_for=0.3, check_interval=0.05
    )
    for _ in range(2)
)


async def pay() -> None:
    raise ConnectionError("no answer")


async def main() -> None:
    async with store:
        for _ in range(3):
            try:
                await here.run(pay)
            except (ConnectionError, BreakerOpenError) as error:
                print(f"here: {type(error).__name__}")
        while there.state == "closed":
            await there.run(anyio.sleep, 0.01)  # its own calls succeed
        print(f"there: {there.state}")
        await anyio.sleep(0.4)
        await there.run(
            anyio.sleep, 0
        )  # the only call that probes the service, of all processes
        await anyio.sleep(0.1)
        await here.run(anyio.sleep, 0)
        print(f"here: {here.state}, there: {there.state}")


if __name__ == "__main__":
    anyio.run(main)
