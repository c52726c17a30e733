"""
What an item of the executor costs beyond a raw pool, part by part.

Each contender is a raw pool of workers with one more thing that `map` has: the item driven by hand,
so that a worker sees whether it suspended; a context of its own; the link by which a nested call
finds its slot. The least that `map` promises, without that link, is a contender too: two counters,
a way to stop, errors and cancellations given to the item, a task group that cancels, a checkpoint
now and then. What is left to ours are its options, each of which it asks for at every item.
"""

from __future__ import annotations

import asyncio
import types
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from benchmarks._harness import OURS, Contest
from benchmarks.executor import LIMIT, Body, ours, ours_with_slots, per_item, raw_pool, suspends
from mtaio._internal.checkpoints import FAST_ITEMS

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


class Tally:
    """What the least pool keeps."""

    __slots__ = ("failed", "started", "stopping", "succeeded")

    def __init__(self) -> None:
        self.started = self.succeeded = self.failed = 0
        self.stopping = False


@types.coroutine
def least_worker(body: Body, source: Iterable[int], results: list[int], tally: Tally) -> Any:
    result = [0]
    driver: Any = drive(result)
    next(driver)
    send = driver.send
    unyielding = 0
    for x in source:
        place = tally.started
        tally.started = place + 1
        results.append(0)
        context = copy_context()
        try:
            waits_for = context.run(send, body(x))
            while waits_for is not RETURNED:
                unyielding = -1
                try:
                    answer = yield waits_for
                except BaseException as error:  # noqa: BLE001 - the item decides
                    waits_for = context.run(driver.throw, error)
                else:
                    waits_for = context.run(send, answer)
        except BaseException:
            tally.failed += 1
            tally.stopping = True
            raise
        results[place] = result[0]
        tally.succeeded += 1
        if tally.stopping:
            return
        unyielding += 1
        if unyielding >= FAST_ITEMS:
            unyielding = 0
            yield from checkpoint().__await__()


async def least(body: Body, items: Iterable[int]) -> Any:
    source = iter(items)
    results: list[int] = []
    tally = Tally()

    async def work() -> None:
        await least_worker(body, source, results, tally)

    async with anyio.create_task_group() as group:
        for _ in range(LIMIT):
            group.start_soon(work)
    return results


PARTS = {
    OURS: ours,
    "mtaio, max_workers": ours_with_slots,
    "raw pool": raw_pool,
    "raw pool, driven by hand": pool_with(by_hand),
    "and a context each": pool_with(in_context),
    "and a link to the slot": pool_with(linked),
    "the least that map promises, no link": least,
}

EVENTS = [
    Contest(
        title="map(limit=100), sleep(0), part by part",
        contenders={name: per_item(way, suspends) for name, way in PARTS.items()},
        targets={},
        loops=("asyncio", "uvloop"),
    )
]
