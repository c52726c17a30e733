"""`run`, `gather` and `race` under many schedules: no call is lost, and losers leave nothing."""

from __future__ import annotations

import inspect
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.resources import RateLimiter
from tests.explored.executor_stage import Stage, caught, explored, reasons

if TYPE_CHECKING:
    from mtaio.testing import Simulation, Victim


@explored
async def test_run(sim: Simulation, victim: Victim) -> None:
    """Callers queue for a slot; one that is cancelled, queued or woken, takes none along."""
    stage = Stage(sim, 1)
    results: list[int] = []

    async def run(x: int) -> None:
        results.append(await stage.executor.run(stage.work, x))

    async with anyio.create_task_group() as group:
        group.start_soon(run, 0)
        group.start_soon(run, 1)
        await checkpoint()  # else the victim would nearly always be the first to ask
        await victim(run, 2)
    assert sorted(results) == ([0, 1] if victim.cancelled else [0, 1, 2])
    assert set(stage.started.values()) == {1}
    stage.clear()


@explored
async def test_run_is_fair(sim: Simulation, victim: Victim) -> None:
    """Slots are handed over in the order of asking, past those who gave up."""
    stage = Stage(sim, 1)
    asked: list[int] = []

    async def run(x: int) -> None:
        asked.append(x)
        await stage.executor.run(stage.work, x)

    async with anyio.create_task_group() as group:
        for x in range(2):
            group.start_soon(run, x)
        await checkpoint()
        group.start_soon(run, 3)
        await victim(run, 2)
    assert list(stage.started) == [x for x in asked if x in stage.started]
    stage.clear()


@explored
async def test_run_an_awaitable(sim: Simulation, victim: Victim) -> None:
    """A coroutine that never started is closed."""
    stage = Stage(sim, 1)
    call = stage.work(1)

    async def other() -> None:
        await stage.executor.run(stage.work, 0, 2)

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        result = await victim(partial(stage.executor.run, call))
    assert result == (None if victim.cancelled else 1)
    assert inspect.getcoroutinestate(call) == inspect.CORO_CLOSED
    stage.clear()


@explored
async def test_run_with_a_timeout(sim: Simulation, victim: Victim) -> None:
    """The timeout counts from when the slot is there, and gives it back."""
    stage = Stage(sim, 1)

    async def run(x: float) -> object:
        result, errors = await caught(partial(stage.executor.run, stage.sleep, x, timeout=1))
        assert all(isinstance(error, MTAIOTimeoutError) for error in errors)
        return result

    async with anyio.create_task_group() as group:
        group.start_soon(run, 0.75)
        group.start_soon(run, 2)
        await victim(run, 1)
    now = stage.executor.statistics()
    assert now.timed_out == now.failed <= 2
    assert stage.returned[0.75] == 1
    stage.clear()


@explored
async def test_gather(sim: Simulation, victim: Victim) -> None:
    """Results stand in the order given; at an error, coroutines that never started are closed."""
    stage = Stage(sim, 2)
    calls = [stage.fail(x) for x in (0, 2, 1, 4)]
    results, errors = await caught(victim, stage.executor.gather, *calls)
    assert results is None
    assert reasons(errors) == stage.raised
    assert errors or victim.cancelled
    assert {inspect.getcoroutinestate(call) for call in calls} == {inspect.CORO_CLOSED}
    stage.clear()


@explored
async def test_gather_with_exceptions(sim: Simulation, victim: Victim) -> None:
    """Errors among the results; a cancellation is none of them."""
    stage = Stage(sim, 2)
    calls = [partial(stage.fail, x) for x in range(4)]
    results = await victim(partial(stage.executor.gather, *calls, limit=2, return_exceptions=True))
    if results is not None:
        assert [x if isinstance(x, int) else x.args for x in results] == [0, (1,), 2, (3,)]
    stage.clear()


@explored
async def test_race(sim: Simulation, victim: Victim) -> None:
    """One winner, and the others are gone, clean-up included, when it is known."""
    stage = Stage(sim, 3)
    winner = await victim(
        stage.executor.race,
        partial(stage.linger, 1),
        partial(stage.work, 2, 2),
        partial(stage.work, 3, 2),
    )
    assert stage.at_work == 0
    assert winner in ({None} if victim.cancelled else {1, 2, 3})
    assert winner is None or stage.returned[winner] == 1
    stage.clear()


@explored
async def test_race_beyond_the_limit(sim: Simulation, victim: Victim) -> None:
    """Calls that never started when the winner was known never start, and are closed."""
    stage = Stage(sim, 1)
    calls = [stage.work(x) for x in (1, 2, 3)]
    winner = await victim(stage.executor.race, *calls)
    assert winner == (None if victim.cancelled else 1)
    assert set(stage.started) <= {1}
    assert {inspect.getcoroutinestate(call) for call in calls} == {inspect.CORO_CLOSED}
    stage.clear()


@explored
async def test_race_at_a_rate(sim: Simulation, victim: Victim) -> None:
    """Beside another call that draws on the same limiter; what never started is closed."""
    stage = Stage(sim, 3)
    limiter = RateLimiter(1)
    starts: list[float] = []

    async def sleep(seconds: float) -> float:
        starts.append(anyio.current_time())
        return await stage.sleep(seconds)

    async def other() -> None:
        results = await stage.executor.gather(sleep(1), rate=limiter)
        assert results == (1,)

    calls = [sleep(1.25) for _ in range(2)]
    async with anyio.create_task_group() as group:
        group.start_soon(other)
        winner = await victim(partial(stage.executor.race, *calls, rate=limiter))
    assert winner == (None if victim.cancelled else 1.25)
    assert all(later - earlier >= 1 for earlier, later in pairwise(starts))
    assert {inspect.getcoroutinestate(call) for call in calls} == {inspect.CORO_CLOSED}
    assert limiter.statistics().waiting == 0
    stage.clear()


@explored
async def test_race_with_failures(sim: Simulation, victim: Victim) -> None:
    """Who fails is out of the race; who is left wins."""
    stage = Stage(sim, 3)
    calls = (partial(stage.fail, 1), partial(stage.fail, 3), partial(stage.work, 2, 2))
    winner, errors = await caught(victim, stage.executor.race, *calls)
    assert not errors
    assert winner == (None if victim.cancelled else 2)
    stage.clear()


@explored
async def test_race_that_all_lose(sim: Simulation, victim: Victim) -> None:
    """If all fail, every error comes out, once, in the order of the calls."""
    stage = Stage(sim, 2)
    calls = [partial(stage.fail, x) for x in (1, 3, 5)]
    winner, errors = await caught(victim, stage.executor.race, *calls)
    assert winner is None
    assert [error.args for error in errors] == [(1,), (3,), (5,)] or victim.cancelled
    stage.clear()


@explored
async def test_race_of_runs(sim: Simulation, victim: Victim) -> None:
    """Losers that wait for a slot of another executor leave its queue."""
    stage = Stage(sim, 1)
    other = Stage(sim, None)

    async def hold() -> None:
        await stage.executor.run(stage.work, 0)

    async with anyio.create_task_group() as group:
        group.start_soon(hold)
        winner = await victim(
            other.executor.race,
            partial(stage.executor.run, stage.work, 1),
            partial(stage.executor.run, stage.work, 2),
            partial(other.work, 3, 2),
        )
    assert winner in ({None} if victim.cancelled else {1, 2, 3})
    assert stage.returned[0] == 1
    stage.clear()
    other.clear()


@explored
async def test_everybody_at_once(sim: Simulation, victim: Victim) -> None:
    """Calls of different kinds contend for the same slots, and each gets what it is due."""
    stage = Stage(sim, 2)
    results: dict[str, object] = {}

    async def mapping() -> None:
        results["map"] = await stage.executor.map(stage.work, [0, 1, 2])

    async def running() -> None:
        await checkpoint()
        results["run"] = await stage.executor.run(stage.work, 10)

    async def gathering() -> object:
        return await stage.executor.gather(stage.work(20), stage.work(21))

    async with anyio.create_task_group() as group:
        group.start_soon(mapping)
        group.start_soon(running)
        gathered = await victim(gathering)
    assert results == {"map": [0, 1, 2], "run": 10}
    assert gathered == (None if victim.cancelled else (20, 21))
    stage.clear()
