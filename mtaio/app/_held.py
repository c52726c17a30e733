"""
An async context manager that is entered and left in a task of its own.

Promise: it stays entered from `enter` to `release`, even while everything around it is being
cancelled, and is closed in the task that opened it: it may hold a task group or a cancel scope. A
release has a time limit, after which it is cancelled.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import anyio

from mtaio._internal import clock
from mtaio._internal.cancellation import failure_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskGroup

__all__ = ["Held"]

_CANCELLED: Final = 0.1
"""Seconds that one that was cancelled has to end, before the next is released."""

logger: Final = logging.getLogger("mtaio.app")


class Held:
    """
    One context manager.

    Args:
        what: What it is called in messages, such as ``resource 'database'``.
        manager: The context manager, not entered yet.
        failed: Called if it fails while it is held, with what it raised.
    """

    def __init__(
        self,
        what: str,
        manager: AbstractAsyncContextManager[Any],
        failed: Callable[[str, BaseException], None],
    ) -> None:
        self.what: Final = what
        self.value: Any = None
        self._manager = manager
        self._failed = failed
        self._scope: Final = anyio.CancelScope(shield=True)
        self._entered: Final = anyio.Event()
        self._released: Final = anyio.Event()
        self._ended: Final = anyio.Event()
        self._error: BaseException | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is entered, and has not been left."""
        return self._entered.is_set() and not self._ended.is_set()

    async def enter(self, group: TaskGroup) -> None:
        """
        Enter the context manager in a task of the group.

        A checkpoint; cancelled, it cancels the entering, which `release` waits for.

        Raises:
            BaseException: What entering raised.
        """
        group.start_soon(self._hold, name=self.what)
        try:
            await self._entered.wait()
        except BaseException:
            self._scope.cancel()
            raise
        if self._error is not None:
            raise self._error

    async def release(self, until: float) -> None:
        """
        Leave the context manager, and wait until that is done; after ``until`` it is cancelled.

        What does not end when it is cancelled is left behind, with a line in the log.
        """
        self._released.set()
        self._scope.deadline = clock.loop_deadline(until)
        with anyio.CancelScope(deadline=clock.loop_deadline(until + _CANCELLED)):
            await self._ended.wait()
        if not self._ended.is_set():
            logger.error("%s does not close, though it was cancelled: it is left open", self.what)

    async def _hold(self) -> None:
        try:
            with self._scope:
                async with self._manager as self.value:
                    self._entered.set()
                    await self._released.wait()
            if not (self._released.is_set() or self._scope.cancel_called):
                self._failed(self.what, _closed_itself(self.what))
            if self._scope.cancelled_caught and anyio.current_time() >= self._scope.deadline:
                logger.error("%s took too long to close: it was cancelled", self.what)
        except BaseException as error:  # noqa: BLE001 - kept, and told
            self._error = failure_in(error, self.what) or error
            if self._entered.is_set():
                self._failed(self.what, self._error)
        finally:
            self._entered.set()
            self._ended.set()


def _closed_itself(what: str) -> RuntimeError:
    return RuntimeError(
        f"{what} has closed by itself, without an error. Look for a cancel scope or a timeout "
        f"around what it yields: it must stay open until it is closed."
    )
