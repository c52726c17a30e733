"""
A service: started, ready, kept alive, and ended with the executor's block.

Promise: a failure before it is ready goes to whoever starts it; a later one is answered by a
restart, or ends the block. Neither goes unnoticed: restarts are logged to ``mtaio.core``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from mtaio._internal import clock
from mtaio.core._notes import note
from mtaio.core._task import Task, TaskStatus, unmixed
from mtaio.exceptions import TaskCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from anyio.abc import TaskStatus as Readiness

    from mtaio.core._block import Block
    from mtaio.core._retry import Retry


class Service(Task):
    """
    One service.

    Args:
        name: Of its function.
        block: The block in which it lives.
        fn: What runs, once for each start and restart.
        restart: How often it may be started again; None for never.
    """

    __slots__ = ("_block", "_fn", "_ready", "_report", "_restart", "_scope")

    def __init__(
        self,
        name: str,
        block: Block,
        fn: Callable[..., Coroutine[Any, Any, Any]],
        restart: Retry | None,
    ) -> None:
        super().__init__(name, block.loop)
        self._block = block
        self._fn = fn
        self._restart = restart
        self._report: Readiness[Any]  # there as soon as it runs
        self._ready = False
        self._scope = anyio.CancelScope()
        self.cancellable = self._scope  # from now on: it may be cancelled before its first step
        block.services[self] = None

    def started(self, value: Any = None) -> None:
        """Note that the service is ready (this object is the ``task_status`` it gets)."""
        if self._ready:
            return  # it was restarted: whoever started it was told long ago
        self._ready = True
        self.start_value = value
        self.release_all()  # whoever started it goes on
        self._report.started(value)

    async def run(self, *, task_status: Readiness[Any]) -> None:
        """Run it to its end, restarts included (in the executor's task group)."""
        self.enter()
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
        """Be no service of the block any more."""
        self._block.services.pop(self, None)

    async def _supervise(self) -> Any:
        attempt = 1
        while True:
            began = clock.now()
            try:
                result = await unmixed(partial(self._fn, task_status=self), self._fn)
            except Exception as error:
                policy = self._restart
                if policy is None or not self._ready or not policy.accepts(error):
                    raise
                if clock.now() - began > policy.wait_max:
                    attempt = 1  # it had recovered
                if attempt >= policy.attempts:
                    note(error, f"gave up after {attempt} attempts")
                    raise
                attempt += 1
                wait = policy.wait_before(attempt, error)
                self._log(error, wait, attempt, policy.attempts)
            else:
                if not self._ready:
                    msg = (
                        f"the service {self.name} returned before it was ready. Have it call "
                        f"task_status.started(); to run a function to its end use submit()."
                    )
                    raise RuntimeError(msg)
                return result
            await anyio.sleep_until(clock.loop_deadline(clock.now() + wait))

    def _log(self, error: Exception, wait: float, attempt: int, attempts: int) -> None:
        from logging import getLogger  # noqa: PLC0415 - most programs never restart a service

        getLogger("mtaio.core").warning(
            "service %s failed; attempt %d of %d in %.3g s",
            self.name,
            attempt,
            attempts,
            wait,
            exc_info=error,
        )
