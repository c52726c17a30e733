"""
How many files of mtaio one operation runs through, counted with ``sys.setprofile``.

``python -m benchmarks._files`` prints the files of each operation beside the most there may be;
those with a server too, where there is redis-server and its client. What knows asyncio and trio is
not counted: it stands where files of AnyIO's would, which are not counted either.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from functools import partial
from importlib.util import find_spec
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.lowlevel import checkpoint

import mtaio
from mtaio._internal import ending
from mtaio.app import Application
from mtaio.cache import TTLCache
from mtaio.config import Settings
from mtaio.core import TaskExecutor
from mtaio.events import EventEmitter
from mtaio.logging import AsyncFileHandler
from mtaio.monitoring import ResourceMonitor
from mtaio.redis import RedisRateLimiter, RedisStore, TieredCache
from mtaio.resilience import Breaker, Pipeline, Retry, Timeout
from mtaio.resources import ConcurrencyLimiter, RateLimiter
from tests.redis.caching import caching_store
from tests.redis.reserving import reserving_store
from tests.redis.servers import serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

    from mtaio.redis._store import Store

LIBRARY: Final = str(Path(mtaio.__file__).parent)
BACKENDS: Final = str(Path(LIBRARY, "_internal", "backend"))


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
            if name.startswith(LIBRARY) and not name.startswith(BACKENDS):
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


async def shared_wait(count: Counter, store: Store) -> None:
    limiter = RedisRateLimiter(store, "benchmarks._files", 100, burst=1, slack=10)
    for count.on in (False, True):
        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire)
            group.start_soon(limiter.acquire)
    count.on = False


async def shared_rate(count: Counter) -> None:
    async with reserving_store() as store:
        await shared_wait(count, store)


async def shared_rate_of_server(count: Counter, url: str) -> None:
    async with RedisStore(url, timeout=10) as store:
        await shared_wait(count, store)


async def tiered_load(count: Counter, store: Store) -> None:
    async def load() -> int:
        await checkpoint()
        return 1

    async with TieredCache[int](store, "benchmarks._files", check_interval=100) as cache:
        while not cache.statistics().listening:  # noqa: ASYNC110 - nothing tells
            await anyio.sleep(0.01)
        for key, count.on in (("warm", False), ("counted", True)):
            await cache.get_or_set(key, load)
        count.on = False


async def tiered_miss(count: Counter) -> None:
    async with caching_store() as store:
        await tiered_load(count, store)


async def tiered_miss_of_server(count: Counter, url: str) -> None:
    async with RedisStore(url, timeout=10) as store:
        await tiered_load(count, store)


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


async def pipeline(count: Counter) -> None:
    made = Pipeline(
        Timeout(100, total=True), Retry(2), Breaker(1), ConcurrencyLimiter(1), Timeout(10)
    )

    async def work() -> int:
        await checkpoint()
        return 1

    for count.on in (False, True):
        await made.run(work)
    count.on = False


def stopping(count: Counter) -> None:
    settings = Settings(drain_delay=0, shutdown_timeout=10)
    # On a slow machine neither a stall nor another sample falls into what is counted.
    monitor = ResourceMonitor(interval=1000, blocked_after=math.inf)
    app = Application(settings, monitor=monitor, logging=False, probes=False)

    def stop() -> None:
        sys.setprofile(None)
        while app.state != "running" or monitor.latest is None:
            time.sleep(0.01)
        time.sleep(0.1)  # until all of it waits
        count.on = True
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    app.run()
    count.on = False
    ending.call_off()  # this process goes on


MOST: Final[dict[Callable[[Counter], Awaitable[None] | None], tuple[str, int]]] = {
    mapping: ("a map of two items", 8),
    concurrency: ("a waiting acquire of a ConcurrencyLimiter", 3),
    rate: ("a waiting acquire of a RateLimiter", 5),
    miss: ("a miss of an entered cache", 8),
    shared_rate: ("a waiting acquire of a RedisRateLimiter, but for the client", 7),
    tiered_miss: ("a miss of a TieredCache, but for the client", 16),
    emit: ("an emit of three handlers", 3),
    record: ("a record", 5),
    pipeline: ("a call through a pipeline of five", 9),  # 8, and what its parts alone share
    stopping: ("an application from SIGTERM to its exit", 27),  # 20 is the aim
}


MOST_OF_SERVER: Final[dict[Callable[..., Awaitable[None]], tuple[str, int]]] = {
    shared_rate_of_server: ("a waiting acquire of a RedisRateLimiter", 10),
    tiered_miss_of_server: ("a miss of a TieredCache", 18),
}


def count(operation: Callable[[Counter], Awaitable[None] | None]) -> Counter:
    """Return what one operation runs through, in every thread that it starts."""
    counter = Counter()
    gc.collect()
    gc.disable()  # what ends the life of others' objects belongs to no operation
    threading.setprofile(counter)
    sys.setprofile(counter)
    try:
        if iscoroutinefunction(operation):
            anyio.run(operation, counter)
        else:
            operation(counter)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        gc.enable()
    return counter


def main() -> None:
    """Print all of them, and fail if one passes more files than it may."""
    missed = sum(report(count(operation), *most) for operation, most in MOST.items())
    if shutil.which("redis-server") and find_spec("glide"):
        with serving() as server:
            for operation, most in MOST_OF_SERVER.items():
                missed += report(count(partial(operation, url=server.url)), *most)
    sys.exit(missed)


def report(counter: Counter, what: str, most: int) -> bool:
    """Print what an operation runs through; return whether that is too much."""
    files = ", ".join(counter.files)
    print(f"{what}: {len(counter.files)} of {most}, {counter.changes} changes: {files}")
    return len(counter.files) > most


if __name__ == "__main__":
    main()
