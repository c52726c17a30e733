"""
A service: started, ready, kept alive, and ended with the executor's block.

Promise: a failure before it is ready goes to whoever starts it; a later one is answered by a
restart, or ends the block. Neither goes unnoticed: restarts are logged to ``mtaio.core``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from mtaio._internal import clock
from mtaio.core._handle import TaskHandle, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from anyio.abc import TaskStatus as Readiness

    from mtaio.core._retry import Retry


class Service:
    """One service: its function, and how often it may be started again."""

    def __init__(
        self,
        handle: TaskHandle[Any],
        fn: Callable[..., Coroutine[Any, Any, Any]],
        restart: Retry | None,
    ) -> None:
        self._handle = handle
        self._fn = fn
        self._restart = restart
        self._report: Readiness[Any] | None = None
        self._ready = False

    def started(self, value: Any = None) -> None:
        """Note that the service is ready (this object is the ``task_status`` it gets)."""
        if self._ready:
            return  # it was restarted: whoever started it was told long ago
        self._ready = True
        self._handle.set_started(value)
        if self._report is not None:
            self._report.started(value)

    async def run(self, *, task_status: Readiness[Any]) -> None:
        """Run it to its end, restarts included (in the executor's task group)."""
        self._report = task_status
        with anyio.CancelScope() as scope:
            self._handle.set_task(scope)
            self._handle.set_running()
            try:
                result = await self._supervise()
            except Exception as error:
                self._handle.end(TaskStatus.FAILED, error=error)
                raise
            except BaseException as error:
                self._handle.end(TaskStatus.CANCELLED, error=error)
                raise
            self._handle.end(TaskStatus.SUCCEEDED, result=result)

    async def _supervise(self) -> Any:
        attempt = 1
        while True:
            began = clock.now()
            try:
                return await self._fn(task_status=self)
            except Exception as error:
                policy = self._restart
                if policy is None or not self._ready or not policy.accepts(error):
                    raise
                if clock.now() - began > policy.wait_max:
                    attempt = 1  # it had recovered
                if attempt >= policy.attempts:
                    error.add_note(f"gave up after {attempt} attempts")
                    raise
                attempt += 1
                wait = policy.wait_before(attempt, error)
                self._log(error, wait, attempt, policy.attempts)
            await anyio.sleep_until(clock.loop_deadline(clock.now() + wait))

    def _log(self, error: Exception, wait: float, attempt: int, attempts: int) -> None:
        from logging import getLogger  # noqa: PLC0415 - most programs never restart a service

        getLogger("mtaio.core").warning(
            "service %s failed; attempt %d of %d in %.3g s",
            self._handle.name,
            attempt,
            attempts,
            wait,
            exc_info=error,
        )
