"""A progress bar on the terminal."""

import anyio

from mtaio import TaskExecutor
from mtaio.core import progress

executor = TaskExecutor(max_workers=10)


async def main() -> None:
    with progress.bar("working") as on_progress:
        await executor.for_each(
            anyio.sleep, [0.02] * 200, on_progress=on_progress
        )
    print("done")


if __name__ == "__main__":
    anyio.run(main)
