"""Values renewed in the background: only the first reader waits."""

import anyio

from mtaio import TTLCache

cache = TTLCache[str](
    2, max_size=1000, refresh_ahead=0.8, stale_while_revalidate=60
)


async def main() -> None:
    start = anyio.current_time()

    async def load() -> str:
        await anyio.sleep(0.05)
        return f"loaded at {anyio.current_time() - start:.1f} s"

    async with cache:
        for second in (0, 1.9, 2.2, 4.5, 4.8):
            await anyio.sleep_until(start + second)
            value = await cache.get_or_set("key", load)
            waited = anyio.current_time() - start - second
            print(f"{second} s: {value}, after {waited:.2f} s")


if __name__ == "__main__":
    anyio.run(main)
