"""
Plain functions in worker threads, and the limit on workers.

Promise: never more threads than the limit, including those whose caller has given up on them.
Python cannot stop a thread, so it goes on alone and keeps its slot until it ends, even if its
event loop ends first.

Why AnyIO's capacity limiter does not count them: docs/en/design/executor.md.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections import deque
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
from anyio import NoEventLoopError, to_thread

from mtaio._internal import backend, checks, loops
from mtaio._internal.callables import close_unstarted, name_of, warn_where_defined
from mtaio._internal.cancellation import raise_failure
from mtaio._internal.checkpoints import checkpoint_if_cancelled
from mtaio._internal.notes import note
from mtaio.core._slots import CURRENT, Slots, here, running_task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from functools import partial

    from mtaio.core._slots import Slot
    from mtaio.core._timeouts import Timing


class WorkerLimiter:
    """
    A limit on worker threads or processes: a number, or the user's capacity limiter.

    Args:
        name: The argument's name, for messages.
        limit: How many at once; None for no limit; or an ``anyio.CapacityLimiter``, which then
            decides alone.
        owner: The executor, for messages.
    """

    # Invariants:
    # - busy counts workers, waiting the calls that wait for a slot or for a token of the limiter;
    # - _late holds the slots of abandoned threads that have ended. Threads append, the event
    #   loop takes; each thread calls the loop that entered last, and every call that enters looks
    #   too, so none is missed when a loop ends or is followed by another.

    def __init__(self, name: str, limit: int | anyio.CapacityLimiter | None, owner: object) -> None:
        self.busy: int = 0
        self.waiting: int = 0
        self._counting = threading.Lock()
        self._limiter: anyio.CapacityLimiter | None = None
        self._late: deque[Slot] = deque()
        self._loop: object = None
        if isinstance(limit, anyio.CapacityLimiter):
            self._limiter, limit = limit, None
        elif limit is not None:
            way_out = "Pass the number to run at once, None for no limit, or a CapacityLimiter."
            checks.count(name, limit, way_out=way_out)
        self._slots = Slots(sys.maxsize if limit is None else limit, owner, lasting=True)

    def narrowed(self, limit: int | None) -> int | None:
        """Return how many workers are of use to items that each need one: at most the limit."""
        if self._limiter is not None or self._slots.limit == sys.maxsize:
            return limit
        return self._slots.limit if limit is None else min(limit, self._slots.limit)

    @property
    def is_own(self) -> bool:
        """Whether it is not the user's capacity limiter."""
        return self._limiter is None

    async def enter(self) -> Slot:
        """Wait for a slot, and return it occupied."""
        slot = self.enter_nowait()
        if slot is None:
            self.waiting += 1
            try:
                slot = await self._slots.acquire(here())
                try:
                    if self._limiter is not None:
                        await checkpoint_if_cancelled()  # AnyIO's, in there, may turn for ever
                        await self._limiter.acquire_on_behalf_of(slot)
                except BaseException:
                    self._slots.release(slot)
                    raise
            finally:
                self.waiting -= 1
            self._occupy(slot)
        return slot

    def enter_nowait(self) -> Slot | None:
        """Return a slot occupied, if one is free and nobody else is to be asked."""
        self._loop = backend.known_loop() or loops.look()
        if self._late:
            self._release_late()
        if self._limiter is not None:
            return None
        slot = self._slots.acquire_nowait(here())
        if slot is not None:
            slot.task = running_task()
            self._occupy(slot)
        return slot

    def _occupy(self, slot: Slot) -> None:
        slot.item = 0
        self._count(1)

    def leave(self, slot: Slot) -> None:
        """Give a slot to the next waiter (in the event loop)."""
        self._count(-1)
        self._release(slot)

    def leave_late(self, slot: Slot) -> None:
        """Give a slot back whose caller has gone (in the thread)."""
        self._count(-1)
        self._late.append(slot)
        loops.call_in(self._loop, self._release_late)

    def _count(self, change: int) -> None:
        with self._counting:
            self.busy += change

    def _release(self, slot: Slot) -> None:
        self._slots.release(slot)
        if self._limiter is not None:
            self._limiter.release_on_behalf_of(slot)

    def _release_late(self) -> None:
        while self._late:
            self._release(self._late.popleft())


class _Admitted:
    """
    Stands in for AnyIO's limiter, since ours has let the call in.

    A capacity limiter without a limit would do, but on asyncio it never returns to a thread that
    calls back into a scope that has been cancelled, and keeps the processor busy all that time.
    """

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Let it in (the trio backend asks like this)."""

    def release_on_behalf_of(self, borrower: object) -> None:
        """Let it go."""


_ADMITTED: Final = cast("anyio.CapacityLimiter", _Admitted())
"""What AnyIO gets as the limiter of a call."""


class _State(Enum):
    NEW = auto()
    RUNNING = auto()
    ENDED = auto()
    ABANDONED = auto()


_NEW, _RUNNING, _ENDED, _ABANDONED = _State


class ThreadCall:
    """
    A call in a worker thread, which holds a slot.

    Invariant: the later of two, the caller's leaving and the thread's end, gives the slot back,
    once; a call that was abandoned before its thread got to it is never made.
    """

    __slots__ = ("_call", "_limiter", "_lock", "_result", "_slot", "_state")

    def __init__(self, limiter: WorkerLimiter, slot: Slot, call: Callable[[], Any]) -> None:
        self._limiter = limiter
        self._slot = slot
        self._call = call
        self._lock = threading.Lock()
        self._state = _State.NEW
        self._result: Any = None

    async def make(self, *, abandon_on_cancel: bool = False) -> Any:
        """Make the call in a thread, and return its result. However it ends, `leave` after it."""
        await to_thread.run_sync(self.work, abandon_on_cancel=abandon_on_cancel, limiter=_ADMITTED)
        return self._result

    def work(self) -> None:
        """Make the call (in the thread). The result is kept: trio refuses to return a coroutine."""
        with self._lock:
            if self._state is not _NEW:
                return
            self._state = _RUNNING
        CURRENT.set((self._slot, 0))  # in the thread's own context
        try:
            self._result = self._call()
        finally:
            with self._lock:
                before, self._state = self._state, _ENDED
            if before is _ABANDONED:
                close_unstarted(self._result)
                self._limiter.leave_late(self._slot)

    def has_started(self) -> bool:
        """Return whether the thread runs or has run."""
        return self._state is not _NEW

    def leave(self) -> None:
        """Abandon the thread if it still runs (in the event loop)."""
        before = self._state
        if before is not _ENDED:  # which it remains
            with self._lock:
                before, self._state = self._state, _ABANDONED
        if before is _ENDED and self._result is not None:
            close_unstarted(self._result)  # it came as its caller was being cancelled
        if before is not _RUNNING:
            self._limiter.leave(self._slot)


_MAKE_IT_ASYNC: Final = (
    "is a plain function, so it was called in a worker thread, where no event loop runs. If it "
    "needs one, or returns something to await, make it 'async def', or pass functools.partial of "
    "the async function."
)

_NO_LOOP: Final = (
    "no running event loop",  # asyncio.get_running_loop
    "There is no current event loop",  # asyncio.get_event_loop
    "must be called from async context",  # trio
)


async def run_in_thread(
    limiter: WorkerLimiter,
    call: partial[Any],
    timing: Timing,
    *,
    abandon_on_cancel: bool = False,
    on_purpose: bool = True,
    begins: Callable[[], object] | None = None,
) -> Any:
    """
    Make a call in a worker thread; await what it returns if that is awaitable.

    The timeout begins when there is a slot. With a timeout, or with ``abandon_on_cancel``,
    cancellation leaves the thread behind, which goes on alone and keeps its slot; otherwise it
    waits for the thread. ``begins`` is called, in the event loop, when there is a slot.

    Unless a thread is used ``on_purpose``, an awaitable result means that the function should have
    been called in the event loop, at a hundredth of the cost; a warning says so, once for each
    function.
    """
    slot = limiter.enter_nowait() or await limiter.enter()
    if begins is not None:
        begins()
    thread = ThreadCall(limiter, slot, call)
    try:
        with timing.limit(call):
            result = await thread.make(
                abandon_on_cancel=abandon_on_cancel or timing.timeout is not None
            )
            if result is None or not inspect.isawaitable(result):
                return result
            if not on_purpose:
                warn_of_awaitable(call)
            return await _await_inside(slot, result)
    except BaseException as error:
        explain(error, call)
        raise
    finally:
        thread.leave()


async def _await_inside(slot: Slot, result: Awaitable[Any]) -> Any:
    """Await what a call returned, as a part of the call."""
    token = CURRENT.set((slot, 0))
    try:
        return await result
    finally:
        with suppress(ValueError):  # the garbage collector closes it in any context
            CURRENT.reset(token)


def explain(error: BaseException, call: partial[Any]) -> None:
    """
    Say what ``error`` means, which came of ``call`` in a thread; the caller then raises it.

    Where code wanted an event loop, a note says why there was none. `raise_failure` does the rest.
    """
    if isinstance(error, RuntimeError) and (
        isinstance(error, NoEventLoopError) or str(error).startswith(_NO_LOOP)
    ):
        note(error, f"{name_of(call)} {_MAKE_IT_ASYNC}")
    raise_failure(error, call)


def warn_of_awaitable(call: partial[Any]) -> None:
    """Warn at the line where the function is defined."""
    warn_where_defined(call, f"{name_of(call)} {_MAKE_IT_ASYNC}")
