"""TaskExecutor.run: one call in a slot."""

from __future__ import annotations

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.core import Retry, TaskExecutor
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.resources import RateLimiter
from mtaio.testing import settle
from tests.injection import suspensions

if TYPE_CHECKING:
    from collections.abc import Generator


async def after(seconds: float, value: str = "done") -> str:
    """Return ``value`` later."""
    await anyio.sleep(seconds)
    return value


async def nothing() -> None:
    """Return at once."""


# ---- what can be run ---------------------------------------------------------------------------


async def test_async_function_gets_its_arguments() -> None:
    """They reach the function, and its result comes back; keywords go through a partial."""
    assert await TaskExecutor(1).run(after, 1.5, "x") == "x"
    assert await TaskExecutor(1).run(partial(after, value="y"), 0.5) == "y"
    assert anyio.current_time() == 2


async def test_plain_function_runs_in_a_worker_thread() -> None:
    """A function that is not async must not block the event loop, so a thread calls it."""

    def where(a: int, b: int) -> tuple[int, int, int]:
        return a, b, threading.get_ident()

    a, b, thread = await TaskExecutor(1).run(where, 1, 2)
    assert (a, b) == (1, 2)
    assert thread != threading.get_ident()


async def test_any_awaitable_can_be_run() -> None:
    """A coroutine that has not started is awaited in the slot, as is what has only __await__."""

    class Awaitable:
        def __await__(self) -> Generator[Any, Any, str]:
            return after(1, "awaited").__await__()

    assert await TaskExecutor(1).run(after(2, "coro")) == "coro"
    assert anyio.current_time() == 2
    assert await TaskExecutor(1).run(Awaitable()) == "awaited"


async def test_call_runs_in_the_callers_own_task() -> None:
    """No task is spawned: the function sees the caller's task and context."""
    variable = ContextVar("variable", default="unset")

    async def change() -> int:
        variable.set("changed")
        return anyio.get_current_task().id

    assert await TaskExecutor(1).run(change) == anyio.get_current_task().id
    assert variable.get() == "changed"


async def test_error_travels_untouched() -> None:
    """The very exception comes back, without a note, a wrapper or a cause."""
    error = ValueError("mine")

    async def fail() -> None:
        raise error

    with pytest.raises(ValueError, match=r"^mine$") as caught:
        await TaskExecutor(1).run(fail)
    assert caught.value is error
    assert error.__cause__ is None
    assert not hasattr(error, "__notes__")


async def test_base_exception_passes() -> None:
    """A ``BaseException`` passes, and the slot comes back."""

    class Stop(BaseException):
        pass

    async def stop() -> None:
        raise Stop

    executor = TaskExecutor(1)
    with pytest.raises(Stop):
        await executor.run(stop)
    assert executor.statistics().in_flight == 0
    assert executor.statistics().failed == 1
    await executor.run(nothing)


# ---- slots ---------------------------------------------------------------------------------------


async def test_calls_share_the_limit_in_the_order_of_asking() -> None:
    """With two slots, five calls of a second and a bit start when a slot is free, in order."""
    executor, started = TaskExecutor(2), list[tuple[float, int]]()

    async def item(number: int) -> None:
        started.append((anyio.current_time(), number))
        await anyio.sleep(1 + number / 8)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(executor.run, item, number)
            await settle()
    assert started == [(0, 0), (0, 1), (1, 2), (1.125, 3), (2.25, 4)]


async def test_one_call_in_64_is_a_checkpoint() -> None:
    """A loop over calls that return at once lets others run, and can be cancelled."""
    executor = TaskExecutor(1)

    async def calls() -> None:
        for _ in range(64 * 3):
            await executor.run(nothing)

    assert await suspensions(calls()) == 3


# ---- timeouts ------------------------------------------------------------------------------------


async def test_timeout_covers_the_call_and_not_the_wait_for_a_slot() -> None:
    """A second in the queue does not count towards a timeout of 1.5 s."""
    executor = TaskExecutor(1)
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run, partial(after, 1))
        await settle()
        assert await executor.run(partial(after, 1), timeout=1.5) == "done"
        assert anyio.current_time() == 2
        with pytest.raises(
            MTAIOTimeoutError, match=r"^pool: .* did not end within timeout=0\.5 s$"
        ) as caught:
            await TaskExecutor(1, name="pool").run(after, 1, timeout=0.5)
        assert anyio.current_time() == 2.5
    assert caught.value.timeout == 0.5
    assert caught.value.deadline == 2.5
    assert caught.value.name == "pool"


async def test_timeout_of_a_coroutine() -> None:
    """An awaitable has its timeout like a function."""
    with pytest.raises(MTAIOTimeoutError):
        await TaskExecutor(1).run(after(2), timeout=1)
    assert anyio.current_time() == 1


async def test_executors_timeout_is_the_default() -> None:
    """Omitted, the executor's timeout applies; a number or None takes its place."""
    executor = TaskExecutor(1, timeout=1)
    with pytest.raises(MTAIOTimeoutError):
        await executor.run(after, 2)
    assert anyio.current_time() == 1
    await executor.run(partial(after, 2), timeout=3)
    await executor.run(after, 9, timeout=None)
    assert anyio.current_time() == 12
    assert executor.statistics().timed_out == 1
    assert executor.statistics().failed == 1


async def test_timeout_error_of_the_function_is_its_own() -> None:
    """A ``TimeoutError`` that the function raises passes as it is, and is not counted."""
    executor = TaskExecutor(1)

    async def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match=r"^its own$") as caught:
        await executor.run(fail, timeout=5)
    assert not isinstance(caught.value, MTAIOTimeoutError)
    assert executor.statistics().timed_out == 0


# ---- rates and retries -------------------------------------------------------------------------


async def test_calls_share_a_rate() -> None:
    """Each call takes a token, in its slot; waiting for it does not count towards the timeout."""
    executor, limiter = TaskExecutor(), RateLimiter(1, burst=1)
    started: list[float] = []

    async def note() -> None:
        started.append(anyio.current_time())
        await anyio.sleep(0.75)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(partial(executor.run, note, rate=limiter, timeout=0.9))
    assert started == [0, 1, 2]


async def test_attempts_of_a_call() -> None:
    """Each attempt has its token and its timeout; the slot is kept from the first to the last."""
    executor, limiter = TaskExecutor(1), RateLimiter(1, burst=1)
    started: list[float] = []

    async def slower_at_first() -> str:
        started.append(anyio.current_time())
        await anyio.sleep(9 if len(started) < 3 else 0)
        assert executor.statistics().in_use == 1
        return "done"

    policy = Retry(3, wait_initial=0.25, wait_exp_base=1, jitter=0, on=TimeoutError)
    call = executor.run(slower_at_first, rate=limiter, retry=policy, timeout=0.5)
    assert await call == "done"
    assert started == [0, 1, 2]
    statistics = executor.statistics()
    assert (statistics.started, statistics.retried, statistics.timed_out) == (1, 2, 2)


async def test_number_of_attempts() -> None:
    """A number is attempts in all; after the last the error is raised, with a note."""
    executor, calls = TaskExecutor(1), list[int]()

    async def fail(number: int) -> None:
        calls.append(number)
        raise OSError(number)

    with pytest.raises(OSError, match=r"^7") as caught:
        await executor.run(fail, 7, retry=2)
    assert calls == [7, 7]
    assert caught.value.__notes__ == ["gave up after 2 attempts"]
    assert executor.statistics().retried == executor.statistics().failed == 1


async def test_single_attempt_has_its_timeout() -> None:
    """``retry=1`` is as no retry."""
    with pytest.raises(MTAIOTimeoutError):
        await TaskExecutor(1).run(after, 5, retry=1, timeout=2)
    assert anyio.current_time() == 2


async def test_rate_of_an_awaitable_and_of_a_plain_function() -> None:
    """Both wait for a token, as an async function does."""
    executor, limiter = TaskExecutor(1), RateLimiter(1, burst=1)
    assert await executor.run(after(0), rate=limiter) == "done"
    assert await executor.run(str, 5, rate=limiter, retry=2) == "5"
    assert anyio.current_time() == 1


async def test_retries_in_a_pool() -> None:
    """A call in a pool has attempts too."""
    calls: list[int] = []

    def fail_once(number: int) -> int:
        calls.append(number)
        if len(calls) == 1:
            raise OSError
        return number

    policy = Retry(2, wait_initial=0)
    with ThreadPoolExecutor(1) as pool:
        assert await TaskExecutor(1).run(fail_once, 3, retry=policy, via=pool, timeout=30) == 3
    assert calls == [3, 3]


async def test_call_cancelled_as_it_waits_for_a_token() -> None:
    """It has called nothing, its coroutine is closed, and its slot is free."""
    executor, limiter, coroutine = TaskExecutor(1), RateLimiter(1, burst=1), after(1)
    limiter.acquire_nowait()
    with anyio.move_on_after(0.5) as scope:
        await executor.run(coroutine, rate=limiter)
    assert scope.cancelled_caught
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    assert executor.statistics().in_use == 0
    called: list[int] = []
    with anyio.move_on_after(0.25) as scope:
        await executor.run(called.append, 1, rate=limiter)
    assert scope.cancelled_caught
    assert called == []


# ---- refusals ------------------------------------------------------------------------------------


async def test_coroutine_cancelled_at_the_64th_calls_checkpoint_is_closed() -> None:
    """The checkpoint before the call may be where it is cancelled."""
    executor = TaskExecutor(1)
    for _ in range(63):
        await executor.run(nothing)
    coroutine = after(1)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await executor.run(coroutine)
    assert scope.cancelled_caught
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    assert executor.statistics().started == 63


def test_executor_says_what_it_is() -> None:
    """The repr names the executor and its limit; both can be read."""
    executor = TaskExecutor(3, name="fetch")
    assert repr(executor) == "<TaskExecutor 'fetch' max_workers=3>"
    assert repr(TaskExecutor()) == "<TaskExecutor max_workers=None>"
    assert (executor.name, executor.max_workers) == ("fetch", 3)
