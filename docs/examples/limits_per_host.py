"""Two requests at once for each host, however many hosts there are."""

import anyio

from mtaio import KeyedConcurrencyLimiter

per_host = KeyedConcurrencyLimiter(2)
most: dict[str, int] = {}


async def fetch(host: str) -> None:
    async with per_host.slot(host):
        at_once = per_host.statistics_for(host).in_use
        most[host] = max(at_once, most.get(host, 0))
        await anyio.sleep(0.1)


async def main() -> None:
    async with anyio.create_task_group() as group:
        for host in ("a.example", "a.example", "a.example", "b.example"):
            group.start_soon(fetch, host)
    print("at most at once:", dict(sorted(most.items())))
    print("hosts remembered:", per_host.statistics().keys)


if __name__ == "__main__":
    anyio.run(main)
