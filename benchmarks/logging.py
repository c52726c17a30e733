"""Logging: what a record costs its caller, now and at worst, and how many are written a second."""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint
from loguru import logger as loguru

from benchmarks._harness import OURS, Contest, Figure
from benchmarks._hostile import worst as worst_hostile
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
    size = 0 if path.is_fifo() else SIZE  # some Pythons ask a FIFO how far they are in it
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=size, backupCount=BACKUPS, encoding="utf-8"
    )
    handler.setFormatter(FORMAT)
    return handler


@contextmanager
def ours(path: Path) -> Generator[Drain]:
    handler = AsyncFileHandler(path, max_bytes=SIZE, backup_count=BACKUPS, max_pending=10 * RECORDS)
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
    rotation = None if path.is_fifo() else SIZE
    loguru.add(path, format="{time} - {name} - {level} - {message}", rotation=rotation)
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
            lines = path.read_bytes().count(b"\n")  # noqa: ASYNC240 - nothing else runs in this loop
        if lines != RECORDS:
            msg = f"{lines} of {RECORDS} records were written"
            raise RuntimeError(msg)
        return ((ended if drain else called) - started) / RECORDS * 1e6

    return measure


SETUPS = {OURS: ours, ROTATING: theirs, QUEUED: behind_a_queue, LOGURU: with_loguru}


# ---- a sink that stalls --------------------------------------------------------------------------

STALL = 0.3
READER = """
import os, select, sys
sink = os.open(sys.argv[1], os.O_RDONLY)
most, stall = int(sys.argv[2]), float(sys.argv[3])
taken = 0
while data := os.read(sink, most):
    taken += len(data)
    if taken >= most:
        taken = 0
        select.select([0], [], [], stall)  # until the parent closes it
"""


@contextmanager
def stalling(most: int, stall: float) -> Generator[Path]:
    """Make a sink that takes so many bytes, then nothing for so many seconds, and so on."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sink")
        if sys.platform != "win32":
            os.mkfifo(path)
        command = [sys.executable, "-c", READER, str(path), str(most), str(stall)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as reader:  # noqa: S603 - own code
            try:
                yield path
            except BaseException:
                reader.kill()  # while the sink is open elsewhere it would wait for ever
                raise
            assert reader.stdin is not None  # noqa: S101 - for the type checkers
            reader.stdin.close()


async def calls(setup: Callable[[Path], object]) -> list[float]:
    """Log some thousand records a second; return how many µs each call took, the quickest first."""
    took = []
    now = time.perf_counter
    with stalling(most=400_000, stall=STALL) as path, setup(path) as (info, finish):  # type: ignore[attr-defined]  # each is a context
        for number in range(2000):
            for _ in range(10):
                started = now()
                info("user %s did %d", "bob", number)
                took.append((now() - started) * 1e6)
            await anyio.sleep(0.001)
        finish()
    return sorted(took)


def worst(setup: Callable[[Path], object]) -> Callable[[], Awaitable[float]]:
    """Return what measures the longest call."""

    async def measure() -> float:
        return (await calls(setup))[-1] / 1000

    return measure


async def one_in_a_thousand() -> float:
    took = await calls(ours)
    return took[-(len(took) // 1000)]


# ---- an event loop with its log ------------------------------------------------------------------


async def delay(*, level: int) -> float:
    """Return the p99 of how many µs late a task wakes up, next to one that logs all the time."""
    late = []
    now = time.perf_counter
    # It takes a fifth of what is logged at most: the queue is full from the first burst on.
    with stalling(most=16_384, stall=STALL) as path:
        handler = AsyncFileHandler(path, max_pending=1000)
        handler.setFormatter(FORMAT)
        log = logging.Logger("bench", level)  # noqa: LOG001 - a new one for each round
        log.addHandler(handler)

        async def chatter() -> None:
            while True:
                for number in range(5):
                    log.info("user %s did %d", "bob", number)
                await anyio.sleep(0.001)

        for number in range(50_000):
            log.info("user %s did %d", "bob", number)
        async with anyio.create_task_group() as group:
            group.start_soon(chatter)
            await anyio.sleep(0.1)
            full = bool(handler.statistics().dropped)
            for _ in range(1500):
                started = now()
                await anyio.sleep(0.001)
                late.append((now() - started) * 1e6 - 1000)
            group.cancel_scope.cancel()
        log.removeHandler(handler)
        handler.close()
    if full != (level <= logging.INFO):
        msg = "the log was not as saturated as it was to be"
        raise RuntimeError(msg)
    return statistics.quantiles(late, n=100)[98]


async def delay_with_log() -> float:
    return await delay(level=logging.INFO)


async def delay_without_log() -> float:
    return await delay(level=logging.WARNING)


async def dropped_by_a_busy_loop() -> float:
    """Return how many records are dropped by a loop that polls and logs for three seconds."""
    with tempfile.TemporaryDirectory() as folder:
        handler = AsyncFileHandler(Path(folder, "app.log"), max_bytes=SIZE, backup_count=BACKUPS)
        handler.setFormatter(FORMAT)
        log = logging.Logger("bench")  # noqa: LOG001 - a new one for each round
        log.addHandler(handler)
        end = time.perf_counter() + 3
        while time.perf_counter() < end:
            for number in range(20):
                log.info("user %s did %d", "bob", number)
            await checkpoint()
        handler.close()
        return sum(handler.statistics().dropped.values())


EVENTS: list[Contest | Figure] = [
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
    Figure(title="dropped by a busy loop", measure=dropped_by_a_busy_loop, unit="records", most=0),
    Figure(
        title="masking a hostile text beside prose, the worst of 1,000",
        measure=worst_hostile,
        unit="x",
        most=5,
        loops=("asyncio",),
    ),
]
if sys.platform != "win32":  # which has no FIFOs
    EVENTS += [
        Contest(
            title="the worst call, beside a sink that stalls for 300 ms",
            contenders={name: worst(setup) for name, setup in SETUPS.items()},
            targets={QUEUED: 1},
            unit="ms",
            loops=("asyncio",),
        ),
        Figure(
            title="the worst call, beside a sink that stalls for 300 ms",
            measure=worst(ours),
            unit="ms",
            most=20,
            loops=("asyncio",),
        ),
        Figure(
            title="the p99.9 of calls, beside a sink that stalls for 300 ms",
            measure=one_in_a_thousand,
            unit="µs",
            most=1000,
            loops=("asyncio",),
        ),
        Contest(
            title="how late a task wakes up, p99, beside a saturated log",
            contenders={OURS: delay_with_log, "no log": delay_without_log},
            targets={"no log": 2},
        ),
    ]
