"""Two requests at once for each host, however many hosts there are."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from mtaio import ConcurrencyLimiter

hosts: dict[str, ConcurrencyLimiter] = {}
most: dict[str, int] = {}


@asynccontextmanager
async def slot(host: str) -> AsyncGenerator[None]:
    limiter = hosts.setdefault(host, ConcurrencyLimiter(2))
    try:
        async with limiter:
            yield
    finally:
        figures = limiter.statistics()
        if hosts.get(host) is limiter and not figures.in_use + figures.waiting:
            del hosts[host]  # hosts that clients invent do not stay


async def fetch(host: str) -> None:
    async with slot(host):
        at_once = hosts[host].statistics().in_use
        most[host] = max(at_once, most.get(host, 0))
        await anyio.sleep(0.1)


async def main() -> None:
    async with anyio.create_task_group() as group:
        for host in ("a.example", "a.example", "a.example", "b.example"):
            group.start_soon(fetch, host)
    print("at most at once:", dict(sorted(most.items())))
    print("limiters left:", len(hosts))


if __name__ == "__main__":
    anyio.run(main)
