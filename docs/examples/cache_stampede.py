"""Three callers, one load: whoever loses patience takes nobody's value away."""

import anyio

from mtaio.cache import TTLCache

cache: TTLCache[str] = TTLCache(60, max_size=1000)


async def load() -> str:
    print("loading")
    await anyio.sleep(1)
    return "the value"


async def ask(name: str, patience: float) -> None:
    with anyio.move_on_after(patience):
        print(f"{name}:", await cache.get_or_set("key", load))
        return
    print(f"{name} gives up")


async def all_ask() -> None:
    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(ask, "ann", 0.2)
        group.start_soon(ask, "bob", 5)
        group.start_soon(ask, "cem", 5)
    print(f"after {anyio.current_time() - start:.1f} s")


async def main() -> None:
    print("entered: the load is nobody's")
    async with cache:
        await all_ask()
    cache.clear_nowait()
    print("not entered: the load is the first caller's, and then another's")
    await all_ask()


if __name__ == "__main__":
    anyio.run(main)
