"""Two reports at a time, in all processes: start it several times at once."""

import os

import anyio

from mtaio.exceptions import LeaseLostError
from mtaio.redis import RedisConcurrencyLimiter, RedisStore

store = RedisStore(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
limiter = RedisConcurrencyLimiter(store, "reports", 2, lease=5)
written: dict[str, int] = {}


async def report(name: str) -> None:
    try:
        async with limiter as lease:
            await anyio.sleep(0.1)
            if written.get(name, 0) < lease.token:  # refuses a late write
                written[name] = lease.token
    except LeaseLostError as error:
        print(f"{name} has to be made again: {error}")


async def main() -> None:
    async with store, anyio.create_task_group() as group:
        for name in ("sales", "stock", "staff"):
            group.start_soon(report, name)
    print(*sorted(written))


if __name__ == "__main__":
    anyio.run(main)
