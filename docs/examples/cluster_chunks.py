"""A thousand short calls, sent to the pool thirty-two at a time."""

import math
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=256)


async def main() -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        roots = await executor.map(
            math.isqrt, range(1000), via=pool, chunksize=32
        )
    print(roots[:10], sum(roots))


if __name__ == "__main__":
    anyio.run(main)
