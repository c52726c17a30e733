"""Batches, `until=` and `flatten=` under many schedules: what is taken begins once, in time."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from mtaio._internal import unfinished
from mtaio.testing import explore
from tests.explored.executor_stage import Stage, caught, reasons

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from mtaio.testing import Simulation, Victim

explored = explore(seeds=30, exhaustive=1, max_runs=100_000)
"""Scenarios of more steps than others, in fewer schedules."""


class Batches:
    """What begins in a scenario, and in which lists."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.begun: list[list[int]] = []

    async def work(self, batch: list[int]) -> int:
        """Take a step for each batch, and return the sum."""
        self.begun.append(batch)
        await self.stage.work(tuple(batch))
        return sum(batch)

    def clear(self, *, size: int, left: Sequence[int] = (), among: Sequence[int] = ()) -> None:
        """Assert that every item read has begun once, and nothing is left of the call."""
        assert all(1 <= len(batch) <= size for batch in self.begun)
        items = [item for batch in self.begun for item in batch]
        assert self.stage.read == Counter(items) or not self.stage.read
        if among:
            assert sorted([*items, *left]) == sorted(among)
        self.stage.read.clear()
        self.stage.clear()


@explored
async def test_batches_and_another_call(sim: Simulation, victim: Victim) -> None:
    """A batch that is due while others have the slots begins when one is free, and lost is none."""
    stage = Stage(sim, 1, beyond=1)
    batches = Batches(stage)

    async def source() -> AsyncGenerator[int]:
        for x in range(3):
            await anyio.sleep(1)
            stage.read[x] += 1
            yield x

    async with anyio.create_task_group() as group:
        group.start_soon(stage.executor.map, stage.sleep, [1, 0.5])
        call = partial(stage.executor.map, batches.work, source(), batch=2, within=1)
        results = await victim(call)
    if results is not None:
        assert sum(results) == 3
    batches.clear(size=2)


@explored
async def test_error_of_the_source_of_batches(sim: Simulation, victim: Victim) -> None:
    """It comes out once, and what was read before it has begun."""
    stage = Stage(sim, 2)
    batches = Batches(stage)
    source = stage.source(0, 1, 2, error=ValueError("source"))
    call = partial(stage.executor.map, batches.work, source, batch=2)
    results, errors = await caught(victim, call)
    assert results is None
    assert reasons(errors) == {"source": 1} or (victim.fired and not errors)
    batches.clear(size=2)


@explored
async def test_until_and_an_item_that_comes_then(sim: Simulation, victim: Victim) -> None:
    """Ended as its queue gets another item, a call begins that or leaves it, and returns."""
    stage = Stage(sim, 2)
    batches = Batches(stage)
    over = anyio.Event()
    send, receive = anyio.create_memory_object_stream[int](math.inf)

    async def produce() -> None:
        for x in range(3):
            await checkpoint()
            send.send_nowait(x)
        over.set()
        await checkpoint()
        send.send_nowait(3)

    with send, receive, unfinished.recording() as record:
        async with anyio.create_task_group() as group:
            group.start_soon(produce)
            call = partial(
                stage.executor.map, batches.work, receive, batch=2, within=9, until=over.wait
            )
            results = await victim(call)
        left = [receive.receive_nowait() for _ in range(receive.statistics().current_buffer_used)]
    assert victim.fired or record.noted
    if results is not None:
        assert sum(results) + sum(left) == 6
        assert sim.time() == 0
    batches.clear(size=2, left=left, among=range(4))


@explored
async def test_until_of_a_sync_source(sim: Simulation, victim: Victim) -> None:
    """What runs goes on to its end, and an item that is not taken is left in the source."""
    stage = Stage(sim, 2)
    source = iter(range(6))

    async def until() -> None:
        await checkpoint()
        await checkpoint()

    results = await victim(partial(stage.executor.map, stage.work, source, until=until))
    if results is not None:
        assert results == [*range(len(results))]
    assert sorted([*stage.started, *source]) == [*range(6)]
    stage.clear()


@explored
async def test_elements_of_results(sim: Simulation, victim: Victim) -> None:
    """The elements of a result come together and in order, to whoever takes them."""
    stage = Stage(sim, 2)
    seen: list[Any] = []

    async def split(x: int) -> list[tuple[int, int]]:
        await stage.work(x)
        return [(x, number) for number in range(x)]

    async def consume() -> None:
        stream = stage.executor.stream(
            split, range(4), flatten=True, ordered=True, limit=2, max_pending=0
        )

        async with stream as elements, anyio.create_task_group() as group:

            async def take() -> None:
                async for element in elements:
                    seen.append(element)
                    await checkpoint()

            group.start_soon(take)
            group.start_soon(take)

    await victim(consume)
    if not victim.fired:
        assert seen == [(x, number) for x in range(4) for number in range(x)]
    stage.clear()
