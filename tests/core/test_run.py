"""TaskExecutor.run: one call in a slot."""

from __future__ import annotations

import inspect
import threading
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.core import TaskExecutor
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
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
    """Positional and keyword arguments reach the function, and its result comes back."""
    assert await TaskExecutor(1).run(after, 1.5, value="x") == "x"
    assert anyio.current_time() == 1.5


async def test_plain_function_runs_in_a_worker_thread() -> None:
    """A function that is not async must not block the event loop, so a thread calls it."""

    def where(a: int, *, b: int) -> tuple[int, int, int]:
        return a, b, threading.get_ident()

    a, b, thread = await TaskExecutor(1).run(where, 1, b=2)
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
        group.start_soon(executor.run, after, 1)
        await settle()
        assert await executor.run(partial(after, 1), timeout=1.5) == "done"
        assert anyio.current_time() == 2
        with pytest.raises(MTAIOTimeoutError, match=r"^pool: timed out after 0\.5 s$") as caught:
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
