"""
The rest of a tier, in one task of the emitter's ``async with`` block.

Promise: it runs under the deadline that the emit had when the tier began, and in its context; it
ends with the emit, whichever way that ends, and never after it.

A scope cannot be opened around a handler that has begun: the handler may hold scopes of its own by
then, and they would close in the wrong order. So the rest needs a group that was open before, and
that is the block's. It is shielded from what cancels the block, because it is the caller's work.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from mtaio.exceptions import TaskCancelledError
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from mtaio.events._home import Home
    from mtaio.events._listener import Listener

__all__ = ["Batch"]


class Batch:
    """
    What is left of a tier, once one of its handlers has suspended.

    Args:
        home: The block to run in.
        rest: The listeners not yet called. Taken, and so emptied, by `start`.
        work: What to do with them.

    Invariants:
    - ``_scope`` and ``_over`` are there from `start` on; ``_over`` is set when the task has ended,
      or will do nothing;
    - it is among ``home.batches`` in between.
    """

    __slots__ = (
        "_begun",
        "_context",
        "_deadline",
        "_home",
        "_left",
        "_over",
        "_rest",
        "_scope",
        "_work",
    )

    def __init__(
        self,
        home: Home,
        rest: Iterator[Listener],
        work: Callable[[Iterator[Listener]], Awaitable[None]],
    ) -> None:
        # Both are taken before a handler runs: one that has suspended may be inside a deadline, or
        # a context variable, of its own.
        self._context = copy_context()
        self._deadline = anyio.current_effective_deadline()
        self._home = home
        self._rest = rest
        self._work = work
        self._scope: anyio.CancelScope
        self._over: anyio.Event | None = None
        self._begun = False
        self._left = False

    def start(self) -> None:
        """Start the task, if there is anything left to do."""
        rest = tuple(self._rest)
        if rest:
            self._over = anyio.Event()
            self._scope = anyio.CancelScope(deadline=self._deadline, shield=True)
            self._home.batches.add(self)
            self._context.run(self._home.group.start_soon, self._run, iter(rest))

    async def wait(self) -> Exception | None:
        """Wait for the task's end; return what to report if it was cut short."""
        if self._over is None:
            return None
        if not self._over.is_set():
            await self._over.wait()
        if not self._scope.cancelled_caught:
            return None
        await checkpoint_if_cancelled()  # if the same deadline ends the emit, that comes first
        if self._left:
            return TaskCancelledError(
                "handlers were cancelled: the block of the emitter was left by an error while "
                "another task was emitting. Emit inside the block, or in tasks that end with it."
            )
        return MTAIOTimeoutError(
            "handlers were cut off at the deadline that the emit had when they were started; it "
            "was moved meanwhile, which handlers in tasks of their own do not see",
            deadline=self._deadline,
        )

    async def end(self) -> None:
        """Cancel the task, and wait for its end."""
        if self._over is None or self._over.is_set():
            return
        self._scope.cancel()
        if not self._begun:
            self._finish()  # it will find itself cancelled; and never runs if its loop is ending
            return
        with anyio.CancelScope(shield=True):
            while not self._over.is_set():
                try:
                    await self._over.wait()
                except anyio.get_cancelled_exc_class():
                    continue  # another Task.cancel(), which minds no shield: one is on its way out

    def leave(self) -> None:
        """Cancel the task, because the block is left."""
        self._left = True
        self._scope.cancel()

    async def _run(self, rest: Iterator[Listener]) -> None:
        self._begun = True
        try:
            with self._scope:
                await checkpoint_if_cancelled()
                await self._work(rest)
        finally:
            self._finish()

    def _finish(self) -> None:
        if self._over is not None:
            self._over.set()
        self._home.note_end(self)
