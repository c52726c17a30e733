"""A limit in bytes, and the cache's statistics."""

import anyio

from mtaio import TTLCache


def weigh(_key: str, body: bytes) -> int:
    return len(body)


cache: TTLCache[bytes] = TTLCache(
    60, max_size=10_000, weigher=weigh, name="bodies"
)


async def main() -> None:
    for number in range(20):
        cache.set_nowait(f"small:{number}", bytes(400))
    cache.set_nowait("big", bytes(5_000))
    cache.set_nowait("huge", bytes(20_000))  # more than fits: not kept
    for number in range(20):
        cache.get_nowait(f"small:{number}")

    picture = cache.statistics()
    print(
        f"{picture.size} entries, {picture.weight:,} of {picture.max_size:,} bytes"
    )
    print(
        f"{picture.evictions} evicted, {picture.hit_rate:.0%} of the reads were hits"
    )
    print(cache)


if __name__ == "__main__":
    anyio.run(main)
