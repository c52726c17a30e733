"""A service with everything that the status page shows: ``python orders.py PORT [TOKEN]``."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import anyio

from mtaio.cache import TTLCache
from mtaio.core import TaskExecutor
from mtaio.events import EventEmitter
from mtaio.exceptions import MTAIOError
from mtaio.logging import AsyncFileHandler
from mtaio.monitoring import HealthRegistry, Probes, ResourceMonitor
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
    ResourceLimiter,
    TimeoutManager,
)

monitor = ResourceMonitor(interval=0.5, blocked_after=0.5, name="orders-api")
health = HealthRegistry(name="orders")
database = monitor.watch(ConcurrencyLimiter(4), name="database")
geocoder = monitor.watch(RateLimiter(20, burst=5), name="geocoder")
users = monitor.watch(KeyedRateLimiter(20, burst=20, max_keys=1000), name="per_user")
payments = monitor.watch(
    ResourceLimiter(concurrency=8, rate=100, burst=100, timeout=0.2), name="payments"
)
requests = monitor.watch(TimeoutManager(1.0), name="requests")
sessions: TTLCache[int] = monitor.watch(TTLCache(max_size=300), name="sessions")
orders = monitor.watch(EventEmitter(), name="orders")
images = monitor.watch(TaskExecutor(max_workers=3), name="images")
blocking = Path(tempfile.gettempdir()) / f"mtaio-orders-{os.getpid()}"
"""While this file is there, the event loop stands still."""


@health.check("broker")
async def broker() -> None:
    """Answer."""
    await anyio.sleep(0.002)


@health.check("mail relay", critical=False, failures=1)
async def mail_relay() -> None:
    """Fail."""
    raise ConnectionRefusedError(111, "no <b>relay</b>")


async def double(number: int) -> int:
    """Load what is asked for."""
    await anyio.sleep(0.01)
    return number * 2


async def one(number: int) -> None:
    """Handle one order."""
    with contextlib.suppress(MTAIOError):
        async with requests(), database, payments:
            users.acquire_nowait(number % 7)
            await sessions.get_or_set(random.randrange(400), lambda: double(number))  # noqa: S311 - a load
            geocoder.acquire_nowait()
        await images.run(double, number)
        await orders.emit("order.created", number)


async def main() -> None:
    """Handle orders until killed."""
    folder = Path(tempfile.mkdtemp(prefix="mtaio-orders-"))
    handler = monitor.watch(AsyncFileHandler(folder / "app.log"), name="app")
    logger = logging.getLogger("orders")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    monitor.gauge("queue_depth", lambda: 42.0)
    monitor.set_threshold("queue_depth", 40)
    token = sys.argv[2] if len(sys.argv) > 2 else None
    async with (
        monitor,
        images,
        Probes(monitor, health, bind=f"127.0.0.1:{sys.argv[1]}", token=token),
        anyio.create_task_group() as group,
    ):
        print(os.getpid(), flush=True)  # noqa: T201 - says that it runs
        number = 0
        while True:
            number += 1
            group.start_soon(one, number)
            logger.info("order %d", number)
            while blocking.exists():
                time.sleep(0.05)  # noqa: ASYNC251 - this is the stall
            await anyio.sleep(0.02)


if __name__ == "__main__":
    anyio.run(main)
