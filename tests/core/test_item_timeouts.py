"""The timeout of each item: exact, and sharp against everything that ends at the same moment."""

from __future__ import annotations

import itertools
import math
import time
from typing import TYPE_CHECKING, NoReturn

import anyio
import anyio.lowlevel
import pytest

from mtaio.core import TaskExecutor
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.resources import TimeoutManager
from mtaio.testing import current_simulation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

remaining = TimeoutManager(None).remaining


async def second_of(x: float) -> float:
    """Return ``x`` after ``x`` seconds."""
    await anyio.sleep(x)
    return x


# ---- when it fires -----------------------------------------------------------------------------


async def test_timeout_counts_from_the_start_of_each_item() -> None:
    """Each item has its own seconds, however long it waited for its slot."""
    executor = TaskExecutor(1)
    assert await executor.map(second_of, [1, 1.5, 1.9, 1], timeout=2) == [1, 1.5, 1.9, 1]
    assert executor.statistics().timed_out == 0


async def test_timeout_error_says_what_and_when() -> None:
    """The error carries the limit, the deadline, the executor's name, and where the item was."""
    executor = TaskExecutor(2, name="pool")
    await anyio.sleep(1)
    with pytest.raises(
        MTAIOTimeoutError, match=r"^pool: .*second_of did not end within timeout=2 s\n"
    ) as info:
        await executor.map(second_of, [1, 5], timeout=2)
    assert anyio.current_time() == 3
    error = info.value
    assert (error.timeout, error.deadline, error.name) == (2, 3, "pool")
    assert isinstance(error, TimeoutError)
    assert isinstance(error.__cause__, anyio.get_cancelled_exc_class())
    assert error.__notes__ == ["in item 1: second_of(5)"]
    statistics = executor.statistics()
    assert (statistics.timed_out, statistics.failed, statistics.succeeded) == (1, 1, 1)


async def test_crowd_times_out_one_by_one() -> None:
    """Items without a limit, each started at its own moment, are each cancelled at their own."""
    started, ended = {}, {}

    async def source() -> AsyncIterator[int]:
        for x in range(300):
            await anyio.sleep(1 / 1024)
            yield x

    async def work(x: int) -> None:
        started[x] = anyio.current_time()
        try:
            await anyio.sleep(9 if x % 3 else 1.75)
        finally:
            ended[x] = anyio.current_time()

    executor = TaskExecutor()
    await executor.map(work, source(), timeout=2, errors="return")
    assert all(ended[x] - started[x] == (2 if x % 3 else 1.75) for x in range(300))
    assert executor.statistics().timed_out == 200


async def test_executor_s_timeout_applies_unless_a_call_says_otherwise() -> None:
    """Omitted: the executor's; None: none; a number: that."""
    executor = TaskExecutor(2, timeout=2)
    kinds = [MTAIOTimeoutError, float]
    assert [type(r) for r in await executor.map(second_of, [3.0], errors="return")] == kinds[:1]
    assert await executor.map(second_of, [3.0], timeout=None) == [3]
    assert await executor.map(second_of, [3.0], timeout=4) == [3]
    assert await executor.map(second_of, [3.0], timeout=math.inf) == [3]


async def test_timeout_of_zero_cancels_at_the_first_checkpoint() -> None:
    """An item that does not suspend has its result; one that does has none."""

    async def work(x: int) -> int:
        if x:
            await anyio.lowlevel.checkpoint()
        return x

    results = await TaskExecutor(2).map(work, [0, 1], timeout=0, errors="return")
    assert results[0] == 0
    assert isinstance(results[1], MTAIOTimeoutError)


async def test_nothing_wakes_while_no_item_runs() -> None:
    """A watch without items sleeps, however short its timeout: a stream may stand for long."""
    before = time.monotonic()
    async with TaskExecutor(1).stream(second_of, itertools.repeat(0), timeout=1e-7) as results:
        for _ in range(10):
            await anext(results)
            await anyio.sleep(1000)
    assert anyio.current_time() >= 10_000
    assert time.monotonic() - before < 5


async def test_item_is_watched_after_a_pause() -> None:
    """When items come again after the watch fell asleep, they are timed from their own start."""

    async def source() -> AsyncIterator[float]:
        for pause, item in [(0, 0.5), (10, 5), (10, 0.5), (0.25, 5)]:
            await anyio.sleep(pause)
            yield item

    ends = []

    async def work(x: float) -> None:
        try:
            await anyio.sleep(x)
        finally:
            ends.append(anyio.current_time())

    await TaskExecutor(2).map(work, source(), timeout=1, errors="return")
    assert ends == [0.5, 11, 20.5, 21.25]


# ---- races at the deadline ---------------------------------------------------------------------


async def test_blocked_past_the_deadline_the_result_counts() -> None:
    """An item that blocked the event loop and then returned was late, but has a result."""

    async def work(x: int) -> int:
        await anyio.lowlevel.checkpoint()
        await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(anyio.sleep, 1))
        return x

    assert await TaskExecutor(1).map(work, [7], timeout=2) == [7]


async def test_outer_deadline_at_the_same_moment_wins() -> None:
    """On a tie the outermost limit counts: the call is cancelled, and no item timed out."""
    executor = TaskExecutor(2)
    with anyio.move_on_after(2) as scope:
        await executor.map(second_of, [5, 5], timeout=2)
    assert scope.cancelled_caught
    statistics = executor.statistics()
    assert (statistics.timed_out, statistics.failed, statistics.cancelled) == (0, 0, 2)


async def test_outer_cancellation_during_clean_up_after_a_timeout() -> None:
    """Cancelled from outside while it cleans up after its timeout, an item was cancelled."""

    async def work(_: int) -> None:
        try:
            await anyio.sleep(9)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)
            await anyio.lowlevel.checkpoint()

    executor = TaskExecutor(2)
    with anyio.move_on_after(2) as scope:
        await executor.map(work, [1], timeout=1, errors="return")
    assert scope.cancelled_caught
    assert anyio.current_time() == 3
    statistics = executor.statistics()
    assert (statistics.timed_out, statistics.failed, statistics.cancelled) == (0, 0, 1)


# ---- what the item does about it ---------------------------------------------------------------


async def test_item_that_swallows_its_timeout_has_its_result() -> None:
    """A result already obtained is never discarded."""

    async def work(x: int) -> int:
        try:
            await anyio.sleep(9)
        except anyio.get_cancelled_exc_class():
            return -x
        return x

    executor = TaskExecutor(1)
    assert await executor.map(work, [1, 2, 3], timeout=1) == [-1, -2, -3]
    assert anyio.current_time() == 3
    assert executor.statistics().timed_out == 0


async def test_clean_up_after_a_timeout_is_waited_for() -> None:
    """The item's own clean-up takes its time; the error still tells the deadline."""

    async def work(_: int) -> None:
        try:
            await anyio.sleep(9)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)

    with pytest.raises(MTAIOTimeoutError) as info:
        await TaskExecutor(1).map(work, [1], timeout=1)
    assert info.value.deadline == 1
    assert anyio.current_time() == 6


async def test_error_in_clean_up_beats_the_timeout() -> None:
    """What an item raises on its way out is its failure, with the cancellation as its context."""

    async def work(_: int) -> NoReturn:
        try:
            await anyio.sleep(9)
        finally:
            raise LookupError

    executor = TaskExecutor(1)
    with pytest.raises(LookupError) as info:
        await executor.map(work, [1], timeout=1)
    assert isinstance(info.value.__context__, anyio.get_cancelled_exc_class())
    assert executor.statistics().timed_out == 0


async def test_errors_in_a_task_group_after_a_timeout() -> None:
    """Errors from inside the item's task group come without the cancellation among them."""

    async def child() -> NoReturn:
        try:
            await anyio.sleep(9)
        finally:
            raise LookupError

    async def work(_: int) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(child)
            group.start_soon(anyio.sleep, 9)
            await anyio.sleep(9)

    (result,) = await TaskExecutor(1).map(work, [1], timeout=1, errors="return")
    assert isinstance(result, ExceptionGroup)
    assert [type(error) for error in result.exceptions] == [LookupError]


async def test_timeout_error_of_the_item_s_own() -> None:
    """A TimeoutError that the item raised is handed on untouched."""
    own = TimeoutError("mine")

    async def work(_: int) -> NoReturn:
        raise own

    executor = TaskExecutor(1)
    with pytest.raises(TimeoutError, match=r"^mine\n") as info:
        await executor.map(work, [1], timeout=1)
    assert info.value is own
    assert executor.statistics().timed_out == 0


async def test_own_scopes_of_an_item_are_its_own_business() -> None:
    """move_on_after and fail_after inside an item nest with its timeout, both ways."""

    async def work(x: float) -> str:
        with anyio.move_on_after(x) as scope:
            await anyio.sleep(9)
        return "inner" if scope.cancelled_caught else "none"

    results = await TaskExecutor(3).map(work, [0.5, 3], timeout=1, errors="return")
    assert results[0] == "inner"
    assert isinstance(results[1], MTAIOTimeoutError)


# ---- remaining() -------------------------------------------------------------------------------


async def test_remaining_inside_an_item_sees_its_timeout() -> None:
    """Each item sees its own seconds run down; after the call nothing is left behind."""

    async def work(x: float) -> list[float]:
        seen = [remaining()]
        await anyio.sleep(x)
        async with anyio.create_task_group() as group:
            group.start_soon(note, seen)
        return seen

    async def note(seen: list[float]) -> None:
        seen.append(remaining())

    results = await TaskExecutor(1).map(work, [0.5, 1.5], timeout=2)
    assert results == [[2, 1.5], [2, 0.5]]
    assert remaining() == math.inf


async def test_remaining_without_a_timeout() -> None:
    """Without a timeout an item sees the limits around the call, and else none."""

    async def work(_: int) -> float:
        return remaining()

    executor = TaskExecutor(1)
    assert await executor.map(work, [1]) == [math.inf]
    with anyio.fail_after(3):
        assert await executor.map(work, [1], timeout=5) == [3]


async def test_nothing_remains_during_clean_up_after_a_timeout() -> None:
    """Inside a shield too, an item that timed out has no time left."""
    seen = []

    async def work(_: int) -> None:
        try:
            await anyio.sleep(9)
        finally:
            with anyio.CancelScope(shield=True):
                seen.append(remaining())
                await anyio.sleep(1)
                seen.append(remaining())

    await TaskExecutor(1).map(work, [1], timeout=1, errors="return")
    assert seen == [0, 0]


# ---- with retry, rate and threads --------------------------------------------------------------


async def test_waiting_for_a_token_does_not_count() -> None:
    """The timeout starts when the limiter let the item go."""
    executor = TaskExecutor(4)
    assert await executor.map(second_of, [1.5] * 4, timeout=2, rate=1 / 5) == [1.5] * 4
    assert anyio.current_time() == 16.5
    with pytest.raises(MTAIOTimeoutError, match=r"second_of did not end within timeout=1 s\n"):
        await executor.map(second_of, [1.5] * 4, timeout=1, rate=1 / 5)


async def test_plain_function_that_takes_too_long_is_left_behind() -> None:
    """A thread cannot be stopped: its item fails at the deadline, and the call does not wait."""
    executor = TaskExecutor(2, threads=2)

    async def shielded(seconds: float) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(seconds)

    def hold(seconds: float) -> float:
        anyio.from_thread.run(shielded, seconds)
        return seconds

    results = await executor.map(hold, [1, 3], timeout=2, errors="return")
    assert results[0] == 1
    assert isinstance(results[1], MTAIOTimeoutError)
    assert anyio.current_time() == 2
    assert executor.statistics().threads_in_use == 1
    simulation = current_simulation()
    await simulation.advance(1)
    with simulation.hold():  # the thread ends in real time
        while executor.statistics().threads_in_use:
            await anyio.lowlevel.checkpoint()


async def test_waiting_for_a_thread_does_not_count() -> None:
    """The timeout of a plain function starts in its thread."""
    executor = TaskExecutor(3, threads=1)

    def hold(seconds: float) -> float:
        anyio.from_thread.run(anyio.sleep, seconds)
        return seconds

    assert await executor.map(hold, [1.5] * 3, timeout=2) == [1.5] * 3
    assert anyio.current_time() == 4.5
