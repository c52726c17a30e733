"""
A process that holds slots until it is told to go on; run with ``python -m``.

Writes "held TOKEN" for each, waits for a line on standard input by blocking its event loop, writes
once to what the tokens protect, whatever has happened to its lease, and how its blocks ended.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio

from mtaio.exceptions import LeaseLostError
from mtaio.redis import RedisConcurrencyLimiter, RedisStore
from mtaio.redis._store import Script

if TYPE_CHECKING:
    from mtaio.redis import Lease

FENCED = Script("""
if tonumber(ARGV[1]) < tonumber(redis.call('GET', KEYS[1]) or '0') then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
""")


async def write(store: RedisStore, key: str, lease: Lease) -> str:
    """Write to what the tokens protect."""
    accepted = await store.script(FENCED, [f"protected:{key}"], [lease.token])
    return "accepted" if accepted else "refused"


async def main(url: str, key: str, count: str, limit: str, lease: str) -> None:
    """Hold slots."""

    async def hold() -> None:
        try:
            async with limiter as held:
                print("held", held.token, flush=True)
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(sys.stdin.readline)
                    print(await write(store, key, held), flush=True)
                await anyio.sleep(0)
        except LeaseLostError as error:
            print("lost", error.token, flush=True)
        else:
            print("given back", flush=True)

    async with RedisStore(url) as store, anyio.create_task_group() as group:
        limiter = RedisConcurrencyLimiter(store, key, int(limit), lease=float(lease))
        for _ in range(int(count)):
            group.start_soon(hold)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[2:7], backend=sys.argv[1])
