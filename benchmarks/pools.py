"""
Calls that do nothing, one by one, in a process pool.

The pool's own map sends all items first, and its managing thread is woken once for many. Whoever
keeps a limit sends one when another has come back, and the thread is woken for each. A few tasks
that await ``loop.run_in_executor``, without contexts, errors, cancellation or statistics, are the
least that does this: 1.2 to 1.3 times the pool's own map. Ours takes 1.25 to
1.5 times that, and is held to 1.6.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from benchmarks._harness import OURS, Contest, expect
from mtaio.core import TaskExecutor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CALLS = 500
LIMIT = 100
WORKERS = 2

OWN = "the pool's own map"
LEAST = "tasks around run_in_executor"


def short(x: int) -> int:
    return x + 1


@cache
def processes() -> ProcessPoolExecutor:
    """Return the pool that all share, with its workers started."""
    pool = ProcessPoolExecutor(WORKERS, mp_context=get_context("forkserver"))
    list(pool.map(short, range(WORKERS * 10)))
    return pool


def timed(way: Callable[[ProcessPoolExecutor], Awaitable[list[Any]]]) -> Any:
    async def measure() -> float:
        pool = processes()
        began = time.process_time()
        results = await way(pool)
        taken = time.process_time() - began
        expect(results == [x + 1 for x in range(CALLS)], "called the function for each item")
        return taken / CALLS * 1e6

    return measure


async def ours(pool: ProcessPoolExecutor) -> list[Any]:
    return await TaskExecutor().map(short, range(CALLS), via=pool, limit=LIMIT)


async def own(pool: ProcessPoolExecutor) -> list[Any]:
    return list(pool.map(short, range(CALLS)))


async def least(pool: ProcessPoolExecutor) -> list[Any]:
    loop, source, results = asyncio.get_running_loop(), iter(range(CALLS)), list[Any]()

    async def work() -> None:
        for x in source:
            place = len(results)
            results.append(None)
            results[place] = await loop.run_in_executor(pool, short, x)

    await asyncio.gather(*[work() for _ in range(LIMIT)])
    return results


EVENTS = [
    Contest(
        title=f"map(via=a process pool, limit={LIMIT})",
        contenders={OURS: timed(ours), OWN: timed(own), LEAST: timed(least)},
        targets={LEAST: 1.6},
        asyncio_only=frozenset({LEAST}),
    ),
]
