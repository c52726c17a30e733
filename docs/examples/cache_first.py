"""A cache in front of a slow service: ten callers, one request."""

import anyio

from mtaio import TTLCache

pages = TTLCache[str](60, max_size=1000)  # seconds, entries


async def fetch(name: str) -> str:
    print(f"fetching {name}")
    await anyio.sleep(0.1)
    return f"the page {name}"


async def page(name: str) -> str:
    return await pages.get_or_set(name, lambda: fetch(name))


async def main() -> None:
    async with pages, anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(page, "home")
    print(pages.get_nowait("home"))
    print(pages.get_nowait("about"))  # not cached: get_nowait loads nothing


if __name__ == "__main__":
    anyio.run(main)
