"""Values renewed in the background: only the first reader ever waits."""

import anyio

from mtaio import TTLCache

cache: TTLCache[int] = TTLCache(
    2, max_size=1000, refresh_ahead=0.8, stale_while_revalidate=60
)


class Service:
    """A source that returns a new version each time."""

    version = 0

    async def load(self) -> int:
        """Return the next version."""
        await anyio.sleep(0.05)
        self.version += 1
        return self.version


async def main() -> None:
    service = Service()
    start = anyio.current_time()

    async def read_at(second: float) -> None:
        await anyio.sleep_until(start + second)
        asked = anyio.current_time()
        value = await cache.get_or_set("key", service.load)
        print(
            f"{second:.1f} s: version {value}, after {anyio.current_time() - asked:.2f} s"
        )

    async with cache:
        await read_at(0)
        await read_at(1.9)  # past 0.8 of its time: renewed in the background
        await read_at(2.2)
        await read_at(4.5)  # expired: still served, and renewed
        await read_at(4.8)


if __name__ == "__main__":
    anyio.run(main)
