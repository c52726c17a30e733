"""
The body of ``async with app``: what the program does while its application is up.

Promise: once requests and services have ended, a body that waits for something that never comes is
cancelled, and the program goes on behind the block. One that ends by itself is left the time to
drain: one that looks at ``app.draining``, or waits for the application's end.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Body"]


class Body:
    """
    One body; made in the task that enters the block.

    Attributes:
        ended: Set when it was left, or waits for the end of its application.
        drains: Whether it has looked at ``app.draining``.
        left: Whether it was left.
    """

    # Invariants:
    # - _inside holds the bodies around the running code, and around the tasks they have started;
    # - _scope is left by the task that has entered it, or not at all.
    def __init__(self) -> None:
        self.ended: Final = anyio.Event()
        self.drains = False
        self.left = False
        self._scope: Final = anyio.CancelScope()
        self._task: Final = anyio.get_current_task().id

    def is_around(self) -> bool:
        """Return whether the running code is in it."""
        # A fixture's body is the test, which has the fixture's task, but not always its context.
        return self in _inside.get() or self._is_in_its_task()

    def begin(self) -> None:
        """Begin it."""
        _inside.set((*_inside.get(), self))
        self._scope.__enter__()

    def leave(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Leave it, and return whether what it ended with was `cancel` and nothing else."""
        self.left = True
        self.ended.set()
        _inside.set(tuple(each for each in _inside.get() if each is not self))
        if not self._is_in_its_task():  # a fixture's: the task that entered is over
            return False
        return bool(self._scope.__exit__(exc_type, exc, traceback))

    def _is_in_its_task(self) -> bool:
        try:
            return anyio.get_current_task().id == self._task
        except anyio.NoEventLoopError:  # another thread
            return False

    def cancel(self) -> bool:
        """Cancel it, unless it has ended; return whether it was there to be cancelled."""
        # On asyncio a scope whose task is over would be cancelled again and again, for ever.
        if self.ended.is_set() or all(each.id != self._task for each in anyio.get_running_tasks()):
            return False
        self._scope.cancel()
        return True


_inside: Final[ContextVar[tuple[Body, ...]]] = ContextVar("_inside", default=())
