"""Task.cancel() on the executor's own tasks, deadlines, and errors that are no item's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.core import Retry, TaskStatus
from mtaio.exceptions import StrayCancellationError
from mtaio.testing import explore
from tests.explored.executor_stage import Stage, caught, explored, leaves, reasons
from tests.explored.searches import SEEDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from mtaio.core import TaskHandle
    from mtaio.testing import Simulation, Victim

Item: TypeAlias = Callable[[int], Awaitable[int]]
Way: TypeAlias = Callable[[Stage, Item], Awaitable[None]]

natively = explore(seeds=SEEDS, exhaustive=2, max_runs=100_000, backends=["asyncio"])


class Target:
    """The task in which an item runs, to be cancelled behind the executor's back."""

    def __init__(self, stage: Stage, *, number: int = 1) -> None:
        self._stage = stage
        self._number = number
        self._task: asyncio.Task[Any] | None = None
        self.hit = False

    async def work(self, x: int) -> int:
        """Take two steps, in the open if this is the item to be hit."""
        if x == self._number:
            self._task = asyncio.current_task()
        try:
            return await self._stage.work(x, 2)
        finally:
            if x == self._number:
                self._task = None

    async def strike(self) -> None:
        """Cancel the item's task while it works, if it is found at it."""
        for _ in range(4):
            await checkpoint()
            if self._task is not None:
                self._task.cancel()
                self.hit = True
                return


@pytest.mark.parametrize("retry", [None, 2])
@natively
async def test_worker_is_cancelled(sim: Simulation, retry: int | None) -> None:
    """A worker that is cancelled natively fails its item alone; the others are not hurt."""
    stage = Stage(sim, 2)
    target = Target(stage)
    async with anyio.create_task_group() as group:
        group.start_soon(target.strike)
        results = await stage.executor.map(
            target.work, range(4), errors="return", retry=policy(retry)
        )
    assert isinstance(results[1], StrayCancellationError) == target.hit
    assert results == [0, results[1] if target.hit else 1, 2, 3]
    assert stage.executor.statistics().failed == (results[1] != 1)
    stage.clear()


def policy(attempts: int | None) -> Retry | None:
    """Return a policy without chance in it."""
    return None if attempts is None else Retry(attempts=attempts, jitter=0)


@natively
async def test_worker_of_a_stream_is_cancelled(sim: Simulation) -> None:
    """A stream raises it to its consumer, after the results, and leaves nothing."""
    stage = Stage(sim, 2)
    target = Target(stage)
    results: list[int] = []

    async def consume() -> None:
        async with stage.executor.stream(target.work, range(3), errors="collect") as stream:
            async for result in stream:
                results.append(result)  # noqa: PERF401 - what came before an error counts

    async with anyio.create_task_group() as group:
        group.start_soon(target.strike)
        _, errors = await caught(consume)
    assert [type(error) for error in errors] in ([], [StrayCancellationError])
    assert sorted(results) == ([0, 2] if errors else [0, 1, 2])
    assert target.hit or not errors
    stage.clear()


@natively
async def test_submitted_task_is_cancelled(sim: Simulation) -> None:
    """Task.cancel() of a submitted task is that task's failure, seen once."""
    stage = Stage(sim, 1, max_pending=2)
    target = Target(stage)
    handles: list[TaskHandle[int]] = []

    async def block() -> None:
        async with stage.executor:
            for x in range(3):
                handle = await stage.executor.submit(target.work, x)
                handles.append(handle)

    async with anyio.create_task_group() as group:
        group.start_soon(target.strike)
        _, errors = await caught(block)
    assert [type(error) for error in errors] in ([], [StrayCancellationError])
    expected = TaskStatus.FAILED if errors else TaskStatus.SUCCEEDED
    assert [handle.status for handle in handles] == ["succeeded", expected, "succeeded"]
    stage.clear()


@natively
async def test_submitted_task_is_cancelled_at_any_time(sim: Simulation) -> None:
    """So it is before its first step: its handle ends, and leaves nothing."""
    stage = Stage(sim, 1, max_pending=2)
    handles: list[TaskHandle[int]] = []

    async def target() -> int:
        return await stage.work(1, 2)

    async def strike() -> None:
        for _ in range(4):
            await checkpoint()
            for task in asyncio.all_tasks():
                if task.get_name() == target.__qualname__:
                    task.cancel()
                    return

    async def block() -> None:
        async with stage.executor:
            for fn in (partial(stage.work, 0), target, partial(stage.work, 2)):
                handle = await stage.executor.submit(fn)
                handles.append(handle)

    async with anyio.create_task_group() as group:
        group.start_soon(strike)
        _, errors = await caught(block)
    assert {type(error) for error in errors} <= {StrayCancellationError}
    assert all(handle.done for handle in handles)
    assert errors or stage.returned == {0: 1, 1: 1, 2: 1}
    stage.clear()


@explored
async def test_deadline_at_the_end(sim: Simulation, victim: Victim) -> None:
    """A deadline at the very moment of the last result gives all results, or none."""
    stage = Stage(sim, 2)
    results: list[float] = []

    async def call() -> None:
        with anyio.move_on_after(1):
            results.extend(await stage.executor.map(stage.sleep, [0.5, 1, 0.5], timeout=9))

    await victim(call)
    assert results in ([], [0.5, 1, 0.5])
    stage.clear()


@explored
async def test_item_that_cancels_its_caller(sim: Simulation, victim: Victim) -> None:
    """An item may cancel the scope around the whole call, and is cancelled with it."""
    stage = Stage(sim, 2)
    results: list[int] = []

    async def call() -> None:
        with anyio.CancelScope() as scope:

            async def item(x: int) -> int:
                await stage.work(x)
                if x == 1:
                    scope.cancel()
                return await stage.work(x + 10)

            results.extend(await stage.executor.map(item, range(3), timeout=9))

    await victim(call)
    assert results == []
    assert stage.returned[11] == 0
    stage.clear()


class Stop(BaseException):
    """What no item may raise, as KeyboardInterrupt."""


async def mapping(stage: Stage, item: Item) -> None:
    """Let `map` do three items."""
    await stage.executor.map(item, range(3))


async def streaming(stage: Stage, item: Item) -> None:
    """Let `stream` do three items."""
    async with stage.executor.stream(item, range(3)) as results:
        async for _ in results:
            pass


async def submitting(stage: Stage, item: Item) -> None:
    """Submit three items."""
    async with stage.executor:
        for x in range(3):
            await stage.executor.submit(item, x)


async def running(stage: Stage, item: Item) -> None:
    """Let `run` do three items, side by side."""
    async with anyio.create_task_group() as group:
        for x in range(3):
            group.start_soon(stage.executor.run, item, x)


@pytest.mark.parametrize("way", [mapping, streaming, submitting, running])
@explored
async def test_stop(sim: Simulation, victim: Victim, way: Way) -> None:
    """A BaseException goes through everything, once, and leaves nothing."""
    stage = Stage(sim, 2, max_pending=1)

    async def item(x: int) -> int:
        await stage.work(x)
        if x == 1:
            raise Stop
        return x

    stops: list[BaseException] = []
    try:
        await victim(way, stage, item)
    except BaseException as error:
        stops = leaves(error)
        if not all(isinstance(each, Stop) for each in stops):
            raise
    assert len(stops) == 1 or (victim.fired and not stops)
    stage.clear()


@explored
async def test_plain_source_that_raises(sim: Simulation, victim: Victim) -> None:
    """The error of a plain iterator comes out once, and cancels what runs."""
    stage = Stage(sim, 2)

    def source() -> Iterator[int]:
        yield from (0, 1)
        raise ValueError("source")

    results, errors = await caught(victim, stage.executor.map, stage.work, source())
    assert results is None
    assert reasons(errors) == {"source": 1} or (victim.fired and not errors)
    stage.clear()


@explored
async def test_source_whose_clean_up_fails(sim: Simulation, victim: Victim) -> None:
    """An error from closing a source early comes out with the one that ended the call."""
    stage = Stage(sim, 2)

    opened = 0

    async def source() -> AsyncGenerator[int]:
        nonlocal opened
        opened += 1
        try:
            for x in (0, 1, 3):
                await checkpoint()
                yield x
            await anyio.sleep_forever()
        finally:
            raise ValueError("clean-up")

    _, errors = await caught(victim, stage.executor.map, stage.fail, source())
    found = reasons(errors)
    assert found.pop("clean-up", 0) == opened
    assert found == stage.raised
    stage.clear()


@explored
async def test_pipeline(sim: Simulation, victim: Victim) -> None:
    """A stream may feed another one of the same executor, and both end together."""
    stage = Stage(sim, 1)
    results: list[int] = []

    async def first() -> AsyncGenerator[int]:
        async with stage.executor.stream(stage.work, range(3), max_pending=0) as stream:
            async for x in stream:
                yield x

    async def second(x: int) -> int:
        return await stage.work(x + 10)

    async def consume() -> None:
        async with stage.executor.stream(second, first(), ordered=True, max_pending=0) as stream:
            async for result in stream:
                results.append(result)
                if len(results) == 2:
                    break

    await victim(consume)
    assert results == [10, 11][: len(results)]
    assert victim.fired or len(results) == 2
    stage.clear()


@explored
async def test_submit_while_the_block_is_left(sim: Simulation, victim: Victim) -> None:
    """A call of submit from outside as the block ends is refused, or its task ends with it."""
    stage = Stage(sim, 1, max_pending=1)
    handles: list[TaskHandle[int]] = []

    async def submit() -> None:
        for x in range(10, 14):
            try:
                handle = await stage.executor.submit(stage.work, x)
            except RuntimeError as error:
                assert "is closing" in str(error) or "is not entered" in str(error)  # noqa: PT017 - it may come, or not
                return
            handles.append(handle)

    async def block() -> None:
        async with stage.executor:
            group.start_soon(submit)
            handles.append(await stage.executor.submit(stage.work, 0))

    async with anyio.create_task_group() as group:
        await victim(block)
    assert all(handle.done for handle in handles)
    assert stage.returned.total() == sum(each.status == "succeeded" for each in handles)
    stage.clear()


@explored
async def test_handles_in_a_gather(sim: Simulation, victim: Victim) -> None:
    """Waiting for handles through the executor, in an item, lends its slot to one after another."""
    stage = Stage(sim, 1, max_pending=2, beyond=1)

    async def parent() -> tuple[int, ...]:
        handles = [stage.executor.submit_nowait(stage.work, x) for x in (1, 2)]
        return await stage.executor.gather(*handles)

    async with stage.executor:
        results = await victim(stage.executor.run, parent)
    assert results == (None if victim.cancelled else (1, 2))
    assert stage.started.total() in (0, 2)
    assert stage.returned == stage.started
    stage.clear()


@explored
async def test_rate_holds_no_one_up(sim: Simulation, victim: Victim) -> None:
    """A call that waits for its rate, and is cancelled, gives its slots to the others."""
    stage = Stage(sim, 1)
    results: list[list[int]] = []

    async def other() -> None:
        results.append(await stage.executor.map(stage.work, [10, 11]))

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        mine = await victim(partial(stage.executor.map, stage.work, [0, 1], rate=1))
    assert results == [[10, 11]]
    assert mine in ([0, 1], None)
    stage.clear()
