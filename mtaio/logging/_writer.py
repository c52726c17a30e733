"""
The queue between those who log and the one thread that writes.

Promise: what is put is written, once and in order, by whoever holds the right to write; that is a
thread, started when there is something to do, or the caller himself once no thread can be started.
Those who log never wait for the file, but where they asked for it with ``when_full="block"``.
Cost: a ``put`` for each record; a ``stat`` and a ``write`` for each batch.
Why a caller naps when the queue is half full, and why there is no lock: docs/en/design/logging.md.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from queue import Empty, SimpleQueue
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Final

from mtaio._internal.loops import in_event_loop
from mtaio.logging import _exit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mtaio.logging._rotation import RotatingFile

__all__ = ["Mark", "Writer"]

BATCH: Final = 512
"""Records that are written in one piece, at most."""

STAMPED: Final = 64
"""One record in so many carries the time at which it was put, and all that find nobody ahead."""

_MARKS: Final = 1000
"""How much may be queued beyond the records: those who flush a file that takes nothing."""

_NAP: Final = 50e-6
_BETWEEN_NAPS: Final = 0.002
_FIRST_RETRY: Final = 0.05
_LAST_RETRY: Final = 1.0
_LOOK_AGAIN: Final = 1.0
"""Seconds after which who waits for room looks whether anybody writes."""

_BETWEEN_TELLING: Final = 10.0
"""Seconds after which dropped records are told of, though there are still more than room."""


class Mark:
    """A place in the queue, reached when everything before it was written or given up."""

    __slots__ = ("_reached", "closes", "ended", "until", "written")

    def __init__(self, *, closes: bool = False) -> None:
        self._reached = threading.Event()
        self.closes: Final = closes
        self.written = True
        """Whether everything before it was written."""
        self.until = 0.0
        """When those who wait for it lose patience."""
        self.ended: threading.Thread | None = None
        """The thread that ended here."""

    def reach(self, *, written: bool, ended: threading.Thread | None = None) -> None:
        """Let those go on who wait."""
        self.written = self.written and written
        self.ended = ended
        self._reached.set()

    def is_reached(self) -> bool:
        """Tell whether it was reached."""
        return self._reached.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until it is reached, and tell whether it was."""
        self.until = monotonic() + seconds
        return self._reached.wait(seconds)

    def let_go(self) -> None:
        """Send those on who wait, though it was not reached."""
        self.written = False
        self._reached.set()


Item = bytes | tuple[float, bytes] | Mark


class Writer:
    """
    A bounded queue of encoded records, and the right to write them to a file.

    Args:
        file: Where they go.
        queue_size: How many may be queued or in hand.
        keep_room: How many more of those at ``keep_level`` and above.
        keep_level: The level from which a record may use the extra room.
        blocks: Whether a thread without an event loop waits for room.
        trouble: Called with an error of the file, in the thread that writes.
        notice: Returns the record to write about so many dropped ones, by their levels.
    """

    # Invariants:
    # - _right holds one thing while nobody may write, and is empty while somebody may: to pop it is
    #   to get the right, atomically; to append it is to give it back;
    # - only who has the right touches the file and changes the batch;
    # - who gives it back looks into the queue afterwards, and who puts looks at the right after
    #   that: so one of the two sees to what was put;
    # - nothing here refers to the handler, so that a handler nobody holds can be collected.
    def __init__(
        self,
        file: RotatingFile,
        *,
        queue_size: int,
        keep_room: int,
        keep_level: int,
        blocks: bool,
        trouble: Callable[[Exception], None],
        notice: Callable[[Mapping[int, int]], bytes],
    ) -> None:
        self.file: Final = file
        self._most = queue_size + keep_room + _MARKS
        self.calm: Final = max(0, queue_size // 2 - BATCH)
        """Below so many in the queue a record may be put without asking."""
        self._queue_size = queue_size
        self._keep_room = keep_room
        self._keep_level = keep_level
        self._blocks = blocks
        self._trouble = trouble
        self._notice = notice
        self._clear()
        _exit.watch(self)

    def _clear(self) -> None:
        self.queue: SimpleQueue[Item] = SimpleQueue()
        self.batch: list[bytes] = []
        self.lost = 0
        self.errors = 0
        self._marks = 0
        self.waiters = 0
        self.worst_delay = 0.0
        self.dropped: defaultdict[int, int] = defaultdict(int)
        self._told: dict[int, int] = {}
        self._tell_at = 0.0
        self._tally = threading.RLock()
        self._right: list[None] = [None]
        self._owner: int | None = None
        self._since: float | None = None
        self._nap_at = 0.0
        self._room = threading.Condition()
        self._nudge = threading.Event()
        self._closing: Mark | None = None
        self._unmet: Mark | None = None

    def forget(self) -> None:
        """Begin anew in a forked child: what is queued here is written by the parent."""
        self._clear()
        self.file.forget()

    # ---- putting ---------------------------------------------------------------------------------

    def pending(self) -> int:
        """Return how many records and marks are queued or in hand."""
        return self.queue.qsize() + len(self.batch)

    def records(self) -> int:
        """Return how many records are queued or in hand."""
        return max(0, self.pending() - self._marks)

    @property
    def idle(self) -> bool:
        """Whether nobody has the right to write."""
        return bool(self._right)

    def admits(self, level: int) -> bool:
        """
        Tell whether a record of ``level`` may be put now; if not, it is counted as dropped.

        To be asked when ``calm`` or more are queued. May nap for 50 µs while the queue is more than
        half full; waits only where that was asked for, and never in an event loop.
        """
        limit = self._queue_size
        if self.records() >= limit // 2:
            # The writer asks for the interpreter's lock, and whoever gives it back and takes it
            # again at once, as an event loop that polls does, makes it ask anew.
            moment = monotonic()
            if moment >= self._nap_at:
                self._nap_at = moment + _BETWEEN_NAPS
                time.sleep(_NAP)
        if level >= self._keep_level:
            limit += self._keep_room
        if self._has_room(limit) or (self._blocks and self._wait_for_room(limit)):
            return True
        with self._tally:
            if not self._tell_at:
                self._tell_at = monotonic() + _BETWEEN_TELLING
            self.dropped[level] += 1
        return False

    def put(self, record: bytes, ahead: int) -> None:
        """Queue a record that was admitted when so many were ``ahead`` of it."""
        self.queue.put(record if ahead % STAMPED else (monotonic(), record))
        if self._right:
            self.start()

    def _has_room(self, limit: int) -> bool:
        """Tell whether fewer than ``limit`` records are queued, having some written if need be."""
        if self.records() < limit:
            return True
        if self._right:
            self.start()  # there is no thread, and the file took nothing the last time
        return self.records() < limit

    def _wait_for_room(self, limit: int) -> bool:
        """Wait until there is room; False where nobody may wait."""
        if in_event_loop() or self._owner == get_ident():
            return False
        with self._room:
            self.waiters += 1
            try:
                while not self._has_room(limit):
                    if _exit.ending():
                        return False
                    self._room.wait(_LOOK_AGAIN)
            finally:
                self.waiters -= 1
        return True

    # ---- waiting for what was put ----------------------------------------------------------------

    def mark(self) -> Mark:
        """Queue a mark, which is reached when all that was put before is written."""
        mark = Mark()
        if self._owner == get_ident() or self.pending() >= self._most:
            mark.let_go()  # it would wait for itself, or with a thousand others for nothing
        elif self.idle and not self.pending():
            mark.reach(written=True)
        else:
            self._put_mark(mark)
        return mark

    def wait(self, mark: Mark, seconds: float) -> bool:
        """Wait for ``mark``; tell whether all before it was written within ``seconds``."""
        if mark.wait(0.0 if self._abandoned() else _exit.patience(seconds)):
            return mark.written
        self._unmet = mark
        return False

    def ask_to_close(self) -> Mark | None:
        """Queue a mark at which the file is closed and the thread ends; None if it was already."""
        if self._given_up():
            return self._closing
        if not self.idle or self.pending():
            return self._put_mark(Mark(closes=True))
        if self.file.is_open:
            mark = Mark(closes=True)
            return self._put_mark(mark, patient=False)
        return None

    def _given_up(self) -> bool:
        """Tell whether somebody closed the file and lost patience, and it is not closed yet."""
        return self._closing is not None and not self._closing.is_reached()

    def wait_closed(self, mark: Mark | None, until: float | None = None) -> None:
        """
        Wait for what `ask_to_close` returned, and then let go what could not be written.

        Args:
            mark: What to wait for.
            until: For how long; by default as long as a flush that failed before left over.
        """
        if mark is None or mark is self._closing or self._owner == get_ident():
            return
        if until is None:
            unmet = self._unmet
            until = monotonic() + _exit.PATIENCE
            if unmet is not None and not unmet.is_reached():
                until = min(until, unmet.until)
        left = 0.0 if self._abandoned() else _exit.patience(until - monotonic())
        if mark.wait(max(0.0, left)):
            if mark.ended is not None:
                mark.ended.join(1)
            return
        self._closing = mark
        self._nudge.set()

    def _abandoned(self) -> bool:
        """Tell whether nobody writes any more: the end has begun, and the file takes nothing."""
        return _exit.ending() and self.idle

    def _put_mark(self, mark: Mark, *, patient: bool = True) -> Mark:
        with self._tally:
            self._marks += 1
        self.queue.put(mark)
        if self._right:
            self.start(patient=patient)
        return mark

    # ---- writing ---------------------------------------------------------------------------------

    def start(self, *, patient: bool = True) -> None:
        """See to it that somebody writes what is queued: this thread, if not ``patient``."""
        try:
            self._right.pop()
        except IndexError:
            return
        if patient and not _exit.ending():
            name = f"mtaio log {self.file.path}"
            try:
                threading.Thread(target=self._own, name=name, daemon=True).start()
            except RuntimeError:
                pass  # from Python 3.12 on at the interpreter's end, or there are too many
            else:
                _exit.started()
                return
        self._own(patient=False)

    def _own(self, *, patient: bool = True) -> None:
        """Write while there is something to write, holding the right, and give it back."""
        while True:
            mark = None
            self._owner = get_ident()
            try:
                mark = self._work(patient=patient)
            finally:
                self._owner = None
                self._right.append(None)
            more = not self.queue.empty() and (mark is not None or not self.batch)
            if more:
                try:
                    self._right.pop()
                except IndexError:
                    more = False
            if mark is not None:
                ended = threading.current_thread() if patient and not more else None
                mark.reach(written=True, ended=ended)
            if not more:
                return

    def _work(self, *, patient: bool) -> Mark | None:
        """Write until a mark closes the file, or, if not ``patient``, until nothing is left."""
        while True:
            mark = None if self.batch else self._gather(wait=patient)
            written = self._write(patient=patient)
            if written and self._tell_at:
                self._tell(now=self.queue.empty(), patient=patient)
            if mark is not None:
                if mark.closes:
                    self._shut(mark)
                    mark.written = mark.written and written
                    return mark
                mark.reach(written=written)
                if not self.file.is_open and self.queue.empty():
                    return None  # it was put after one that closed
            elif not patient and (not written or self.queue.empty()):
                return None

    def _gather(self, *, wait: bool) -> Mark | None:
        """Take what is queued into the batch, until it is full or a mark is met."""
        batch = self.batch
        get = self.queue.get
        try:
            item = get(wait)
            while True:
                if type(item) is bytes:
                    batch.append(item)
                elif type(item) is tuple:
                    since, record = item
                    if self._since is None:
                        self._since = since
                    batch.append(record)
                else:
                    assert type(item) is Mark  # noqa: S101 - for the type checkers
                    with self._tally:
                        self._marks -= 1
                    return item
                if len(batch) >= BATCH:
                    return None
                item = get(False)
        except Empty:
            return None

    def _write(self, *, patient: bool) -> bool:
        """Write the batch, again and again if need be; tell whether it was."""
        delay = _FIRST_RETRY
        while self.batch:
            try:
                self.file.write(self.batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, the records are still there
                self.errors += 1
                self._trouble(error)
                if self._given_up():
                    self._lose()
                    return False
                if not patient:
                    return False
                self._nudge.wait(delay)
                self._nudge.clear()
                delay = min(2 * delay, _LAST_RETRY)
        if self._since is not None:
            self.worst_delay = max(self.worst_delay, monotonic() - self._since)
            self._since = None
        self._make_room()
        return True

    def _make_room(self) -> None:
        if self.waiters:
            with self._room:
                self._room.notify_all()

    def _lose(self) -> None:
        """Give the batch up: the handler was closed, and nobody waits for it any more."""
        self.lost += len(self.batch)
        self.batch.clear()
        self._since = None
        self._make_room()

    def _tell(self, *, now: bool, patient: bool) -> None:
        """Write one line about the records that were dropped, when the crowd is over."""
        if not now and monotonic() < self._tell_at:
            return
        with self._tally:
            total = dict(self.dropped)
            self._tell_at = 0.0
        news = {level: count - self._told.get(level, 0) for level, count in total.items()}
        self._told = total
        self.batch.append(self._notice({level: count for level, count in news.items() if count}))
        self._write(patient=patient)

    def _shut(self, mark: Mark) -> None:
        """Close the file, with nothing left behind but the count."""
        if self.batch:
            mark.written = False
            self._lose()
        try:
            self.file.close()
        except OSError as error:
            self.errors += 1
            self._trouble(error)
