"""
The timeout of items, enforced by a block around one attempt or by one watch over a whole call.

Promise: an item that runs longer than its timeout is cancelled and fails with `TimeoutError`; one
that has ended already does not. While no item runs, nothing does.
Cost: under a `Watch`, reading the clock and writing one float for each item. A scope around each
would cost ten times as much, since entering one registers a timer with the event loop.

`Timing` is the timeout: how many seconds, what it is called in errors, and where those that took
longer are counted. It is enforced in one of two ways. `Timing.limit` is a block around one attempt,
where only that can begin at the right moment: after a wait for a token, for a thread or for the
last attempt. `Timing.watch` covers all items of a call whose time runs from when they are taken.
Each worker (`Watched`) holds one cancel scope without a deadline and publishes when its item is
due; the task that makes the call sleeps until the earliest of them (`Watch.run`). All items of a
call have the same timeout, so whatever starts in the meantime is due later, and the sleeper need
not be woken for it. Only when it found no item running, so that it has no moment to sleep until,
does it ask to be woken by the next that suspends.

Both ways publish the moment as a `deadlines.Deadline`, where the item's own code finds it.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import nullcontext
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Self

import anyio

from mtaio._internal import deadlines
from mtaio._internal.callables import name_of
from mtaio._internal.clock import loop_deadline, now
from mtaio.exceptions import TimeoutError  # noqa: A004 - the refined one
from mtaio.resources import TimeoutManager

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from mtaio.core._statistics import Counters

__all__ = ["Timing", "Watch", "Watched"]

_UNLIMITED: AbstractContextManager[None] = nullcontext()


class Timing:
    """
    How long an item, or one attempt of it, may take.

    Args:
        timeout: Seconds; None for no limit.
        counters: Where those that took longer are counted.
        name: The executor's, for errors.
    """

    __slots__ = ("_counters", "_name", "_timeouts", "timeout")

    def __init__(self, timeout: float | None, counters: Counters, name: str | None) -> None:
        self.timeout: float | None = timeout
        self._counters = counters
        self._name = name
        self._timeouts = TimeoutManager(timeout, name=name)

    def limit(self, what: object) -> AbstractContextManager[Any]:
        """Return a context manager that limits its block; errors name the function ``what``."""
        if self.timeout is None:
            return _UNLIMITED
        return _Limit(self, what, self._timeouts())

    def watch(self, on_idle: Callable[[], object]) -> Watch | None:
        """Return what limits all items of one call; None if none of them can be late."""
        if self.timeout is None or self.timeout == math.inf:
            return None
        return Watch(self.timeout, self, on_idle)

    def error(self, what: str, due: float) -> TimeoutError:
        """Count ``what``, which was due at that moment of the event loop, as late."""
        msg = self.note_late(what)
        return TimeoutError(msg, timeout=self.timeout, deadline=due, name=self._name)

    def note_late(self, what: str) -> str:
        """Count ``what`` as late; return the message of its error."""
        self._counters.timed_out += 1
        who = "" if self._name is None else f"{self._name}: "
        return f"{who}{what} did not end within timeout={self.timeout!r} s"


class _Limit:
    __slots__ = ("_block", "_timing", "_what")

    def __init__(self, timing: Timing, what: object, block: AbstractContextManager[Any]) -> None:
        self._timing = timing
        self._what = what
        self._block = block

    def __enter__(self) -> None:
        self._block.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        try:
            return self._block.__exit__(exc_type, exc, tb)
        except TimeoutError as error:  # of the block, which knows no name for what it limits
            error.args = (self._timing.note_late(name_of(self._what)),)
            raise


class Watched:
    """
    A worker under a `Watch`: the limit on its item, and the scope to cancel it by.

    Invariants:
    - ``limit.moment`` is when the present item is due, ``inf`` between items;
    - ``fired`` says that the present item was found to be overdue and is being cancelled; it was
      due at ``_due`` of the event loop's clock.
    """

    __slots__ = ("_due", "_scope", "_watch", "fired", "limit", "timeout")

    def __init__(self, watch: Watch) -> None:
        self.timeout: float = watch.timeout
        self.fired: bool = False
        self._due = math.inf
        self.limit: deadlines.Deadline
        self._watch = watch
        self._scope = anyio.CancelScope()

    def __enter__(self) -> Self:
        self._scope.__enter__()
        self.limit = deadlines.enter(math.inf)
        self._watch.workers.add(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        self._watch.workers.discard(self)
        deadlines.leave(self.limit)
        return self._scope.__exit__(exc_type, exc, tb)

    def fire(self) -> None:
        """Cancel the item that runs now, which is overdue."""
        self._due = loop_deadline(self.limit.moment)
        self.fired = True
        self._scope.cancel()

    def item_returned(self) -> None:
        """Note that the item returned; if it fell due at the same moment, its result counts."""
        self.limit.moment = math.inf
        if self.fired:
            self._renew(None)

    def item_failed(self, error: BaseException) -> BaseException | None:
        """
        Note that the item raised.

        Returns:
            What is left of the error without the cancellation that came from here: None if it
            was nothing else.
        """
        self.limit.moment = math.inf
        return self._renew(error) if self.fired else error

    def error(self, what: str) -> TimeoutError:
        """Return the error for ``what``, the item that was last found to be overdue."""
        return self._watch.timing.error(what, self._due)

    def _renew(self, error: BaseException | None) -> BaseException | None:
        """Exchange a scope that fired for a new one; return what it leaves of ``error``."""
        left = error
        tb = None if error is None else error.__traceback__
        try:
            if self._scope.__exit__(None if error is None else type(error), error, tb):
                left = None
        except BaseException as rest:  # noqa: BLE001 - handed to the caller, who decides
            left = rest
        self.fired = False
        self._scope = anyio.CancelScope()
        self._scope.__enter__()
        return left


class Watch:
    """
    The timeouts of one call.

    Args:
        timeout: Seconds for each item, finite: those of ``timing``.
        timing: What is enforced.
        on_idle: Called when no item runs: the next that suspends has to be reported with
            `item_suspended`.
    """

    # Invariants:
    # - while run() sleeps without a moment to wake at, _idle is true;
    # - _queue holds items in the order in which they are due, including those that have ended;
    #   what runs and is not in it is due later. So each item is looked at twice, however many
    #   there are.
    __slots__ = (
        "_changed",
        "_ended",
        "_idle",
        "_on_idle",
        "_queue",
        "timeout",
        "timing",
        "workers",
    )

    def __init__(self, timeout: float, timing: Timing, on_idle: Callable[[], object]) -> None:
        self.timeout: float = timeout
        self.timing: Timing = timing
        self.workers: set[Watched] = set()
        self._queue: deque[tuple[float, Watched]] = deque()
        self._on_idle = on_idle
        self._changed = anyio.Event()
        self._idle = False
        self._ended = False

    def item_suspended(self) -> None:
        """Wake `run` if it knows of no item."""
        if self._idle:
            self._idle = False
            self._changed.set()

    def end(self) -> None:
        """Let `run` return."""
        self._ended = True
        self._changed.set()

    async def run(self) -> None:
        """Cancel items as they fall due, until `end`."""
        moment = now()
        while not self._ended:
            nearest = self._fire_those_due(moment)
            if nearest == math.inf:
                self._idle = True
                self._on_idle()
            self._changed = anyio.Event()
            with anyio.CancelScope(deadline=loop_deadline(nearest)):
                await self._changed.wait()
            # Not now() alone: rounding could put it a hair before the moment slept for.
            moment = now() if self._changed.is_set() else max(now(), nearest)

    def _fire_those_due(self, moment: float) -> float:
        """Cancel the items due at ``moment``; return when the next is, ``inf`` if none runs."""
        while True:
            while self._queue:
                due, worker = self._queue[0]
                if worker.limit.moment == due and not worker.fired:
                    if due > moment:
                        return due
                    worker.fire()
                self._queue.popleft()
            running = [
                (each.limit.moment, each)
                for each in self.workers
                if each.limit.moment != math.inf and not each.fired
            ]
            if not running:
                return math.inf
            self._queue.extend(sorted(running, key=itemgetter(0)))
