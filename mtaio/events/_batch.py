"""
The rest of a tier, in tasks of the emitter's ``async with`` block.

Promise: it runs under the deadline that the emit had when the tier began, and in its context; it
ends with the emit, whichever way that ends, and never after it.

A scope cannot be opened around a handler that has begun: the handler may hold scopes of its own by
then, and they would close in the wrong order. So the rest needs a group that was open before, and
that is the block's, shielded from what cancels the block: the handlers are the caller's work.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from mtaio._internal.callables import close_unstarted
from mtaio.exceptions import TaskCancelledError
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from contextvars import Context

    from mtaio.events._home import Home
    from mtaio.events._listener import Listener

__all__ = ["Batch"]


class Batch:
    """
    What is left of a tier, once one of its handlers has suspended.

    Args:
        home: The block to run in.
        parts: The listeners not yet called; each part gets a task.
        work: What to do with a part.
        context: The emit's context when the tier began.
        deadline: Its deadline then, in the event loop's clock.

    Invariants:
    - ``_waiting`` counts the tasks that have not begun, ``_running`` those that have and go on;
    - ``_over`` is set when both are 0, and the batch is among ``home.batches`` until then;
    - ``_late`` counts the tasks that were given up before they began; one that still begins does
      nothing; the batch is among ``home.late`` while there are any.
    """

    __slots__ = (
        "_cut_off",
        "_deadline",
        "_handles",
        "_home",
        "_late",
        "_left",
        "_over",
        "_running",
        "_waiting",
    )

    def __init__(
        self,
        home: Home,
        parts: Iterable[Iterator[Listener]],
        work: Callable[[Iterator[Listener]], Awaitable[None]],
        *,
        context: Context,
        deadline: float,
    ) -> None:
        self._home = home
        self._deadline = deadline
        self._over = anyio.Event()
        self._running = 0
        self._late = 0
        self._cut_off = False
        self._left = False
        start: Callable[..., anyio.TaskHandle[Any]] = home.annex.start_soon
        self._handles = [context.run(start, self._run, work, part) for part in parts]
        self._waiting = len(self._handles)
        home.batches.add(self)

    def cancel(self) -> None:
        """Cancel what runs."""
        for handle in self._handles:
            handle.cancel()

    def leave(self) -> None:
        """Cancel what runs, because the block is left."""
        self._left = True
        self.cancel()

    async def wait(self) -> Exception | None:
        """Wait for the end; return what to report if it was cut short."""
        if not self._over.is_set():
            await self._over.wait()
        if not (self._cut_off or self._left):
            return None
        # If what has cut them off ends the emit too, that comes first. The emit's own deadline is
        # no later then, unless it was moved, and due; timers may still be a moment apart.
        while not self._left and anyio.current_effective_deadline() <= self._deadline:  # noqa: ASYNC110 - a deadline tells nobody
            await anyio.sleep(0.001)
        await checkpoint_if_cancelled()
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
        """Cancel what runs, and wait for its end."""
        self.cancel()
        if self._waiting:
            # Waiting for them might be for ever: a task that is hit by Task.cancel() before its
            # first step never takes that.
            self._waiting, self._late = 0, self._waiting
            self._home.late.add(self)
        self._look()
        with anyio.CancelScope(shield=True):
            while not self._over.is_set():
                try:
                    await self._over.wait()
                except anyio.get_cancelled_exc_class():
                    continue  # another Task.cancel(), which minds no shield: one is on its way out

    def forget(self) -> None:
        """Note that the tasks given up will never begin."""
        for handle in self._handles:
            close_unstarted(handle.coro)

    async def _run(
        self, work: Callable[[Iterator[Listener]], Awaitable[None]], part: Iterator[Listener]
    ) -> None:
        if self._late:
            self._late -= 1
            if not self._late:
                self._home.late.discard(self)
            return
        self._waiting -= 1
        self._running += 1
        try:
            if self._deadline == math.inf:
                await work(part)
                return
            with anyio.CancelScope(deadline=self._deadline) as scope:
                await work(part)
            self._cut_off |= scope.cancelled_caught
        finally:
            self._running -= 1
            self._look()

    def _look(self) -> None:
        """See whether it is over."""
        if not (self._waiting or self._running):
            if not self._late:
                self._handles.clear()  # they hold errors, which hold frames, which hold this
            self._over.set()
            self._home.note_end(self)
