"""
A process that takes slots and writes down when it had them; run with ``python -m``.

Each line of its file is "S time token" or "E time token", in the seconds that all processes on a
machine share; "X time 0" for a lease that was lost.
"""

from __future__ import annotations

import os
import sys
import time

import anyio

from mtaio.exceptions import LeaseLostError
from mtaio.redis import RedisConcurrencyLimiter, RedisStore


async def main(*args: str) -> None:
    """Work until killed, or until standard input ends."""
    url, key, limit, lease, tasks, seconds, path = args
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(kind: str, token: int) -> None:
        os.write(out, f"{kind} {time.monotonic()} {token}\n".encode())

    async def work() -> None:
        while True:
            try:
                async with limiter as held:
                    note("S", held.token)
                    try:
                        await anyio.sleep(float(seconds))
                    finally:
                        note("E", held.token)
            except LeaseLostError:
                note("X", 0)

    async with RedisStore(url) as store, anyio.create_task_group() as group:
        limiter = RedisConcurrencyLimiter(
            store, key, int(limit), lease=float(lease), on_failure="wait"
        )
        for _ in range(int(tasks)):
            group.start_soon(work)
        await anyio.to_thread.run_sync(sys.stdin.read)
        statistics = limiter.statistics()
        group.cancel_scope.cancel()
    os.write(out, f"C {statistics.server_calls} {statistics.server_failures}\n".encode())


if __name__ == "__main__":
    anyio.run(main, *sys.argv[2:], backend=sys.argv[1])
