"""
How many files of mtaio one operation runs through, counted with ``sys.setprofile``.

``python -m benchmarks._files`` prints the files of each operation beside the most there may be.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.lowlevel import checkpoint

import mtaio
from mtaio.cache import TTLCache
from mtaio.core import TaskExecutor
from mtaio.events import EventEmitter
from mtaio.logging import AsyncFileHandler
from mtaio.resources import ConcurrencyLimiter, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

LIBRARY: Final = str(Path(mtaio.__file__).parent)
BACKEND: Final = str(Path(LIBRARY, "_internal", "backend"))
"""Not counted, as AnyIO is not: what a reader knows without following it."""


class Counter:
    """Notes in which files of mtaio functions are entered, and how often the file changes."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}
        self.changes = 0
        self.on = False
        self._last = ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if self.on and event == "call":
            name = frame.f_code.co_filename
            if name.startswith(LIBRARY) and not name.startswith(BACKEND):
                self.files[name.removeprefix(LIBRARY + "/")] = None
                self.changes += name != self._last
                self._last = name


async def mapping(count: Counter) -> None:
    executor = TaskExecutor(2)

    async def work(item: int) -> int:
        await checkpoint()
        return item

    for count.on in (False, True):
        await executor.map(work, [1, 2])
    count.on = False


async def waiting(count: Counter, limiter: ConcurrencyLimiter | RateLimiter) -> None:
    async def one() -> None:
        await limiter.acquire()
        if isinstance(limiter, ConcurrencyLimiter):
            await anyio.sleep(0.01)
            limiter.release()

    for count.on in (False, True):
        async with anyio.create_task_group() as group:
            group.start_soon(one)
            group.start_soon(one)
    count.on = False


async def concurrency(count: Counter) -> None:
    await waiting(count, ConcurrencyLimiter(1))


async def rate(count: Counter) -> None:
    await waiting(count, RateLimiter(100, burst=1))


async def miss(count: Counter) -> None:
    async def load(key: int) -> int:
        await checkpoint()
        return key

    async with TTLCache[int](60) as cache:
        for key, count.on in enumerate((False, True)):
            await cache.get_or_set(key, partial(load, key))
        count.on = False


async def emit(count: Counter) -> None:
    emitter = EventEmitter()

    async def handler(_: object) -> None:
        await checkpoint()

    for _ in range(3):
        emitter.on("order", partial(handler))
    async with emitter:
        for count.on in (False, True):
            await emitter.emit("order", 1)
        count.on = False


async def record(count: Counter) -> None:
    with tempfile.TemporaryDirectory() as folder:
        handler = AsyncFileHandler(Path(folder, "log"))
        logger = logging.getLogger("benchmarks._files")
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)
        for count.on in (False, True):
            logger.info("a record")
            handler.flush()
        count.on = False
        handler.close()


MOST: Final[dict[Callable[[Counter], Awaitable[None]], tuple[str, int]]] = {
    mapping: ("a map of two items", 8),
    concurrency: ("a waiting acquire of a ConcurrencyLimiter", 3),
    rate: ("a waiting acquire of a RateLimiter", 3),
    miss: ("a miss of an entered cache", 8),
    emit: ("an emit of three handlers", 3),
    record: ("a record", 5),
}


def count(operation: Callable[[Counter], Awaitable[None]]) -> Counter:
    """Return what one operation runs through, in every thread that it starts."""
    counter = Counter()
    threading.setprofile(counter)
    sys.setprofile(counter)
    try:
        anyio.run(operation, counter)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return counter


def main() -> None:
    """Print all of them, and fail if one passes more files than it may."""
    missed = 0
    for operation, (what, most) in MOST.items():
        counter = count(operation)
        files = ", ".join(counter.files)
        print(f"{what}: {len(counter.files)} of {most}, {counter.changes} changes: {files}")
        missed += len(counter.files) > most
    sys.exit(missed)


if __name__ == "__main__":
    main()
