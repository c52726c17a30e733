"""`stream` and `as_completed` under many schedules: each result once, never too many on the way."""

from __future__ import annotations

import contextlib
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from tests.explored.executor_stage import Stage, caught, explored, reasons

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtaio.core import Outcome, Stream
    from mtaio.testing import Simulation, Victim


class Consumer:
    """What came out of a stream, and how far it may lag behind what went in."""

    def __init__(self, stage: Stage, window: int) -> None:
        self.window = window
        self.taken = 0
        self.results: list[Any] = []
        stage.sim.always(lambda: self.taken - len(self.results) <= window)

    def source(self, stop: int) -> Iterator[int]:
        """Yield numbers, and count those taken."""
        for x in range(stop):
            self.taken += 1
            yield x

    async def read(self, stream: Stream[Any], most: int = 99, pause: int = 0) -> None:
        """Enter the stream, and take up to ``most`` results, with steps in between."""
        async with stream as results:
            await self.share(results, most, pause)

    async def share(self, results: Stream[Any], most: int = 99, pause: int = 0) -> None:
        """Take up to ``most`` results of an entered stream."""
        async for result in results:
            self.results.append(result)
            if len(self.results) == most:
                break
            for _ in range(pause):
                await checkpoint()


@explored
async def test_ordered(sim: Simulation, victim: Victim) -> None:
    """Results come in the order of the items, and no more than the window is on the way."""
    stage = Stage(sim, 2)
    consumer = Consumer(stage, window=3)

    async def item(x: int) -> int:
        return await stage.work(x, 3 - x % 3)

    stream = stage.executor.stream(item, consumer.source(4), ordered=True, max_pending=1)
    await victim(consumer.read, stream)
    assert consumer.results == list(range(len(consumer.results)))
    assert victim.fired or len(consumer.results) == 4
    stage.clear()


@explored
async def test_slow_consumer(sim: Simulation, victim: Victim) -> None:
    """A consumer that falls behind holds the work back."""
    stage = Stage(sim, 2)
    consumer = Consumer(stage, window=2)
    stream = stage.executor.stream(stage.work, consumer.source(4), max_pending=0)
    await victim(consumer.read, stream, 99, 2)
    assert len(set(consumer.results)) == len(consumer.results)
    assert victim.fired or len(consumer.results) == 4
    stage.clear()


@explored
async def test_without_a_limit(sim: Simulation, victim: Victim) -> None:
    """Without max_workers the buffer alone bounds what is on the way."""
    stage = Stage(sim, None)
    consumer = Consumer(stage, window=2)
    stream = stage.executor.stream(stage.work, consumer.source(4), max_pending=2, ordered=True)
    await victim(consumer.read, stream)
    assert consumer.results == list(range(len(consumer.results)))
    assert victim.fired or len(consumer.results) == 4
    stage.clear()


@explored
async def test_consumer_that_leaves(sim: Simulation, victim: Victim) -> None:
    """A break cancels what runs and waits for it, and closes the source."""
    stage = Stage(sim, 2)
    consumer = Consumer(stage, window=99)
    stream = stage.executor.stream(stage.linger, stage.source(0, 1, 2, 3))
    await victim(consumer.read, stream, 1)
    assert stage.at_work == 0
    assert victim.fired or len(consumer.results) == 1
    stage.clear()


@explored
async def test_closed_by_one_of_two_consumers(sim: Simulation, victim: Victim) -> None:
    """When `aclose` returns, nothing runs; the other consumer gets the end, and neither hangs."""
    stage = Stage(sim, 2)
    consumer = Consumer(stage, window=99)

    async def close(results: Stream[Any]) -> None:
        await checkpoint()
        await results.aclose()
        assert stage.at_work == 0
        assert [result async for result in results] == []

    stream = stage.executor.stream(stage.linger, stage.source(0, 1, 2, 3))
    async with stream as results, anyio.create_task_group() as group:
        group.start_soon(consumer.share, results)
        await victim(close, results)
        if victim.cancelled:
            await results.aclose()
    assert stage.at_work == 0
    assert len(set(consumer.results)) == len(consumer.results)
    stage.clear()


@explored
async def test_consumer_that_leaves_at_once(sim: Simulation, victim: Victim) -> None:
    """A block that is left before its work started starts none."""
    stage = Stage(sim, 2)

    async def peep() -> None:
        async with stage.executor.stream(stage.work, stage.source(0, 1)):
            pass

    await victim(peep)
    assert set(stage.started.values()) <= {1}
    stage.clear()


@explored
async def test_consumer_that_fails(sim: Simulation, victim: Victim) -> None:
    """The consumer's error comes out, with the errors of items that it has not seen, each once."""
    stage = Stage(sim, 2)
    seen: list[int] = []

    async def consume() -> None:
        async with stage.executor.stream(stage.fail, [0, 1, 3, 2]) as results:
            async for result in results:
                seen.append(result)
                raise ValueError("consumer")

    _, errors = await caught(victim, consume)
    found = reasons(errors)
    assert found.pop("consumer", 0) == len(seen)
    assert found == stage.raised
    stage.clear()


@explored
async def test_error_reaches_the_consumer(sim: Simulation, victim: Victim) -> None:
    """The results that are ready come first, then each error, once."""
    stage = Stage(sim, 2)
    consumer = Consumer(stage, window=99)
    stream = stage.executor.stream(stage.fail, [0, 2, 1, 3])
    _, errors = await caught(victim, consumer.read, stream)
    assert reasons(errors) == stage.raised
    assert errors or victim.cancelled
    if not victim.fired:
        assert sorted(consumer.results) == sorted(stage.returned)
    stage.clear()


@explored
async def test_error_of_a_source(sim: Simulation, victim: Victim) -> None:
    """An async source that raises ends the stream with its error, after the results."""
    stage = Stage(sim, 2)
    consumer = Consumer(stage, window=99)
    source = stage.source(0, 1, error=ValueError("source"))
    stream = stage.executor.stream(stage.work, source, ordered=True)
    _, errors = await caught(victim, consumer.read, stream)
    assert reasons(errors) == {"source": 1} or (victim.fired and not errors)
    assert consumer.results == list(range(len(consumer.results)))
    stage.clear()


@pytest.mark.parametrize("ordered", [False, True])
@explored
async def test_errors_are_collected(sim: Simulation, victim: Victim, ordered: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    """With "collect" all results come, then all errors in one group."""
    stage = Stage(sim, 2)
    consumer = Consumer(stage, window=99)
    stream = stage.executor.stream(
        stage.fail, [1, 0, 3, 2], errors="collect", max_pending=0, ordered=ordered
    )
    _, errors = await caught(victim, consumer.read, stream)
    assert reasons(errors) == stage.raised
    if not victim.fired:
        assert sorted(consumer.results) == [0, 2]
        assert stage.raised == {1: 1, 3: 1}
        assert not ordered or consumer.results == [0, 2]
    stage.clear()


@explored
async def test_errors_are_results(sim: Simulation, victim: Victim) -> None:
    """With "return" an error takes its place among the results."""
    stage = Stage(sim, 2)
    consumer = Consumer(stage, window=2)
    stream = stage.executor.stream(
        stage.fail, consumer.source(4), errors="return", ordered=True, max_pending=0
    )
    await victim(consumer.read, stream)
    shown = [x if isinstance(x, int) else x.args[0] for x in consumer.results]
    assert shown == list(range(len(shown)))
    assert victim.fired or len(shown) == 4
    stage.clear()


@explored
async def test_consumers_share(sim: Simulation, victim: Victim) -> None:
    """Each result goes to one of several consumers; one that is cancelled loses none."""
    stage = Stage(sim, 2)
    consumer = Consumer(stage, window=2)
    stream = stage.executor.stream(stage.work, consumer.source(4), max_pending=0)
    async with stream as results, anyio.create_task_group() as group:
        group.start_soon(consumer.share, results)
        await victim(consumer.share, results)
    assert sorted(consumer.results) == [0, 1, 2, 3]
    stage.clear()


@explored
async def test_consumers_share_an_error(sim: Simulation, victim: Victim) -> None:
    """The error that ends a stream goes to one of several consumers, or to the block."""
    stage = Stage(sim, 2)
    consumer = Consumer(stage, window=99)
    errors: list[BaseException] = []

    async def share(results: Stream[int]) -> None:
        errors.extend((await caught(consumer.share, results))[1])

    async def both() -> None:
        async with (
            stage.executor.stream(stage.fail, [0, 1, 2]) as results,
            anyio.create_task_group() as group,
        ):
            group.start_soon(share, results)
            await victim(share, results)

    errors.extend((await caught(both))[1])
    assert reasons(errors) == {1: 1}
    stage.clear()


@explored
async def test_stream_and_map_contend(sim: Simulation, victim: Victim) -> None:
    """A stream whose consumer is slow holds no slot while it waits for room."""
    stage = Stage(sim, 1)
    consumer = Consumer(stage, window=1)
    others: list[list[int]] = []

    async def other() -> None:
        others.append(await stage.executor.map(stage.work, [10, 11]))

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        stream = stage.executor.stream(stage.work, consumer.source(3), max_pending=0)
        await victim(consumer.read, stream, 99, 1)
    assert others == [[10, 11]]
    assert victim.fired or len(consumer.results) == 3
    stage.clear()


@explored
async def test_window_while_workers_queue(sim: Simulation, victim: Victim) -> None:
    """A worker that finds the window shut when its slot comes takes no item."""
    stage = Stage(sim, 2)
    consumer = Consumer(stage, window=2)
    async with anyio.create_task_group() as group:
        group.start_soon(stage.executor.run, stage.work, 9, 6)
        await checkpoint()
        stream = stage.executor.stream(stage.work, consumer.source(4), max_pending=0)
        await victim(consumer.read, stream, 99, 1)
    assert victim.fired or sorted(consumer.results) == [0, 1, 2, 3]
    stage.clear()


@explored
async def test_consumer_that_calls_the_executor(sim: Simulation, victim: Victim) -> None:
    """A consumer may work on each result through the same executor."""
    stage = Stage(sim, 1)
    results: list[int] = []

    async def consume() -> None:
        async with stage.executor.stream(stage.work, range(3), max_pending=0) as stream:
            async for x in stream:
                result = await stage.executor.run(stage.work, x + 10)
                results.append(result)

    await victim(consume)
    assert victim.fired or results == [10, 11, 12]
    stage.clear()


@explored
async def test_stream_in_an_item(sim: Simulation, victim: Victim) -> None:
    """A stream inside an item works in that item's slot."""
    stage = Stage(sim, 1)

    async def outer(x: int) -> int:
        total = 0
        async with stage.executor.stream(stage.work, [x, x + 1]) as results:
            async for result in results:
                total += result
        return total

    totals = await victim(stage.executor.map, outer, [0, 10])
    if totals is not None:
        assert totals == [1, 21]
    stage.clear()


@explored
async def test_timeouts(sim: Simulation, victim: Victim) -> None:
    """An item that is late becomes an error at its time, whatever the consumer does."""
    stage = Stage(sim, 2)
    consumer = Consumer(stage, window=99)
    stream = stage.executor.stream(
        stage.sleep, [0.5, 2, 1], timeout=1, errors="return", ordered=True
    )
    await victim(consumer.read, stream)
    if not victim.fired:
        assert consumer.results[0] == 0.5
        assert isinstance(consumer.results[1], MTAIOTimeoutError)
        assert consumer.results[2] == 1 or isinstance(consumer.results[2], MTAIOTimeoutError)
    stage.clear()


@explored
async def test_as_completed(sim: Simulation, victim: Victim) -> None:
    """Each call has one outcome, results and errors alike."""
    stage = Stage(sim, 2)
    consumer = Consumer(stage, window=99)
    calls = [partial(stage.fail, x) for x in range(4)]
    await victim(consumer.read, stage.executor.as_completed(*calls))
    outcomes: list[Outcome[int]] = consumer.results
    for outcome in outcomes:
        with contextlib.suppress(ValueError):
            assert outcome.result() == outcome.index
        assert (outcome.error is None) == (outcome.index % 2 == 0)
    indices = sorted(outcome.index for outcome in outcomes)
    assert len(set(indices)) == len(indices)
    assert victim.fired or indices == [0, 1, 2, 3]
    stage.clear()


@explored
async def test_as_completed_left_early(sim: Simulation, victim: Victim) -> None:
    """Coroutines that never started are closed when the block is left."""
    stage = Stage(sim, 1)
    consumer = Consumer(stage, window=99)
    calls = [stage.work(x) for x in range(3)]
    await victim(consumer.read, stage.executor.as_completed(*calls), 1)
    assert {inspect.getcoroutinestate(call) for call in calls} == {inspect.CORO_CLOSED}
    assert victim.fired or len(consumer.results) == 1
    stage.clear()
