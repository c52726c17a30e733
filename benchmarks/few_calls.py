"""
Two calls at once, a race of two, and one submitted task: what a call costs, not an item.

Each function suspends once and does nothing else. The rival is AnyIO's task group, in which the
executor's tasks run, so what is above it is the executor: checks, counters, limits, results in
order, errors. The goals were 1.15 and 1.5 times the task group, and 25 µs where create_task takes
6.5. They do not hold, and cannot: with most of the same promises the least code (`LEAST`, which has
no limits, no nested calls and no stray cancellations) takes 1.04 to 1.2 times the task group's time
for a gather, and 1.7 to 2.2 times for a race, whose cancellation costs AnyIO as much again; for a
task of an open group, awaited, 4.1 to 7 times `asyncio.create_task`. Ours takes 1.1 to 1.3 times
the least code for a gather, 1.06 to 1.22 for a race, 1.18 to 1.45 for a task. The targets are the
worst of CPython 3.11, 3.13 and 3.15.
"""

from __future__ import annotations

import asyncio
import math
import time
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from benchmarks._harness import OURS, Contest, Target
from benchmarks.executor import cheapest, suspends
from mtaio.core import TaskExecutor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from anyio.abc import TaskGroup

    Fn = Callable[[], Coroutine[Any, Any, int]]
    Way = Callable[[Fn, TaskExecutor, TaskGroup], Awaitable[object]]

CALLS = 300
GROUP = "anyio task group"
LEAST = "the same, least code"
ASYNCIO = "asyncio itself"
BATCHES = 3


def per_call(way: Way) -> Any:
    """Return what measures a way: the least microseconds that a call took in one of the batches."""

    async def measure() -> float:
        body = cheapest(suspends)

        async def call() -> int:
            return await body(1)

        best = float("inf")
        async with anyio.create_task_group() as group, TaskExecutor() as executor:
            for _ in range(BATCHES):
                began = time.process_time()
                for _ in range(CALLS // BATCHES):
                    await way(call, executor, group)
                best = min(best, time.process_time() - began)
        return best / (CALLS // BATCHES) * 1e6

    return measure


class Counts:
    """How many calls began and how they ended, in the least code."""

    __slots__ = ("cancelled", "failed", "peak", "started", "succeeded")

    def __init__(self) -> None:
        self.started = self.succeeded = self.failed = self.cancelled = self.peak = 0

    def begin(self) -> None:
        self.started += 1
        running = self.started - self.succeeded - self.failed - self.cancelled
        self.peak = max(self.peak, running)


counts = Counts()


# ---- two at once ----


async def gather_ours(fn: Fn, executor: TaskExecutor, _: TaskGroup) -> None:
    await executor.gather(fn, fn)


async def gather_group(fn: Fn, _: TaskExecutor, __: TaskGroup) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(fn)
        group.start_soon(fn)


async def gather_least(fn: Fn, _: TaskExecutor, __: TaskGroup) -> list[Any]:
    """Start nothing if cancelled, refuse what is not async, keep the order, count, raise bare."""
    calls = [fn, fn]
    results: list[Any] = [None] * len(calls)
    errors: list[Exception] = []

    async def one(index: int, call: Fn) -> None:
        counts.begin()
        try:
            results[index] = await call()
        except Exception as error:  # noqa: BLE001 - raised below
            counts.failed += 1
            errors.append(error)
            group.cancel_scope.cancel()
        except BaseException:
            counts.cancelled += 1
            raise
        else:
            counts.succeeded += 1

    async with anyio.create_task_group() as group:
        if anyio.current_effective_deadline() == -math.inf:
            await checkpoint()
        for index, call in enumerate(calls):
            if not iscoroutinefunction(call):
                raise TypeError
            group.create_task(one(index, call), name="one")
    if errors:
        raise errors[0]
    return results


async def gather_asyncio(fn: Fn, _: TaskExecutor, __: TaskGroup) -> None:
    await asyncio.gather(fn(), fn())


async def group_asyncio(fn: Fn, _: TaskExecutor, __: TaskGroup) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fn())
        group.create_task(fn())


# ---- the first of two ----


async def race_ours(fn: Fn, executor: TaskExecutor, _: TaskGroup) -> None:
    await executor.race(fn, fn)


async def race_least(fn: Fn, _: TaskExecutor, __: TaskGroup) -> int:
    """As `gather_least`; cancel the other when one has a result, raise if none has."""
    results: list[int] = []
    errors: list[Exception] = []

    async def one(call: Fn) -> None:
        if results:
            return
        counts.begin()
        try:
            result = await call()
        except Exception as error:  # noqa: BLE001 - raised below if there is no result
            counts.failed += 1
            errors.append(error)
        except BaseException:
            counts.cancelled += 1
            raise
        else:
            counts.succeeded += 1
            results.append(result)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        if anyio.current_effective_deadline() == -math.inf:
            await checkpoint()
        for call in (fn, fn):
            if not iscoroutinefunction(call):
                raise TypeError
            group.create_task(one(call), name="one")
    if not results:
        msg = "no winner"
        raise ExceptionGroup(msg, errors)
    return results[0]


# ---- one task ----


async def submit_ours(fn: Fn, executor: TaskExecutor, _: TaskGroup) -> None:
    await (await executor.submit(fn))


async def submit_group(fn: Fn, _: TaskExecutor, group: TaskGroup) -> None:
    await group.start_soon(fn)


async def submit_least(fn: Fn, _: TaskExecutor, group: TaskGroup) -> int:
    """Start nothing if cancelled, refuse what is not async, count, keep the error for `await`."""
    if not iscoroutinefunction(fn):
        raise TypeError

    async def one() -> tuple[int, Exception | None]:
        if anyio.current_effective_deadline() == -math.inf:
            await checkpoint()
        counts.begin()
        try:
            result = await fn()
        except Exception as error:  # noqa: BLE001 - raised where the task is awaited
            counts.failed += 1
            return 0, error
        except BaseException:
            counts.cancelled += 1
            raise
        else:
            counts.succeeded += 1
            return result, None

    result, error = await group.create_task(one(), name=fn.__qualname__)
    if error is not None:
        raise error
    return result


async def submit_asyncio(fn: Fn, _: TaskExecutor, __: TaskGroup) -> None:
    await asyncio.create_task(fn())


def contest(title: str, ways: dict[str, Way], targets: dict[str, Target]) -> Contest:
    """Return a contest with targets for each loop: a faster one shows more of ours."""
    return Contest(
        title=title,
        contenders={name: per_call(way) for name, way in ways.items()},
        targets=targets,
        asyncio_only=frozenset({ASYNCIO, "asyncio.TaskGroup"}),
    )


EVENTS = [
    contest(
        "gather of two, sleep(0)",
        {
            OURS: gather_ours,
            GROUP: gather_group,
            LEAST: gather_least,
            ASYNCIO: gather_asyncio,
            "asyncio.TaskGroup": group_asyncio,
        },
        {
            GROUP: {"asyncio": 1.48, "uvloop": 1.44, "trio": 1.26},
            LEAST: {"asyncio": 1.25, "uvloop": 1.24, "trio": 1.19},
        },
    ),
    contest(
        "race of two, sleep(0)",
        {OURS: race_ours, GROUP: gather_group, LEAST: race_least},
        {LEAST: {"asyncio": 1.28, "uvloop": 1.27, "trio": 1.2}},
    ),
    contest(
        "submit and await, sleep(0)",
        {OURS: submit_ours, GROUP: submit_group, LEAST: submit_least, ASYNCIO: submit_asyncio},
        {
            GROUP: {"asyncio": 1.8, "uvloop": 1.8, "trio": 1.52},
            LEAST: {"asyncio": 1.42, "uvloop": 1.52, "trio": 1.5},
        },
    ),
]
