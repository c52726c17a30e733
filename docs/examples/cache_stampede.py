"""Three callers, one load: if one gives up, the others still get the value."""

import anyio
from anyio.lowlevel import checkpoint

from mtaio import TTLCache

cache: TTLCache[str] = TTLCache(60, max_size=1000)


async def load() -> str:
    print("  loading")
    await anyio.sleep(1)
    return "has the value"


async def all_ask() -> None:
    start = anyio.current_time()
    came_of_it: dict[str, str] = {}

    async def ask(name: str, patience: float) -> None:
        came_of_it[name] = "has given up"
        with anyio.move_on_after(patience):
            came_of_it[name] = await cache.get_or_set("key", load)

    async with anyio.create_task_group() as group:
        for name, patience in [("ann", 0.2), ("bob", 5), ("cem", 5)]:
            group.start_soon(ask, name, patience)
            await checkpoint()  # let it ask, so that they ask in this order
    for name, what in came_of_it.items():
        print(f"  {name} {what}")
    print(f"  after {anyio.current_time() - start:.1f} s")


async def main() -> None:
    print("entered: the load is the cache's")
    async with cache:
        await all_ask()
    cache.clear_nowait()
    print("not entered: the load is the first caller's, and then another's")
    await all_ask()


if __name__ == "__main__":
    anyio.run(main)
