"""
A process that makes runs while it leads, and writes them down; run with ``python -m``.

Each line of its file is "S time token" or "E time token", in the seconds that all processes on a
machine share.
"""

from __future__ import annotations

import os
import sys
import time

import anyio

from mtaio.core import TaskExecutor
from mtaio.redis import RedisLeader, RedisStore


async def main(*args: str) -> None:
    """Work until killed, or until standard input ends."""
    url, key, ttl, period, seconds, path = args
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(kind: str, token: int | None) -> None:
        os.write(out, f"{kind} {time.monotonic()} {token} {os.getpid()}\n".encode())

    async def work() -> None:
        token = leader.token
        note("S", token)
        try:
            await anyio.sleep(float(seconds))
        finally:
            note("E", token)

    async with (
        RedisStore(url) as store,
        RedisLeader(store, key, ttl=float(ttl)) as leader,
        TaskExecutor() as executor,
    ):
        task = executor.every(float(period), work, name="work", leader=leader)
        await anyio.to_thread.run_sync(sys.stdin.read)
        task.stop()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[2:], backend=sys.argv[1])
