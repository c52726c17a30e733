"""Derive keys in worker processes, each within ten seconds."""

import hashlib
from functools import partial

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor()
derive = partial(hashlib.scrypt, salt=b"sea", n=2**12, r=8, p=1)


async def main() -> None:
    words = [b"tea", b"cake", b"jam"]
    keys = await executor.map(derive, words, via="processes", timeout=10)
    print(*[key.hex()[:8] for key in keys])


if __name__ == "__main__":
    anyio.run(main)
