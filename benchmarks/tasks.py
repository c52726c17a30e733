"""
The tree of tasks: what it costs to read it, and what a task pays that nobody looks at.

10,000 tasks were to be read in 100 ms: they take 100 on asyncio and 117 on trio.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from benchmarks._harness import OURS, Absent, AbsentError, Contest, Figure, expect, maybe
from mtaio.monitoring import tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

aiomonitor = maybe("aiomonitor")

MANY = 10_000
TURNS = 10_000
"""Tasks that are started and end."""


async def request(stop: anyio.Event) -> None:
    """Wait, three calls deep and under a timeout, as a request does."""
    with anyio.fail_after(1_000):
        await query(stop)


async def query(stop: anyio.Event) -> None:
    await fetch(stop)


async def fetch(stop: anyio.Event) -> None:
    await stop.wait()


async def while_many_wait(read: Callable[[], object]) -> float:
    """Return the milliseconds of processor time that it takes to read 10,000 waiting tasks."""
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        for _ in range(MANY):
            group.start_soon(request, stop)
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        started = time.thread_time()
        read()
        taken = time.thread_time() - started
        stop.set()
    return taken * 1e3


async def read_ours() -> float:
    return await while_many_wait(lambda: expect(tasks().count > MANY, "seen all tasks"))


async def read_stacks() -> float:
    """Have asyncio return one frame of each task, and no more: neither the chain nor the parent."""
    return await while_many_wait(lambda: [task.get_stack() for task in asyncio.all_tasks()])


async def read_aiomonitor() -> float:
    """Have it list the tasks: their names, states and when they were made, without stacks."""
    with watched_by_aiomonitor() as monitor:
        return await while_many_wait(lambda: monitor.format_running_task_list("", persistent=False))


async def read_call_graph() -> float:
    """Have Python 3.14 print the awaits of each task, and who awaits it."""
    show: Any = getattr(asyncio, "format_call_graph", None)
    return await while_many_wait(lambda: [show(task) for task in asyncio.all_tasks()])


@contextmanager
def watched_by_aiomonitor() -> Generator[Any]:
    """Have it note who starts which task."""
    if isinstance(aiomonitor, Absent):
        raise AbsentError(name="aiomonitor")
    with aiomonitor.start_monitor(
        asyncio.get_running_loop(), port=0, webui_port=0, console_port=0, hook_task_factory=True
    ) as monitor:
        yield monitor


async def nothing() -> None:
    await anyio.lowlevel.checkpoint()


async def turn_over() -> float:
    """Return the microseconds that a task takes to be started and to end."""
    started = time.thread_time()
    for _ in range(TURNS // 100):
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(nothing)
    return (time.thread_time() - started) / TURNS * 1e6


async def turn_over_ours() -> float:
    tasks()
    return await turn_over()


async def turn_over_aiomonitor() -> float:
    with watched_by_aiomonitor():
        return await turn_over()


READERS: dict[str, Callable[[], Awaitable[float] | float]] = {
    OURS: read_ours,
    "all_tasks and get_stack": read_stacks,
    "aiomonitor's list": read_aiomonitor,
}
if sys.version_info >= (3, 14):
    READERS["format_call_graph"] = read_call_graph

EVENTS = [
    Figure(title="10,000 tasks", measure=read_ours, unit="ms of CPU", most=120.0),
    Contest(
        title="10,000 tasks",
        contenders=READERS,
        targets={"aiomonitor's list": 1.0, "format_call_graph": 1.0},
        unit="ms of CPU",
        asyncio_only=frozenset(READERS) - {OURS},
    ),
    Contest(
        title="a task that nobody looks at",
        contenders={OURS: turn_over_ours, "none": turn_over},
        targets={"none": 1.01},
    ),
    Contest(
        title="a task that nobody looks at, where others watch",
        contenders={OURS: turn_over_ours, "aiomonitor": turn_over_aiomonitor},
        targets={"aiomonitor": 1.0},
        loops=("asyncio", "uvloop"),
    ),
]
