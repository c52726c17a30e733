"""TaskExecutor.gather, race and as_completed: several different calls at once."""

from __future__ import annotations

import asyncio
import gc
import threading
from functools import partial
from inspect import CORO_CLOSED, CORO_CREATED, getcoroutinestate
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.core import Outcome, TaskExecutor
from mtaio.exceptions import StrayCancellationError
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.resources import RateLimiter
from mtaio.testing import run

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator


async def after(seconds: float, value: str = "done") -> str:
    """Return ``value`` later."""
    await anyio.sleep(seconds)
    return value


async def fail(seconds: float, value: str = "failed") -> str:
    """Raise ``value`` later."""
    await anyio.sleep(seconds)
    raise ValueError(value)


def in_thread() -> bool:
    """Tell whether a worker thread calls."""
    return threading.current_thread() is not threading.main_thread()


class Later:
    """Is an awaitable but not a coroutine."""

    def __await__(self) -> Generator[Any, Any, str]:
        return after(1, "later").__await__()


def is_quiet(executor: TaskExecutor) -> bool:
    """Tell whether nothing runs or waits, and every item that started is accounted for."""
    now = executor.statistics()
    ended = now.succeeded + now.failed + now.cancelled
    return now.in_flight == now.waiting == 0 and now.started == ended


# ---- gather ------------------------------------------------------------------------------------


async def test_gather_returns_results_in_the_order_given() -> None:
    """Whatever finishes first, the tuple follows the arguments."""
    assert await TaskExecutor(3).gather(after(3, "a"), after(1, "b"), after(2, "c")) == (
        "a",
        "b",
        "c",
    )
    assert anyio.current_time() == 3


async def test_gather_of_nothing() -> None:
    """No calls, no results."""
    assert await TaskExecutor(3).gather() == ()


async def test_gather_takes_any_awaitable_and_any_function() -> None:
    """Coroutines, other awaitables, async functions, plain ones in threads, lambdas around both."""
    with pytest.warns(RuntimeWarning, match="<lambda> is a plain function, so it was called in a"):
        results = await TaskExecutor(9).gather(
            after(1), Later(), partial(after, 1, "partial"), in_thread, lambda: after(1, "lambda")
        )
    assert results == ("done", "later", "partial", True, "lambda")
    assert anyio.current_time() == 1


async def test_gather_obeys_its_limit() -> None:
    """cpython#74965, cpython#85677, anyio#1015: a gather that runs a few at a time."""
    executor = TaskExecutor(5)
    await executor.gather(*(after(1) for _ in range(6)), limit=2)
    assert anyio.current_time() == 3
    assert executor.statistics().peak == 2


async def test_gather_obeys_its_rate() -> None:
    """Calls of every kind start at the rate, and waiting for it is no part of the timeout."""
    starts: list[float] = []

    async def work() -> None:
        starts.append(anyio.current_time())
        await anyio.sleep(0.75)

    executor = TaskExecutor(3, timeout=1)
    await executor.gather(work(), work, partial(work), work(), rate=2)
    assert starts == [0, 0.5, 1, 1.5]
    assert await executor.gather(in_thread, in_thread, rate=2) == (True, True)
    assert anyio.current_time() == 2.25 + 0.5


async def test_gather_cancels_the_others_at_the_first_error() -> None:
    """The error is bare and says which call it was; coroutines that never started are closed."""
    calls = [after(5), fail(1, "second"), after(3), after(1)]
    executor = TaskExecutor(3)
    with pytest.raises(ValueError, match=r"^second\n") as info:
        await executor.gather(*calls)
    assert anyio.current_time() == 1
    assert info.value.__notes__ == ["in call 1: fail"]
    assert [getcoroutinestate(call) for call in calls] == [CORO_CLOSED] * 4
    assert executor.statistics().cancelled == 2
    assert is_quiet(executor)


async def test_gather_returns_exceptions_if_asked_to() -> None:
    """Errors stand among the results, and nothing is cancelled."""
    results = await TaskExecutor(3).gather(fail(1, "a"), after(2), errors="return")
    assert isinstance(results[0], ValueError)
    assert results[1] == "done"


async def test_gather_has_the_executor_s_timeout() -> None:
    """Each call is limited for itself, from its own start."""
    executor = TaskExecutor(1, timeout=2, name="pool")
    with pytest.raises(
        MTAIOTimeoutError, match=r"^pool: .* did not end within timeout=2 s\n"
    ) as info:
        await executor.gather(after(1.5), after(1.5), after(2.5))
    assert anyio.current_time() == 5
    assert info.value.__notes__ == ["in call 2: after"]
    assert executor.statistics().timed_out == 1


# ---- race --------------------------------------------------------------------------------------


async def test_race_returns_the_first_result() -> None:
    """The fastest wins; the losers are cancelled and awaited."""
    ended = []

    async def slow() -> str:
        try:
            return await after(5)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            ended.append(anyio.current_time())

    executor = TaskExecutor()
    assert await executor.race(slow(), after(2, "winner"), after(3)) == "winner"
    assert ended == [3]
    assert anyio.current_time() == 3
    assert executor.statistics().cancelled == 2
    assert is_quiet(executor)


async def test_race_of_functions() -> None:
    """Async functions, plain ones in threads, and objects with an async __call__ may race."""

    class Call:
        async def __call__(self) -> str:
            return await after(1, "object")

    executor = TaskExecutor()
    assert await executor.race(Call(), partial(after, 2)) == "object"
    assert await executor.race(in_thread) is True


async def test_race_in_which_all_fail() -> None:
    """All errors come in one flat group, in the order of the calls, each with a note."""
    with pytest.raises(ExceptionGroup, match=r"^2 errors in one call") as info:
        await TaskExecutor().race(fail(2, "a"), fail(1, "b"))
    assert [error.args for error in info.value.exceptions] == [("a",), ("b",)]
    assert [error.__notes__ for error in info.value.exceptions] == [
        ["in call 0: fail"],
        ["in call 1: fail"],
    ]


async def test_race_ignores_what_losers_raise() -> None:
    """An error in the clean-up of a loser is counted, and does not spoil the result."""

    async def bad_loser() -> str:
        try:
            return await after(9)
        finally:
            raise LookupError

    executor = TaskExecutor()
    assert await executor.race(bad_loser(), after(1, "winner")) == "winner"
    assert executor.statistics().failed == 1


async def test_race_obeys_its_limit_and_its_rate() -> None:
    """Calls start later than the limit alone, or the rate alone, would have them."""
    starts: list[float] = []

    async def lose(seconds: float) -> str:
        starts.append(anyio.current_time())
        return await fail(seconds)

    executor = TaskExecutor(5)
    with pytest.raises(ExceptionGroup):
        await executor.race(*(partial(lose, 2) for _ in range(4)), limit=2, rate=1)
    assert starts == [0, 1, 2, 3]
    starts.clear()
    with pytest.raises(ExceptionGroup):
        await executor.race(*(partial(lose, 2) for _ in range(3)), limit=1, rate=1)
    assert starts == [5, 7, 9]
    assert executor.statistics().peak == 2


async def test_race_that_is_won_while_others_wait_for_a_token() -> None:
    """They never start, are closed, count as cancelled, and leave the limiter its tokens."""
    limiter = RateLimiter(1)
    calls = [after(5), after(0.5, "winner"), after(1), after(1)]
    executor = TaskExecutor(3)
    assert await executor.race(*calls, rate=limiter) == "winner"
    assert anyio.current_time() == 1.5
    assert [getcoroutinestate(call) for call in calls] == [CORO_CLOSED] * 4
    statistics = executor.statistics()
    assert (statistics.started, statistics.succeeded, statistics.cancelled) == (3, 1, 2)
    assert is_quiet(executor)
    await limiter.acquire()
    assert anyio.current_time() == 2  # as if nobody had waited


# ---- as_completed ------------------------------------------------------------------------------


async def test_as_completed_obeys_its_limit_and_its_rate() -> None:
    """Outcomes come as if the calls had been made one by one, a second apart."""
    ends: list[float] = []
    executor = TaskExecutor()
    calls = after(0.5), after(1.5), after(0.5)
    async with executor.as_completed(*calls, limit=1, rate=1) as outcomes:
        async for outcome in outcomes:
            assert outcome.result() == "done"
            ends.append(anyio.current_time())
    assert ends == [0.5, 2.5, 3]


async def test_outcomes_come_as_calls_are_completed() -> None:
    """Each outcome says which call it was, and what it returned or raised."""
    executor = TaskExecutor()
    got: list[tuple[int, str | None, type[Exception] | None, float]] = []
    async with executor.as_completed(after(3, "a"), fail(2, "b"), Later(), in_thread) as outcomes:
        async for each in outcomes:
            kind = None if each.error is None else type(each.error)
            got.append((each.index, str(each.value), kind, anyio.current_time()))
    assert got == [
        (3, "True", None, 0),
        (2, "later", None, 1),
        (1, "None", ValueError, 2),
        (0, "a", None, 3),
    ]
    assert is_quiet(executor)


async def test_outcome_gives_its_result() -> None:
    """result() returns the value, or raises the error that came instead."""
    assert Outcome(index=0, value=5).result() == 5
    error = ValueError("mine")
    failed: Outcome[int] = Outcome(index=0, error=error)
    with pytest.raises(ValueError, match=r"^mine$") as info:
        failed.result()
    assert info.value is error


async def test_as_completed_of_nothing() -> None:
    """No calls, no outcomes."""
    nothing: list[Coroutine[Any, Any, str]] = []
    async with TaskExecutor().as_completed(*nothing) as outcomes:
        assert [each async for each in outcomes] == []


async def test_as_completed_left_at_once() -> None:
    """Calls that had no chance to start are closed."""
    call = after(1)
    async with TaskExecutor(2).as_completed(call):
        assert getcoroutinestate(call) == CORO_CREATED
    assert getcoroutinestate(call) == CORO_CLOSED


# ---- all of them -------------------------------------------------------------------------------


async def consume(executor: TaskExecutor, *calls: Coroutine[Any, Any, str]) -> None:
    """Read all outcomes, and raise the first error."""
    async with executor.as_completed(*calls) as outcomes:
        async for each in outcomes:
            each.result()


CALLS: dict[str, Callable[..., Coroutine[Any, Any, object]]] = {
    "gather": lambda executor, *calls: executor.gather(*calls),
    "race": lambda executor, *calls: executor.race(*calls),
    "as_completed": consume,
}


@pytest.mark.parametrize("join", CALLS)
def test_interrupt_goes_through(backend: str, join: str) -> None:
    """KeyboardInterrupt in one call ends them all, bare."""
    executor = TaskExecutor(2)

    async def interrupt() -> str:
        await anyio.sleep(1)
        raise KeyboardInterrupt

    async def main() -> None:
        await CALLS[join](executor, after(5), interrupt(), after(5))

    with pytest.raises(KeyboardInterrupt):
        run(main, backend=backend)
    assert is_quiet(executor)
    gc.collect()  # asyncio logs the task that ended so when it goes: here, and not in mid-compile


@pytest.mark.parametrize("join", CALLS)
def test_call_that_awaits_a_cancelled_task(join: str) -> None:
    """A task that was cancelled elsewhere is the failure of the call that awaits it."""

    async def main() -> None:
        task = asyncio.ensure_future(after(5))
        await anyio.sleep(1)
        task.cancel()
        with pytest.raises(StrayCancellationError, match=r"^Task raised CancelledError although"):
            await CALLS[join](TaskExecutor(2), task)

    run(main, backend="asyncio")
