"""The handle of a function that runs again and again in an executor's block."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, final

if TYPE_CHECKING:
    from mtaio._internal.periodic import Periodic, PeriodicStatistics
    from mtaio.core._tasks import Task

__all__ = ["PeriodicTask"]


@final
class PeriodicTask:
    """
    A function that runs periodically, as returned by `TaskExecutor.every`.

    A monitor can watch it, and `check_health` can be added to a `mtaio.monitoring.HealthRegistry`.

    Example:
        ```python
        import anyio

        from mtaio import TaskExecutor


        async def clean() -> None:
            print("clean")


        async def main() -> None:
            async with TaskExecutor() as executor:
                cleaning = executor.every(0.1, clean)
                await anyio.sleep(0.25)
                print(cleaning.statistics().runs)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ("__weakref__", "_periodic", "_task")

    def __init__(self, periodic: Periodic, task: Task | None) -> None:
        self._periodic = periodic
        self._task: Task = cast("Task", task)  # None where only the application has this object

    def __repr__(self) -> str:
        return f"<PeriodicTask {self.name!r}>"

    @property
    def name(self) -> str:
        """Name shown in messages and metrics."""
        return self._periodic.name

    def stop(self) -> None:
        """
        Start no more runs; a run in progress continues to its end.

        Not a checkpoint.

        Raises:
            RuntimeError: Called outside the event loop in which the task runs.
        """
        if not self._task.ended:
            self._task.check_loop("stop")
            self._periodic.stop()

    def cancel(self) -> None:
        """
        Start no more runs and cancel a run in progress.

        Not a checkpoint. Await `wait` to be sure that the task has ended.

        Raises:
            RuntimeError: Called outside the event loop in which the task runs.
        """
        self._task.cancel()

    async def wait(self) -> None:
        """
        Wait until the task has ended.

        A checkpoint unless it already has.

        Raises:
            RuntimeError: Called from within the task itself, or in another event loop.
        """
        await self._task.wait()

    def check_health(self) -> str | None:
        """
        Return a description of the problem, or None if there is none.

        There is a problem if no run has succeeded for three ticks in a row and the next is due, in
        the process that makes the runs. Not a checkpoint.
        """
        return self._periodic.check_health()

    def statistics(self) -> PeriodicStatistics:
        """
        Return a snapshot of the task.

        Not a checkpoint. It can be called from any thread.
        """
        return self._periodic.statistics()
