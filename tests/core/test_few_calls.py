"""A few calls at once, each in a task of its own: what holds for many holds for them."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio._internal import backend
from mtaio.core import TaskExecutor
from mtaio.core._pool import FEW
from mtaio.core._slots import CURRENT
from mtaio.exceptions import StrayCancellationError
from mtaio.testing import run

LIMITS = pytest.mark.parametrize("limit", [None, FEW], ids=["no limit", "a limit"])
VARIABLE: ContextVar[int] = ContextVar("VARIABLE", default=0)


@LIMITS
@pytest.mark.parametrize("count", [1, 2, FEW, FEW + 1])
async def test_calls_begin_in_order_and_overlap(limit: int | None, count: int) -> None:
    """All run at once as far as the limit goes, the first of them first."""
    executor = TaskExecutor(limit)
    begun: list[int] = []

    async def call(number: int) -> int:
        begun.append(number)
        await anyio.sleep(1)
        return number

    start = anyio.current_time()
    results = await executor.gather(*(partial(call, number) for number in range(count)))
    assert results == tuple(begun) == tuple(range(count))
    assert anyio.current_time() - start == (2 if limit is not None and count > limit else 1)
    statistics = executor.statistics()
    assert (statistics.peak, statistics.succeeded) == (min(count, limit or count), count)
    assert statistics.in_use == statistics.in_flight == 0


async def test_calls_that_never_wait_run_one_by_one() -> None:
    """None of them is in progress with another."""
    executor = TaskExecutor()

    async def call() -> int:
        return executor.statistics().in_flight

    assert await executor.gather(call, call, call) == (1, 1, 1)
    assert executor.statistics().peak == 1


@LIMITS
async def test_each_has_a_context_and_a_task_of_its_own(limit: int | None) -> None:
    """What one sets the other does not see, and neither does the caller."""

    async def call(number: int) -> tuple[int, int]:
        before = VARIABLE.get()
        VARIABLE.set(number)
        await checkpoint()
        assert VARIABLE.get() == number
        return before, anyio.get_current_task().id

    (first, task), (second, other) = await TaskExecutor(limit).gather(
        partial(call, 1), partial(call, 2)
    )
    assert (first, second, VARIABLE.get()) == (0, 0, 0)
    assert len({task, other, anyio.get_current_task().id}) == 3


async def test_peaks_of_several_calls_add_up() -> None:
    """The executor counts what runs at once in all its calls."""
    executor = TaskExecutor()
    both = partial(executor.gather, partial(anyio.sleep, 1), partial(anyio.sleep, 1))
    async with anyio.create_task_group() as group:
        group.start_soon(both)
        group.start_soon(both)
    assert executor.statistics().peak == 4


async def test_call_that_wins_at_once_leaves_the_other_uncalled() -> None:
    """No call starts once there is a result."""
    called: list[int] = []

    async def call(number: int) -> int:
        called.append(number)
        return number

    assert await TaskExecutor().race(partial(call, 1), partial(call, 2)) == 1
    assert called == [1]


async def test_call_that_fails_at_once_leaves_the_other_uncalled() -> None:
    """Nor does one start once an error ends the call, and a coroutine is closed."""
    called: list[int] = []

    async def call(number: int) -> None:
        called.append(number)
        raise LookupError(number)

    with pytest.raises(LookupError) as info:
        await TaskExecutor().gather(call(1), call(2))
    assert info.value.args == (1,)
    assert called == [1]


async def test_error_that_ends_the_program_leaves_the_other_uncalled() -> None:
    """What is not an Exception ends the call whatever its policy says."""
    called: list[int] = []

    async def call(number: int) -> None:
        called.append(number)
        raise BaseExceptionGroup("end", [ExitNow()])

    with pytest.raises(BaseExceptionGroup) as info:
        await TaskExecutor().gather(partial(call, 0), partial(call, 1), errors="return")
    assert isinstance(info.value.exceptions[0], ExitNow)
    assert called == [0]


class ExitNow(BaseException):
    """As KeyboardInterrupt, but asyncio does not know it."""


async def test_cancelled_caller_calls_nothing() -> None:
    """In a scope that is cancelled already none of them begins."""
    called: list[int] = []

    async def call() -> None:
        called.append(1)  # pragma: no cover - it is not called

    with anyio.CancelScope() as scope:
        scope.cancel()
        await TaskExecutor().gather(call, call)
    assert scope.cancelled_caught
    assert called == []


def test_call_that_cancels_its_own_task() -> None:
    """It fails alone: the task is not that of the caller."""

    async def call(*, cancels: bool) -> int:
        if cancels:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await anyio.sleep(1)
        return 1

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        executor = TaskExecutor(2)
        first, second = await executor.gather(
            partial(call, cancels=True), partial(call, cancels=False), errors="return"
        )
        assert isinstance(first, StrayCancellationError)
        assert second == 1
        assert not task.cancelling()
        assert executor.statistics().in_use == 0

    run(main, backend="asyncio")


async def test_ids_of_tasks_are_those_of_anyio() -> None:
    """The parents of code in a call or a submitted task name it as AnyIO does."""

    async def look() -> None:
        link = CURRENT.get()
        task = anyio.get_current_task()
        assert link is not None
        assert link[0].task == (task.id, task.parent_id)
        assert backend.of(executor._blocks.current.loop).task_id() == task.id  # type: ignore[union-attr]

    async with TaskExecutor(2) as executor:
        await executor.gather(look, look)
        await (await executor.submit(look))


@LIMITS
async def test_submit_that_let_others_run_looks_again(limit: int | None) -> None:
    """One call in 64 yields, and does not slip into a block that is closed meanwhile."""
    refused: list[str] = []

    async def late() -> None:
        try:
            await executor.submit(anyio.sleep_forever)
        except RuntimeError as error:
            refused.append(str(error))

    executor = TaskExecutor(limit)
    async with anyio.create_task_group() as group:
        with pytest.raises(LookupError):  # noqa: PT012 - leaving the block is what matters
            async with executor:
                for _ in range(63):
                    await (await executor.submit(checkpoint))
                group.start_soon(late)
                await checkpoint()
                raise LookupError
    assert len(refused) == 1
    assert executor.statistics().submitted == 0


async def test_each_has_the_timeout_of_the_executor() -> None:
    """Async functions, which need no other check, are limited too."""
    executor = TaskExecutor(timeout=1)
    start = anyio.current_time()
    with pytest.raises(TimeoutError, match=r"did not end within timeout=1 s"):
        await executor.gather(anyio.sleep_forever, checkpoint)
    assert anyio.current_time() - start == 1
