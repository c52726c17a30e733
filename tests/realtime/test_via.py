"""Timeouts of calls in a pool: while a pool has one, a virtual clock stands still."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from mtaio.core import ExternalPool, TaskExecutor
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from tests.core.manual_pool import ManualPool


async def test_calls_out_of_time() -> None:
    """One that has not begun is never made, and one that has keeps its place until it ends."""
    pool = ManualPool()
    limited = ExternalPool(pool, limit=2)
    executor = TaskExecutor()

    def refuse(_: object) -> None:
        raise AssertionError

    async with anyio.create_task_group() as group:

        @group.start_soon
        async def begin() -> None:
            while not pool.sent:
                await anyio.lowlevel.checkpoint()
            pool.sent[0].begin()

        results = await executor.map(refuse, [1, 2], via=limited, timeout=0.05, errors="return")
    assert [type(result) for result in results] == [MTAIOTimeoutError, MTAIOTimeoutError]
    assert [sent.future.cancelled() for sent in pool.sent] == [False, True]
    assert limited.statistics().in_use == 1
    pool.sent[0].end()
    assert limited.statistics().in_use == 0
    assert executor.statistics().timed_out == 2
