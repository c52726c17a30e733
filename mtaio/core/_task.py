"""
A task that goes on beside the caller: what is known of it, from its start to its end.

Promise: it ends once, with a result, an error or a cancellation; whoever waits for it in an item
lends it that item's slot; a cancellation that nobody asked for is a failure.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import anyio

from mtaio._internal import loops
from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import is_cancelled, stray_error, without_cancellation
from mtaio.core._nesting import CURRENT, Awaited, here

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

T = TypeVar("T")


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

    Invariants:
    - ``ended`` is set last, after the status and the result or error;
    - ``on_seen`` is there until somebody has looked at how it ended.
    """

    __slots__ = (
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

    def __init__(self, name: str, loop: object) -> None:
        super().__init__()
        self.name: str = name
        self.loop: object = loop
        self.status: TaskStatus = TaskStatus.PENDING
        self.ended: anyio.Event = anyio.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self.traceback: TracebackType | None = None
        self.start_value: Any = None
        self.cancellable: Cancellable | None = None
        self.on_seen: Callable[[Task], object] | None = None

    def __repr__(self) -> str:
        return f"<TaskHandle {self.name!r} {self.status}>"  # what the user knows

    def enter(self) -> None:
        """Note that it is the running task, and in that one's context that it is this."""
        self.host: anyio.TaskInfo | None = anyio.get_current_task()
        CURRENT.set((self, 0))  # it does not run inside whoever started it

    def cancel(self) -> None:
        """Cancel it unless it has ended."""
        if self.cancellable is not None and not self.ended.is_set():
            self._check_loop("cancel")
            self.cancellable.cancel()

    def seen(self) -> None:
        """Note that somebody looks at how it ended."""
        on_seen, self.on_seen = self.on_seen, None
        if on_seen is not None:
            on_seen(self)

    async def wait(self) -> None:
        """Wait until it has ended; the item that waits encloses it meanwhile."""
        if self.ended.is_set():
            return
        self._check_loop("wait for")
        if self.surrounds(here()):
            msg = f"{self!r} waits for itself. Only another task can wait for it."
            raise RuntimeError(msg)
        with self.enclosed():
            await self.ended.wait()

    def succeed(self, result: Any) -> None:
        """Note what it returned, and wake who waits for it."""
        self.result = result
        self._end(TaskStatus.SUCCEEDED)

    def fail(self, error: BaseException) -> None:
        """Note what it raised, and wake who waits for it."""
        if without_cancellation(error) is None:
            self.abandon()
            return
        # Without the frame of `run`, which is of no interest to the user.
        self.traceback = cast("TracebackType", error.__traceback__).tb_next
        self.error = error.with_traceback(self.traceback)
        self._end(TaskStatus.FAILED)

    def abandon(self) -> None:
        """Note that it was cancelled, and wake who waits for it."""
        self._end(TaskStatus.CANCELLED)

    def _check_loop(self, verb: str) -> None:
        if not loops.is_current(self.loop):
            msg = (
                f"cannot {verb} {self!r} here: it runs in another event loop. Do it there, for "
                f"example with anyio.from_thread.run()."
            )
            raise RuntimeError(msg)

    def _end(self, status: TaskStatus) -> None:
        self.status = status
        self.end()
        self.ended.set()


async def unmixed(call: Callable[[], Awaitable[T]], subject: object) -> T:
    """
    Await ``call()``; what it raises is either an error or a cancellation that was asked for.

    Left to themselves, a cancellation that nobody asked for would end asyncio's task group in
    silence, and trio would end it for an error that arose beside the cancellation of one task.
    """
    try:
        return await call()
    except Exception:
        raise
    except BaseException as error:
        rest = without_cancellation(error)
        if rest is None and not is_cancelled():
            raise stray_error(error, name_of(subject)) from error
        if rest is None or rest is error:
            raise
        raise rest from None
