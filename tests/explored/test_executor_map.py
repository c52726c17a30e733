"""`map` and `for_each` under many schedules: each item once, in its place, and nothing is left."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.core import Retry
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from tests.explored.executor_stage import Stage, caught, explored, reasons

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mtaio.testing import Simulation, Victim


@explored
async def test_map(sim: Simulation, victim: Victim) -> None:
    """Every item runs once, and its result stands in its place."""
    stage = Stage(sim, 2)
    results = await victim(stage.executor.map, stage.work, range(4))
    assert (results is None) == victim.cancelled
    if results is not None:
        assert results == [0, 1, 2, 3]
    assert set(stage.started.values()) <= {1}
    stage.clear()


@explored
async def test_unordered(sim: Simulation, victim: Victim) -> None:
    """Results stand in the order in which the items ended."""
    stage = Stage(sim, None)
    ended: list[int] = []

    async def item(x: int) -> int:
        await stage.work(x, 3 - x)
        ended.append(x)
        return x

    call = partial(stage.executor.map, item, range(3), limit=2, ordered=False)
    results = await victim(call)
    if results is not None:
        assert results == ended
        assert sorted(ended) == [0, 1, 2]
    stage.clear()


@explored
async def test_calls_share_the_slots(sim: Simulation, victim: Victim) -> None:
    """Two calls that contend alternate; one that is cancelled takes nothing along."""
    stage = Stage(sim, 1)
    results: list[Any] = []

    async def other() -> None:
        results.append(await stage.executor.map(stage.work, [10, 11]))

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        mine = await victim(stage.executor.map, stage.work, [0, 1])
    assert results == [[10, 11]]
    assert mine in ([0, 1], None)
    stage.clear()


@explored
async def test_short_call_is_not_starved(sim: Simulation) -> None:
    """A call of one item waits for no more than the item at work and those ahead in the queue."""
    stage = Stage(sim, 1)
    started: list[int] = []
    asked_at: list[int] = []

    async def item(x: int) -> None:
        started.append(x)
        await stage.work(x)

    async def short() -> None:
        asked_at.append(len(started))
        await stage.executor.run(item, -1)

    async with anyio.create_task_group() as group:
        group.start_soon(stage.executor.map, item, range(4))
        group.start_soon(short)
    assert started.index(-1) <= asked_at[0] + 1
    stage.clear()


@explored
async def test_first_error_is_raised(sim: Simulation, victim: Victim) -> None:
    """Each error that an item raised comes out once, and the others are cancelled and awaited."""
    stage = Stage(sim, 3)
    results, errors = await caught(victim, stage.executor.map, stage.fail, [0, 1, 3, 2])
    assert results is None
    assert reasons(errors) == stage.raised
    assert errors or victim.cancelled
    stage.clear()
    now = stage.executor.statistics()
    assert now.failed == len(errors)
    assert now.cancelled == stage.cancelled.total()


@explored
async def test_others_clean_up_before_the_error_comes(sim: Simulation, victim: Victim) -> None:
    """An error does not come out before the other items have cleaned up, at their leisure."""
    stage = Stage(sim, 2)

    async def item(x: int) -> int:
        return await (stage.fail(x) if x else stage.linger(x))

    _, errors = await caught(victim, stage.executor.map, item, range(3))
    assert stage.at_work == 0
    assert reasons(errors) == stage.raised
    stage.clear()


@explored
async def test_errors_are_collected(sim: Simulation, victim: Victim) -> None:
    """With "collect" every item runs, and each error comes out once, in the order of the items."""
    stage = Stage(sim, 2)
    call = partial(stage.executor.map, stage.fail, range(4), errors="collect")
    results, errors = await caught(victim, call)
    assert results is None
    assert reasons(errors) == stage.raised
    if not victim.cancelled and not victim.fired:
        assert [error.args for error in errors] == [(1,), (3,)]
        assert stage.returned == {0: 1, 2: 1}
    stage.clear()


@explored
async def test_errors_are_returned(sim: Simulation, victim: Victim) -> None:
    """With "return" errors stand in the places of their items."""
    stage = Stage(sim, 2)
    call = partial(stage.executor.map, stage.fail, range(4), errors="return")
    results = await victim(call)
    if results is not None:
        assert [x if isinstance(x, int) else x.args for x in results] == [0, (1,), 2, (3,)]
    stage.clear()


@explored
async def test_async_source(sim: Simulation, victim: Victim) -> None:
    """An async source is read once and closed, and its items run once."""
    stage = Stage(sim, 2)
    await victim(stage.executor.for_each, stage.work, stage.source(0, 1, 2))
    if not victim.cancelled:
        assert stage.returned == {0: 1, 1: 1, 2: 1}
    assert set(stage.started.values()) <= {1}
    stage.clear()


@explored
async def test_source_and_another_call(sim: Simulation, victim: Victim) -> None:
    """Items read while another call takes the slots begin all the same, and never too many."""
    stage = Stage(sim, 1, beyond=1)  # what is cancelled before it has a slot does not wait for one
    async with anyio.create_task_group() as group:
        group.start_soon(stage.executor.map, stage.work, [10, 11])
        await victim(stage.executor.for_each, stage.work, stage.source(0, 1))
    assert set(stage.started) >= {10, 11}
    stage.clear()


@explored
async def test_source_that_does_not_suspend(sim: Simulation, victim: Victim) -> None:
    """Nor is an item lost that comes at once, as a worker waits for it."""
    stage = Stage(sim, 2)
    read = 0

    async def source() -> AsyncGenerator[int]:
        nonlocal read
        for x in range(3):
            read += 1
            yield x

    await victim(stage.executor.for_each, stage.work, source())
    assert stage.started.total() == read
    stage.clear()


@explored
async def test_slow_source(sim: Simulation, victim: Victim) -> None:
    """Items that come one by one are worked on side by side all the same."""
    stage = Stage(sim, 3)

    async def source() -> AsyncGenerator[float]:
        for x in (3, 3.5, 4):
            await anyio.sleep(1)
            yield x

    results = await victim(stage.executor.map, stage.sleep, source())
    if results is not None:
        assert results == [3, 3.5, 4]
        assert sim.time() == 3 + 4
    stage.clear()


@explored
async def test_source_that_is_cancelled(sim: Simulation) -> None:
    """A call that lost its source to a cancellation ends by it, though nothing else was hit."""
    stage = Stage(sim, 1)
    results: list[int] = []
    with anyio.CancelScope() as scope:

        async def source() -> AsyncGenerator[int]:
            yield 0
            await anyio.sleep_forever()

        async def item(x: int) -> int:
            await stage.work(x)
            scope.cancel()
            return x

        results += await stage.executor.map(item, source(), timeout=9)
    assert scope.cancelled_caught
    assert results == []
    stage.clear()


@explored
async def test_async_sources_side_by_side(sim: Simulation, victim: Victim) -> None:
    """Of several sources the shortest ends the call, and each async one is closed."""
    stage = Stage(sim, 2)

    async def add(a: int, b: int) -> int:
        return await stage.work(a + b)

    call = partial(stage.executor.map, add, stage.source(0, 1, 2), stage.source(10, 20))
    results = await victim(call)
    if results is not None:
        assert results == [10, 21]
    stage.read.clear()  # pairs begin, and an item may lack its partner
    stage.clear()


@explored
async def test_source_that_raises(sim: Simulation, victim: Victim) -> None:
    """The error of a source comes out once, and cancels what runs."""
    stage = Stage(sim, 2)
    source = stage.source(0, 1, error=ValueError("source"))
    results, errors = await caught(victim, stage.executor.map, stage.work, source)
    assert results is None
    assert reasons(errors) == {"source": 1} or (victim.fired and not errors)
    stage.clear()


@explored
async def test_source_and_item_raise(sim: Simulation, victim: Victim) -> None:
    """Errors of the source and of items come out together, each once."""
    stage = Stage(sim, 2)
    source = stage.source(1, 0, error=ValueError("source"))
    _, errors = await caught(victim, stage.executor.map, stage.fail, source)
    seen = reasons(errors)
    assert seen.pop("source", 0) <= 1
    assert seen == stage.raised
    assert errors or victim.cancelled
    stage.clear()


@explored
async def test_source_that_uses_the_executor(sim: Simulation, victim: Victim) -> None:
    """A source may itself wait for a slot of the executor that reads it."""
    stage = Stage(sim, 1)

    async def pages() -> AsyncGenerator[int]:
        for x in (0, 1):
            yield await stage.executor.run(stage.work, x)

    results = await victim(stage.executor.map, stage.work, pages())
    if results is not None:
        assert results == [0, 1]
    stage.clear()


@explored
async def test_progress(sim: Simulation, victim: Victim) -> None:
    """Progress counts every item, one by one, those that fail included."""
    stage = Stage(sim, 2)
    calls: list[tuple[int, int | None]] = []

    def note(done: int, total: int | None) -> None:
        calls.append((done, total))

    call = partial(stage.executor.map, stage.fail, range(3), errors="return", on_progress=note)
    results = await victim(call)
    assert calls == [(done, 3) for done in range(1, len(calls) + 1)]
    if results is not None:
        assert len(calls) == 3
    stage.clear()


@explored
async def test_timeouts(sim: Simulation, victim: Victim) -> None:
    """An item that is late fails, one that is early does not, at the very moment either may."""
    stage = Stage(sim, 3)
    call = partial(stage.executor.map, stage.sleep, [0.5, 1, 1.5, 0.25], timeout=1, errors="return")
    results = await victim(call)
    if results is not None:
        assert (results[0], results[3]) == (0.5, 0.25)
        assert isinstance(results[2], MTAIOTimeoutError)
        assert results[1] == 1 or isinstance(results[1], MTAIOTimeoutError)
        late = sum(isinstance(each, MTAIOTimeoutError) for each in results)
        now = stage.executor.statistics()
        assert now.timed_out == now.failed == late
    stage.clear()


@explored
async def test_timeout_at_the_end_of_an_item(sim: Simulation, victim: Victim) -> None:
    """An item that ends as its time is up has ended or is late, and the next has all its time."""
    stage = Stage(sim, 1)
    call = partial(stage.executor.map, stage.sleep, [1, 0.5], timeout=1, errors="return")
    results = await victim(call)
    if results is not None:
        assert results[0] == 1 or isinstance(results[0], MTAIOTimeoutError)
        assert results[1] == 0.5
    stage.clear()


@explored
async def test_timeout_and_clean_up(sim: Simulation, victim: Victim) -> None:
    """A late item cleans up, and its worker goes on to the next, which has its full time."""
    stage = Stage(sim, 1)

    async def item(x: int) -> int:
        try:
            await stage.sleep(x)
        finally:
            with anyio.CancelScope(shield=True):
                await checkpoint()
        return x

    call = partial(stage.executor.map, item, [5, 1], timeout=2, errors="return")
    results = await victim(call)
    if results is not None:
        assert isinstance(results[0], MTAIOTimeoutError)
        assert results[1] == 1
    stage.clear()


@explored
async def test_retry(sim: Simulation, victim: Victim) -> None:
    """Another attempt is made in the same slot, and counted; a cancelled one is the last."""
    stage = Stage(sim, 2)

    async def unsteady(x: int) -> int:
        first = not stage.started[x]
        await stage.work(x)
        if first:
            raise ValueError(x)
        return x

    policy = Retry(attempts=2, wait_initial=1, jitter=0)
    results = await victim(partial(stage.executor.map, unsteady, range(3), retry=policy))
    now = stage.executor.statistics()
    assert now.retried == stage.started.total() - len(stage.started)
    if results is not None:
        assert results == [0, 1, 2]
        assert now.retried == 3
    stage.clear()


@explored
async def test_retry_within_a_timeout(sim: Simulation, victim: Victim) -> None:
    """Each attempt has the whole timeout, and the last one's error is what comes out."""
    stage = Stage(sim, 2)
    policy = Retry(attempts=2, wait_initial=1, jitter=0)
    call = partial(
        stage.executor.map, stage.sleep, [0.5, 2], timeout=1, retry=policy, errors="return"
    )
    results = await victim(call)
    if results is not None:
        assert results[0] == 0.5
        assert isinstance(results[1], MTAIOTimeoutError)
        now = stage.executor.statistics()
        assert (now.retried, now.timed_out, now.failed) == (1, 2, 1)
    stage.clear()


@explored
async def test_rate(sim: Simulation, victim: Victim) -> None:
    """
    Items start no closer than the rate allows, whatever order they come in.

    What was taken when the call is cancelled is called all the same, and cancelled at once.
    """
    stage = Stage(sim, 2)
    starts: list[float] = []

    async def item(x: int) -> int:
        result = await stage.work(x)
        starts.append(sim.time())
        return result

    results = await victim(partial(stage.executor.map, item, range(3), rate=1))
    assert starts == [0, 1, 2][: len(starts)]
    if results is not None:
        assert results == [0, 1, 2]
    stage.clear()


@explored
async def test_item_that_swallows_its_cancellation(sim: Simulation, victim: Victim) -> None:
    """An item that returns although it was cancelled ends the call's work all the same."""
    stage = Stage(sim, 2)

    async def stubborn(x: int) -> int:
        try:
            return await stage.work(x)
        except anyio.get_cancelled_exc_class():
            return -1

    results = await victim(stage.executor.map, stubborn, range(4))
    if results is not None and not victim.fired:
        assert results == [0, 1, 2, 3]
    stage.clear()


@explored
async def test_item_that_is_cancelled_within(sim: Simulation, victim: Victim) -> None:
    """What is cancelled inside an item, and ends there, concerns neither call nor others."""
    stage = Stage(sim, 2)

    async def item(x: int) -> int | None:
        return await (victim(stage.work, x, 2) if x == 1 else stage.work(x))

    results = await stage.executor.map(item, range(3))
    assert results == [0, None if victim.cancelled else 1, 2]
    stage.clear()


@explored
async def test_progress_that_raises(sim: Simulation, victim: Victim) -> None:
    """An error of the progress callback comes out once and ends the call."""
    stage = Stage(sim, 2)

    def note(done: int, total: int | None) -> None:
        if done == 2:
            raise ValueError(done, total)

    call = partial(stage.executor.map, stage.work, range(4), on_progress=note)
    results, errors = await caught(victim, call)
    assert results is None
    assert reasons(errors) == {2: 1} or (victim.fired and not errors)
    stage.clear()


@pytest.mark.parametrize("errors", ["raise", "collect"])
@explored
async def test_for_each_with_errors(sim: Simulation, victim: Victim, errors: str) -> None:
    """Effects have no results, and their errors come out all the same."""
    stage = Stage(sim, 2)
    call = partial(stage.executor.for_each, stage.fail, stage.source(0, 1, 3), errors=errors)
    results, seen = await caught(victim, call)
    assert results is None
    assert reasons(seen) == stage.raised
    stage.clear()
