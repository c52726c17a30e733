"""A pool of processes that takes lambdas."""

import anyio
import loky

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=8)


async def main() -> None:
    pool = loky.get_reusable_executor(max_workers=2)
    print(await executor.map(lambda x: x * x, range(5), via=pool))


if __name__ == "__main__":
    anyio.run(main)
