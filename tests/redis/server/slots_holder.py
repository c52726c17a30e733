"""
A process that holds slots until it is told to go on; run with ``python -m``.

Writes "held TOKEN" for each, waits for a line on standard input by blocking its event loop, writes
once to what the tokens protect, whatever has happened to its lease, and how its blocks ended.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

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


def say(*words: object) -> None:
    """Print a line."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def main(*args: str) -> None:
    """Hold slots."""
    url, key, count, limit, lease = args

    async def hold() -> None:
        try:
            async with limiter as held:
                say("held", held.token)
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(sys.stdin.readline)
                    say(await write(store, key, held))
                await checkpoint()
        except LeaseLostError as error:
            say("lost", error.token)
        else:
            say("given back")

    async with RedisStore(url) as store, anyio.create_task_group() as group:
        limiter = RedisConcurrencyLimiter(store, key, int(limit), lease=float(lease))
        for _ in range(int(count)):
            group.start_soon(hold)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[2:7], backend=sys.argv[1])
