"""
Runs a monitor's handlers in its event loop, or passes its events on to an emitter.

Promise: events are handled one after another, in order; the handlers of one event at once, each
under a timeout. A handler that fails or is too slow is logged and counted, and stops nothing else.
At most ``MAX_PENDING`` events wait; any more are dropped and counted.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import anyio

from mtaio._internal import checks, loops
from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import failure_in
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.signature import check_takes
from mtaio.exceptions import StrayCancellationError

if TYPE_CHECKING:
    from contextvars import Context

    from mtaio.monitoring._stats import Stall

__all__ = ["MAX_PENDING", "Delivery", "Emitter", "Handlers", "log_aside", "logger"]

MAX_PENDING: Final = 1000

logger: Final = logging.getLogger("mtaio.monitoring")

_current: Final[ContextVar[object]] = ContextVar("mtaio.monitoring.delivery", default=None)
"""The delivery that runs the handler this code is in."""


class Emitter(Protocol):
    """The protocol of what ``ResourceMonitor.forward_to`` accepts, such as an `EventEmitter`."""

    def emit(self, name: str, /, data: Any) -> Coroutine[Any, Any, Any]:
        """Emit an event."""
        ...


class Handlers:
    """
    What is called for each kind of event, and what became of the calls.

    Args:
        timeout: Seconds that each call may take; None for no limit.
    """

    __slots__ = (
        "_by_kind",
        "dropped",
        "handled",
        "handlers_failed",
        "handlers_timed_out",
        "timeout",
    )

    def __init__(self, timeout: float | None) -> None:
        self._by_kind: dict[str, tuple[Callable[..., Any], ...]] = {}
        self.timeout: float | None = timeout
        self.handled: int = 0
        self.handlers_failed: int = 0
        self.handlers_timed_out: int = 0
        self.dropped: int = 0

    def add(self, kind: str, handler: Callable[..., Any]) -> None:
        """
        Have ``handler`` called for events of one kind, after those that are there.

        Raises:
            TypeError: It cannot be called with what is known of such an event.
        """
        checks.callable_("handler", handler, way_out="Pass a function, sync or async.")
        given = ("stall",) if kind == "blocked" else ("metric", "value", "threshold")
        check_takes("handler", handler, *given, way_out="Let it take these arguments.")
        self._by_kind[kind] = (*self._by_kind.get(kind, ()), handler)

    def add_emitter(self, emitter: Emitter) -> None:
        """
        Have ``emitter`` emit all events.

        Raises:
            TypeError: It has no method ``emit``.
        """
        if not callable(getattr(emitter, "emit", None)):
            msg = f"cannot forward to {emitter!r}: it has no method emit(). Pass an EventEmitter."
            raise TypeError(msg)

        def emits(event: str) -> Callable[[str, float, float], Coroutine[Any, Any, None]]:
            async def emit(metric: str, value: float, threshold: float) -> None:
                data = {"metric": metric, "value": value, "threshold": threshold}
                await emitter.emit(event, data)

            return emit

        async def blocked(stall: Stall) -> None:
            await emitter.emit("monitor.loop_blocked", stall)

        self.add("exceeded", emits("monitor.threshold_exceeded"))
        self.add("recovered", emits("monitor.recovered"))
        self.add("blocked", blocked)

    def of(self, kind: str) -> tuple[Callable[..., Any], ...]:
        """Return the handlers of one kind of event."""
        return self._by_kind.get(kind, ())

    async def call(self, handler: Callable[..., Any], args: tuple[object, ...]) -> None:
        """Call one handler and wait for it."""
        what = f"the handler {name_of(handler)}"
        scope = anyio.CancelScope()
        try:
            with anyio.move_on_after(self.timeout) as scope:
                answer = handler(*args)
                if inspect.isawaitable(answer):
                    await answer
        except BaseException as error:
            failure = failure_in(error, what)
            if failure is None:
                raise
            if isinstance(failure, StrayCancellationError):
                # asyncio's loop, when it ends, cancels this task first and its group next.
                await checkpoint()
            self.handlers_failed += 1
            logger.error("%s failed", what, exc_info=failure)  # noqa: TRY400 - the failure alone
            return
        if scope.cancelled_caught:
            self.handlers_timed_out += 1
            logger.error("%s did not return within %s s, and was cancelled", what, self.timeout)
        else:
            self.handled += 1


class _Event(NamedTuple):
    """What happened."""

    handlers: tuple[Callable[..., Any], ...]
    args: tuple[object, ...]


class Delivery:
    """
    The events of a monitor in one event loop.

    Args:
        loop: The event loop, as `loops.current_loop` returned it.
        context: What handlers run in a copy of.
        handlers: Whom to call.

    Invariant: while ``_working`` is set, a task of the loop takes what is in ``_queue``; only code
    in the loop's thread changes it.
    """

    __slots__ = ("_context", "_handlers", "_idle", "_loop", "_queue", "_scope", "_working")

    def __init__(self, loop: object, context: Context, handlers: Handlers) -> None:
        self._loop = loop
        self._context = context
        self._handlers = handlers
        self._queue: deque[_Event] = deque()
        self._working = False
        self._idle: anyio.Event
        self._scope: anyio.CancelScope | None = None

    def post(self, kind: str, *args: object) -> None:
        """Have the handlers of ``kind`` called; from any thread."""
        handlers = self._handlers.of(kind)
        if not handlers:
            return
        if len(self._queue) >= MAX_PENDING:
            self._handlers.dropped += 1
            return
        self._queue.append(_Event(handlers, args))
        loops.call_in(self._loop, self._start)

    async def finish(self) -> None:
        """
        Wait for the handlers at work and the events that wait; not in one of the handlers.

        A checkpoint; cancelled, it drops those events, and cancels the handlers and waits for them.
        """
        if _current.get() is self:
            await checkpoint()
            return
        try:
            await checkpoint()
            await self._until_idle()
        except BaseException:
            self._queue.clear()
            if self._scope is not None:
                self._scope.cancel()
            with anyio.CancelScope(shield=True):
                await self._until_idle()
            raise

    async def _until_idle(self) -> None:
        self._start()
        while self._working:
            await self._idle.wait()

    def _start(self) -> None:
        """Start a task if there is something to do and none does it: in the loop's thread."""
        if self._queue and not self._working:
            self._working = True
            self._idle = anyio.Event()
            loops.start_task(self._loop, self._work, self._context.copy(), self._ended)

    async def _work(self) -> None:
        _current.set(self)
        try:
            with anyio.CancelScope() as self._scope:
                while self._queue:
                    event = self._queue.popleft()
                    await self._call_all(event)
        except BaseException:  # the loop ends, and no handler shall begin in its last moments
            self._queue.clear()
            raise

    async def _call_all(self, event: _Event) -> None:
        calls = [self._handlers.call(handler, event.args) for handler in event.handlers]
        try:
            async with anyio.create_task_group() as group:
                for call in calls:
                    group.create_task(call)
        finally:
            for call in calls:  # asyncio's loop may end before a task's first step
                call.close()

    def _ended(self) -> None:
        self._working = False
        if self._scope is None:  # it could not begin: the loop is ending, and takes no new task
            self._queue.clear()
        self._scope = None
        self._idle.set()
        self._start()  # for what came meanwhile


def log_aside(
    level: int, message: str, *args: object, failure: BaseException | None = None
) -> None:
    """Log from a thread that may wait for a handler, whose lock the blocked thread may hold."""
    thread = threading.Thread(
        target=partial(logger.log, level, message, *args, exc_info=failure),
        name="mtaio.monitoring.log",
        daemon=True,
    )
    with suppress(RuntimeError):  # the interpreter is shutting down
        thread.start()
