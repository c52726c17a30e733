"""
Tasks that go on after the call: submitted work, supervised services, and their handles.

Promise: a task ends once, with a result, an error or a cancellation; a stray cancellation is an
error. Awaiting a handle gives the result or the very error that the task raised, and can be
cancelled without cancelling the task. An item that waits for a task lends it its slot. A failure
of a service before it is ready goes to the code that starts it; a later one leads to a restart,
which is logged to ``mtaio.core``, or ends the block.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import copy_context
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, cast, final

import anyio

from mtaio._internal import clock, loops, spans
from mtaio._internal.callables import close_unstarted
from mtaio._internal.cancellation import is_cancelled, raise_failure, without_cancellation
from mtaio._internal.checkpoints import checkpoint_if_cancelled
from mtaio._internal.durations import timed
from mtaio._internal.typevars import TypeVar
from mtaio.core._slots import CURRENT, Awaited, here, running_task
from mtaio.exceptions import TaskCancelledError

if TYPE_CHECKING:
    from contextvars import Context

    from anyio.abc import TaskStatus as Readiness

    from mtaio._internal.backend import Backend, Waiter
    from mtaio.core._block import Block
    from mtaio.core._slots import Request, Slot, Slots, TaskIds
    from mtaio.core._statistics import Counters
    from mtaio.resilience import Retry

__all__ = ["HandleGuard", "Service", "Submitted", "Task", "TaskHandle", "TaskStatus", "run_item"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
S_co = TypeVar("S_co", covariant=True, default=None)


class TaskStatus(StrEnum):
    """The state of a submitted task."""

    PENDING = "pending"
    """The task waits for a slot."""
    RUNNING = "running"
    """The task is running."""
    SUCCEEDED = "succeeded"
    """The task returned a result."""
    FAILED = "failed"
    """The task raised an error."""
    CANCELLED = "cancelled"
    """The task was cancelled."""


async def run_item(
    counters: Counters,
    slot: Slot | None,
    call: Callable[[], Awaitable[T]],
    subject: object,
    *,
    own_task: bool,
) -> T:
    """
    Make ``call`` as an item that runs in ``slot``, in the current task, and count it.

    What it raises is either an error or a cancellation that was asked for. Left to themselves, a
    stray cancellation would end asyncio's task group silently, and trio would end it for an error
    raised along with the cancellation of one task.
    """
    counters.item_starts()
    durations = counters.run_duration
    token = None
    if slot is not None:
        slot.item = 0
        token = CURRENT.set((slot, 0))
    try:
        try:
            work = call() if durations is None else timed(durations, call)
            if spans.hook is None:
                result = await work
            else:
                result = await spans.wait("item", subject, work)
        except BaseException as error:
            raise_failure(error, subject, own_task=own_task)
            raise
    except BaseException as error:
        if without_cancellation(error) is None:
            counters.cancelled += 1
        else:
            counters.failed += 1
        raise
    else:
        counters.succeeded += 1
        return result
    finally:
        counters.alone -= 1
        if token is not None:
            try:  # noqa: SIM105 - each item comes here, and suppress() takes longer
                CURRENT.reset(token)
            except ValueError:  # the garbage collector closes it in any context
                pass
        del slot, token  # an error holds this frame, and they the task that holds the error


class Cancellable(Protocol):
    """What cancels a task: a task handle of anyio's, or a cancel scope."""

    def cancel(self) -> None:
        """Cancel it."""
        ...


class Task(Awaited):
    """
    The state of a task; `TaskHandle` shows it to the user.

    Args:
        name: Of its function.
        loop: The event loop in which it runs.
        half: The backend of that loop.

    Invariants:
    - ``ended`` is set last, after the status and the result or error;
    - ``_waiters`` are those of the tasks that wait for that, and have not been woken;
    - ``on_seen`` is there from its failure until its end has been looked at.
    """

    __slots__ = (
        "_half",
        "_waiters",
        "cancellable",
        "ended",
        "error",
        "loop",
        "name",
        "on_seen",
        "result",
        "start_value",
        "status",
        "traceback",
    )

    def __init__(self, name: str, loop: object, half: Backend) -> None:
        super().__init__()
        self._half = half
        self._waiters: dict[Waiter, None] = {}
        self.name: str = name
        self.loop: object = loop
        self.status: TaskStatus = TaskStatus.PENDING
        self.ended: bool = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.traceback: TracebackType | None = None
        self.start_value: Any = None
        self.cancellable: Cancellable | None = None
        self.on_seen: Callable[[Task], object] | None = None

    def __repr__(self) -> str:
        return f"<TaskHandle {self.name!r} {self.status}>"  # what the user knows

    def enter(self, task: TaskIds) -> None:
        """Note that it is ``task``, which runs, and in that one's context that it is this."""
        self.task: TaskIds | None = task
        CURRENT.set((self, 0))  # it does not run inside the item that started it

    def cancel(self) -> None:
        """Cancel it unless it has ended."""
        if self.cancellable is not None and not self.ended:
            self.check_loop("cancel")
            self.cancellable.cancel()

    def check_loop(self, verb: str) -> None:
        """Raise ``RuntimeError`` where the event loop in which it runs does not run."""
        if self._half.running_loop() is not self.loop:
            raise self._other_loop_error(verb)

    def seen(self) -> None:
        """Note that its end has been looked at."""
        on_seen, self.on_seen = self.on_seen, None
        if on_seen is not None:
            on_seen(self)

    async def wait(self) -> None:
        """Wait until it has ended; until then it runs inside the item that waits."""
        if self.ended:
            return
        if self._half.running_loop() is not self.loop:
            raise self._other_loop_error("wait for")
        link = here()
        if link is not None:
            if self.contains(link):
                msg = f"{self!r} waits for itself. Only another task can wait for it."
                raise RuntimeError(msg)
            self.add_wait(link)
        waiter = self._half.new_waiter(self.loop)
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)
            if link is not None:
                self.end_wait(link)

    def succeed(self, result: Any) -> None:
        """Note what it returned, and wake its waiters."""
        self.result = result
        self._end(TaskStatus.SUCCEEDED)

    def fail(self, error: BaseException) -> None:
        """Note what it raised, and wake its waiters."""
        if without_cancellation(error) is None:
            self.abandon()
            return
        # Without the frame of `run`, which is of no interest to the user.
        self.traceback = cast("TracebackType", error.__traceback__).tb_next
        self.error = error.with_traceback(self.traceback)
        self._end(TaskStatus.FAILED)

    def abandon(self) -> None:
        """Note that it was cancelled, and wake its waiters."""
        self._end(TaskStatus.CANCELLED)

    def _other_loop_error(self, verb: str) -> RuntimeError:
        return RuntimeError(
            f"cannot {verb} {self!r} here: it runs in another event loop. Do it there, for "
            f"example with anyio.from_thread.run()."
        )

    def _end(self, status: TaskStatus) -> None:
        self.status = status
        self.end()
        self.ended = True
        while self._waiters:
            waiter, _ = self._waiters.popitem()
            waiter.wake()


class Submitted(Task):
    """
    A task that runs as one item.

    Args:
        name: Of its function.
        block: The block in which it lives.
        slots: Where its slot comes from; None if there is no limit.
        place: Its place among the unfinished tasks; None if those are not limited.

    Invariants:
    - with a limit it has a slot, or waits in the queue, from `queue_up` to its end;
    - _context is that in which it has failed, until the failure is reported, if it will be.
    """

    __slots__ = (
        "_block",
        "_context",
        "_is_dropped",
        "_place",
        "_request",
        "_slot",
        "_slots",
        "coroutine",
    )

    def __init__(self, name: str, block: Block, slots: Slots | None, place: Slot | None) -> None:
        super().__init__(name, block.loop, block.half)
        self._block = block
        self._context: Context | None = None
        self._is_dropped = False
        self._slots = slots
        self._place = place
        self._slot: Slot | None = None
        self._request: Request | None = None
        self.coroutine: Coroutine[Any, Any, None] | None = None

    def queue_up(self, slots: Slots) -> None:
        """Take a free slot, or join the queue."""
        self._slot = slots.acquire_nowait((self, 0))
        if self._slot is None:
            self._request = slots.enqueue((self, 0))

    async def run(
        self, counters: Counters, call: Callable[[], Awaitable[Any]], subject: object
    ) -> None:
        """Wait for the slot, then make ``call`` as an item in it; never raise an ``Exception``."""
        self.enter((self._half.task_id(), self._block.task))
        try:
            try:
                if self._slots is not None and self._request is not None:
                    request, self._request = self._request, None
                    self._slot = await self._slots.wait_for(request)
                elif is_cancelled():
                    await checkpoint_if_cancelled()
            except BaseException as error:
                raise_failure(error, subject, own_task=True)
                raise
            self.status = TaskStatus.RUNNING
            if self._slot is not None:
                self._slot.task = self.task
            result = await run_item(counters, self._slot, call, subject, own_task=True)
        except Exception as error:  # noqa: BLE001 - kept for who awaits the handle
            self.leave()
            self._block.keep_failure(self)
            self.fail(error)
            if self._block.on_lost is not None:
                self._context = copy_context()
                if self._is_dropped:
                    self._report_lost()
        except BaseException as error:
            self.leave()
            self.fail(error)
            raise
        else:
            self.leave()
            self.succeed(result)
        finally:
            del self  # the frames of an error lead here, and this object keeps the error

    def drop(self) -> None:
        """
        Note that its handle is gone: who wants to know is told of its failure at once.

        It is called in any thread, and wherever garbage is collected.
        """
        self._is_dropped = True
        if self.on_seen is not None and self._block.on_lost is not None:
            loops.call_in(self.loop, self._report_lost)

    def _report_lost(self) -> None:
        # In a task: what is called may start others, and look at the clock.
        context, self._context = self._context, None
        if context is not None and self.on_seen is not None:
            loops.start_task(self.loop, self._tell, context)

    async def _tell(self) -> None:
        on_lost = self._block.on_lost
        if on_lost is None or self.on_seen is None:
            return
        on_lost(self.name, cast("Exception", self.error))

    def leave(self) -> None:
        """Give back all that it holds; doing so again changes nothing."""
        self._block.tasks.pop(self, None)
        self.coroutine = None
        if self._slots is None:  # it held nothing
            return
        request, held = self._request, (self._slot, self._place)
        self._request = self._slot = self._place = None
        if request is not None:
            request.slots.give_up(request)
        for slot in held:
            if slot is not None:
                slot.slots.release(slot)

    def end_unrun(self) -> None:
        """End it in place of its coroutine, if that was cancelled before its first step."""
        close_unstarted(self.coroutine)
        self.leave()
        self.abandon()


class Service(Task):
    """
    A service: started, ready, kept alive, and ended with the executor's block.

    Args:
        name: Of its function.
        block: The block in which it lives.
        fn: What runs, once for each start and restart.
        restart: How often it may be started again; None for never.

    Attributes:
        finish: Has it end by itself, once the block is left; None if it has to be cancelled.
        coroutine: What runs it, if nobody waits for it to be ready.
    """

    __slots__ = (
        "_block",
        "_fn",
        "_ready",
        "_report",
        "_restart",
        "_scope",
        "coroutine",
        "finish",
    )

    def __init__(
        self,
        name: str,
        block: Block,
        fn: Callable[..., Coroutine[Any, Any, Any]],
        restart: Retry | None,
    ) -> None:
        super().__init__(name, block.loop, block.half)
        self._block = block
        self._fn = fn
        self._restart = restart
        self.finish: Callable[[], None] | None = None
        self.coroutine: Coroutine[Any, Any, None] | None = None
        self._report: Readiness[Any]  # there as soon as it runs
        self._ready = False
        self._scope = anyio.CancelScope()
        self.cancellable = self._scope  # from now on: it may be cancelled before its first step

    def started(self, value: Any = None) -> None:
        """Note that the service is ready (this object is the ``task_status`` it gets)."""
        if self._ready:
            return  # it was restarted: its starter knows already
        self._ready = True
        self.start_value = value
        self.end_waits()  # the item that started it goes on
        self._report.started(value)

    async def run(self, *, task_status: Readiness[Any]) -> None:
        """Run it, restarts included (in the executor's task group)."""
        self.enter(running_task())
        self._report = task_status
        with self._scope:
            self.status = TaskStatus.RUNNING
            try:
                result = await self._supervise()
            except BaseException as error:
                self.leave()
                self.fail(error)
                raise
            self.leave()
            self.succeed(result)
            return
        if not self._ready:
            msg = f"the service {self.name} was cancelled before it was ready"
            raise TaskCancelledError(msg)

    def leave(self) -> None:
        """Be no longer one of the block's services."""
        self._block.services.pop(self, None)
        self.coroutine = None

    def end_unrun(self) -> None:
        """End it in place of its coroutine, if that was cancelled before its first step."""
        close_unstarted(self.coroutine)
        self.leave()
        self.abandon()

    async def _supervise(self) -> Any:
        policy = self._restart
        attempts = None if policy is None else policy._supervise(self._fn)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what its `run` does for users
        while True:
            started = clock.now()
            try:
                result = await self._call()
            except Exception as error:
                if policy is None or attempts is None or not self._ready:
                    raise
                if policy.per is None and clock.now() - started > policy.wait_max:
                    attempts.start_over()  # it had recovered
                wait = attempts.after_error(error)
                if wait is None:
                    raise
                self._log(error, wait, attempts.attempt + 1, policy)
            else:
                if not self._ready:
                    msg = (
                        f"the service {self.name} returned before it was ready. Have it call "
                        f"task_status.started(); to run a function that returns use submit()."
                    )
                    raise RuntimeError(msg)
                return result
            await attempts.sleep(wait)

    async def _call(self) -> Any:
        try:
            return await self._fn(task_status=self)
        except BaseException as error:
            raise_failure(error, self._fn, own_task=True)
            raise

    def _log(self, error: Exception, wait: float, attempt: int, policy: Retry) -> None:
        from logging import getLogger  # noqa: PLC0415 - most programs never restart a service

        getLogger("mtaio.core").warning(
            "service %s failed; attempt %d%s in %.3g s",
            self.name,
            attempt,
            "" if policy.attempts is None else f" of {policy.attempts}",
            wait,
            exc_info=error,
        )


@final
class HandleGuard:
    """
    Tells a task that its handle is gone, which alone refers to the guard.

    Only handles whose loss matters have one, so that the others cost no finaliser.
    """

    __slots__ = ("_task",)

    def __init__(self, task: Submitted) -> None:
        self._task = task

    def __del__(self) -> None:
        self._task.drop()


@final
class TaskHandle(Generic[T_co, S_co]):
    """
    A handle to a task started with `TaskExecutor.submit` or `TaskExecutor.start`.

    ``await handle`` waits until the task has ended and returns its result, raises the error that it
    raised, or raises `TaskCancelledError` if it was cancelled. Several tasks may await it, any
    number of times. Cancelling a task that waits does not cancel the task it waits for; `cancel`
    does.

    In annotations, ``TaskHandle[T]`` is for a function that returns ``T``, and ``TaskHandle[T, S]``
    for a service that reports an ``S`` when it is ready.

    Example:
        ```python
        import anyio

        from mtaio import TaskExecutor


        async def fetch(page: int) -> str:
            await anyio.sleep(0.1)
            return f"page {page}"


        async def main() -> None:
            async with TaskExecutor(max_workers=4) as executor:
                handle = await executor.submit(fetch, 7)
                print(handle.status, await handle)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ("__weakref__", "_guard", "_task")

    def __init__(self, task: Task, guard: object = None) -> None:
        self._task = task
        self._guard = guard  # a HandleGuard, which goes when the handle goes

    def __reduce__(self) -> NoReturn:
        msg = (
            f"{self!r} cannot be copied or pickled: it stands for a task that runs here. Share the "
            f"handle, or pass on the result."
        )
        raise TypeError(msg)

    def __repr__(self) -> str:
        return repr(self._task)

    @property
    def name(self) -> str:
        """Name of the function, shown in messages."""
        return self._task.name

    @property
    def status(self) -> TaskStatus:
        """Current state of the task."""
        return self._task.status

    @property
    def done(self) -> bool:
        """Whether the task has ended, in whatever way."""
        return self._task.ended

    @property
    def start_value(self) -> S_co:
        """The value that a service passed to ``task_status.started()``; otherwise None."""
        return cast("S_co", self._task.start_value)

    @property
    def return_value(self) -> T_co:
        """
        The result of a task that has ended; otherwise raises what `result` raises.

        The name is the same as in AnyIO's task handles.
        """
        return self.result()

    @property
    def exception(self) -> BaseException | None:
        """
        The exception that the task ended with; None if it succeeded.

        Reading it counts as having looked at the failure, which the executor's block then does not
        raise. Raises ``RuntimeError`` if the task has not ended, and `TaskCancelledError` if it was
        cancelled.
        """
        if not self.done:
            msg = f"{self!r} has not ended yet. Await it, or its wait(), first."
            raise RuntimeError(msg)
        self._look()
        return self._task.error

    def cancel(self) -> None:
        """
        Cancel the task. Await `wait` to be sure that it has ended.

        If the task has not started, its function is never called; if it has ended, nothing happens.
        Not a checkpoint.

        Raises:
            RuntimeError: Called outside the event loop in which the task runs.
        """
        self._task.cancel()

    def result(self) -> T_co:
        """
        Return the result of a task that has ended, or raise its error.

        Not a checkpoint. To wait for the result, use ``await handle``.

        Raises:
            RuntimeError: The task has not ended yet.
            TaskCancelledError: The task was cancelled.
        """
        if self._task.status is TaskStatus.SUCCEEDED:
            return cast("T_co", self._task.result)
        error = cast("BaseException", self.exception)  # which raises if there is neither
        try:
            raise error.with_traceback(self._task.traceback)  # else it grows with every call
        finally:
            del error  # it holds this frame

    async def wait(self) -> None:
        """
        Wait until the task has ended, in whatever way.

        An item that waits lends its slot to the task, so it may wait for a task of its own executor
        whatever the limit. If the wait is cancelled while the task runs in that slot, both go on,
        and one item more than the limit runs until the next one ends.

        A checkpoint unless it already has.

        Raises:
            RuntimeError: Called from within the task itself, or in another event loop.
        """
        await self._task.wait()

    def __await__(self) -> Generator[Any, Any, T_co]:
        if not self._task.ended:
            yield from self._task.wait().__await__()
        return self.result()

    def _look(self) -> None:
        self._task.seen()
        if self._task.status is TaskStatus.CANCELLED:
            msg = (
                f"{self.name} was cancelled, so it has no result. Look at handle.status first if "
                f"that can happen."
            )
            raise TaskCancelledError(msg)
