"""Two processes derive keys, each within ten seconds."""

import hashlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import anyio

from mtaio import TaskExecutor
from mtaio.core import ExternalPool

executor = TaskExecutor()
derive = partial(hashlib.scrypt, salt=b"sea", n=2**12, r=8, p=1)


async def main() -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        pool = ExternalPool(processes, limit=4)
        keys = await executor.map(
            derive, [b"tea", b"cake", b"jam"], via=pool, timeout=10
        )
        print(*[key.hex()[:8] for key in keys])
        print(pool.statistics())


if __name__ == "__main__":
    anyio.run(main)
