"""Slots that real threads take and give back, while tasks wait for them."""

from __future__ import annotations

import threading
import time

import anyio
import anyio.lowlevel
from anyio import to_thread

from mtaio.exceptions import ConcurrencyLimitError
from mtaio.resources import ConcurrencyLimiter


async def test_threads_and_tasks_share_slots() -> None:
    """However threads and tasks meet, no slot is lost or doubled, and nobody waits for ever."""
    limiter = ConcurrencyLimiter(3)
    held = 0
    most = 0
    lock = threading.Lock()

    def note(change: int) -> None:
        nonlocal held, most
        with lock:
            held += change
            most = max(most, held)

    def endpoint() -> None:
        for _ in range(100):
            try:
                limiter.acquire_nowait()
            except ConcurrencyLimitError:
                continue
            try:
                note(1)
                time.sleep(0)
                note(-1)
            finally:
                limiter.release()

    async def task() -> None:
        for _ in range(100):
            async with limiter:
                note(1)
                await anyio.lowlevel.checkpoint()
                note(-1)

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(task)
            group.start_soon(to_thread.run_sync, endpoint)
    assert most <= 3
    statistics = limiter.statistics()
    assert (statistics.in_use, statistics.waiting) == (0, 0)


async def test_only_threads_give_back() -> None:
    """Each slot that a task waits for comes from a thread of its own, which knows no loop."""
    limiter = ConcurrencyLimiter(1)
    await limiter.acquire()
    for _ in range(50):
        thread = threading.Thread(target=limiter.release)
        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire)
            await anyio.lowlevel.checkpoint()
            thread.start()
        thread.join()
    assert limiter.statistics().acquired == 51
