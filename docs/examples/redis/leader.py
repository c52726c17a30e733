"""One process of several writes the report: start it several times at once."""

import os

import anyio

from mtaio import TaskExecutor
from mtaio.redis import RedisLeader, RedisStore

store = RedisStore(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
leader = RedisLeader(store, "reports", ttl=5)
executor = TaskExecutor()


async def report(done: anyio.Event) -> None:
    await anyio.sleep(0.1)  # cancelled here if this process leads no more
    print("the report is written")
    done.set()


async def main() -> None:
    done = anyio.Event()
    async with store, leader, executor:
        reporting = executor.every(0.5, report, done, leader=leader)
        await done.wait()
        reporting.stop()


if __name__ == "__main__":
    anyio.run(main)
