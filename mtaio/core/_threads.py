"""
Plain functions in worker threads and worker processes, under limits of their own.

Promise: never more threads at work than the limit says, those included whose caller has given up
on them: Python cannot stop a thread, so an abandoned one keeps its slot until it ends.

Why the slots are counted here and not by the capacity limiter that anyio takes: that one gives
back an abandoned thread's token at once on asyncio (20 timed-out calls through a limit of 2 left
20 threads), belongs to one event loop for ever, and deadlocks when a thread asks for another.
"""

from __future__ import annotations

import inspect
import math
import os
import pickle
import threading
from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_process, to_thread

from mtaio._internal import checks, loops
from mtaio.core._call import close_unstarted
from mtaio.core._slots import CURRENT, Slot, Slots, here

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.core._timing import Timing

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


class _State(Enum):
    NEW = auto()
    RUNNING = auto()
    ENDED = auto()
    ABANDONED = auto()


class ThreadJob:
    """
    A call in a worker thread, and who gives its place back.

    Invariant: whichever comes last, the caller's leaving or the thread's end, gives the place
    back, once; a call that was abandoned before its thread got to it is never made.
    """

    def __init__(self, lane: Lane, place: Place, call: Callable[[], Any]) -> None:
        self.result: Any = None
        self._lane = lane
        self._place = place
        self._call = call
        self._lock = threading.Lock()
        self._state = _State.NEW

    def work(self) -> None:
        """Make the call (in the thread). The result is kept: trio refuses to return a coroutine."""
        if self._become(_State.RUNNING) is not _State.NEW:
            return
        try:
            self.result = self._call()
        finally:
            if self._become(_State.ENDED) is _State.ABANDONED:
                close_unstarted(self.result)
                self._lane.leave_late(self._place)

    def leave(self) -> None:
        """Leave the thread to itself if it is still at work (in the event loop)."""
        before = self._become(_State.ABANDONED)
        if before is _State.ENDED:
            close_unstarted(self.result)  # it came as its caller was being cancelled
        if before is not _State.RUNNING:
            self._lane.leave(self._place)

    def _become(self, state: _State) -> _State:
        with self._lock:
            before, self._state = self._state, state
        return before


async def run_in_thread(
    lane: Lane,
    call: Callable[[], Any],
    timing: Timing,
    *,
    abandon_on_cancel: bool,
) -> Any:
    """
    Make a call in a worker thread; await what it returns if that is awaitable.

    The timeout begins when there is a place. When it fires, or on cancellation with
    ``abandon_on_cancel``, the thread goes on alone, holding its place.
    """
    place = await lane.enter()
    job = ThreadJob(lane, place, call)
    token = CURRENT.set((place.slot, 0)) if place.slot is not None else None
    try:
        with timing.limit():
            await to_thread.run_sync(
                job.work,
                abandon_on_cancel=abandon_on_cancel,
                limiter=anyio.CapacityLimiter(math.inf),
            )
            result = job.result
            return await result if inspect.isawaitable(result) else result
    finally:
        job.leave()
        if token is not None:
            CURRENT.reset(token)


async def run_in_process(lane: Lane, call: Callable[[], Any], timing: Timing) -> Any:
    """Make a call in a worker process, which is killed if the caller is cancelled."""
    place = await lane.enter()
    try:
        with timing.limit():
            return await to_process.run_sync(
                call, cancellable=True, limiter=anyio.CapacityLimiter(math.inf)
            )
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        _explain(call, error)
        raise
    finally:
        lane.leave(place)


def _explain(call: Callable[[], Any], error: Exception) -> None:
    """Add the way out to an error if it arose because the call cannot be sent to a process."""
    try:
        pickle.dumps(call)
    except Exception:  # noqa: BLE001 - what cannot be pickled may raise anything
        error.add_note(
            "A worker process gets the function and its arguments by pickle: pass a function from "
            "the top level of a module, and plain data. For anything else use run_in_thread()."
        )
