"""
A submitted task as its owner sees it.

Promise: awaiting a handle gives the result or the very error the task raised; waiting for it can
be cancelled without cancelling the task; an error that nobody asked for is not forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from mtaio.core._task import Task, TaskStatus
from mtaio.exceptions import TaskCancelledError

if TYPE_CHECKING:
    from collections.abc import Generator

T = TypeVar("T")


class TaskHandle(Generic[T]):
    """
    A task started with `TaskExecutor.submit` or `TaskExecutor.start`.

    ``await handle`` waits for the task's end and returns its result or raises its error, the
    original one. It may be awaited by several tasks, and again. If the task was cancelled it raises
    `TaskCancelledError`. Cancelling the waiter leaves the task alone: only `cancel` ends it.

    Example:
        ```python
        import anyio

        from mtaio.core import TaskExecutor


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

    __slots__ = ("__weakref__", "_task")

    def __init__(self, task: Task) -> None:
        self._task = task

    def __repr__(self) -> str:
        return repr(self._task)

    @property
    def name(self) -> str:
        """The name of the function, for messages."""
        return self._task.name

    @property
    def status(self) -> TaskStatus:
        """Where the task stands now."""
        return self._task.status

    @property
    def done(self) -> bool:
        """Whether the task has come to its end, whichever."""
        return self._task.ended.is_set()

    @property
    def start_value(self) -> Any:
        """What a service passed to ``task_status.started()``; None for a submitted task."""
        return self._task.start_value

    def cancel(self) -> None:
        """
        Cancel the task; no checkpoint. Await `wait` to see it gone.

        Nothing happens if it has ended. A task that has not begun leaves the queue, and its
        function is never called.

        Raises:
            RuntimeError: Called outside the event loop in which the task runs.
        """
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
        self._look()
        return self._task.error

    async def wait(self) -> None:
        """
        Wait until the task has ended, whichever way. A checkpoint unless it has.

        Waiting for it inside an item lends that item's slot to the task, so an item may wait for
        a task of its own executor, whatever the limit. If the wait is cancelled while the task
        runs in that slot, both go on, and one item more than the limit runs until the next ends.

        Raises:
            RuntimeError: The code that waits is part of the task, or runs in another event loop.
        """
        await self._task.wait()

    def __await__(self) -> Generator[Any, Any, T]:
        task = self._task
        yield from task.wait().__await__()
        self._look()
        if task.error is not None:
            raise task.error.with_traceback(task.traceback)  # else it grows with every await
        return cast("T", task.result)

    def _look(self) -> None:
        self._task.seen()
        if self._task.status is TaskStatus.CANCELLED:
            msg = (
                f"{self.name} was cancelled, so it has no result. Look at handle.status first if "
                f"that is to be expected."
            )
            raise TaskCancelledError(msg)
