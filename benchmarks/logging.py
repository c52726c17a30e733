"""Logging: what a record costs its caller, and how many are written in a second."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger as loguru

from benchmarks._harness import OURS, Contest
from mtaio.logging import AsyncFileHandler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

RECORDS = 20_000
FORMAT = logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s")
SIZE = 10_000_000
BACKUPS = 5

ROTATING = "RotatingFileHandler"
QUEUED = "QueueHandler+QueueListener"
LOGURU = "loguru"

Drain = tuple["Callable[[str, str, int], object]", "Callable[[], object]"]


def rotating(path: Path) -> logging.Handler:
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=SIZE, backupCount=BACKUPS, encoding="utf-8"
    )
    handler.setFormatter(FORMAT)
    return handler


@contextmanager
def ours(path: Path) -> Generator[Drain]:
    handler = AsyncFileHandler(path, max_bytes=SIZE, backup_count=BACKUPS, queue_size=10 * RECORDS)
    handler.setFormatter(FORMAT)
    log = logging.Logger("bench")  # noqa: LOG001 - a new one for each round
    log.addHandler(handler)
    yield log.info, handler.flush
    handler.close()


@contextmanager
def theirs(path: Path) -> Generator[Drain]:
    handler = rotating(path)
    log = logging.Logger("bench")  # noqa: LOG001 - a new one for each round
    log.addHandler(handler)
    yield log.info, handler.flush
    handler.close()


@contextmanager
def behind_a_queue(path: Path) -> Generator[Drain]:
    target = rotating(path)
    between: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(between, target)
    listener.start()
    log = logging.Logger("bench")  # noqa: LOG001 - a new one for each round
    log.addHandler(logging.handlers.QueueHandler(between))
    yield log.info, listener.stop
    target.close()


@contextmanager
def with_loguru(path: Path) -> Generator[Drain]:
    loguru.remove()
    loguru.add(path, format="{time} - {name} - {level} - {message}", rotation=SIZE)
    yield lambda message, *args: loguru.info(message % args), loguru.complete
    loguru.remove()


def measured(setup: Callable[[Path], object], *, drain: bool) -> Callable[[], Awaitable[float]]:
    """Return what times a record, until the call is over or until all are written."""

    async def measure() -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "app.log")
            with setup(path) as (info, finish):  # type: ignore[attr-defined]  # each is a context
                started = time.perf_counter()
                for number in range(RECORDS):
                    info("user %s did %d", "bob", number)
                called = time.perf_counter()
                finish()
                ended = time.perf_counter()
            lines = path.read_bytes().count(b"\n")  # noqa: ASYNC240 - nobody else runs in this loop
        if lines != RECORDS:
            msg = f"{lines} of {RECORDS} records were written"
            raise RuntimeError(msg)
        return ((ended if drain else called) - started) / RECORDS * 1e6

    return measure


SETUPS = {OURS: ours, ROTATING: theirs, QUEUED: behind_a_queue, LOGURU: with_loguru}

EVENTS = [
    Contest(
        title="a record, to its caller",
        contenders={name: measured(setup, drain=False) for name, setup in SETUPS.items()},
        targets={ROTATING: 0.75, QUEUED: 0.85},
        loops=("asyncio",),
    ),
    Contest(
        title="a record, until it is written",
        contenders={name: measured(setup, drain=True) for name, setup in SETUPS.items()},
        targets={QUEUED: 0.5},
        loops=("asyncio",),
    ),
]
