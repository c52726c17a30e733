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
import sys
from collections import deque

import anyio

from mtaio._internal import checks, loops
from mtaio.core._slots import Slot, Slots, here

DEFAULT_THREADS = 40
"""As many as anyio allows, but for each executor, not for the whole process."""


class Lane:
    """
    A limit on threads or processes: a number, or a capacity limiter of the user's.

    Args:
        name: The argument's name, for messages.
        limit: How many at once; or an ``anyio.CapacityLimiter``, which then decides alone.
        owner: The executor, for messages.
    """

    # Invariants:
    # - _entered counts the slots that have not come back, those in _late included;
    # - waiting counts the calls that wait for a slot, or a token of the limiter;
    # - _late holds the slots of abandoned threads that have ended. Threads append, the event
    #   loop takes; each thread calls the loop that entered last, and whoever enters looks too,
    #   so none is overlooked when a loop ends or is followed by another.

    def __init__(self, name: str, limit: int | anyio.CapacityLimiter, owner: object) -> None:
        self.waiting: int = 0
        self._limiter: anyio.CapacityLimiter | None = None
        self._entered = 0
        self._late: deque[Slot] = deque()
        self._loop: object = None
        if isinstance(limit, anyio.CapacityLimiter):
            self._limiter, limit = limit, sys.maxsize
        else:
            way_out = "Pass the number to run at once, or an anyio.CapacityLimiter."
            limit = checks.count(name, limit, way_out=way_out)
        self._slots = Slots(limit, owner, lasting=True)

    @classmethod
    def of_threads(cls, limit: int | anyio.CapacityLimiter | None, owner: object) -> Lane:
        """Return the lane for ``thread_limiter=limit``."""
        return cls("thread_limiter", DEFAULT_THREADS if limit is None else limit, owner)

    @classmethod
    def of_processes(cls, limit: int | anyio.CapacityLimiter | None, owner: object) -> Lane:
        """Return the lane for ``process_limiter=limit``; by default as wide as the machine."""
        return cls("process_limiter", (os.cpu_count() or 1) if limit is None else limit, owner)

    @property
    def busy(self) -> int:
        """How many threads or processes are at work now."""
        return self._entered - len(self._late)

    async def enter(self) -> Slot:
        """Wait for a slot, and return it occupied."""
        self._loop = loops.current_loop()
        self._take_late()
        self.waiting += 1
        try:
            slot = await self._slots.acquire(here())
            try:
                if self._limiter is not None:
                    await self._limiter.acquire_on_behalf_of(slot)
            except BaseException:
                self._slots.release(slot)
                raise
        finally:
            self.waiting -= 1
        slot.item = 0
        self._entered += 1
        return slot

    def leave(self, slot: Slot) -> None:
        """Give a slot to the next in line (in the event loop)."""
        self._entered -= 1
        self._slots.release(slot)
        if self._limiter is not None:
            self._limiter.release_on_behalf_of(slot)

    def leave_late(self, slot: Slot) -> None:
        """Give a slot back when its caller is gone (in the thread)."""
        self._late.append(slot)
        loops.call_in(self._loop, self._take_late)

    def _take_late(self) -> None:
        while self._late:
            self.leave(self._late.popleft())
