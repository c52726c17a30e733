"""
What an item of the executor costs beyond a raw pool, part by part.

Each contender is a raw pool of workers with one more thing that `map` has: the item driven by hand,
so that a worker sees whether it suspended; a context of its own; the link by which a nested call
finds its slot. What is left to ours is the counters, the checkpoints and the error policy.
"""

from __future__ import annotations

import asyncio
import types
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

from benchmarks._harness import OURS, Contest
from benchmarks.executor import LIMIT, Body, ours, per_item, raw_pool, suspends

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    Advance = Callable[[Any, Any], Any]

LINK: ContextVar[tuple[object, int]] = ContextVar("LINK")
RETURNED = object()


def by_hand(send: Any, value: Any) -> Any:
    return send(value)


def in_context(send: Any, value: Any) -> Any:
    return copy_context().run(send, value)


def linked(send: Any, value: Any) -> Any:
    LINK.set((send, 0))
    return copy_context().run(send, value)


@types.coroutine
def drive(result: list[Any]) -> Generator[Any, Any, None]:
    coroutine = yield RETURNED
    while True:
        result[0] = yield from coroutine
        coroutine = yield RETURNED


@types.coroutine
def worker(body: Body, source: Iterable[int], results: list[int], advance: Advance) -> Any:
    result = [0]
    driver: Any = drive(result)
    next(driver)
    send = driver.send
    for x in source:
        place = len(results)
        results.append(0)
        waits_for = advance(send, body(x))
        while waits_for is not RETURNED:
            waits_for = send((yield waits_for))
        results[place] = result[0]


def pool_with(advance: Advance) -> Any:
    async def way(body: Body, items: Iterable[int]) -> Any:
        source = iter(items)
        results: list[int] = []

        async def work() -> None:
            await worker(body, source, results, advance)

        async with asyncio.TaskGroup() as group:
            for _ in range(LIMIT):
                group.create_task(work())
        return results

    return way


PARTS = {
    OURS: ours,
    "raw pool": raw_pool,
    "raw pool, driven by hand": pool_with(by_hand),
    "and a context each": pool_with(in_context),
    "and a link to the slot": pool_with(linked),
}

EVENTS = [
    Contest(
        title="map(limit=100), sleep(0), part by part",
        contenders={name: per_item(way, suspends) for name, way in PARTS.items()},
        targets={},
        loops=("asyncio", "uvloop"),
    )
]
