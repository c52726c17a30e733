"""Invalidation by key and by tag, and a listener that is told of each removal."""

import anyio

from mtaio import TTLCache
from mtaio.cache import RemovalCause


def note(key: str, value: str, cause: RemovalCause) -> None:
    print(f"  {key}: {value} ({cause})")


cache: TTLCache[str] = TTLCache(60, max_size=3, policy="fifo", on_removed=note)


async def main() -> None:
    cache.set_nowait("profile:7", "Ann", tags={"user:7"})
    cache.set_nowait("orders:7", "two", tags={"user:7", "orders"})
    cache.set_nowait("orders:8", "none", tags={"user:8", "orders"})

    print("user 7 changed:", cache.invalidate_tag_nowait("user:7"))
    print(
        "order shipped:",
        cache.delete_nowait("orders:8"),
        cache.delete_nowait("orders:9"),
    )
    cache.set_nowait("a", "1")
    cache.set_nowait("a", "2")
    cache.set_nowait("b", "3", 0.2)
    await anyio.sleep(0.3)
    cache.get_nowait("b")
    cache.set_many_nowait({"c": "4", "d": "5", "e": "6"})
    cache.clear_nowait()


if __name__ == "__main__":
    anyio.run(main)
