"""Calls inside items of the same executor: they make progress, and the slot lent comes back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from tests.explored.executor_stage import Stage, caught, explored, reasons

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mtaio.testing import Simulation, Victim


@explored
async def test_map_in_map(sim: Simulation, victim: Victim) -> None:
    """With one slot, the outer item lends it to the inner ones, one after another."""
    stage = Stage(sim, 1)

    async def outer(x: int) -> int:
        return sum(await stage.executor.map(stage.work, [x, x + 1]))

    results = await victim(stage.executor.map, outer, [0, 10])
    if results is not None:
        assert results == [1, 21]
    assert set(stage.started.values()) <= {1}
    stage.clear()


@explored
async def test_outer_items_do_not_all_start(sim: Simulation, victim: Victim) -> None:
    """While the inner calls are at work no more outer items start than there are slots."""
    stage = Stage(sim, 2)
    outers = 0
    sim.always(lambda: outers <= 2)

    async def outer(x: int) -> int:
        nonlocal outers
        outers += 1
        try:
            return await stage.executor.run(stage.work, x)
        finally:
            outers -= 1

    results = await victim(stage.executor.map, outer, range(4))
    if results is not None:
        assert results == [0, 1, 2, 3]
    stage.clear()


@explored
async def test_deep(sim: Simulation, victim: Victim) -> None:
    """Three deep, one slot is enough."""
    stage = Stage(sim, 1)

    async def descend(depth: int) -> int:
        if depth:
            return 1 + await stage.executor.run(descend, depth - 1)
        return await stage.work(0)

    results = await victim(stage.executor.map, descend, [2, 1])
    if results is not None:
        assert results == [2, 1]
    stage.clear()


@explored
async def test_siblings_queue_on_the_slot(sim: Simulation, victim: Victim) -> None:
    """Several calls inside one item share what it lends; one that is cancelled passes it on."""
    stage = Stage(sim, 1)
    results: list[int] = []

    async def inner(x: int) -> None:
        results.append(await stage.executor.run(stage.work, x))

    async def outer() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(inner, 1)
            group.start_soon(inner, 2)
            await victim(inner, 3)
        results.append(await stage.work(4))

    async with anyio.create_task_group() as group:
        group.start_soon(stage.executor.run, outer)
        group.start_soon(stage.executor.run, partial(stage.work, 5))
    assert sorted(results) == ([1, 2, 4] if victim.cancelled else [1, 2, 3, 4])
    assert stage.returned[5] == 1
    stage.clear()


@explored
async def test_inner_call_is_cancelled(sim: Simulation, victim: Victim) -> None:
    """An item whose inner call is cancelled has its slot back, and may call again."""
    stage = Stage(sim, 1)

    async def outer(x: int) -> int:
        if x == 0:
            await victim(stage.executor.map, stage.work, [1, 2])
        await stage.work(x + 10)
        return await stage.executor.run(stage.work, x + 20)

    assert await stage.executor.map(outer, [0, 1]) == [20, 21]
    assert stage.returned[10] == stage.returned[11] == 1
    stage.clear()


@explored
async def test_inner_error(sim: Simulation, victim: Victim) -> None:
    """An error of an inner item fails the outer one; it is raised once, and the slots come back."""
    stage = Stage(sim, 2)

    async def outer(x: int) -> int:
        return sum(await stage.executor.map(stage.fail, [x, x + 1]))

    call = partial(stage.executor.map, outer, [0, 10], errors="collect")
    results, errors = await caught(victim, call)
    assert results is None
    assert reasons(errors) == stage.raised
    assert victim.fired or reasons(errors) == {1: 1, 11: 1}
    stage.clear()


@explored
async def test_inner_timeout(sim: Simulation, victim: Victim) -> None:
    """An outer item that is late ends its inner call with it, and the next has the slot."""
    stage = Stage(sim, 1)

    async def outer(x: float) -> float:
        return sum(await stage.executor.map(stage.sleep, [x, x + 0.25]))

    call = partial(stage.executor.map, outer, [0.75, 0.25], timeout=1, errors="return")
    results = await victim(call)
    if results is not None:
        assert isinstance(results[0], TimeoutError)
        assert results[1] == 0.75
    stage.clear()


@explored
async def test_calls_across_two_executors(sim: Simulation, victim: Victim) -> None:
    """A call through another executor, whose items call back, is nested too."""
    stage = Stage(sim, 1)
    other = Stage(sim, 1)

    async def outer(x: int) -> int:
        return await other.executor.run(between, x)

    async def between(x: int) -> int:
        return await stage.executor.run(stage.work, x)

    results = await victim(stage.executor.map, outer, [1, 2])
    if results is not None:
        assert results == [1, 2]
    stage.clear()
    other.clear()


@explored
async def test_source_inside_an_item(sim: Simulation, victim: Victim) -> None:
    """An inner call's async source may use the executor as well."""
    stage = Stage(sim, 1)

    async def pages(x: int) -> AsyncGenerator[int]:
        for each in (x, x + 1):
            yield await stage.executor.run(stage.work, each)

    async def outer(x: int) -> int:
        return sum(await stage.executor.map(stage.work, pages(x)))

    results = await victim(stage.executor.map, outer, [0, 10])
    if results is not None:
        assert results == [1, 21]
    stage.clear()


@explored
async def test_task_that_outlives_the_item(sim: Simulation, victim: Victim) -> None:
    """A task that an item starts outside itself queues like any other, and takes no slot along."""
    stage = Stage(sim, 1)

    async def outlive() -> None:
        await checkpoint()
        await victim(stage.executor.run, partial(stage.work, 1))

    async def item(group: anyio.abc.TaskGroup) -> None:
        group.start_soon(outlive)
        await stage.work(0)

    async with anyio.create_task_group() as group:
        await stage.executor.map(item, [group])
        await stage.executor.run(stage.work, 2)
    assert stage.returned == ({0: 1, 2: 1} if not stage.returned[1] else {0: 1, 1: 1, 2: 1})
    assert victim.cancelled or stage.returned[1]
    stage.clear()


@explored
async def test_task_that_outlives_its_lender(sim: Simulation, victim: Victim) -> None:
    """A slot on loan to a task that outlives the item becomes that task's own, and comes back."""
    stage = Stage(sim, 1, beyond=1)

    async def outlive() -> None:
        await victim(stage.executor.run, stage.work, 1, 2)

    async def item() -> None:
        group.start_soon(outlive)  # of the caller, in whose task the item runs: it is lent to
        await stage.work(0)

    async with anyio.create_task_group() as group:
        await stage.executor.run(item)
        await stage.executor.run(stage.work, 2)
    assert stage.returned[0] == stage.returned[2] == 1
    assert victim.cancelled or stage.returned[1] == 1
    stage.clear()


@explored
async def test_race_in_an_item(sim: Simulation, victim: Victim) -> None:
    """A race inside an item is part of the item: its calls take no slots, and leave none taken."""
    stage = Stage(sim, 1, beyond=1)
    sim.always(lambda: stage.executor.statistics().in_use <= 1)

    async def outer(x: int) -> int:
        winner = await stage.executor.race(partial(stage.work, x), partial(stage.work, x + 1))
        await stage.work(x + 2)
        return winner

    results = await victim(stage.executor.map, outer, [0, 10])
    if results is not None:
        assert results[0] in {0, 1}
        assert results[1] in {10, 11}
    stage.clear()


@explored
async def test_gathered_calls_wait_for_each_other(sim: Simulation, victim: Victim) -> None:
    """Every item gathers two calls, one of which waits for the other; items hold all slots."""
    stage = Stage(sim, 2, beyond=2)
    sim.always(lambda: stage.executor.statistics().in_use <= 2)

    async def pair(x: int) -> int:
        event = anyio.Event()

        async def tell() -> int:
            event.set()
            return await stage.work(x)

        await stage.executor.gather(event.wait, tell)
        return x

    results = await victim(stage.executor.map, pair, range(3))
    if results is not None:
        assert results == [0, 1, 2]
    stage.clear()


@explored
async def test_submit_and_await_in_items(sim: Simulation, victim: Victim) -> None:
    """Items that await what they submitted, and a call from outside, all get a slot."""
    stage = Stage(sim, 1, max_pending=1, beyond=2)

    async def parent(x: int) -> int:
        handle = await stage.executor.submit(stage.work, x)
        return await handle

    async with stage.executor, anyio.create_task_group() as group:
        group.start_soon(stage.executor.run, partial(stage.work, 9))
        results = await victim(stage.executor.map, parent, [1, 2])
    assert results == (None if victim.cancelled else [1, 2])
    assert stage.returned[9] == 1
    stage.clear()
