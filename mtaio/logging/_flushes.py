"""
The tasks of one event loop that wait until logs are written: all of them with one thread.

Promise: each goes on when its mark is reached or its own time is over, and leaves nothing behind
when it is cancelled; they need one worker thread together, and none while nobody waits.
Cost: a call in a worker thread each time that a mark is reached or somebody's time is over.
Why a thread, and no timer of the loop: docs/en/design/logging.md.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Final

import anyio
from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

if TYPE_CHECKING:
    from mtaio.logging._mark import Mark

__all__ = ["Flushes", "flushes_here"]


class _Waiter:
    """A task that waits for a mark, not longer than until a time of ``monotonic``."""

    __slots__ = ("mark", "turn", "until")

    def __init__(self, mark: Mark, until: float) -> None:
        self.mark: Final = mark
        self.until: Final = until
        self.turn = anyio.Event()

    def is_over(self) -> bool:
        return self.mark.is_reached() or monotonic() >= self.until


class Flushes:
    """Those who wait in one event loop; one of them, and then another, has the thread wait."""

    # Invariants, whenever no task of the loop is in the middle of a method:
    # - if anybody waits, one is waiting in the thread, or one was told that it is his turn;
    # - the thread wakes by _until, which is not later than anybody's time;
    # - a mark that is reached is seen: it is looked at when _bell is a new one, and whoever reaches
    #   it rings the bell afterwards.
    def __init__(self) -> None:
        self._waiting: dict[_Waiter, None] = {}
        self._bell = threading.Event()
        self._until = 0.0
        self._at_work = False

    async def wait(self, mark: Mark, until: float) -> None:
        """Wait until ``mark`` is reached or ``monotonic()`` is ``until``. A checkpoint."""
        waiter = _Waiter(mark, until)
        self._waiting[waiter] = None
        if until < self._until:
            self._ring()  # for the thread to wait less long
        mark.tell(self._ring)
        try:
            while True:
                if self._at_work:
                    await waiter.turn.wait()
                else:
                    await self._work()
                if waiter.is_over():
                    return
                waiter.turn = anyio.Event()
        finally:
            del self._waiting[waiter]
            if self._waiting and not self._at_work:
                next(iter(self._waiting)).turn.set()

    async def _work(self) -> None:
        """Wait in a thread until it is over for somebody, and tell those for whom it is."""
        bell = self._bell = threading.Event()
        self._until = min(waiter.until for waiter in self._waiting)
        if any(waiter.is_over() for waiter in self._waiting):
            bell.set()
        seconds = min(max(0.0, self._until - monotonic()), threading.TIMEOUT_MAX)
        self._at_work = True
        try:
            await to_thread.run_sync(
                bell.wait,
                seconds,
                abandon_on_cancel=True,
                limiter=CapacityLimiter(1),  # the default one may be all taken
            )
        finally:
            self._at_work = False
            bell.set()  # if this was cancelled, the thread is still there
            for waiter in self._waiting:
                if waiter.is_over():
                    waiter.turn.set()

    def _ring(self) -> None:
        self._bell.set()


_here: Final[RunVar[Flushes]] = RunVar("mtaio.logging flushes")


def flushes_here() -> Flushes:
    """Return those who wait in the running event loop."""
    try:
        return _here.get()
    except LookupError:
        made = Flushes()
        _here.set(made)
        return made
