"""TaskExecutor.run: one call in a slot."""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from mtaio.core import TaskExecutor
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.testing import run, settle
from tests.core.gauge import Gauge
from tests.injection import at_every_checkpoint, cancelled_at, suspensions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator


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


async def test_coroutine_can_be_run() -> None:
    """A coroutine that has not started is awaited in the slot."""
    assert await TaskExecutor(1).run(after(2, "coro")) == "coro"
    assert anyio.current_time() == 2


async def test_any_awaitable_can_be_run() -> None:
    """What has only ``__await__`` is as good as a coroutine."""

    class Awaitable:
        def __await__(self) -> Generator[Any, Any, str]:
            return after(1, "awaited").__await__()

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
    assert executor.statistics().running == 0
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


async def test_without_max_workers_all_run_at_once() -> None:
    """None means no limit."""
    executor, gauge = TaskExecutor(), Gauge()

    async def item() -> None:
        with gauge:
            await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(executor.run, item)
    assert gauge.peak == 100
    assert anyio.current_time() == 1


async def test_two_maps_alternate() -> None:
    """Slots go from one call to the other item by item, whichever came first."""
    executor, order = TaskExecutor(1), list[str]()

    async def item(name: str) -> None:
        order.append(name)
        await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        group.start_soon(executor.for_each, item, ["a"] * 4)
        await settle()
        group.start_soon(executor.for_each, item, ["b"] * 4)
    assert "".join(order) == "abababab"


async def test_cancelled_in_the_queue_it_calls_nothing() -> None:
    """A call that gives up while it waits has called nothing and is out of the queue."""
    executor, called = TaskExecutor(1), list[int]()

    async def item() -> None:
        called.append(1)

    async with anyio.create_task_group() as group:
        group.start_soon(executor.run, after, 2)
        await anyio.sleep(1)
        with anyio.move_on_after(0.5) as scope:
            await executor.run(item)
        assert scope.cancelled_caught
        assert executor.statistics().waiting == 0
    assert not called
    assert anyio.current_time() == 2


def test_granted_and_natively_cancelled_at_once_the_slot_goes_on() -> None:
    """A task that ``Task.cancel()`` hits as it gets its slot passes it to the next."""

    async def scenario() -> None:
        executor, called = TaskExecutor(1), list[str]()

        async def item(name: str) -> None:
            called.append(name)

        async def hold_then_cancel() -> None:
            await executor.run(after, 1)
            cancelled.cancel()  # the slot is granted, but the task has not resumed yet

        holder = asyncio.create_task(hold_then_cancel())
        await settle()
        cancelled = asyncio.create_task(executor.run(item, "cancelled"))
        follower = asyncio.create_task(executor.run(item, "next"))
        await asyncio.wait([holder, cancelled, follower])
        assert cancelled.cancelled()
        assert called == ["next"]
        assert executor.statistics().running == executor.statistics().waiting == 0

    run(scenario, backend="asyncio")


async def test_cancelled_at_every_checkpoint_nothing_leaks() -> None:
    """Wherever a call is cancelled, in the queue or at work, the slot and the queue are free."""
    executor = TaskExecutor(1)

    async def scenario(at: int) -> bool:
        async with anyio.create_task_group() as group:
            group.start_soon(executor.run, after, 1)
            await anyio.sleep(0.5)
            hit = await cancelled_at(executor.run(after, 1), at)
        statistics = executor.statistics()
        assert (statistics.running, statistics.waiting) == (0, 0)
        return hit

    assert await at_every_checkpoint(scenario) == 2
    assert await executor.run(after, 1) == "done"


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


async def test_awaitable_with_arguments_is_refused_and_closed() -> None:
    """A coroutine is already a call, so arguments are a mistake; it is closed, without warning."""
    coroutine = after(1)
    with pytest.raises(TypeError, match=r"^run\(\) got the awaitable <coroutine .* alone\.$"):
        await cast("Any", TaskExecutor(1)).run(coroutine, 1)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


@pytest.mark.parametrize(("timeout", "kind"), [(-1, ValueError), ("1", TypeError)])
async def test_wrong_timeout_is_refused_and_the_coroutine_closed(
    timeout: Any, kind: type[Exception]
) -> None:
    """A timeout that makes no sense is refused before anything is run."""
    coroutine = after(1)
    with pytest.raises(kind, match=r"^timeout="):
        await TaskExecutor(1).run(coroutine, timeout=timeout)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


async def test_coroutine_cancelled_in_the_queue_is_closed() -> None:
    """A coroutine that never got its slot is closed, so that no warning follows."""
    executor = TaskExecutor(1)
    coroutine = after(1)
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run, after, 2)
        await settle()
        with anyio.move_on_after(1):
            await executor.run(coroutine)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


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


async def test_what_is_not_callable_is_refused() -> None:
    """Neither a function nor an awaitable: the value, the reason and the way out are named."""
    with pytest.raises(TypeError, match=r"^fn=5 is a int, which is not callable\. Pass an async"):
        await cast("Any", TaskExecutor(1)).run(5)


async def test_async_generator_function_is_refused() -> None:
    """A generator has no one result to wait for."""

    async def generate() -> AsyncGenerator[int]:
        yield 1

    with pytest.raises(TypeError, match=r"^fn=.*generate.* is an async generator function"):
        await cast("Any", TaskExecutor(1)).run(generate)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"max_workers": 0}, ValueError, r"^max_workers=0 is less than 1\. Pass the number"),
        ({"max_workers": True}, TypeError, "^max_workers=True is a bool, not an int"),
        ({"max_workers": 2.0}, TypeError, r"^max_workers=2\.0 is a float, not an int"),
        ({"max_workers": 1, "max_pending": -1}, ValueError, "^max_pending=-1 is less than 0"),
        ({"timeout": -1}, ValueError, "^timeout=-1 is less than 0"),
        ({"thread_limiter": 0}, ValueError, "^thread_limiter=0 is less than 1"),
        ({"process_limiter": "4"}, TypeError, "^process_limiter='4' is a str, not an int"),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    """Each argument that makes no sense is named, with the reason and the way out."""
    with pytest.raises(kind, match=message):
        TaskExecutor(**options)


def test_executor_says_what_it_is() -> None:
    """The repr names the executor and its limit; both can be read."""
    executor = TaskExecutor(3, name="fetch")
    assert repr(executor) == "<TaskExecutor 'fetch' max_workers=3>"
    assert repr(TaskExecutor()) == "<TaskExecutor max_workers=None>"
    assert (executor.name, executor.max_workers) == ("fetch", 3)
