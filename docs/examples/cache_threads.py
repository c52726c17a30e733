"""One cache for the event loop, for worker threads, and for code without an event loop."""

import anyio
from anyio import to_thread

from mtaio import TTLCache

cache: TTLCache[int] = TTLCache(60, max_size=1000)
cache.set_nowait("at import", 1)  # no event loop yet


def count(number: int) -> None:
    """Work in a thread: plain calls, no locks."""
    for step in range(1000):
        cache.set_nowait((number, step), step)
        cache.get_nowait((number, step))


async def main() -> None:
    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(to_thread.run_sync, count, number)
    print(len(cache), "entries of", cache.max_size)
    print(cache.statistics().evictions, "evicted")


if __name__ == "__main__":
    anyio.run(main)
