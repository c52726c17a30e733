"""
A submitted task as its owner sees it.

Promise: awaiting a handle gives the result or the very error the task raised; waiting for it can
be cancelled without cancelling the task; an error that nobody asked for is not forgotten.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

import anyio

from mtaio._internal.unset import UNSET, Unset
from mtaio.core._slots import CURRENT
from mtaio.exceptions import TaskCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

    from mtaio.core._slots import Slots, Waiter

T = TypeVar("T")


TASK: Final[ContextVar[TaskHandle[Any] | None]] = ContextVar("mtaio.core.task", default=None)
"""The submitted task inside which the code runs."""


class TaskStatus(StrEnum):
    """Where a submitted task stands."""

    PENDING = "pending"
    """It waits for a slot."""
    RUNNING = "running"
    """It runs."""
    SUCCEEDED = "succeeded"
    """It returned a result."""
    FAILED = "failed"
    """It raised an error."""
    CANCELLED = "cancelled"
    """It was cancelled before it came to an end."""


class Cancellable(Protocol):
    """What a handle cancels: a task of anyio's, or a cancel scope."""

    def cancel(self) -> None:
        """Cancel it."""
        ...


class TaskHandle(Generic[T]):
    """
    A task started with `TaskExecutor.submit` or `TaskExecutor.start`.

    ``await handle`` waits for the task's end and returns its result or raises its error, the
    original one. It may be awaited by several tasks, and again. If the task was cancelled it raises
    `TaskCancelledError`. Cancelling the waiter leaves the task alone: only `cancel` ends it.

    Example:
        >>> async def main() -> None:
        ...     async with TaskExecutor(max_workers=4) as executor:
        ...         handle = await executor.submit(fetch, "https://example.org")
        ...         print(handle.status, await handle)
    """

    # Invariants:
    # - _ended is set last, after the status and the result or error;
    # - _waiter is where the task stands in the queue for a slot, until it runs.

    __slots__ = (
        "__weakref__",
        "_ended",
        "_error",
        "_on_seen",
        "_result",
        "_slots",
        "_start_value",
        "_status",
        "_task",
        "_traceback",
        "_waiter",
        "name",
    )

    def __init__(
        self,
        name: str,
        *,
        slots: Slots | None = None,
        waiter: Waiter | None = None,
        on_seen: Callable[[TaskHandle[Any]], None] | None = None,
    ) -> None:
        self.name = name
        self._status = TaskStatus.PENDING
        self._slots = slots
        self._waiter = waiter
        self._on_seen = on_seen
        self._ended = anyio.Event()
        self._result: T | Unset = UNSET
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._start_value: Any = None
        self._task: Cancellable | None = None

    def __repr__(self) -> str:
        return f"<TaskHandle {self.name!r} {self._status}>"

    @property
    def status(self) -> TaskStatus:
        """Where the task stands now."""
        return self._status

    @property
    def done(self) -> bool:
        """Whether the task has come to its end, whichever."""
        return self._ended.is_set()

    @property
    def start_value(self) -> Any:
        """What a service passed to ``task_status.started()``; None for a submitted task."""
        return self._start_value

    def cancel(self) -> None:
        """
        Cancel the task; no checkpoint. Await `wait` to see it gone.

        Nothing happens if it has ended. A task that still waits for a slot leaves the queue.
        """
        if self._task is not None and not self.done:
            self._task.cancel()

    def exception(self) -> BaseException | None:
        """
        Return the error the task ended with, or None if it succeeded. Not a checkpoint.

        Raises:
            RuntimeError: It has not ended yet.
            TaskCancelledError: It was cancelled.
        """
        if not self.done:
            msg = f"{self!r} has not ended yet. Await it, or its wait(), first."
            raise RuntimeError(msg)
        self._seen()
        if self._status is TaskStatus.CANCELLED:
            raise self._cancelled()
        return self._error

    async def wait(self) -> None:
        """
        Wait until the task has ended, whichever way. A checkpoint unless it has.

        Waiting from inside another item of the same executor lends that item's slot to the task,
        so a task may wait for one that it submitted, whatever the limit.
        """
        if self.done:
            return
        if TASK.get() is self:
            msg = f"{self!r} waits for itself. Only another task can wait for it."
            raise RuntimeError(msg)
        slots, waiter = self._slots, self._waiter
        slot = None if slots is None else slots.enclosing(CURRENT.get())
        if slots is None or slot is None or waiter is None:
            await self._ended.wait()
            return
        slots.offer(slot, waiter)
        try:
            await self._ended.wait()
        finally:
            slots.take_back(slot, waiter)

    def __await__(self) -> Generator[Any, Any, T]:
        yield from self.wait().__await__()
        self._seen()
        if self._status is TaskStatus.CANCELLED:
            raise self._cancelled()
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)  # else it grows with every await
        return cast("T", self._result)

    def _cancelled(self) -> TaskCancelledError:
        return TaskCancelledError(
            f"{self.name} was cancelled, so it has no result. Look at handle.status first if "
            f"that is to be expected."
        )

    def _seen(self) -> None:
        if self._on_seen is not None:
            self._on_seen(self)

    # What follows is for the executor.

    def set_task(self, task: Cancellable) -> None:
        """Note what to cancel."""
        self._task = task

    def set_running(self) -> None:
        """Note that the task has got its slot."""
        self._status = TaskStatus.RUNNING

    def set_started(self, value: Any) -> None:
        """Note what the service reported when it was ready."""
        self._start_value = value

    def end(
        self, status: TaskStatus, *, result: T | Unset = UNSET, error: BaseException | None = None
    ) -> None:
        """Note how the task ended, and wake who waits for it."""
        self._status = status
        self._result = result
        self._error = error
        self._traceback = None if error is None else error.__traceback__
        self._waiter = None
        self._ended.set()
