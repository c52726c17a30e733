"""
One timeout for each item of a call, at a fraction of the price of a scope around each.

Promise: an item that runs longer than ``timeout`` seconds is cancelled and fails with
`TimeoutError`; an item that has already come to its end is not.
Cost: per item, reading the clock and writing one float. A scope around each would cost ten times
as much, since entering one registers a timer with the event loop.

Each worker holds one cancel scope without a deadline and publishes when its item is due; the task
that runs the call sleeps until the earliest of them. All items of a call have the same timeout, so
whatever starts during that sleep is due later, and nobody has to wake the sleeper.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

import anyio

from mtaio._internal import deadline
from mtaio._internal.clock import loop_deadline, now

if TYPE_CHECKING:
    from types import TracebackType


class Watched:
    """
    A worker as its `Watch` sees it: the limit on its item, and the scope to cancel it by.

    Invariant: ``limit.moment`` is when the present item is due, ``inf`` between items.
    """

    __slots__ = ("_scope", "_watch", "due", "fired", "limit", "timeout")

    def __init__(self, watch: Watch) -> None:
        self.timeout = watch.timeout
        self.fired = False
        self.due = math.inf
        self.limit: deadline.Deadline
        self._watch = watch
        self._scope = anyio.CancelScope()

    def __enter__(self) -> Self:
        self._scope.__enter__()
        self.limit = deadline.enter(math.inf)
        self._watch.workers.add(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        self._watch.workers.discard(self)
        deadline.leave(self.limit)
        return self._scope.__exit__(exc_type, exc, tb)

    def fire(self) -> None:
        """Cancel the item that runs now, and note when it was due, in the event loop's clock."""
        self.due = loop_deadline(self.limit.moment)
        self.limit.moment = math.inf
        self.fired = True
        self._scope.cancel()

    def item_ended(self) -> None:
        """Note that the item returned; if it fell due at the same moment, its result counts."""
        self.limit.moment = math.inf
        if self.fired:
            self.renew(None)

    def renew(self, error: BaseException | None) -> BaseException | None:
        """
        Exchange a scope that fired for a new one, after the item ended with ``error``.

        Returns:
            What is left of the error without the cancellation that came from here: None if it
            was nothing else.
        """
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
    """The timeouts of one call. Make it in the event loop."""

    __slots__ = ("_ended", "timeout", "workers")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.workers: set[Watched] = set()
        self._ended = anyio.Event()

    def over_worker(self) -> Watched:
        """Return a context manager in which a worker takes its items."""
        return Watched(self)

    def end(self) -> None:
        """Let `run` return."""
        self._ended.set()

    async def run(self) -> None:
        """Cancel items as they fall due, until `end`."""
        moment = now()
        while not self._ended.is_set():
            nearest = moment + self.timeout
            for worker in self.workers:
                due = worker.limit.moment
                if due <= moment:
                    worker.fire()
                elif due < nearest:
                    nearest = due
            with anyio.CancelScope(deadline=loop_deadline(nearest)):
                await self._ended.wait()
            # Not now() alone: rounding could put it a hair before the moment slept for.
            moment = max(now(), nearest)
