"""
One timeout for each item of a call, at a fraction of the price of a scope around each.

Promise: an item that runs longer than ``timeout`` seconds is cancelled and fails with
`TimeoutError`; an item that has already come to its end is not. While no item runs, nothing does.
Cost: per item, reading the clock and writing one float. A scope around each would cost ten times
as much, since entering one registers a timer with the event loop.

Each worker holds one cancel scope without a deadline and publishes when its item is due; the task
that runs the call sleeps until the earliest of them. All items of a call have the same timeout, so
whatever starts meanwhile is due later, and nobody has to wake the sleeper. Only when it found no
item in flight, it has no moment to sleep until, and asks to be woken by the next that suspends.
"""

from __future__ import annotations

import math
from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Self

import anyio

from mtaio._internal import deadlines
from mtaio._internal.clock import loop_deadline, now

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Watched:
    """
    A worker as its `Watch` sees it: the limit on its item, and the scope to cancel it by.

    Invariants:
    - ``limit.moment`` is when the present item is due, ``inf`` between items;
    - ``fired`` says that the present item was found to be overdue and is being cancelled.
    """

    __slots__ = ("_scope", "_watch", "due", "fired", "limit", "timeout")

    def __init__(self, watch: Watch) -> None:
        self.timeout: float = watch.timeout
        self.fired: bool = False
        self.due: float = math.inf
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

    @property
    def flying(self) -> bool:
        """Whether an item runs that has not been found overdue."""
        return self.limit.moment != math.inf and not self.fired

    def fire(self) -> None:
        """Cancel the item that runs now, and note when it was due, in the event loop's clock."""
        self.due = loop_deadline(self.limit.moment)
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
        timeout: Seconds for each item, finite.
        on_idle: Called when no item is in flight: the next that suspends has to be reported with
            `item_suspended`.
    """

    # Invariants:
    # - while run() sleeps without a moment to wake at, _idle is true;
    # - _line holds items in the order in which they are due, those that ended meanwhile included;
    #   whatever is in flight and not in it is due later. So each item is looked at twice, however
    #   many there are.
    __slots__ = ("_ended", "_idle", "_line", "_news", "_on_idle", "timeout", "workers")

    def __init__(self, timeout: float, on_idle: Callable[[], object]) -> None:
        self.timeout: float = timeout
        self.workers: set[Watched] = set()
        self._line: deque[tuple[float, Watched]] = deque()
        self._on_idle = on_idle
        self._news = anyio.Event()
        self._idle = False
        self._ended = False

    def over_worker(self) -> Watched:
        """Return a context manager in which a worker takes its items."""
        return Watched(self)

    def item_suspended(self) -> None:
        """Wake `run` if it knows of no item."""
        if self._idle:
            self._idle = False
            self._news.set()

    def end(self) -> None:
        """Let `run` return."""
        self._ended = True
        self._news.set()

    async def run(self) -> None:
        """Cancel items as they fall due, until `end`."""
        moment = now()
        while not self._ended:
            nearest = self._fire_those_due(moment)
            if nearest == math.inf:
                self._idle = True
                self._on_idle()
            self._news = anyio.Event()
            with anyio.CancelScope(deadline=loop_deadline(nearest)):
                await self._news.wait()
            # Not now() alone: rounding could put it a hair before the moment slept for.
            moment = now() if self._news.is_set() else max(now(), nearest)

    def _fire_those_due(self, moment: float) -> float:
        """Cancel the items due at ``moment``; return when the next is, ``inf`` if none runs."""
        while True:
            while self._line:
                due, worker = self._line[0]
                if worker.limit.moment == due and not worker.fired:
                    if due > moment:
                        return due
                    worker.fire()
                self._line.popleft()
            flying = [(each.limit.moment, each) for each in self.workers if each.flying]
            if not flying:
                return math.inf
            self._line.extend(sorted(flying, key=itemgetter(0)))
