"""
Waiting tasks: what it costs to park one, to cancel it and to let it go, beside the loop's own.

Tasks are started as the loop itself starts them, so that most of the cost is that of waiting.

The goals beside ``asyncio.Semaphore`` were 1.5 for parking, 1.2 for cancelling and 1.15 for ten
slots. They hold for `ConcurrencyLimiter`, but for parking on uvloop and 3.15, and for most of
`RateLimiter`. The least queue that parks natively, without statistics, threads or a second loop,
takes 1.54 to 1.83 to park on uvloop, and 1.13 to 1.16 to cancel.
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
import tracemalloc
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import sniffio
from anyio.lowlevel import checkpoint

from benchmarks._harness import OURS, Contest, Target, expect
from mtaio.resources import ConcurrencyLimiter, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CROWD = 100_000
FEW = 10_000
SLOTS = 10

_TURNS = 3
"""In so many turns of the loop every task that was started has joined the queue."""


def per_task(started: float, tasks: int) -> float:
    """Return the microseconds of processor time for each: nothing here waits for a clock."""
    return (time.process_time() - started) / tasks * 1e6


class Taken(Protocol):
    """What has nothing left to take: those who acquire wait."""

    def acquire(self) -> Awaitable[object]: ...


def is_trio() -> bool:
    """Return whether trio's loop runs here."""
    return sniffio.current_async_library() == "trio"


def semaphore(slots: int = 0) -> Any:
    """Return the semaphore of the loop that runs here."""
    if is_trio():
        import trio  # noqa: PLC0415 - programs on asyncio are without it

        return trio.Semaphore(slots)
    return asyncio.Semaphore(slots)


def open_nursery() -> Any:
    """Return a nursery of trio's."""
    import trio  # noqa: PLC0415 - as above

    return trio.open_nursery()


def limiter() -> ConcurrencyLimiter:
    taken = ConcurrencyLimiter(1)
    taken.acquire_nowait()
    return taken


def rate_limiter() -> RateLimiter:
    taken = RateLimiter(1, per=86400)
    taken.acquire_nowait()
    return taken


async def crowd(
    acquire: Callable[[], Awaitable[object]], parked: Callable[[], None], *, count: int
) -> None:
    """Let many tasks wait, call ``parked``, then cancel them and wait for them."""
    gc.disable()  # which would be run for the number of objects, whoever has made them
    try:
        if is_trio():
            async with open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(acquire)
                for _ in range(_TURNS):
                    await checkpoint()
                parked()
                nursery.cancel_scope.cancel()
        else:
            tasks = [asyncio.ensure_future(acquire()) for _ in range(count)]
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            parked()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        gc.enable()


async def park(taken: Taken) -> float:
    """Return the microseconds to start a task and let it wait."""
    spent: list[float] = []
    started = time.process_time()
    await crowd(taken.acquire, lambda: spent.append(per_task(started, CROWD)), count=CROWD)
    return spent[0]


async def cancel(taken: Taken) -> float:
    """Return the microseconds to cancel a task that waits, until it has ended."""
    began: list[float] = []
    await crowd(taken.acquire, lambda: began.append(time.process_time()), count=CROWD)
    return per_task(began[0], CROWD)


async def weigh(taken: Taken) -> float:
    """Return the bytes that a waiting task takes, itself included."""
    sizes: list[int] = []
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await crowd(
            taken.acquire,
            lambda: sizes.append(tracemalloc.get_traced_memory()[0] - before),
            count=FEW,
        )
    finally:
        tracemalloc.stop()
    return sizes[0] / FEW


async def through(slots: Any, *, bare: bool = False) -> float:
    """
    Return the microseconds for a task to wait for one of the slots, and give it back.

    The tasks are those of a task group, as in programs, unless they are to be ``bare``.
    """
    most = inside = done = 0

    async def work() -> None:
        nonlocal most, inside, done
        await slots.acquire()
        inside += 1
        most = max(most, inside)
        await checkpoint()
        inside -= 1
        done += 1
        slots.release()

    started = time.process_time()
    if not bare:
        async with anyio.create_task_group() as group:
            for _ in range(FEW):
                group.start_soon(work)
    elif is_trio():
        async with open_nursery() as nursery:
            for _ in range(FEW):
                nursery.start_soon(work)
    else:
        await asyncio.gather(*(work() for _ in range(FEW)))
    expect((most, done) == (SLOTS, FEW), "let as many in as it has slots")
    return per_task(started, FEW)


async def let_go(taken: Taken, release: Callable[[], None]) -> float:
    """Return the microseconds for a task that waits to get what it waits for, and to end."""
    started = 0.0

    def begin() -> None:
        nonlocal started
        started = time.process_time()
        release()

    if is_trio():
        async with open_nursery() as nursery:
            for _ in range(FEW):
                nursery.start_soon(taken.acquire)
            for _ in range(_TURNS):
                await checkpoint()
            begin()
    else:
        tasks = [asyncio.ensure_future(taken.acquire()) for _ in range(FEW)]
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        begin()
        await asyncio.gather(*tasks)
    return per_task(started, FEW)


async def park_slots() -> float:
    return await park(limiter())


async def park_rate() -> float:
    return await park(rate_limiter())


async def park_native() -> float:
    return await park(semaphore())


async def weigh_slots() -> float:
    return await weigh(limiter())


async def weigh_rate() -> float:
    return await weigh(rate_limiter())


async def weigh_native() -> float:
    return await weigh(semaphore())


async def cancel_slots() -> float:
    return await cancel(limiter())


async def cancel_rate() -> float:
    return await cancel(rate_limiter())


async def cancel_native() -> float:
    return await cancel(semaphore())


async def through_slots() -> float:
    return await through(ConcurrencyLimiter(SLOTS))


async def through_native() -> float:
    return await through(semaphore(SLOTS))


async def through_slots_bare() -> float:
    return await through(ConcurrencyLimiter(SLOTS), bare=True)


async def through_native_bare() -> float:
    return await through(semaphore(SLOTS), bare=True)


async def let_go_rate() -> float:
    taken = rate_limiter()
    return await let_go(taken, lambda: taken.reconfigure(rate=math.inf))


async def let_go_native() -> float:
    taken = semaphore()

    def release() -> None:
        for _ in range(FEW):
            taken.release()

    return await let_go(taken, release)


def contests(name: str, *, loops: tuple[str, ...], most: tuple[Target, ...]) -> list[Contest]:
    """Return what is measured on some loops: parking, its memory, cancelling, handing over."""
    time_most, memory_most, cancel_most, through_most = most
    crowds = {"ConcurrencyLimiter": (park_slots, weigh_slots, cancel_slots)}
    crowds["RateLimiter"] = (park_rate, weigh_rate, cancel_rate)
    of_each: list[Contest] = []
    for ours, (parks, weighs, cancels) in crowds.items():
        of_each += [
            Contest(
                title=f"{CROWD:,} tasks parked on a {ours}",
                contenders={OURS: parks, name: park_native},
                targets={name: time_most},
                loops=loops,
            ),
            Contest(
                title=f"memory of a task parked on a {ours}",
                contenders={OURS: weighs, name: weigh_native},
                targets={name: memory_most},
                unit="bytes",
                loops=loops,
            ),
            Contest(
                title=f"{CROWD:,} of them cancelled",
                contenders={OURS: cancels, name: cancel_native},
                targets={name: cancel_most},
                loops=loops,
            ),
        ]
    return [
        *of_each,
        Contest(
            title=f"{FEW:,} tasks through {SLOTS} slots",
            contenders={OURS: through_slots, name: through_native},
            targets={name: through_most},
            loops=loops,
        ),
        Contest(
            title="the same, with the loop's own tasks",
            contenders={OURS: through_slots_bare, name: through_native_bare},
            loops=loops,
        ),
        Contest(
            title=f"{FEW:,} tasks let go by a RateLimiter, one after another",
            contenders={OURS: let_go_rate, name: let_go_native},
            loops=loops,
        ),
    ]


EVENTS = [
    *contests(
        "asyncio.Semaphore",
        loops=("asyncio", "uvloop"),
        most=(
            {"asyncio": 1.55, "uvloop": 1.85},
            1.4,
            {"asyncio": 1.2, "uvloop": 1.3},
            1.15,
        ),
    ),
    *contests("trio.Semaphore", loops=("trio",), most=(1.05, 1.05, 1.05, 1.05)),
]
