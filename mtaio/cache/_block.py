"""
The block of an entered cache: where its loads run, and what expires is removed.

Promise: nothing that was started in it outlives it; leaving it wakes those who wait, and an error
of its body passes as it is.
Cost: one task, which sleeps until something expires; one more for an async listener.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Final

import anyio

from mtaio._internal import loops, scope
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.clock import loop_deadline, now
from mtaio.cache._flight import CLOSED, RUNNING, Flight
from mtaio.cache._listeners import AsyncNotices
from mtaio.exceptions import StrayCancellationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mtaio.cache._leaving import Leaving

__all__ = ["Block"]

SLICE: Final = 256
"""How many entries the sweep looks at before it lets others run."""


class Block:
    """
    One block, from entering to leaving; made in its event loop.

    Args:
        store: The cache.
    """

    # Invariants:
    # - flights are those that run in the group and have not ended;
    # - once it is leaving, no flight begins in it, and none that runs in it can be joined.
    __slots__ = ("_alarm", "_group", "_process", "_store", "flights", "leaving", "loop")

    def __init__(self, store: Leaving) -> None:
        self.loop = loops.current_loop()
        self.flights: set[Flight] = set()
        self.leaving: bool = False
        self._process = os.getpid()  # a fork has the loop's memory, but it does not run there
        self._group = anyio.create_task_group()
        self._store = store
        self._alarm = anyio.Event()

    def is_over(self) -> bool:
        """Tell whether nobody can leave the block any more."""
        return self._process != os.getpid() or loops.is_over(self.loop)

    def start(self, fn: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Start a task in the block."""
        self._group.start_soon(fn, *args)

    def load(self, flight: Flight) -> None:
        """Start the task of a flight that was taken in."""
        self._group.start_soon(_same, flight.coroutine, name="mtaio.cache load")

    def take_in(self, flight: Flight, *, kept: bool) -> None:
        """Note that a flight runs in the block; ``kept`` if nobody is to wait for it."""
        flight.scope = anyio.CancelScope()
        flight.company = self.flights
        flight.kept = kept
        flight.sharers = 0
        if kept:
            flight.outer = None  # nobody waits for it, hence it cannot wait for itself
        self.flights.add(flight)

    async def enter(self) -> None:
        """Begin."""
        await self._group.__aenter__()
        notices = self._store.notices
        if isinstance(notices, AsyncNotices):
            notices.begin()
            self.start(notices.tell)
        self.start(self._sweep)

    async def leave(self, exc: BaseException | None) -> None:
        """Leave the block, which ended with ``exc``; raise what its end has to raise."""
        reason = exc
        if exc is None:
            try:
                await self._tell_all()
            except BaseException as error:  # noqa: BLE001 - the task group has to see it first
                reason = error
        self._store.awaken_at(None)
        self._close_all()
        self._group.cancel_scope.cancel()
        # What is an Exception is none of the group's business, and would come back in a group.
        seen = None if isinstance(reason, Exception) else reason
        end = await scope.leave(self._group, seen)
        while self.flights:  # their tasks were cancelled natively before their first step
            self._store.never_ran(self.flights.pop())
        escaped = [each for each in end.errors if each is not seen]
        try:
            if escaped:
                raise escaped[0] if len(escaped) == 1 else BaseExceptionGroup("in loads", escaped)
            if end.raised is not None and end.raised is not seen and not end.errors:
                raise end.raised
            if end.swallowed:
                raise self._silent_end() from seen
            if exc is None and reason is not None:
                raise reason
        finally:
            del end, escaped, exc, reason, seen  # they hold this frame

    def _silent_end(self) -> StrayCancellationError:
        """Return what stands for the group's own cancellation, which nobody asked for."""
        return StrayCancellationError(
            f"a task of {self._store!r} was cancelled, but not through a cancel scope, and the "
            f"rest of its block with it. Look for code that cancels tasks that are not its own."
        )

    async def _tell_all(self) -> None:
        notices = self._store.notices
        if isinstance(notices, AsyncNotices):
            await notices.told()

    def _close_all(self) -> None:
        """Tell those who wait that there will be no value, before the loads have cleaned up."""
        self.leaving = True
        for flight in self.flights:
            if flight.state is RUNNING:
                flight.state = CLOSED
                self._store.detach(flight)
                if flight.event is not None:
                    flight.event.set()

    async def _sweep(self) -> None:
        """Remove what expires, in slices, whenever something does."""
        store = self._store
        try:
            while True:
                self._alarm = anyio.Event()
                due = store.awaken_at(self._ring)
                moment = -math.inf
                with anyio.CancelScope(deadline=loop_deadline(due)) as scope:
                    await self._alarm.wait()
                if scope.cancelled_caught:
                    moment = (
                        due  # by rounding, our clock may be before it: looking again would spin
                    )
                while store.expire_slice(max(now(), moment), SLICE):
                    await checkpoint()
        except anyio.get_cancelled_exc_class():
            # The group was cancelled, be it for a task that somebody cancelled natively before its
            # first step. The block is about to end, but its body may take its time.
            self._close_all()
            raise

    def _ring(self) -> None:
        """Have `_sweep` look again; called from any thread."""
        if loops.is_current(self.loop):
            self._sound()
        else:
            loops.call_in(self.loop, self._sound)

    def _sound(self) -> None:
        self._alarm.set()


def _same(coroutine: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
    return coroutine
