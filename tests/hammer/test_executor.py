"""Executors of several loops, each in a thread, whose worker threads run at the same time."""

from __future__ import annotations

import threading
from functools import partial

import anyio

from mtaio.core import TaskExecutor
from tests.hammer.hammer import at_once, rounds, watched

LOOPS = 3
ITEMS = 30
WORKERS = 4


def test_an_executor_in_each_loop(backend: str) -> None:
    """Each gives its own results in order, within its limit, and its figures fit at any moment."""
    executors = [TaskExecutor(max_workers=WORKERS, threads=WORKERS) for _ in range(LOOPS)]
    running = [0] * LOOPS
    seen = [0] * LOOPS
    counting = threading.Lock()

    def double(number: int, item: int) -> int:
        with counting:
            running[number] += 1
            assert running[number] <= WORKERS
        with counting:
            running[number] -= 1
        return 2 * item

    async def use(number: int) -> None:
        executor = executors[number]
        async with executor:
            in_threads = partial(double, number)
            results = await executor.map(in_threads, range(ITEMS))
            assert results == [2 * item for item in range(ITEMS)]
            handles = [await executor.submit(in_threads, item) for item in range(5)]
            assert [await handle for handle in handles] == [0, 2, 4, 6, 8]

    def look() -> None:
        for number, executor in enumerate(executors):
            now = executor.statistics()
            assert seen[number] <= now.succeeded
            assert 0 <= now.in_flight <= ITEMS
            assert now.in_flight == now.started - now.succeeded
            assert 0 <= now.threads_in_use <= WORKERS
            seen[number] = now.succeeded

    def work() -> None:
        for turn in rounds(2):
            at_once(partial(anyio.run, use, each, backend=backend) for each in range(LOOPS))
            for executor in executors:
                now = executor.statistics()
                assert (now.in_flight, now.waiting, now.threads_in_use) == (0, 0, 0)
                assert now.started == now.succeeded == (turn + 1) * (ITEMS + 5)
                assert now.peak <= WORKERS + 1

    watched(look, work)
