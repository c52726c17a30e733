"""Count a tree of folders, each in a call nested in its parent's."""

import anyio

from mtaio import TaskExecutor

TREE: dict[str, list[str]] = {
    "home": ["docs", "music", "work"],
    "music": ["jazz", "rock"],
    "work": ["2024", "2025"],
    "2025": ["january", "february"],
}

executor = TaskExecutor(max_workers=2)
reading: set[str] = set()
peaks: list[int] = []


async def size(folder: str) -> int:
    reading.add(folder)
    peaks.append(len(reading))
    await anyio.sleep(0.1)
    reading.remove(folder)
    return 1 + sum(await executor.map(size, TREE.get(folder, [])))


async def main() -> None:
    print(await executor.run(size, "home"), "folders")
    print("at most", max(peaks), "read at once")


if __name__ == "__main__":
    anyio.run(main)
