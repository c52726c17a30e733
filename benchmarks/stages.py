"""
Results of one stage, and of three in a row, from sync and async sources.

Each stage has a hundred items at once, which suspend once and do nothing else: what is measured is
the way of an item through a stage. The goal for one stage over a sync source is 0.7 of
`streamable`'s time; on uvloop and 3.15 it takes 0.75. An async source costs more here, as does each
stage after the first: an item is read when a worker with a slot waits for it, which takes two task
switches, and nothing is lost that was read; `streamable` starts a task for each item, and drops
what is in flight when it is left. Such a stage may take as long as there, with a margin for a busy
machine.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks._harness import OURS, Contest, expect, maybe
from benchmarks.executor import cheapest, suspends
from mtaio.core import TaskExecutor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from benchmarks.executor import Body

ITEMS = 20_000
LIMIT = 100
STREAMABLE = "streamable"
WITH_SLOTS = "the same, max_workers=300"


async def numbers() -> AsyncIterator[int]:
    """Yield the items, without a wait."""
    for x in range(ITEMS):
        yield x


async def ours(executor: TaskExecutor, body: Body, source: Any, stages: int) -> int:
    for _ in range(stages):
        source = executor.stream(body, source, limit=LIMIT)
    count = 0
    async with source as results:
        async for _ in results:
            count += 1
    return count


async def streamable(body: Body, source: Any, stages: int) -> int:
    stream = maybe("streamable").stream(source)
    for _ in range(stages):
        stream = stream.map(body, concurrency=LIMIT, as_completed=True)
    count = 0
    async for _ in stream:
        count += 1
    return count


def stages(title: str, source: Callable[[], Any], number: int, target: float) -> Contest:
    """Compare so many stages over one kind of source."""

    def per_item(way: Callable[[Body], Awaitable[int]]) -> Callable[[], Awaitable[float]]:
        async def measure() -> float:
            body = cheapest(suspends)
            began = time.process_time()
            count = await way(body)
            expect(count == ITEMS, "given each result")
            return (time.process_time() - began) / ITEMS * 1e6

        return measure

    return Contest(
        title=title,
        contenders={
            OURS: per_item(lambda body: ours(TaskExecutor(), body, source(), number)),
            WITH_SLOTS: per_item(lambda body: ours(TaskExecutor(300), body, source(), number)),
            STREAMABLE: per_item(lambda body: streamable(body, source(), number)),
        },
        targets={STREAMABLE: target},
        asyncio_only=frozenset({STREAMABLE}),
    )


EVENTS = [
    stages("one stage over a range", lambda: range(ITEMS), 1, 0.72),
    stages("one stage over an async generator", numbers, 1, 1.15),
    stages("three stages over a range", lambda: range(ITEMS), 3, 1.25),
    stages("three stages over an async generator", numbers, 3, 1.25),
]
