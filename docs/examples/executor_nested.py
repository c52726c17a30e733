"""Count a tree of folders: each folder is an item inside its parent's."""

import anyio

from mtaio import TaskExecutor

TREE = {
    "home": ["docs", "music", "work"],
    "music": ["jazz", "rock"],
    "work": ["2024", "2025"],
    "2025": ["january", "february"],
}

executor = TaskExecutor(max_workers=2)


async def size(folder: str) -> int:
    await anyio.sleep(0.1)
    return 1 + sum(await executor.map(size, TREE.get(folder, [])))


async def main() -> None:
    started = anyio.current_time()
    count = await executor.run(size, "home")
    print(f"{count} folders in {anyio.current_time() - started:.1f} s")


if __name__ == "__main__":
    anyio.run(main)
