"""
The queue between logging and writing: bounded, of records and flush requests.

Promise: records come out as they went in, once, and in order for each thread. The bound is only
exceeded by one record for each thread that asks at the same moment. A caller waits for room
only with ``overflow="block"``; what is dropped is counted. A flush ends when everything before it
was written or given up, or when its time is over.
Cost: asking the queue for its size, and a ``put``.
Why a caller pauses when the queue is half full: docs/en/design/logging.md.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from logging import NOTSET
from queue import Empty, SimpleQueue
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Final

import anyio
from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from mtaio._internal import ending
from mtaio._internal.backend import in_event_loop
from mtaio._internal.histogram import Histogram
from mtaio.logging import _shutdown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FlushRequest", "RecordQueue"]

BATCH: Final = 512
"""Records that are written in one piece, at most."""

TIMED: Final = 64
"""One record in so many carries the time at which it was put, and each that finds none queued."""

_PAUSE: Final = 50e-6
_LONG_PAUSE: Final = (_PAUSE, 100e-6, 200e-6, 400e-6, 800e-6)
"""The seconds of a long pause, which ends as soon as the writer has written a batch."""

_BETWEEN_PAUSES: Final = 0.002
_MOST_BETWEEN_PAUSES: Final = 0.064
"""The seconds between pauses: doubled, while the queue is full, when one did not help."""

_MOST_BETWEEN_LONG_PAUSES: Final = 1.024
"""The same between long pauses."""

_CHECK_AGAIN: Final = 1.0
"""Seconds after which a caller that waits for room checks whether anything writes."""

_BETWEEN_NOTICES: Final = 10.0
"""Seconds after which dropped records are reported even if the queue never runs empty."""


class RecordQueue:
    """
    A bounded queue of encoded records and flush requests, and the batch that is being written.

    Args:
        size: How many records may be queued or in the batch; None for no limit.
        keep_room: How many more of those at ``keep_level`` and above.
        keep_level: The level from which a record may use the extra room.
        blocks: Whether a thread without an event loop waits for room.
    """

    # Invariants:
    # - only the consumer takes from the queue and changes the batch;
    # - _requests is how many of what is queued are flush requests;
    # - a thread that waits for room is counted before it checks for room, and the consumer looks at
    #   the count after it made room: so no thread is left waiting.
    def __init__(self, *, size: int | None, keep_room: int, keep_level: int, blocks: bool) -> None:
        self.size: Final = math.inf if size is None else size
        self.check_from: Final = math.inf if size is None else max(0, size // 2 - BATCH)
        """With fewer queued a record may be put without `admit`."""
        self.most: Final = self.size + keep_room
        """The most records there are."""
        self._keep_room = keep_room
        self._keep_level = keep_level
        self._blocks = blocks
        self.durations: Histogram | None = None
        """How long the records that carry their time were queued, if that is recorded."""
        self.clear()

    def clear(self) -> None:
        """Start again with nothing queued and nothing counted."""
        self.items: SimpleQueue[bytes | tuple[float, bytes] | FlushRequest] = SimpleQueue()
        self.batch: list[bytes] = []
        self.consumer: int | None = None
        """The thread that takes from the queue."""
        self.batches = 0
        """Batches that were written or given up."""
        self.waiting = 0
        """Threads that wait for room."""
        self.max_seconds = 0.0
        """The longest time from a record's arrival to its being written."""
        if self.durations is not None:
            self.durations = Histogram()
        self._dropped: defaultdict[int, int] = defaultdict(int)
        self._reported: dict[int, int] = {}
        self._report_at = 0.0
        self._arrived: list[float] = []
        self._requests = 0
        self._gave_up_at = -1
        self._pauses = _Pauses()
        self._counts = threading.RLock()
        self._room = threading.Condition()

    def is_consumer(self) -> bool:
        """Return whether this thread is the one that writes."""
        return self.consumer == get_ident()

    def pending(self) -> int:
        """Return how many records and requests are queued or being written."""
        return self.items.qsize() + len(self.batch)

    def records(self) -> int:
        """Return how many records are queued or being written."""
        return max(0, self.pending() - self._requests)

    def dropped(self) -> dict[int, int]:
        """Return how many records found no room, by their levels."""
        with self._counts:
            return dict(self._dropped)

    # ---- putting ---------------------------------------------------------------------------------

    def admit(self, level: int, start: Callable[[], object]) -> bool:
        """
        Return whether a record of ``level`` may be put now; if not, it is counted as dropped.

        To be called when ``check_from`` or more are queued. May sleep for 50 µs, and for 1.5 ms at
        most, while the queue is more than half full; waits only where that was asked for, and never
        in an event loop.

        Args:
            level: The record's level.
            start: Makes sure that something writes; called when there is no room.
        """
        limit = self.size
        if 2 * self.records() >= limit:
            self._pauses.pause(self)
        try:
            if level >= self._keep_level:
                limit += self._keep_room
        except TypeError:  # makeLogRecord leaves None as the level of a record it is given none for
            level = NOTSET
        if self._has_room(limit, start) or (self._blocks and self._wait_for_room(limit, start)):
            return True
        with self._counts:
            if not self._report_at:
                self._report_at = monotonic() + _BETWEEN_NOTICES
            self._dropped[level] += 1
        return False

    def _has_room(self, limit: float, start: Callable[[], object]) -> bool:
        """Return whether fewer than ``limit`` records are queued."""
        if self.records() < limit:
            return True
        start()  # there may be no thread, and the file may have refused the last try
        return self.records() < limit

    def _wait_for_room(self, limit: float, start: Callable[[], object]) -> bool:
        """Wait until there is room; return False where a thread must not wait."""
        if in_event_loop() or self.is_consumer():
            return False
        with self._room:
            self.waiting += 1
            try:
                give_up = math.inf
                while not self._has_room(limit, start):
                    if _shutdown.process.ends_by is not None or self.batches == self._gave_up_at:
                        return False
                    if monotonic() >= give_up:
                        self._gave_up_at = self.batches
                    if give_up == math.inf and not threading.main_thread().is_alive():
                        # The exit waits for this thread.
                        give_up = monotonic() + ending.patience(_shutdown.PATIENCE)
                    self._room.wait(_CHECK_AGAIN)
            finally:
                self.waiting -= 1
        return True

    def put_request(self, request: FlushRequest) -> None:
        """Queue a flush request, for which there is always room."""
        with self._counts:
            self._requests += 1
        self.items.put(request)

    # ---- taking ----------------------------------------------------------------------------------

    def take(self, *, wait: bool) -> FlushRequest | None:
        """Move what is queued into the batch, until that is full or a request is met."""
        batch = self.batch
        get = self.items.get
        try:
            item = get(wait)
            while True:
                if type(item) is bytes:
                    batch.append(item)
                elif type(item) is tuple:
                    arrived, record = item
                    self._arrived.append(arrived)
                    batch.append(record)
                else:
                    assert type(item) is FlushRequest  # noqa: S101 - for the type checkers
                    with self._counts:
                        self._requests -= 1
                    return item
                if len(batch) >= BATCH:
                    return None
                item = get(False)
        except Empty:
            return None

    def batch_done(self) -> None:
        """Note that the batch was written or given up, and wake the threads that wait for room."""
        self.batches += 1
        if self._arrived:
            moment = monotonic()
            self.max_seconds = max(self.max_seconds, moment - self._arrived[0])
            if self.durations is not None:
                for arrived in self._arrived:
                    self.durations.observe(moment - arrived)
            self._arrived.clear()
        if self.waiting:
            with self._room:
                self._room.notify_all()

    def give_up_batch(self) -> int:
        """Empty the batch, and return how many records were in it."""
        number = len(self.batch)
        self.batch.clear()
        self.batch_done()
        return number

    def dropped_to_report(self) -> Mapping[int, int]:
        """
        Return what was dropped since the last report, by level, if it is time to report.

        It is time when the queue has run empty, or has been full for long.
        """
        if not self._report_at or (not self.items.empty() and monotonic() < self._report_at):
            return {}
        with self._counts:
            total = dict(self._dropped)
            self._report_at = 0.0
        reported, self._reported = self._reported, total
        new = {level: number - reported.get(level, 0) for level, number in total.items()}
        return {level: number for level, number in new.items() if number}


class _Pauses:
    """
    The pauses that callers make while the queue is more than half full, so that the writer runs.

    The writer waits for the interpreter's lock, and a thread that gives the lock back and takes it
    again at once, as an event loop that polls does, makes it wait from the start. It needs the lock
    several times for each batch, and may take longer to wake up than a pause lasts: so a pause goes
    on until a batch was written, unless the last one did not help. If the file is what keeps
    the writer, no pause helps, and on a busy machine each costs its caller milliseconds.
    """

    __slots__ = ("_between", "_between_long", "_next", "_next_long")

    def __init__(self) -> None:
        self._next = 0.0
        self._next_long = 0.0
        self._between = _BETWEEN_PAUSES
        self._between_long = _BETWEEN_PAUSES

    def pause(self, queue: RecordQueue) -> None:
        """Sleep for a moment, if the last pause is long enough ago."""
        moment = monotonic()
        if moment < self._next:
            return
        self._next = moment + self._between
        before = queue.batches
        helped = False
        long = moment >= self._next_long
        for seconds in _LONG_PAUSE if long else (_PAUSE,):
            time.sleep(seconds)
            helped = queue.batches != before
            if helped:
                break
        if helped:
            self._between_long = _BETWEEN_PAUSES
        elif long:
            self._next_long = moment + self._between_long
            self._between_long = min(2 * self._between_long, _MOST_BETWEEN_LONG_PAUSES)
        if helped or queue.records() < queue.size:
            self._between = _BETWEEN_PAUSES
        else:
            self._between = min(2 * self._between, _MOST_BETWEEN_PAUSES)


# ---- waiting until what was queued is written ----------------------------------------------------


class FlushRequest:
    """
    A place in the queue, done when everything before it was written or given up.

    Args:
        closes: Whether the file is closed here, and the thread ends.
    """

    __slots__ = ("_done", "_when_done", "closes", "made_at", "thread", "written")

    def __init__(self, *, closes: bool = False) -> None:
        self._done = threading.Event()
        self._when_done: Callable[[], object] | None = None
        self.closes: Final = closes
        self.made_at: Final = monotonic()
        self.written = True
        """Whether everything before it was written."""
        self.thread: threading.Thread | None = None
        """The thread that ended here."""

    def finish(self, *, written: bool, thread: threading.Thread | None = None) -> None:
        """Let those go on that wait."""
        self.written = self.written and written
        self.thread = thread
        self._done.set()
        when_done = self._when_done
        if when_done is not None:
            when_done()

    def is_done(self) -> bool:
        """Return whether those that wait may go on."""
        return self._done.is_set()

    def wait(self, seconds: float) -> bool:
        """Block the thread until it is done; return whether it is."""
        return self._done.wait(min(seconds, threading.TIMEOUT_MAX))

    async def wait_in_task(self, until: float) -> None:
        """
        Wait until it is done or ``monotonic()`` is ``until``. A checkpoint.

        All tasks of an event loop that wait take one worker thread together.
        """
        try:
            shared = _shared.get()
        except LookupError:
            shared = _SharedThread()
            _shared.set(shared)
        await shared.wait(self, until)

    def call_when_done(self, fn: Callable[[], object]) -> None:
        """Have ``fn`` called when it is done, in whatever thread; now if it is."""
        self._when_done = fn
        if self._done.is_set():
            fn()


class _Waiter:
    """A task that waits for a request, not longer than until a time of ``monotonic``."""

    __slots__ = ("request", "until", "woken")

    def __init__(self, request: FlushRequest, until: float) -> None:
        self.request: Final = request
        self.until: Final = until
        self.woken = anyio.Event()

    def may_go_on(self) -> bool:
        return self.request.is_done() or monotonic() >= self.until


class _SharedThread:
    """
    The tasks of one event loop that wait for requests: one of them has a thread wait for all.

    A worker thread, not a timer of the loop, because a virtual clock would stand still.
    """

    # Invariants, whenever no task of the loop is inside a method:
    # - if tasks wait, one of them waits for the thread, or was woken to do so;
    # - the thread returns by _until, which is not later than the time of any task;
    # - a request that is done is seen: each is looked at when _wake is a new event, and wakes the
    #   thread when it is done.
    def __init__(self) -> None:
        self._waiters: dict[_Waiter, None] = {}
        self._wake = threading.Event()
        self._until = 0.0
        self._in_thread = False

    async def wait(self, request: FlushRequest, until: float) -> None:
        waiter = _Waiter(request, until)
        self._waiters[waiter] = None
        if until < self._until:
            self._wake_thread()  # which is to wait less long
        request.call_when_done(self._wake_thread)
        try:
            while True:
                if self._in_thread:
                    await waiter.woken.wait()
                else:
                    await self._wait_in_thread()
                if waiter.may_go_on():
                    return
                waiter.woken = anyio.Event()
        finally:
            del self._waiters[waiter]
            if self._waiters and not self._in_thread:
                next(iter(self._waiters)).woken.set()

    async def _wait_in_thread(self) -> None:
        """Have a thread wait until a task may go on, and wake those that may."""
        wake = self._wake = threading.Event()
        self._until = min(waiter.until for waiter in self._waiters)
        if any(waiter.may_go_on() for waiter in self._waiters):
            wake.set()
        seconds = min(max(0.0, self._until - monotonic()), threading.TIMEOUT_MAX)
        self._in_thread = True
        try:
            await to_thread.run_sync(
                wake.wait,
                seconds,
                abandon_on_cancel=True,
                limiter=CapacityLimiter(1),  # all threads of the default one may be taken
            )
        finally:
            self._in_thread = False
            wake.set()  # if this was cancelled, the thread is still there
            for waiter in self._waiters:
                if waiter.may_go_on():
                    waiter.woken.set()

    def _wake_thread(self) -> None:
        self._wake.set()


_shared: Final[RunVar[_SharedThread]] = RunVar("mtaio.logging flushes")
