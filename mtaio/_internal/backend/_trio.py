"""The half of `mtaio._internal.backend` for trio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trio.lowlevel import Abort, current_task, reschedule, wait_task_rescheduled

if TYPE_CHECKING:
    from collections.abc import Generator

    from trio.lowlevel import Task


class Waiter:
    """A task that trio's scheduler leaves out until it is put back."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: Task | None = None

    def wait(self) -> Generator[Any, Any, None]:
        """Wait until `wake`."""
        self._task = current_task()
        return wait_task_rescheduled(self._abort).__await__()  # noqa: ASYNC105 - by the caller

    def wake(self) -> None:
        """Wake the task."""
        if self._task is not None:
            task, self._task = self._task, None
            reschedule(task)

    def _abort(self, _: object) -> Abort:
        self._task = None
        return Abort.SUCCEEDED
