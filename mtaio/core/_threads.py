"""
Plain functions in worker threads.

Promise: a thread keeps its slot under the limit until it ends: Python cannot stop a thread, so
one whose caller was cancelled or timed out goes on alone.
"""

from __future__ import annotations

import inspect
import threading
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, cast

from anyio import to_thread

from mtaio._internal.callables import close_unstarted
from mtaio.core._slots import CURRENT

if TYPE_CHECKING:
    from collections.abc import Callable

    import anyio

    from mtaio.core._lane import Lane
    from mtaio.core._slots import Slot
    from mtaio.core._timing import Timing


class _Admitted:
    """
    Stands in for anyio's limiter, since the lane has let the call in.

    A capacity limiter without a limit would do, but on asyncio it never returns to a thread that
    calls back into a scope which was cancelled meanwhile, and burns the processor all that time.
    """

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Let it in (trio's part of anyio asks like this)."""

    def release_on_behalf_of(self, borrower: object) -> None:
        """Let it go."""


ADMITTED: Final = cast("anyio.CapacityLimiter", _Admitted())
"""What anyio gets as the limiter of a call."""


class _State(Enum):
    NEW = auto()
    RUNNING = auto()
    ENDED = auto()
    ABANDONED = auto()


class ThreadJob:
    """
    A call in a worker thread, and who gives its slot back.

    Invariant: whichever comes last, the caller's leaving or the thread's end, gives the slot
    back, once; a call that was abandoned before its thread got to it is never made.
    """

    def __init__(self, lane: Lane, slot: Slot, call: Callable[[], Any]) -> None:
        self.result: Any = None
        self._lane = lane
        self._slot = slot
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
                self._lane.leave_late(self._slot)

    def leave(self) -> None:
        """Leave the thread to itself if it is still at work (in the event loop)."""
        before = self._become(_State.ABANDONED)
        if before is _State.ENDED:
            close_unstarted(self.result)  # it came as its caller was being cancelled
        if before is not _State.RUNNING:
            self._lane.leave(self._slot)

    def _become(self, state: _State) -> _State:
        with self._lock:
            before, self._state = self._state, state
        return before


async def run_in_thread(
    lane: Lane,
    call: Callable[[], Any],
    timing: Timing,
    *,
    abandon_on_cancel: bool = False,
) -> Any:
    """
    Make a call in a worker thread; await what it returns if that is awaitable.

    The timeout begins when there is a slot. A thread can only be left behind, not stopped: with a
    timeout, or with ``abandon_on_cancel``, cancellation does so, and the thread goes on alone,
    holding its slot; else it waits for the thread.
    """
    slot = await lane.enter()
    job = ThreadJob(lane, slot, call)
    token = CURRENT.set((slot, 0))
    try:
        with timing.limit():
            await to_thread.run_sync(
                job.work,
                abandon_on_cancel=abandon_on_cancel or timing.timeout is not None,
                limiter=ADMITTED,
            )
            result = job.result
            return await result if inspect.isawaitable(result) else result
    finally:
        job.leave()
        CURRENT.reset(token)
