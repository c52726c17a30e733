"""The task of a limiter that calls the server, where event loops come and go."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import anyio
from mtaio.redis import RedisConcurrencyLimiter
from mtaio.testing import run, settle
from tests.redis.exchanging import Slots


def test_tasks_of_a_closed_loop_that_the_next_one_forgets(backend: str) -> None:
    """What their coroutines do as they are thrown away leaves the tasks of that loop alone."""
    store: Any = Slots(latency=0)
    limiter = RedisConcurrencyLimiter(store, "key", 1)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # which is told that a task was thrown away

    async def first() -> weakref.ref[Any]:
        # AnyIO 4.16 happens to keep what its task groups started, for ever.
        store.start = lambda fn: asyncio.ensure_future(fn())
        await limiter.acquire()
        waits = asyncio.ensure_future(limiter.acquire())
        for _ in range(50):
            await asyncio.sleep(0)
        return weakref.ref(waits)

    async def second() -> None:
        async with store, anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(limiter.acquire)
            await settle()
            gc.collect()
            assert left() is None
            await settle()
            assert limiter.statistics().waiting == 2
            assert limiter.statistics().cancelled == 1
            group.cancel_scope.cancel()

    left = loop.run_until_complete(first())
    loop.close()
    del loop, store.start
    assert left() is not None
    store.forget()  # it has the clock of the loop
    run(second, backend=backend)
