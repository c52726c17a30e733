"""Stages under one executor, and merged sources, under many schedules: none waits for another."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.core import merge
from mtaio.testing import explore
from tests.core.broker import Broker
from tests.explored.executor_stage import Stage, caught, reasons

if TYPE_CHECKING:
    from mtaio.testing import Simulation, Victim

explored = explore(seeds=5, exhaustive=1, max_runs=100_000)
"""Fewer runs than elsewhere, as each has the steps of several calls."""


async def step(stage: Stage, x: int, steps: int = 1) -> int:
    """Do the work of one stage, and return the item of the next one: ten more."""
    await stage.work(x, steps)
    return x + 10


@explored
@pytest.mark.parametrize(("max_workers", "slow"), [(1, 2), (2, 1)])
async def test_three_stages(sim: Simulation, victim: Victim, max_workers: int, slow: int) -> None:
    """All items go through all stages, with as few slots as there are; cancelled, all is gone."""
    stage = Stage(sim, max_workers)
    works = [partial(step, stage, steps=2 if n == slow else 1) for n in range(3)]

    async def run() -> None:
        stream = stage.executor.stream(works[0], stage.source(0, 1), limit=1, max_pending=0)
        stream = stage.executor.stream(works[1], stream, limit=1, max_pending=0)
        assert sorted(await stage.executor.map(works[2], stream, limit=1)) == [30, 31]

    await victim(run)
    if not victim.fired:
        assert stage.returned == dict.fromkeys([0, 1, 10, 11, 20, 21], 1)
    for earlier in (0, 10):  # what a stage has made and the next has not begun: one result
        made = sum(stage.returned[earlier + n] for n in (0, 1))
        assert made - sum(stage.started[earlier + 10 + n] for n in (0, 1)) <= 1
    stage.clear()


@explored
async def test_error_of_a_stage(sim: Simulation, victim: Victim) -> None:
    """It comes out once, and nothing runs on."""
    stage = Stage(sim, 2)

    async def run() -> None:
        stream = stage.executor.stream(stage.fail, [1, 2], limit=1)
        await stage.executor.map(stage.linger, stream, limit=1)

    errors: list[BaseException] = []

    async def call() -> None:
        errors.extend((await caught(run))[1])

    await victim(call)
    assert victim.fired or reasons(errors) == {1: 1}
    stage.clear()


@explored
async def test_merge(sim: Simulation, victim: Victim) -> None:
    """Each item is begun once, whatever source it comes from; what is in hand at the end too."""
    stage = Stage(sim, 1)
    source = merge(stage.source(0, 1), stage.source(10), [20])
    await victim(stage.executor.for_each, stage.work, source)
    assert max(stage.started.values(), default=0) <= 1
    assert victim.fired or stage.returned == dict.fromkeys([0, 1, 10, 20], 1)
    stage.clear()


@explored
async def test_until(sim: Simulation, victim: Victim) -> None:
    """Ended at the sources of the first stage, a line of stages finishes all that was read."""
    stage = Stage(sim, 1)
    over = anyio.Event()

    async def run() -> None:
        source = merge(stage.source(0, 1), stage.source(2))
        stream = stage.executor.stream(partial(step, stage), source, until=over.wait, limit=1)
        await stage.executor.for_each(partial(step, stage), stream, limit=1)

    async def end() -> None:
        for _ in range(4):
            await checkpoint()
        over.set()

    async with anyio.create_task_group() as group:
        group.start_soon(end)
        await victim(run)
    if not victim.fired:
        assert {x + 10 for x in stage.started if x < 10} == {x for x in stage.started if x >= 10}
        assert stage.returned == stage.started
    stage.clear()


@explored
async def test_acknowledged(sim: Simulation, victim: Victim) -> None:
    """Each message of a merge has one answer."""
    stage = Stage(sim, 2)
    brokers = [Broker([0, 1]), Broker([10])]
    source = merge(*(broker.intake() for broker in brokers))
    await victim(stage.executor.for_each, stage.work, source)
    for broker, number in zip(brokers, [2, 1], strict=True):
        assert not broker.hand
        assert len(broker.acked) + len(broker.nacked) + len(broker.left) == number
        assert victim.fired or len(broker.acked) == number
