"""TaskExecutor.submit and the handles it returns; the block in which submitted tasks live."""

# ruff: noqa: PT012 - it is leaving the block that raises, so the block stands inside

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import traceback
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ref

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.core import TaskExecutor, TaskStatus
from mtaio.exceptions import LimitError, MTAIOError, StrayCancellationError, TaskCancelledError
from mtaio.testing import run, settle
from tests.core.strays import stray
from tests.injection import (
    suspensions,
)

if TYPE_CHECKING:
    from mtaio.core import TaskHandle


async def after(seconds: float, value: str = "done") -> str:
    """Return ``value`` later."""
    await anyio.sleep(seconds)
    return value


async def test_handle_is_not_copied() -> None:
    """A copy that is gone would pass for a handle that is."""
    async with TaskExecutor() as executor:
        handle = await executor.submit(after, 1)
        for each in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match=r"after' pending> cannot be copied or pickled: it"):
                each(handle)


async def fail_after(seconds: float, error: BaseException) -> None:
    """Raise ``error`` later."""
    await anyio.sleep(seconds)
    raise error


async def nothing() -> None:
    """Return at once."""


def check_quiet(executor: TaskExecutor) -> None:
    """Check that nothing runs, waits or holds a slot."""
    statistics = executor.statistics()
    assert (statistics.in_flight, statistics.waiting) == (0, 0)
    assert (statistics.submitted, statistics.services) == (0, 0)
    assert statistics.in_use == 0


# ---- handles -------------------------------------------------------------------------------------


async def test_handle_may_be_awaited_again_and_by_several_tasks() -> None:
    """All get the same result, also when the task has ended long ago."""
    results: list[str] = []
    async with TaskExecutor(2) as executor, anyio.create_task_group() as group:
        handle = await executor.submit(after, 1, "same")

        async def waiter() -> None:
            results.append(await handle)

        for _ in range(3):
            group.start_soon(waiter)
        await anyio.sleep(5)
        assert await handle == await handle == "same"
    assert await handle == "same"
    assert results == ["same"] * 3


async def test_status_of_a_task_follows_its_life() -> None:
    """Pending in the queue, running, then how it ended; ``done`` is set with the end."""
    async with TaskExecutor(1, max_pending=1) as executor:
        first = await executor.submit(after, 1)
        second = await executor.submit(after, 1)
        await settle()
        assert (first.status, second.status) == (TaskStatus.RUNNING, TaskStatus.PENDING)
        assert repr(second) == "<TaskHandle 'after' pending>"
        await anyio.sleep(1.5)
        assert (first.status, second.status) == (TaskStatus.SUCCEEDED, TaskStatus.RUNNING)
        assert (first.done, second.done) == (True, False)
    assert second.status == "succeeded"
    assert second.name == "after"


async def test_handle_raises_the_original_error() -> None:
    """Awaiting re-raises the very exception of the task, and the block is content."""
    error = ValueError("mine")
    async with TaskExecutor(1) as executor:
        handle = await executor.submit(fail_after, 1, error)
        with pytest.raises(ValueError, match=r"^mine$") as caught:
            await handle
    assert caught.value is error
    assert handle.status is TaskStatus.FAILED
    assert not hasattr(error, "__notes__")


async def test_traceback_does_not_grow_with_every_await() -> None:
    """However often the error is raised, its traceback shows one await and the task."""

    async def trace(handle: TaskHandle[None]) -> list[str]:
        try:
            await handle
        except ValueError as error:
            return [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        return []

    async with TaskExecutor(1) as executor:
        handle = await executor.submit(fail_after, 1, ValueError("mine"))
        first = await trace(handle)
        for _ in range(5):
            assert await trace(handle) == first
    assert first[0] == "trace"
    assert first[-1] == "fail_after"


async def test_immutable_error_is_raised_like_any() -> None:
    """An exception that is a frozen dataclass does not trip the handle."""

    @dataclass(frozen=True)
    class Frozen(Exception):  # noqa: N818 - what it is matters here
        code: int

    async with TaskExecutor(1) as executor:
        handle = await executor.submit(fail_after, 1, Frozen(7))
        for _ in range(2):
            with pytest.raises(Frozen):
                await handle


async def test_error_is_freed_with_its_handle() -> None:
    """A task that failed is not left to the garbage collector."""

    class Mine(Exception):  # noqa: N818 - a name is enough
        pass

    async def fail() -> None:
        raise Mine

    async def look(handle: TaskHandle[None]) -> ref[Mine]:
        error = handle.exception
        assert isinstance(error, Mine)
        return ref(error)

    gc.collect()
    gc.disable()
    try:
        async with TaskExecutor(1) as executor:
            handle = await executor.submit(fail)
            await handle.wait()
            error = await look(handle)
            assert error() is not None
            del handle
            await settle()
            assert error() is None
    finally:
        gc.enable()


async def test_exception_tells_without_raising() -> None:
    """``exception`` is the error, None for a success; the block does not raise it then."""
    async with TaskExecutor(2) as executor:
        good = await executor.submit(after, 1)
        bad = await executor.submit(fail_after, 1, error := ValueError("mine"))
        with pytest.raises(RuntimeError, match=r"^<TaskHandle 'after' .*> has not ended yet"):
            _ = good.exception
        await anyio.sleep(2)
        assert good.exception is None
        assert bad.exception is error


async def test_return_value_is_the_result() -> None:
    """``return_value``, as anyio's handles have it, is what ``result()`` returns or raises."""
    async with TaskExecutor(2) as executor:
        good = await executor.submit(after, 1, "value")
        bad = await executor.submit(fail_after, 1, error := ValueError("mine"))
        with pytest.raises(RuntimeError, match=r"^<TaskHandle 'after' .*> has not ended yet"):
            _ = good.return_value
        await good.wait()
        assert good.return_value == good.result() == "value"
        with pytest.raises(ValueError, match=r"^mine$") as caught:
            _ = bad.return_value
        assert caught.value is error


async def test_waiting_without_the_result() -> None:
    """``wait()`` returns however the task ended, and leaves its error to be seen."""
    executor = TaskExecutor(1)
    with pytest.raises(ValueError, match=r"^not awaited$"):
        async with executor:
            handle = await executor.submit(fail_after, 1, ValueError("not awaited"))
            await handle.wait()
            assert handle.status is TaskStatus.FAILED
            await handle.wait()
            assert anyio.current_time() == 1
    check_quiet(executor)


async def test_cancelled_task_raises_task_cancelled_error() -> None:
    """Its waiter is not cancelled; it gets an error that says so, from ``exception`` too."""
    async with TaskExecutor(1) as executor:
        handle = await executor.submit(after, 5)
        await anyio.sleep(1)
        handle.cancel()
        assert not handle.done  # it has not noticed yet
        with pytest.raises(TaskCancelledError, match=r"^after was cancelled, so it has no result"):
            await handle
        with pytest.raises(TaskCancelledError):
            _ = handle.exception
        assert handle.status is TaskStatus.CANCELLED
        assert anyio.current_time() == 1
        assert executor.statistics().cancelled == 1
    check_quiet(executor)


async def test_cancelled_before_it_starts_its_function_is_not_called() -> None:
    """A task that is cancelled at once never starts, with a free slot or in the queue."""
    called: list[str] = []

    async def item(name: str) -> None:
        called.append(name)
        await anyio.sleep(1)

    executor = TaskExecutor(1, max_pending=9)
    async with executor:
        free = await executor.submit(item, "free")
        free.cancel()
        await settle()
        assert free.status is TaskStatus.CANCELLED
        running = await executor.submit(item, "running")
        queued = await executor.submit(item, "queued")
        await settle()
        queued.cancel()
        await queued.wait()
        assert anyio.current_time() == 0
        assert executor.statistics().waiting == 0
        await running
    assert called == ["running"]
    assert executor.statistics().started == 1
    check_quiet(executor)


async def test_error_while_being_cancelled_is_a_failure() -> None:
    """A task whose clean-up fails has failed: its error is not lost, on either backend."""

    async def fail_in_clean_up() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 9)
            try:
                await anyio.sleep(9)
            finally:
                raise ValueError("clean-up")

    executor = TaskExecutor(2)
    async with executor:
        handle = await executor.submit(fail_in_clean_up)
        other = await executor.submit(after, 2)
        await anyio.sleep(1)
        handle.cancel()
        with pytest.raises(ExceptionGroup) as caught:
            await handle
        assert [str(error) for error in caught.value.exceptions] == ["clean-up"]
        assert handle.status is TaskStatus.FAILED
        assert await other == "done"  # its siblings live on
    assert executor.statistics().failed == 1
    check_quiet(executor)


async def test_result_that_comes_in_spite_of_cancellation_counts() -> None:
    """A task that swallows its cancellation and returns has succeeded."""

    async def stubborn() -> str:
        try:
            await anyio.sleep(9)
        except anyio.get_cancelled_exc_class():
            return "anyway"
        return "never"

    async with TaskExecutor(1) as executor:
        handle = await executor.submit(stubborn)
        await settle()
        handle.cancel()
        assert await handle == "anyway"


async def test_task_cannot_wait_for_itself() -> None:
    """Neither the task nor an item inside it may await its handle: that would never end."""
    executor = TaskExecutor(1)
    handles: list[TaskHandle[None]] = []

    async def inner(_: int) -> None:
        with pytest.raises(RuntimeError, match=r"^<TaskHandle .*> waits for itself\. Only another"):
            await handles[0]

    async def task() -> None:
        await inner(0)
        await executor.for_each(inner, range(2))

    async with executor:
        handles.append(await executor.submit(task))


async def test_task_started_elsewhere_by_a_task_may_wait_for_it() -> None:
    """A watcher that a task starts in a group outside is another task, and may wait for it."""
    seen: list[str] = []
    async with anyio.create_task_group() as outside, TaskExecutor(1) as executor:
        handles: list[TaskHandle[None]] = []

        async def watch() -> None:
            await handles[0]
            seen.append(f"ended at {anyio.current_time():g}")

        async def task() -> None:
            outside.start_soon(watch)
            await anyio.sleep(1)

        handles.append(await executor.submit(task))
    assert seen == ["ended at 1"]


async def test_stray_cancellation_is_a_failure_of_that_task() -> None:
    """A task that raises the backend's cancellation unasked fails; it ends no one else."""

    async def broken() -> None:
        await anyio.sleep(1)
        stray()

    executor = TaskExecutor(2)
    async with executor:
        bad = await executor.submit(broken)
        good = await executor.submit(after, 2)
        with pytest.raises(StrayCancellationError, match=r"^test_stray.*broken raised Cancelled"):
            await bad
        assert await good == "done"
    assert executor.statistics().failed == 1
    check_quiet(executor)


# ---- submitting ----------------------------------------------------------------------------------


async def test_submit_waits_at_max_workers_and_max_pending() -> None:
    """With one slot and room for two, the fourth submit waits until the first task has ended."""
    async with TaskExecutor(1, max_pending=2) as executor:
        for _ in range(3):
            await executor.submit(after, 1)
        assert anyio.current_time() == 0
        await executor.submit(after, 1)
        assert anyio.current_time() == 1
        assert executor.statistics().submitted == 3


async def test_tasks_run_in_the_order_of_submission() -> None:
    """First submitted, first started; a call of another kind queues among them."""
    order: list[str] = []

    async def note(name: str) -> None:
        order.append(name)
        await anyio.sleep(1)

    async with TaskExecutor(1, max_pending=9) as executor, anyio.create_task_group() as group:
        for number in range(3):
            await executor.submit(note, f"task {number}")
        group.start_soon(executor.run, note, "run")
        await settle()
        await executor.submit(note, "task 3")
    assert order == ["task 0", "task 1", "task 2", "run", "task 3"]


async def test_submitters_are_served_in_the_order_of_asking() -> None:
    """The call that waits longest is let in first."""
    order: list[int] = []

    async def note(number: int) -> None:
        order.append(number)
        await anyio.sleep(1)

    async with TaskExecutor(1) as executor, anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(executor.submit, note, number)
            await settle()
    assert order == [0, 1, 2, 3, 4]


async def test_submit_nowait_fails_when_there_is_no_room() -> None:
    """``LimitError`` says that the limit is reached, and whose; nothing was started."""
    async with TaskExecutor(1, max_pending=1, name="pool") as executor:
        handles = [executor.submit_nowait(after, 1, "a"), executor.submit_nowait(after, 1, "b")]
        with pytest.raises(LimitError, match=r"^max_workers \+ max_pending ") as caught:
            executor.submit_nowait(after, 1)
        assert (caught.value.name, caught.value.retry_after) == ("pool", None)
        assert executor.statistics().submitted == 2
        assert [await handle for handle in handles] == ["a", "b"]
        await executor.submit_nowait(after, 1)


async def test_submit_nowait_does_not_overtake_a_waiting_submit() -> None:
    """A place that comes free belongs to the call that waits for it."""
    async with TaskExecutor(1) as executor, anyio.create_task_group() as group:
        first = await executor.submit(after, 1)
        group.start_soon(executor.submit, after, 1)
        await settle()
        await first.wait()
        with pytest.raises(LimitError):
            executor.submit_nowait(after, 1)


async def test_without_max_pending_submit_never_waits() -> None:
    """With None all tasks may wait for a slot."""
    async with TaskExecutor(2, max_pending=None) as executor:
        handles = [await executor.submit(after, 1) for _ in range(100)]
        assert anyio.current_time() == 0
        statistics = executor.statistics()
        assert (statistics.submitted, statistics.in_use, statistics.waiting) == (100, 2, 98)
        for handle in handles:
            await handle
    assert anyio.current_time() == 50


async def test_without_max_workers_submit_never_waits() -> None:
    """None means no limit, on submitted tasks too."""
    async with TaskExecutor() as executor:
        handles = [await executor.submit(after, 1) for _ in range(100)]
        handles += [executor.submit_nowait(after, 1) for _ in range(100)]
        for handle in handles:
            assert await handle == "done"
    assert anyio.current_time() == 1
    check_quiet(executor)


async def test_plain_function_can_be_submitted() -> None:
    """It runs in a worker thread."""
    async with TaskExecutor(1) as executor:
        handle = await executor.submit(divmod, 7, 2)
        assert await handle == (3, 1)


async def test_submitted_task_has_the_executors_timeout() -> None:
    """Not counting its wait for a slot."""
    async with TaskExecutor(1, max_pending=9, timeout=1.5) as executor:
        handles = [await executor.submit(after, seconds) for seconds in (1, 1, 2)]
        assert [await handle for handle in handles[:2]] == ["done"] * 2
        with pytest.raises(TimeoutError):
            await handles[2]
        assert anyio.current_time() == 3.5


async def test_task_has_the_context_of_its_submitter() -> None:
    """Context variables are copied at the submission; changes stay in the task."""
    variable = ContextVar("variable", default="unset")

    async def change() -> str:
        before = variable.get()
        variable.set("changed")
        return before

    async with TaskExecutor(1) as executor:
        variable.set("set")
        assert await (await executor.submit(change)) == "set"
        assert variable.get() == "set"


async def test_one_submit_in_64_is_a_checkpoint() -> None:
    """A loop that submits lets others run, and can be cancelled."""

    async def submits() -> None:
        for _ in range(64 * 3):
            await executor.submit(nothing)

    async with TaskExecutor() as executor:
        assert await suspensions(submits()) == 3


# ---- the block -----------------------------------------------------------------------------------


async def test_error_in_the_block_cancels() -> None:
    """An error leaves no survivors, and comes out bare."""
    executor = TaskExecutor(1, max_pending=9)
    with pytest.raises(ValueError, match=r"^body$") as caught:
        async with executor:
            handles = [await executor.submit(after, 9) for _ in range(3)]
            await anyio.sleep(1)
            raise ValueError("body")
    assert anyio.current_time() == 1
    assert [handle.status for handle in handles] == [TaskStatus.CANCELLED] * 3
    assert caught.value.__cause__ is None
    check_quiet(executor)


async def test_failure_that_was_not_awaited_is_raised_by_the_block() -> None:
    """anyio#141, #641: one error comes out bare, not in a group; and it cancelled no other."""
    executor = TaskExecutor(2)
    error = ValueError("not awaited")
    with pytest.raises(ValueError, match=r"^not awaited$") as caught:
        async with executor:
            await executor.submit(fail_after, 1, error)
            good = await executor.submit(after, 2)
    assert caught.value is error
    assert await good == "done"
    assert anyio.current_time() == 2


async def test_several_failures_that_were_not_awaited_come_in_a_group() -> None:
    """Flat, in the order in which they occurred, with the error of the block itself last."""
    with pytest.raises(ExceptionGroup, match=r"^3 errors in one block") as caught:
        async with TaskExecutor(3) as executor:
            await executor.submit(fail_after, 2, KeyError("second"))
            await executor.submit(fail_after, 1, ValueError("first"))
            await anyio.sleep(3)
            raise OSError("body")
    assert [type(error) for error in caught.value.exceptions] == [ValueError, KeyError, OSError]


async def test_failure_seen_later_counts_as_seen() -> None:
    """Looked at just before the block ends, it is dealt with; also in another way than first."""
    async with TaskExecutor(2) as executor:
        handles = [await executor.submit(fail_after, 1, ValueError("mine")) for _ in range(2)]
        await anyio.sleep(2)
        assert isinstance(handles[0].exception, ValueError)
        assert isinstance(handles[0].exception, ValueError)
        with pytest.raises(ValueError, match=r"^mine$"):
            await handles[1]


async def test_unseen_failures_are_bounded() -> None:
    """A thousand errors are kept; of those beyond, the number is told."""
    with pytest.raises(ExceptionGroup, match=r"^1000 errors in one block") as caught:
        async with TaskExecutor(1, max_pending=1005) as executor:
            for number in range(1005):
                await executor.submit(fail_after, 0, ValueError(number))
    errors = caught.value.exceptions
    assert [error.args[0] for error in errors] == [*range(1000)]
    assert errors[-1].__notes__ == ["5 more submitted tasks failed after this one"]


async def test_no_failure_is_swallowed_unlooked() -> None:
    """If all that were kept are seen and others are not, there is an error all the same."""
    with pytest.raises(MTAIOError, match=r"^2 submitted tasks failed and were not awaited"):
        async with TaskExecutor(1, max_pending=1005) as executor:
            handles = [await executor.submit(fail_after, 0, OSError()) for _ in range(1005)]
            await executor.drain()
            for handle in handles[:-2]:
                assert isinstance(handle.exception, OSError)


async def test_failure_seen_after_its_block_changes_nothing_in_the_next() -> None:
    """A handle of an earlier block may be looked at while a later one runs."""
    executor = TaskExecutor()
    with pytest.raises(OSError, match=r"^old$"):
        async with executor:
            old = await executor.submit(fail_after, 1, OSError("old"))
    with pytest.raises(ValueError, match=r"^new$"):
        async with executor:
            await executor.submit(fail_after, 1, ValueError("new"))
            await anyio.sleep(2)
            assert isinstance(old.exception, OSError)


async def test_unseen_failure_is_raised_by_a_cancelled_block() -> None:
    """An error that came before the cancellation is not lost in it."""
    with pytest.raises(ValueError, match=r"^not awaited$"), anyio.move_on_after(2):
        async with TaskExecutor(1) as executor:
            await executor.submit(fail_after, 1, ValueError("not awaited"))
            await anyio.sleep(9)


async def test_base_exception_of_a_task_ends_the_block() -> None:
    """A ``BaseException`` is not kept for later: it cancels the rest and is raised."""

    class Stop(BaseException):
        pass

    executor = TaskExecutor(2)
    with pytest.raises(Stop):
        async with executor:
            bad = await executor.submit(fail_after, 1, Stop())
            good = await executor.submit(after, 9)
            await anyio.sleep(9)
    assert anyio.current_time() == 1
    assert (bad.status, good.status) == (TaskStatus.FAILED, TaskStatus.CANCELLED)
    assert isinstance(bad.exception, Stop)
    check_quiet(executor)


async def test_cancel_ends_all_tasks_and_the_block_goes_on() -> None:
    """``executor.cancel()`` clears the executor, which may be used again at once."""
    executor = TaskExecutor(1, max_pending=9)
    executor.cancel()  # nothing there, nothing happens
    async with executor:
        handles = [await executor.submit(after, 9) for _ in range(3)]
        await anyio.sleep(1)
        executor.cancel()
        assert await (await executor.submit(after, 1)) == "done"
        assert [handle.status for handle in handles] == [TaskStatus.CANCELLED] * 3
    assert anyio.current_time() == 2
    check_quiet(executor)


@pytest.mark.parametrize("method", ["submit", "submit_nowait", "start", "drain"])
async def test_outside_the_block(method: str) -> None:
    """The error names the fix; before entering and after leaving."""
    executor = TaskExecutor(1, name="x")
    args = () if method == "drain" else (nothing,)
    for _ in range(2):
        with pytest.raises(
            RuntimeError,
            match=rf"'x'.* is not entered, and {method}\(\) works only inside its block\. Write '",
        ):
            await getattr(executor, method)(*args)
        async with executor:
            pass


async def test_block_waits_for_a_submit_that_was_let_in() -> None:
    """A call that waits for a place as the block is left gets it, and its task runs to its end."""
    executor = TaskExecutor(1)
    done: list[str] = []

    async def late() -> None:
        handle = await executor.submit(after, 1, "late")
        done.append(await handle)

    async with anyio.create_task_group() as group, executor:
        await executor.submit(after, 1)
        group.start_soon(late)
        await settle()
    assert done == ["late"]


async def test_lost_failures_are_told_once_and_not_after_the_end() -> None:
    """Whoever asks is told in a task; a block that ends by then tells by itself."""
    told: list[Exception] = []
    executor = TaskExecutor()
    executor._on_lost = lambda _, error: told.append(error)

    async def live() -> None:
        async with executor:
            first, second = [await executor.submit(fail_after, 1, OSError(each)) for each in "ab"]
            await anyio.sleep(2)
            task = first._task
            del first
            await settle()
            task._report_lost()  # type: ignore[attr-defined] # as from another thread
            await settle()
            assert len(told) == 1
            del second

    with pytest.raises(ExceptionGroup, match="2 errors"):
        await live()
    assert len(told) == 1


async def test_submit_that_waited_too_long_is_refused() -> None:
    """A place that comes free as the block is left is not used any more, and not lost."""
    executor = TaskExecutor(1)
    refusals: list[str] = []

    async def late() -> None:
        with pytest.raises(RuntimeError, match=r"is closing and takes no new work") as caught:
            await executor.submit(after, 1)
        refusals.append(str(caught.value))

    async with anyio.create_task_group() as group:
        with pytest.raises(ValueError, match=r"^body$"):
            async with executor:
                await executor.submit(after, 9)
                group.start_soon(late)
                await settle()
                raise ValueError("body")
    assert len(refusals) == 1
    check_quiet(executor)


@pytest.mark.parametrize("method", ["submit", "submit_nowait", "start"])
@pytest.mark.parametrize("end", ["error", "cancelled"])
async def test_submitting_in_a_task_that_is_being_cancelled(method: str, end: str) -> None:
    """A task woken just as its block ends, which goes on to submit, ends with the cancellation."""
    executor = TaskExecutor()
    link = anyio.Event()
    reached: list[str] = []

    async def service(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        task_status.started()
        reached.append("the service runs")

    async def crawl() -> None:
        await link.wait()
        if method == "submit_nowait":
            handle = executor.submit_nowait(after, 1)
            assert handle.status == ("cancelled" if end == "error" else "pending")
            if end == "error":
                await checkpoint()
        elif method == "submit":
            await executor.submit(after, 1)
        else:
            await executor.start(service)
        reached.append("it goes on")
        await checkpoint()
        raise AssertionError

    error = None
    with anyio.CancelScope() as scope:
        try:
            async with executor:
                await executor.submit(crawl)
                await settle()
                link.set()
                if end == "error":
                    raise ValueError("the user's own")  # noqa: TRY301 - what ends the block
                scope.cancel()
                await checkpoint()
        except ValueError as caught:
            error = caught
    assert str(error) == ("the user's own" if end == "error" else "None")
    assert scope.cancelled_caught == (end == "cancelled")
    if end == "error":  # else it may go on to its next checkpoint, which submit is not
        assert reached == []
    check_quiet(executor)


async def test_submitting_in_a_cancelled_task_after_the_block() -> None:
    """The same when the block has been left already."""
    executor = TaskExecutor()
    async with executor:
        pass
    with anyio.CancelScope() as scope:
        scope.cancel()
        handle = executor.submit_nowait(after, 1)
        with pytest.raises(anyio.get_cancelled_exc_class()):
            await executor.submit(after, 1)
        assert handle.status == "cancelled"
    with pytest.raises(TaskCancelledError, match=r"^after was cancelled"):
        await handle


async def test_submit_from_clean_up_starts_nothing_while_the_block_is_left() -> None:
    """A task that is being cancelled starts nothing new; shielded, it is refused."""
    executor = TaskExecutor(1, max_pending=9)
    statuses: list[str] = []

    async def stubborn() -> None:
        try:
            await anyio.sleep(9)
        finally:
            statuses.append(executor.submit_nowait(after, 9).status)
            with (
                anyio.CancelScope(shield=True),
                pytest.raises(RuntimeError, match=r"is closing and takes no new work"),
            ):
                await executor.submit(after, 9)

    with pytest.raises(ValueError, match=r"^body$"):
        async with executor:
            await executor.submit(stubborn)
            await settle()
            raise ValueError("body")
    assert statuses == ["cancelled"]
    check_quiet(executor)


async def test_base_exception_that_was_awaited_is_raised_once() -> None:
    """It ends the block, whose body awaited it too: bare, and not as a group with itself."""

    class Stop(BaseException):
        """Ends the program."""

    async def stop() -> None:
        await anyio.sleep(1)
        raise Stop

    with pytest.raises(Stop):
        async with TaskExecutor(2) as executor:
            await (await executor.submit(stop))


# ---- asyncio's own cancellation ------------------------------------------------------------------


def test_everything_natively_cancelled_is_no_failure() -> None:
    """A shutdown that cancels every task of the loop gets its ``CancelledError`` back."""

    async def scenario() -> None:
        executor = TaskExecutor(1, max_pending=9)

        async def main() -> None:
            async with executor:
                await executor.start(service)
                for _ in range(3):
                    await executor.submit(after, 9)
                await anyio.sleep(1)
                executor.submit_nowait(after, 9)  # has not had its first step yet
                for task in asyncio.all_tasks():
                    if task is not this:
                        task.cancel()
                await anyio.sleep(9)

        async def service(task_status: anyio.abc.TaskStatus[None]) -> None:
            task_status.started()
            await anyio.sleep_forever()

        this = asyncio.current_task()
        task = asyncio.create_task(main())
        await asyncio.wait([task])
        assert task.cancelled()
        check_quiet(executor)

    run(scenario, backend="asyncio")


def test_task_that_cannot_be_created_leaves_nothing_behind() -> None:
    """If the event loop refuses the task, slot and place come back."""

    async def scenario() -> None:
        executor = TaskExecutor(1)
        loop = asyncio.get_running_loop()

        def refuse(_: object, coroutine: Any, **__: object) -> Any:
            coroutine.close()
            raise RuntimeError("no more tasks")

        async with executor:
            loop.set_task_factory(refuse)
            with pytest.raises(RuntimeError, match=r"^no more tasks$"):
                executor.submit_nowait(nothing)
            loop.set_task_factory(None)
            check_quiet(executor)
            await (await executor.submit(nothing))

    run(scenario, backend="asyncio")


async def test_result_of_a_handle() -> None:
    """What awaiting it gives, at once, or an error that says that it has not ended."""
    async with TaskExecutor(1) as executor:
        handle = await executor.submit(anyio.sleep, 1)
        with pytest.raises(RuntimeError, match=r"^<TaskHandle 'sleep' .*> has not ended"):
            handle.result()
        await handle.wait()
        assert handle.result() is None

        async def fail() -> None:
            raise LookupError

        failed = await executor.submit(fail)
        await failed.wait()
        for _ in range(2):
            with pytest.raises(LookupError) as caught:
                failed.result()
            assert len(traceback.extract_tb(caught.value.__traceback__)) < 6
        cancelled = await executor.submit(anyio.sleep, 1)
        cancelled.cancel()
        await cancelled.wait()
        with pytest.raises(TaskCancelledError):
            cancelled.result()
