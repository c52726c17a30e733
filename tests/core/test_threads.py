"""TaskExecutor.run_in_thread, and plain functions elsewhere: threads under limits of their own."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import warnings
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import anyio
import pytest
from anyio import from_thread, to_thread

from mtaio.core import TaskExecutor
from mtaio.core._threads import ThreadCall, WorkerLimiter
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.resources import TimeoutManager
from mtaio.testing import assert_quiescent, current_simulation, run, settle
from tests.backends import BACKENDS
from tests.core.processes import program
from tests.injection import at_every_checkpoint, cancelled_at, natively_cancelled_at

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from pathlib import Path

PATIENCE = 5
"""Real seconds for which a thread waits for another part of the test, lest a failure hang."""


class Rendezvous:
    """A call that blocks its thread until it is released; it counts such threads."""

    entered: anyio.Event

    def __init__(self) -> None:
        self.release = threading.Event()
        self.lock = threading.Lock()
        self.running = 0
        self.peak = 0
        self.calls = 0

    def prepare(self) -> Self:
        """Get ready for the running event loop."""
        self.entered = anyio.Event()
        return self

    def block(self) -> Any:
        """Report that the thread has started, and block until released."""
        with self.counted():
            from_thread.run_sync(self.entered.set)
            assert self.release.wait(PATIENCE)
        return "released"

    def block_after_two_seconds(self) -> None:
        """Let two seconds pass, or less if the event loop gives up, and then do the same."""
        with self.counted():
            with suppress(BaseException):  # asyncio cancels it when the caller is gone
                from_thread.run(anyio.sleep, 2)
            assert self.release.wait(PATIENCE)

    @contextmanager
    def counted(self) -> Generator[None]:
        """Count the thread as running in this block."""
        with self.lock:
            self.calls += 1
            self.running += 1
            self.peak = max(self.peak, self.running)
        try:
            yield
        finally:
            with self.lock:
                self.running -= 1


# ---- what runs -----------------------------------------------------------------------------------


async def test_function_runs_in_a_thread_and_returns() -> None:
    """Arguments go there, the result comes back."""

    def where(a: int, b: int) -> tuple[int, int]:
        return a + b, threading.get_ident()

    total, thread = await TaskExecutor().run_in_thread(where, 1, 2)
    assert total == 3
    assert thread != threading.get_ident()


async def test_exception_travels_untouched() -> None:
    """The very exception that the function raised."""
    error = LookupError("mine")

    def fail() -> None:
        raise error

    with pytest.raises(LookupError, match=r"^mine$") as caught:
        await TaskExecutor(threads=1).run_in_thread(fail)
    assert caught.value is error
    assert not hasattr(error, "__notes__")


async def test_context_variables_pass() -> None:
    """The thread sees the caller's context; what it changes stays there."""
    variable = ContextVar("variable", default="unset")
    variable.set("set")

    def change() -> str:
        before = variable.get()
        variable.set("changed")
        return before

    assert await TaskExecutor().run_in_thread(change) == "set"
    assert variable.get() == "set"


async def test_awaitable_result_is_awaited() -> None:
    """A plain function that makes a coroutine works, on both backends."""

    async def inner() -> int:
        await anyio.sleep(1)
        return threading.get_ident()

    assert await TaskExecutor().run_in_thread(lambda: inner()) == threading.get_ident()  # noqa: PLW0108 - a plain one
    assert anyio.current_time() == 1


def double_of(x: int) -> Awaitable[int]:
    """Return a coroutine; plain as a lambda is."""

    async def double() -> int:
        return 2 * x

    return double()


class Doubler:
    """A callable without code to point at."""

    def __call__(self, x: int) -> Awaitable[int]:
        """Return a coroutine."""
        return double_of(x)


async def test_awaitable_result_where_no_thread_was_asked_for() -> None:
    """The thread was in vain: the warning stands at the function, once, whatever called it."""
    executor = TaskExecutor()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        assert await executor.map(double_of, [1, 2, 3]) == [2, 4, 6]
        assert await executor.run(double_of, 4) == 8
        assert await executor.gather(partial(double_of, 5)) == (10,)
        assert await executor.map(Doubler(), [6]) == [12]
    assert [warning.category for warning in caught] == [RuntimeWarning] * 2
    assert str(caught[0].message).startswith("double_of is a plain function, so it was called in a")
    assert (caught[0].filename, caught[0].lineno) == (
        __file__,
        double_of.__code__.co_firstlineno,
    )
    assert str(caught[1].message).startswith("Doubler is a plain function")


async def test_a_warning_that_is_an_error_leaves_nothing_behind() -> None:
    """Under ``-W error`` the item fails with it, and the coroutine is closed."""
    executor = TaskExecutor()
    with pytest.raises(RuntimeWarning, match=r"^double_of is a plain function"):
        await executor.run(double_of, 1)
    assert_quiescent(executor)


def asks_asyncio() -> None:
    """Ask as asyncio's clients do."""
    asyncio.get_running_loop()


def asks_asyncio_as_before() -> None:
    """Ask as old clients do."""
    asyncio.get_event_loop()


def asks_trio() -> None:
    """Ask as trio's libraries do."""
    import trio  # noqa: PLC0415 - it is tried only where it is installed

    trio.lowlevel.current_task()


def asks_anyio() -> None:
    """Ask as AnyIO's libraries do."""
    anyio.get_current_task()


@pytest.mark.parametrize(
    "asks",
    [
        asks_asyncio,
        asks_asyncio_as_before,
        asks_anyio,
        *([asks_trio] if "trio" in BACKENDS else []),
    ],
)
async def test_function_that_needs_the_loop_is_told_where_it_ran(asks: Callable[[], None]) -> None:
    """The library's error says that no loop runs; a note says why, and what to write."""
    with pytest.raises(RuntimeError) as caught:
        await TaskExecutor().run(asks)
    assert any(
        each.startswith(f"{asks.__name__} is a plain function, so it was called in a worker thread")
        for each in caught.value.__notes__
    )


async def test_other_errors_of_a_thread_get_no_such_note() -> None:
    """An error that has nothing to do with the event loop is left as it is."""

    def fail() -> None:
        raise RuntimeError("no coffee")

    with pytest.raises(RuntimeError, match=r"^no coffee$") as caught:
        await TaskExecutor().run(fail)
    assert not hasattr(caught.value, "__notes__")


async def test_it_takes_no_slot() -> None:
    """Threads have a limit of their own: a full executor has threads all the same."""
    executor = TaskExecutor(1)
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run, anyio.sleep, 1)
        await settle()
        assert executor.statistics().in_flight == 1
        assert await executor.run_in_thread(divmod, 7, 2) == (3, 1)
        assert anyio.current_time() == 0


# ---- the limit -----------------------------------------------------------------------------------


async def test_never_more_threads_than_the_limit() -> None:
    """Five calls through a limit of two: two run, three wait."""
    executor, meeting = TaskExecutor(threads=2), Rendezvous().prepare()
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(executor.run_in_thread, meeting.block)
        await meeting.entered.wait()
        await settle()
        statistics = executor.statistics()
        assert (statistics.threads_in_use, statistics.threads_waiting) == (2, 3)
        meeting.release.set()
    assert meeting.calls == 5
    assert meeting.peak <= 2
    assert executor.statistics().threads_in_use == 0


async def test_threads_without_a_limit() -> None:
    """With ``threads=None`` more calls than the usual forty are in threads at once."""
    barrier = threading.Barrier(45)
    executor = TaskExecutor(threads=None)
    async with anyio.create_task_group() as group:
        for _ in range(45):
            group.start_soon(executor.run_in_thread, barrier.wait, PATIENCE)
    assert not barrier.broken


async def test_each_executor_has_a_limit_of_its_own() -> None:
    """starlette#1724: neither other executors nor users of anyio's 40 threads are in the way."""
    barrier = threading.Barrier(2)
    first, second = TaskExecutor(threads=1), TaskExecutor(threads=1)
    shared = to_thread.current_default_thread_limiter()
    before = shared.total_tokens
    shared.total_tokens = 1
    try:
        async with shared, anyio.create_task_group() as group:  # nothing is left of it
            group.start_soon(first.run_in_thread, barrier.wait, PATIENCE)
            group.start_soon(second.run_in_thread, barrier.wait, PATIENCE)
    finally:
        shared.total_tokens = before
    assert not barrier.broken


async def test_waiting_for_a_thread_can_be_cancelled() -> None:
    """A call that is cancelled in the queue has called nothing."""
    executor, meeting = TaskExecutor(threads=1), Rendezvous().prepare()
    called: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run_in_thread, meeting.block)
        await meeting.entered.wait()
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(executor.run_in_thread, called.append, 1)
            await settle()
            assert executor.statistics().threads_waiting == 1
            waiting.cancel_scope.cancel()
        assert executor.statistics().threads_waiting == 0
        meeting.release.set()
    assert called == []


async def test_users_capacity_limiter_is_honoured() -> None:
    """A limiter shared with others governs alone; what it lent comes back with the thread."""
    limiter = anyio.CapacityLimiter(1)
    executor, meeting = TaskExecutor(threads=limiter), Rendezvous().prepare()
    async with anyio.create_task_group() as group:
        await limiter.acquire()
        group.start_soon(executor.run_in_thread, meeting.block)
        await settle()
        assert meeting.calls == 0
        assert executor.statistics().threads_waiting == 1
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(executor.run_in_thread, meeting.block)
                await settle()
                assert executor.statistics().threads_waiting == 2
                scope.cancel()
        assert executor.statistics().threads_waiting == 1
        limiter.release()
        await meeting.entered.wait()
        assert executor.statistics().threads_in_use == 1
        assert limiter.borrowed_tokens == 1
        group.cancel_scope.cancel()
        meeting.release.set()
    assert limiter.borrowed_tokens == 0
    assert executor.statistics().threads_in_use == 0


async def test_abandoned_thread_keeps_the_token_of_a_users_limiter() -> None:
    """Left to anyio, it would come back at once on asyncio, while the thread goes on."""
    limiter = anyio.CapacityLimiter(1)
    executor, meeting = TaskExecutor(threads=limiter), Rendezvous().prepare()
    await abandon(executor, meeting)
    assert limiter.borrowed_tokens == 1
    meeting.release.set()
    assert await executor.run_in_thread(divmod, 7, 2) == (3, 1)
    assert meeting.running == 0
    assert limiter.borrowed_tokens == 0


async def test_statistics_from_another_thread() -> None:
    """At any time, whatever the event loop and the worker threads do meanwhile, they are right."""
    executor, over = TaskExecutor(threads=3), threading.Event()
    seen: set[tuple[bool, bool]] = set()

    def look() -> None:
        while not over.is_set():
            statistics = executor.statistics()
            seen.add((0 <= statistics.threads_in_use <= 3, 0 <= statistics.threads_waiting <= 10))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    other = threading.Thread(target=look)
    other.start()
    try:

        async def call() -> None:
            for abandon_on_cancel in [True, False] * 5:
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await executor.run_in_thread(int, abandon_on_cancel=abandon_on_cancel)
                await executor.run_in_thread(int)

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(call)
    finally:
        over.set()
        other.join()
        sys.setswitchinterval(interval)
    assert seen == {(True, True)}


# ---- timeouts and cancellation -------------------------------------------------------------------


async def abandon(executor: TaskExecutor, meeting: Rendezvous) -> None:
    """Start a call in a thread, and leave the thread behind."""
    async with anyio.create_task_group() as group:

        async def call() -> None:
            await executor.run_in_thread(meeting.block, abandon_on_cancel=True)

        group.start_soon(call)
        await meeting.entered.wait()
        group.cancel_scope.cancel()


async def test_timeout_covers_the_call_and_not_the_wait_for_a_thread() -> None:
    """Ten seconds in the queue do not count towards a timeout of one second."""
    executor = TaskExecutor(threads=1)

    def sleep(seconds: float) -> float:
        from_thread.run(anyio.sleep, seconds)  # the clock stands still while a thread works
        return from_thread.run_sync(anyio.current_time)

    async with anyio.create_task_group() as group:
        group.start_soon(executor.run_in_thread, sleep, 10)
        await settle()

        async def patient() -> float:
            return await executor.run_in_thread(sleep, 0.5, timeout=1)

        assert await patient() == 10.5


async def test_timeout_leaves_the_thread_behind() -> None:
    """The caller gets its error on time; the thread goes on until its function returns."""
    executor, meeting = TaskExecutor(threads=1, name="pool"), Rendezvous()
    with pytest.raises(MTAIOTimeoutError, match=r"^pool: .* did not end within timeout=1 s$"):
        await executor.run_in_thread(meeting.block_after_two_seconds, timeout=1)
    assert anyio.current_time() == 1
    assert executor.statistics().threads_in_use == meeting.running == 1
    assert executor.statistics().timed_out == 1
    meeting.release.set()
    assert await executor.run_in_thread(divmod, 7, 2) == (3, 1)
    assert meeting.running == 0


async def test_thread_left_behind_can_ask_whether_it_is_still_wanted() -> None:
    """check_cancelled() raises in it, so it can end and give its slot back."""
    executor, asked = TaskExecutor(threads=1), []

    def work() -> None:
        with suppress(BaseException):  # asyncio cancels it when the caller is gone
            from_thread.run(anyio.sleep, 2)
        asked.append(True)
        from_thread.check_cancelled()
        asked.append(False)

    with pytest.raises(MTAIOTimeoutError):
        await executor.run_in_thread(work, timeout=1)
    assert await executor.run_in_thread(divmod, 7, 2) == (3, 1)
    assert asked == [True]


async def test_20_timed_out_calls_through_a_limit_of_2_leave_2_threads() -> None:
    """Abandoned threads keep their slots, so threads never pile up."""
    executor, meeting = TaskExecutor(threads=2), Rendezvous()
    timed_out: list[float] = []

    async def call() -> None:
        with pytest.raises(MTAIOTimeoutError):
            await executor.run_in_thread(meeting.block_after_two_seconds, timeout=1)
        timed_out.append(anyio.current_time())
        if len(timed_out) == 2:
            two.set()

    two = anyio.Event()
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(call)
        await two.wait()
        assert timed_out == [1, 1]
        statistics = executor.statistics()
        assert (statistics.threads_in_use, statistics.threads_waiting) == (2, 18)
        assert meeting.running == 2
        meeting.release.set()
    assert len(timed_out) == 20
    assert executor.statistics().timed_out == 20
    assert meeting.peak == 2
    assert await executor.run_in_thread(divmod, 7, 2) == (3, 1)


async def test_executors_timeout_applies() -> None:
    """Omitted, the executor's; None for none."""
    executor = TaskExecutor(timeout=1)

    def sleep() -> str:
        from_thread.run(anyio.sleep, 2)
        return "done"

    with pytest.raises(MTAIOTimeoutError):
        await executor.run_in_thread(sleep)
    assert anyio.current_time() == 1
    assert await executor.run_in_thread(sleep, timeout=None) == "done"


async def test_thread_can_see_how_long_it_has() -> None:
    """The limit is visible in the thread, which cannot be interrupted but can look."""
    remaining = await TaskExecutor().run_in_thread(TimeoutManager().remaining, timeout=3)
    assert remaining == 3


@pytest.mark.parametrize("abandon_on_cancel", [True, False])
@pytest.mark.parametrize("shared", [True, False])
async def test_thread_whose_caller_was_cancelled_may_call_back(
    abandon_on_cancel: bool,  # noqa: FBT001 - a parameter of the test
    shared: bool,  # noqa: FBT001 - likewise
) -> None:
    """A nested call that comes after the cancellation ends, be it with a result or cancelled."""
    limiter = anyio.CapacityLimiter(2) if shared else 1
    executor, meeting = TaskExecutor(1, threads=limiter), Rendezvous().prepare()
    ended: list[str] = []

    def late() -> None:
        meeting.block()
        try:
            from_thread.run(executor.run_in_thread, divmod, 7, 2)
        except BaseException as error:  # noqa: BLE001 - each backend has its own
            ended.append(type(error).__name__)
        else:
            ended.append("returned")

    async with anyio.create_task_group() as group:

        async def call() -> None:
            await executor.run_in_thread(late, abandon_on_cancel=abandon_on_cancel)

        group.start_soon(call)
        await meeting.entered.wait()
        group.cancel_scope.cancel()
        group.cancel_scope.shield = True
        meeting.release.set()
    while not ended:
        await anyio.lowlevel.checkpoint()
    assert await executor.run_in_thread(divmod, 7, 2) == (3, 1)
    assert len(ended) == 1
    assert executor.statistics().threads_in_use == 0


async def test_task_submitted_from_a_thread_after_the_cancellation_ends() -> None:
    """AnyIO has stopped delivering the cancellation by then, and does not start again by itself."""
    executor, meeting, ended = TaskExecutor(), Rendezvous().prepare(), list[str]()

    async def submit() -> None:
        try:
            await (await executor.submit(anyio.sleep, 1))
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    def late() -> None:
        meeting.block()
        with suppress(BaseException):
            from_thread.run(submit)

    async def release() -> None:
        await settle()
        meeting.release.set()

    async with anyio.create_task_group() as outside:
        with anyio.CancelScope() as scope:
            async with executor, anyio.create_task_group() as group:
                group.start_soon(executor.run_in_thread, late)
                await meeting.entered.wait()
                outside.start_soon(release)
                scope.cancel()
    assert len(ended) == 1
    assert anyio.current_time() == 0
    statistics = executor.statistics()
    assert (statistics.threads_in_use, statistics.submitted) == (0, 0)


async def test_cancellation_waits_for_the_thread() -> None:
    """Unless told to abandon it: when the call ends, so has the function."""
    executor, meeting = TaskExecutor(threads=1), Rendezvous().prepare()
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run_in_thread, meeting.block)
        await meeting.entered.wait()
        group.cancel_scope.cancel()
        meeting.release.set()
    assert meeting.running == 0
    assert executor.statistics().threads_in_use == 0


async def test_abandoned_call_that_never_started_is_never_made() -> None:
    """A thread that is too late has nothing to do, and the slot is back already."""
    limiter, called = WorkerLimiter("threads", 1, None), list[int]()
    call = ThreadCall(limiter, await limiter.enter(), lambda: called.append(1))
    call.leave()
    assert limiter.busy == 0
    call.work()
    assert called == []
    assert limiter.busy == 0


async def test_coroutine_that_an_abandoned_thread_returns_is_closed() -> None:
    """It will not be awaited, and Python must not warn of that."""
    executor, meeting = TaskExecutor(threads=1), Rendezvous().prepare()
    made: list[Coroutine[Any, Any, None]] = []

    class Late(Rendezvous):
        def block(self) -> Any:
            super().block()
            made.append(anyio.sleep(1))
            return made[0]

    meeting = Late().prepare()
    await abandon(executor, meeting)
    meeting.release.set()
    await executor.run_in_thread(divmod, 7, 2)
    assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED


async def test_coroutine_that_came_too_late_is_closed() -> None:
    """The thread had ended, but its caller was cancelled before it could take the result."""
    limiter, coroutine = WorkerLimiter("threads", 1, None), anyio.sleep(1)
    call = ThreadCall(limiter, await limiter.enter(), lambda: coroutine)
    call.work()
    assert limiter.busy == 1
    call.leave()
    assert limiter.busy == 0
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


@pytest.mark.parametrize("abandon_on_cancel", [True, False])
async def test_cancelled_at_every_checkpoint(abandon_on_cancel: bool) -> None:  # noqa: FBT001 - a parameter
    """Wherever the call is cancelled, its slot comes back and the next call finds it."""
    executor = TaskExecutor(threads=1)

    async def scenario(at: int) -> bool:
        hit = await cancelled_at(
            executor.run_in_thread(divmod, 7, 2, abandon_on_cancel=abandon_on_cancel), at
        )
        assert await executor.run_in_thread(divmod, 7, 2) == (3, 1)
        assert executor.statistics().threads_in_use == 0
        return hit

    assert await at_every_checkpoint(scenario) >= 1


def test_natively_cancelled_call_keeps_its_slot_while_its_thread_runs() -> None:
    """``Task.cancel()`` goes through anyio's shield; the thread runs all the same."""

    async def scenario(at: int) -> bool:
        executor, meeting = TaskExecutor(threads=1), Rendezvous().prepare()
        hit = False
        async with anyio.create_task_group() as group:

            async def call() -> None:
                nonlocal hit
                hit = await natively_cancelled_at(executor.run_in_thread(meeting.block), at)

            group.start_soon(call)
            await settle()
            assert meeting.running <= executor.statistics().threads_in_use
            meeting.release.set()
            assert await executor.run_in_thread(divmod, 7, 2) == (3, 1)
            assert meeting.running == 0
        return hit

    assert run(at_every_checkpoint, scenario, backend="asyncio") >= 2


# ---- one event loop after another ----------------------------------------------------------------


@pytest.mark.parametrize("second", BACKENDS)
def test_slot_of_a_thread_that_outlives_its_loop_comes_back_in_the_next(
    backend: str, second: str
) -> None:
    """The thread ends when its loop is gone; a waiter of the next loop gets the slot at once."""
    executor, meeting = TaskExecutor(threads=1), Rendezvous()

    async def leave_behind() -> None:
        await abandon(executor, meeting.prepare())

    async def wait_for_it() -> None:
        assert executor.statistics().threads_in_use == 1
        with current_simulation().hold():  # the thread belongs to the simulation before
            async with anyio.create_task_group() as group:

                async def call() -> None:
                    assert await executor.run_in_thread(divmod, 7, 2) == (3, 1)

                group.start_soon(call)
                await settle()
                assert executor.statistics().threads_waiting == 1
                meeting.release.set()
        assert executor.statistics().threads_in_use == 0

    run(leave_behind, backend=backend)
    run(wait_for_it, backend=second)


def test_slot_of_a_thread_that_ends_between_two_loops_comes_back(backend: str) -> None:
    """No loop runs to be told; the next call finds the slot."""
    executor, meeting = TaskExecutor(threads=1), Rendezvous()
    threads: list[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())
        meeting.block()

    async def leave_behind() -> None:
        meeting.prepare()
        async with anyio.create_task_group() as group:

            async def call() -> None:
                await executor.run_in_thread(work, abandon_on_cancel=True)

            group.start_soon(call)
            await meeting.entered.wait()
            group.cancel_scope.cancel()

    async def call_again() -> None:
        assert await executor.run_in_thread(divmod, 7, 2) == (3, 1)

    run(leave_behind, backend=backend)
    assert executor.statistics().threads_in_use == 1
    meeting.release.set()
    deadline = threading.Event()
    while executor.statistics().threads_in_use:  # seen as soon as the thread is through
        assert not deadline.wait(0.001)
    run(call_again, backend=backend)
    assert executor.statistics().threads_in_use == 0


# ---- the end of the program ----------------------------------------------------------------------

LEFT = """
import atexit, sys, threading, time
import anyio, anyio.from_thread
from mtaio.core import TaskExecutor

over = threading.Event()

def hang(scope):
    anyio.from_thread.run_sync(scope.cancel)
    over.wait()
    time.sleep(0.2)
    print("the thread is over", flush=True)

async def main():
    with anyio.CancelScope() as scope:
        await TaskExecutor().run_in_thread(hang, scope, abandon_on_cancel=True)
    print("cancelled")

anyio.run(main, backend="{backend}")
print("the run is over", flush=True)
atexit.register(print, "the program is over")
if "{backend}" == "asyncio":
    over.set()
"""


def test_program_with_a_thread_left_behind(backend: str, tmp_path: Path) -> None:
    """On asyncio its end waits for the thread, on trio it does not, as the guide says."""
    done = program(tmp_path, LEFT.format(backend=backend))
    waited = ["the thread is over"] if backend == "asyncio" else []
    assert done.stdout.splitlines() == [
        "cancelled",
        "the run is over",
        *waited,
        "the program is over",
    ]
    assert (done.returncode, done.stderr) == (0, "")
