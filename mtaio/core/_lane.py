"""
The limits on worker threads and processes, apart from the limit on items.

Promise: never more at work than the limit says, those included whose caller has given up on them;
whoever comes back late, and after its event loop, is counted back all the same.

Why they are counted here and not by the capacity limiter that anyio takes: that one gives back an
abandoned thread's token at once on asyncio (20 timed-out calls through a limit of 2 left 20
threads), belongs to one event loop for ever, and deadlocks when a thread asks for another.
"""

from __future__ import annotations

import os
from collections import deque

import anyio

from mtaio._internal import checks, loops
from mtaio.core._slots import Slot, Slots, here

DEFAULT_THREADS = 40
"""As many as anyio allows, but for each executor, not for the whole process."""


class Lane:
    """
    A limit on threads or processes: a count of our own, or a capacity limiter of the user's.

    Args:
        name: The argument's name, for messages.
        limit: How many at once; or an ``anyio.CapacityLimiter``, which then governs alone.
    """

    # Invariants:
    # - _entered counts the places that have not come back, those in _late included;
    # - _late holds the places of abandoned threads that have ended. Threads append, the event
    #   loop takes; each thread calls the loop that entered last, and whoever enters looks too,
    #   so none is overlooked when a loop ends or is followed by another.

    def __init__(self, name: str, limit: int | anyio.CapacityLimiter) -> None:
        self.slots: Slots | None = None
        self.limiter: anyio.CapacityLimiter | None = None
        self._entered = 0
        self._late: deque[Place] = deque()
        self._loop: object = None
        if isinstance(limit, anyio.CapacityLimiter):
            self.limiter = limit
        else:
            way_out = "Pass the number to run at once, or an anyio.CapacityLimiter."
            self.slots = Slots(checks.count(name, limit, way_out=way_out))

    @classmethod
    def of_threads(cls, limit: int | anyio.CapacityLimiter | None) -> Lane:
        """Return the lane for ``thread_limiter=limit``."""
        return cls("thread_limiter", DEFAULT_THREADS if limit is None else limit)

    @classmethod
    def of_processes(cls, limit: int | anyio.CapacityLimiter | None) -> Lane:
        """Return the lane for ``process_limiter=limit``; by default as wide as the machine."""
        return cls("process_limiter", (os.cpu_count() or 1) if limit is None else limit)

    @property
    def busy(self) -> int:
        """How many threads or processes are at work now."""
        return self._entered - len(self._late)

    @property
    def waiting(self) -> int:
        """How many calls wait for a place now."""
        if self.slots is not None:
            return len(self.slots.queue)
        return 0 if self.limiter is None else self.limiter.statistics().tasks_waiting

    async def enter(self) -> Place:
        """Wait for a place."""
        self._loop = loops.current_loop()
        self._take_late()
        place = Place()
        if self.slots is not None:
            place.slot = await self.slots.acquire(here())
            place.slot.item = 0
        elif self.limiter is not None:
            await self.limiter.acquire_on_behalf_of(place)
        self._entered += 1
        return place

    def leave(self, place: Place) -> None:
        """Give a place to the next in line (in the event loop)."""
        self._entered -= 1
        if self.slots is not None and place.slot is not None:
            self.slots.release(place.slot)
        elif self.limiter is not None:
            self.limiter.release_on_behalf_of(place)

    def leave_late(self, place: Place) -> None:
        """Give a place back when its caller is gone (in the thread)."""
        self._late.append(place)
        loops.call_in(self._loop, self._take_late)

    def _take_late(self) -> None:
        while self._late:
            self.leave(self._late.popleft())


class Place:
    """One place in a `Lane`, from `Lane.enter` to `Lane.leave`."""

    __slots__ = ("slot",)

    def __init__(self) -> None:
        self.slot: Slot | None = None
