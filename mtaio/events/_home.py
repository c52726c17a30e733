"""
What happens between entering and leaving ``async with emitter:``.

Promise: what `emit_soon` has taken is delivered in its order, one event after another, within the
block; leaving it waits for the rest, or drops and counts it when the block is left by an error. An
error of such a delivery, which has no caller, ends the block and is raised by it.
"""

from __future__ import annotations

import sys
from collections import deque
from contextvars import copy_context
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from mtaio._internal import loops, scope
from mtaio._internal.callables import close_unstarted
from mtaio._internal.cancellation import failure_in, without_cancellation
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio.events._begin import inside
from mtaio.exceptions import EventOverflowError, StrayCancellationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from anyio.abc import TaskGroup

    from mtaio.events._batch import Batch
    from mtaio.events._event import Event

__all__ = ["Home"]


class Owner(Protocol):
    """The emitter, for messages."""

    @property
    def name(self) -> str | None:
        """Its name."""
        ...


class Home:
    """
    One block, from entering to leaving; made in its event loop.

    Args:
        owner: The emitter, for messages.
        deliver: What emits an event and waits for its handlers.
        max_pending: How many events may wait to be delivered.

    Invariants:
    - ``batches`` are those whose task has not ended;
    - ``_working`` says that a task delivers what is in ``_queue``; without it the queue is empty,
      unless the block has failed or is being cancelled;
    - ``annex`` is a group inside ``group``, shielded from what cancels the block; no batch is
      started in it unless ``_open``; ``_lost`` says that it ended before it was told to.
    """

    def __init__(
        self,
        owner: Owner,
        deliver: Callable[[Event[Any]], Coroutine[Any, Any, None]],
        max_pending: int,
    ) -> None:
        self.loop = loops.current_loop()
        self.group = anyio.create_task_group()
        self.annex: TaskGroup  # there once the block is entered
        self.batches: set[Batch] = set()
        self.late: set[Batch] = set()
        self._thread = get_ident()
        self._gone: Callable[[], bool] = getattr(self.loop, "is_closed", _never)
        self._annexed = anyio.Event()
        self._leave_annex = anyio.Event()
        self._owner = owner
        self._deliver = deliver
        self._max_pending = max_pending
        self._queue: deque[Event[Any]] = deque()
        self._worker: anyio.TaskHandle[Any] | None = None
        self._working = False
        self._delivering = False
        self._open = False
        self._lost = False
        self._failure: BaseException | None = None
        self._news: anyio.Event | None = None
        # Not that of whoever calls emit_soon first: he would lend his to all that come later.
        self._context = copy_context()

    @property
    def pending(self) -> int:
        """How many events were taken and not yet delivered."""
        return len(self._queue) + self._delivering

    async def enter(self) -> None:
        """Enter the block. A checkpoint."""
        self._task = anyio.get_current_task().id
        await self.group.__aenter__()
        try:
            # group.start() would wait for ever if it were cancelled: what it starts is shielded.
            self.group.start_soon(self._keep_annex)
            await self._annexed.wait()
            self._open = True
        finally:
            if not self._open:
                self._leave_annex.set()
                await self.group.__aexit__(*sys.exc_info())

    def check_task(self) -> None:
        """Refuse to leave the block in another task than the one that entered it."""
        if anyio.get_current_task().id != self._task:
            msg = (
                f"{self._owner!r} was entered in another task. Enter and leave it in one, with "
                f"async with: what is cancelled, and whose errors are seen, hangs on the task."
            )
            raise RuntimeError(msg)

    def takes_batches(self) -> bool:
        """Tell whether a batch may be started here, from the running loop."""
        # Asked by each emit of several async handlers. Asking for the running loop would cost a
        # tenth of that. In this thread another runs only when the block's has stopped inside it,
        # and trio's never does.
        return self._open and get_ident() == self._thread and not self._gone()

    def note_end(self, batch: Batch) -> None:
        """Note that a batch has ended."""
        self.batches.discard(batch)
        if self._news is not None:
            self._news.set()

    def put(self, event: Event[Any]) -> None:
        """Take an event, to be delivered in its turn."""
        if not loops.is_current(self.loop):
            msg = (
                f"{self._owner!r} was entered in another event loop. From a worker thread, call "
                f"anyio.from_thread.run_sync(emitter.emit_soon, ...)."
            )
            raise RuntimeError(msg)
        if self._failure is not None or not (self._open or self._working):
            msg = (
                f"{self._owner!r} is being entered or left, and takes no event to deliver. Call "
                f"emit_soon() inside the block, or await emit()."
            )
            raise RuntimeError(msg)
        if len(self._queue) >= self._max_pending:
            msg = (
                f"{self._owner!r} holds max_pending={self._max_pending} events that are not "
                f"delivered yet. Raise max_pending, or await emit(), which waits for the handlers."
            )
            raise EventOverflowError(msg, name=self._owner.name)
        self._queue.append(event)
        if not self._working:
            self._working = True
            start: Callable[..., anyio.TaskHandle[Any]] = self.group.start_soon
            self._worker = start(self._work)

    async def leave(self, exc: BaseException | None) -> None:
        """Leave the block, which ended with ``exc``."""
        self._open = False
        reason = await self._wind_down() if exc is None else exc
        if reason is not None:
            for batch in self.batches:
                batch.leave()
            self.group.cancel_scope.cancel()
        self._leave_annex.set()
        # An error of the body's is not this group's to wrap; its own cancellation is to take out.
        shown = (
            reason if reason is not None and without_cancellation(reason) is not reason else None
        )
        left = (await scope.leave(self.group, shown)).raised
        for batch in self.late:
            batch.forget()
        if self._worker is not None:
            close_unstarted(self._worker.coro)
        failure = self._failure
        beside = exc if shown is None else left
        try:
            if failure is not None:
                if beside is not None and without_cancellation(beside) is beside:
                    msg = "errors of the block, and of an event that it was to deliver"
                    raise BaseExceptionGroup(msg, [beside, failure]) from None
                raise failure
            if left is None and (shown is not None or self._working or self._lost):
                left = StrayCancellationError(
                    f"tasks of {self._owner!r} were cancelled although its block was not. Look for "
                    f"what cancels tasks that are not its own, such as all of asyncio.all_tasks()."
                )
            # An error of the body's goes on, whatever else happens here.
            if left is not None and (exc is None or shown is not None):
                raise left
        finally:
            del beside, exc, failure, left, reason, shown  # they hold this frame

    def undelivered(self) -> list[Event[Any]]:
        """Return the events that will never be delivered."""
        return [*self._queue]

    async def _wind_down(self) -> BaseException | None:
        """Wait for the batches of other tasks; return what prevented it."""
        try:
            while self.batches:
                self._news = anyio.Event()
                await self._news.wait()
        except BaseException as error:  # noqa: BLE001 - the group has to see it first
            return error
        return None

    async def _keep_annex(self) -> None:
        try:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as self.annex:
                    self._annexed.set()
                    await self._leave_annex.wait()
        finally:
            self._open = False
            # Not told to end: somebody has cancelled this task, or one of a batch.
            self._lost = not self._leave_annex.is_set()
            if self._lost:
                self.group.cancel_scope.cancel()

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
                # What one delivery sets is nothing to the next.
                await inside(self._context.copy(), self._deliver(self._queue.popleft()))
                self._delivering = False
        except GeneratorExit:
            raise
        except BaseException as error:
            if not self._end_by(error):
                raise
        finally:
            self._working = self._delivering = False

    def _end_by(self, error: BaseException) -> bool:
        """Keep what is to be raised where the block is left; return False for a cancellation."""
        # A cancellation comes in a group, if it comes from a nursery of trio's.
        rest = failure_in(error, f"delivering an event of {self._owner!r}")
        if rest is None:
            return False
        self._failure = rest
        self.group.cancel_scope.cancel()
        return True


def _never() -> bool:
    return False
