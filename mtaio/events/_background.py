"""
The events that `emit_nowait` has taken, and the ``async with`` block that delivers them.

Promise: events are delivered in the order in which they were taken, one after another, inside the
block; leaving it waits for the rest, or drops the rest when the block is left by an error. The
error of a delivery, which has no caller, ends the block and is raised by it.
"""

from __future__ import annotations

from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from mtaio._internal.block import OwnedBlock
from mtaio._internal.callables import close_unstarted
from mtaio._internal.cancellation import failure_in, without_cancellation
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.steps import run_in
from mtaio.exceptions import EventOverflowError, StrayCancellationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import anyio

    from mtaio.events._event import Event

__all__ = ["Background"]


class Background:
    """
    One block, from entering to leaving; made in its event loop.

    Args:
        owner: The emitter, for messages.
        name: Its name, for errors.
        deliver: Emits an event and waits for its handlers.
        max_pending: How many events may wait to be delivered; None for no limit.

    Invariant: ``_working`` says that a task delivers what is in ``_queue``; without it the queue is
    empty, unless the block has failed or is being cancelled.
    """

    __slots__ = (
        "_block",
        "_context",
        "_deliver",
        "_delivering",
        "_failure",
        "_leaving",
        "_max_pending",
        "_name",
        "_owner",
        "_queue",
        "_worker",
        "_working",
    )

    def __init__(
        self,
        owner: object,
        name: str | None,
        deliver: Callable[[Event[Any]], Coroutine[Any, Any, None]],
        max_pending: int | None,
    ) -> None:
        self._owner = owner
        self._name = name
        self._deliver = deliver
        self._max_pending = max_pending
        self._block = OwnedBlock(owner)
        self._queue: deque[Event[Any]] = deque()
        self._worker: anyio.TaskHandle[Any] | None = None
        self._working = False
        self._delivering = False
        self._leaving = False
        self._failure: BaseException | None = None
        # Not that of the first caller of emit_nowait, which must not affect later events.
        self._context = copy_context()

    @property
    def pending(self) -> int:
        """How many events were taken and not yet delivered."""
        return len(self._queue) + self._delivering

    def is_over(self) -> bool:
        """Return whether the block can never be left: its loop is over, or this is a fork."""
        return self._block.is_over()

    def is_current(self) -> bool:
        """Return whether the block's event loop is running here."""
        return self._block.is_current()

    def check_task(self) -> None:
        """Raise ``RuntimeError`` if the running task is not the one that entered."""
        self._block.check_task()

    def is_closed(self) -> bool:
        """Return whether no more events are taken, because the block failed or is being left."""
        return self._failure is not None or (self._leaving and not self._working)

    async def enter(self) -> None:
        """Enter the block. Not a checkpoint."""
        await self._block.enter()

    def put(self, event: Event[Any]) -> None:
        """Take an event, in the block's event loop, to be delivered after those taken before."""
        if self.is_closed():
            msg = (
                f"{self._owner!r} is closing and takes no more events. Call emit_nowait() "
                f"inside the block, or await emit()."
            )
            raise RuntimeError(msg)
        if self._max_pending is not None and len(self._queue) >= self._max_pending:
            msg = (
                f"{self._owner!r} holds max_pending={self._max_pending} events that are not "
                f"delivered yet. Raise max_pending, or await emit(), which waits for the handlers."
            )
            raise EventOverflowError(msg, name=self._name)
        self._queue.append(event)
        if not self._working:
            self._working = True
            self._worker = self._block.start(self._work, name="EventEmitter.emit_nowait")

    async def leave(self, exc: BaseException | None) -> None:
        """Leave the block, which ended with ``exc``."""
        self._leaving = True
        cancelled = exc is not None and without_cancellation(exc) is not exc
        raised = (await self._block.leave(exc)).raised  # an error of the body cancels what runs
        if self._worker is not None:
            close_unstarted(self._worker.coro)
        own = raised if cancelled else exc
        failure, self._failure = self._failure, None
        try:
            if failure is not None:
                if own is not None and without_cancellation(own) is own:
                    msg = "errors of the block, and of an event that it delivered"
                    raise BaseExceptionGroup(msg, [own, failure]) from None
                raise failure
            if exc is not None and not cancelled:
                return  # the body's error goes on as it is
            if raised is not None:
                raise raised
            if cancelled or self._queue:
                msg = (
                    f"tasks of {self._owner!r} were cancelled although its block was not. Look for "
                    f"code that cancels tasks it does not own, such as all of asyncio.all_tasks()."
                )
                raise StrayCancellationError(msg)
        finally:
            del exc, failure, own, raised  # which hold this frame

    def undelivered(self) -> list[Event[Any]]:
        """Return the events that will never be delivered."""
        return [*self._queue]

    async def _work(self) -> None:
        """Deliver what there is, in order."""
        try:
            delivered = 0
            while True:
                if not delivered % FAST_CALLS:
                    await checkpoint()  # before an event is taken: cancelled here, it is not lost
                if not self._queue:
                    return
                delivered += 1
                self._delivering = True
                event = self._queue.popleft()
                # What the handlers of one event set must not affect the next.
                await run_in(self._context.copy(), self._deliver(event))
                self._delivering = False
        except BaseException as error:
            failure = failure_in(error, f"delivering an event of {self._owner!r}")
            if failure is None:
                raise
            self._failure = failure
            self._block.cancel()
        finally:
            self._working = self._delivering = False
