"""A thread pool of concurrent.futures, and the same with an executor."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import anyio

from mtaio import TaskExecutor

TEXTS = ["tea", "cake", "milk"]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


# --8<-- [start:before]
def before() -> list[str]:
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(digest, TEXTS))


# --8<-- [end:before]
# --8<-- [start:after]
executor = TaskExecutor(threads=2)


async def after() -> list[str]:
    return await executor.map(digest, TEXTS)


# --8<-- [end:after]
async def main() -> None:
    print("before:", await executor.run_in_thread(before))
    print("after: ", await after())


if __name__ == "__main__":
    anyio.run(main)
