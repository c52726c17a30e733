"""
What was logged and is not written yet: a bounded queue, and the batch that is in hand.

Promise: records come out as they went in, once, those of one thread in order; no more are kept than
there is room for, but one for each thread that asks at the same moment. Those who log wait for room
only where they asked for it with ``when_full="block"``; what is dropped is counted.
Cost: asking the queue for its size, and a ``put``.
Why a caller naps when the queue is half full: docs/en/design/logging.md.
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from logging import NOTSET
from queue import Empty, SimpleQueue
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Final

from mtaio._internal.loops import in_event_loop
from mtaio.logging import _exit
from mtaio.logging._mark import Mark

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Backlog"]

BATCH: Final = 512
"""Records that are written in one piece, at most."""

STAMPED: Final = 64
"""One record in so many carries the time at which it was put, and all that find nobody ahead."""

_NAP: Final = 50e-6
_LONG_NAP: Final = (_NAP, 100e-6, 200e-6, 400e-6, 800e-6)
"""The seconds of a long nap, which is over as soon as the one who writes has got on."""

_BETWEEN_NAPS: Final = 0.002
_MOST_BETWEEN_NAPS: Final = 0.064
"""The seconds from one nap to the next: doubled, while the queue is full, after each in vain."""

_MOST_BETWEEN_LONG_NAPS: Final = 1.024
"""The same from one long nap to the next: doubled after each in vain."""

_LOOK_AGAIN: Final = 1.0
"""Seconds after which who waits for room looks whether anybody writes."""

_BETWEEN_TELLING: Final = 10.0
"""Seconds after which dropped records are told of, though there are still more than room."""

Item = bytes | tuple[float, bytes] | Mark


class Backlog(ABC):
    """
    A bounded queue of encoded records and of marks.

    Args:
        queue_size: How many records may be queued or in hand.
        keep_room: How many more of those at ``keep_level`` and above.
        keep_level: The level from which a record may use the extra room.
        blocks: Whether a thread without an event loop waits for room.
    """

    # Invariants:
    # - only the owner takes from the queue and changes the batch;
    # - _marks is how many of what is queued are no records;
    # - whoever waits for room is counted before he looks for it, and who makes room looks at the
    #   count afterwards: so nobody is left waiting.
    def __init__(self, *, queue_size: int, keep_room: int, keep_level: int, blocks: bool) -> None:
        self.calm: Final = max(0, queue_size // 2 - BATCH)
        """Below so many in the queue a record may be put without asking."""
        self._queue_size = queue_size
        self._keep_room = keep_room
        self._keep_level = keep_level
        self._blocks = blocks
        self.clear()

    def clear(self) -> None:
        """Begin anew, with nothing queued and nothing counted."""
        self.queue: SimpleQueue[Item] = SimpleQueue()
        self.batch: list[bytes] = []
        self.waiters = 0
        self.worst_delay = 0.0
        self.dropped: defaultdict[int, int] = defaultdict(int)
        self._owner: int | None = None
        self._marks = 0
        self._since: float | None = None
        self._nap_at = 0.0
        self._between_naps = _BETWEEN_NAPS
        self._long_nap_at = 0.0
        self._between_long_naps = _BETWEEN_NAPS
        self._turns = 0
        self._hopeless = -1
        self._tally = threading.RLock()
        self._room = threading.Condition()
        self._told: dict[int, int] = {}
        self._tell_at = 0.0

    @abstractmethod
    def start(self) -> None:
        """See to it that somebody writes what is queued, if nobody does."""
        ...

    @property
    def mine(self) -> bool:
        """Whether this thread is the one that writes."""
        return self._owner == get_ident()

    def pending(self) -> int:
        """Return how many records and marks are queued or in hand."""
        return self.queue.qsize() + len(self.batch)

    def records(self) -> int:
        """Return how many records are queued or in hand."""
        return max(0, self.pending() - self._marks)

    # ---- putting ---------------------------------------------------------------------------------

    def admits(self, level: int) -> bool:
        """
        Tell whether a record of ``level`` may be put now; if not, it is counted as dropped.

        To be asked when ``calm`` or more are queued. May nap for 50 µs, and for 1.5 ms at most,
        while the queue is more than half full; waits only where that was asked for, and never in an
        event loop.
        """
        limit = self._queue_size
        if 2 * self.records() >= limit:
            moment = monotonic()
            if moment >= self._nap_at:
                self._nap(moment)
        try:
            if level >= self._keep_level:
                limit += self._keep_room
        except TypeError:  # None is what makeLogRecord gives a record that was not given any
            level = NOTSET
        if self._has_room(limit) or (self._blocks and self._wait_for_room(limit)):
            return True
        with self._tally:
            if not self._tell_at:
                self._tell_at = monotonic() + _BETWEEN_TELLING
            self.dropped[level] += 1
        return False

    def _nap(self, moment: float) -> None:
        """
        Leave the one who writes a moment.

        He asks for the interpreter's lock, and whoever gives it back and takes it again at once, as
        an event loop that polls does, makes him ask anew. He asks several times for each batch, and
        a thread may take longer to wake up than a nap lasts: so it goes on until a batch was
        written, unless that was in vain the last time. If it is the file that keeps him, which soon
        fills the queue, each nap is in vain, and on a busy machine it costs its caller
        milliseconds.
        """
        self._nap_at = moment + self._between_naps
        turns = self._turns
        turned = False
        long = moment >= self._long_nap_at
        for seconds in _LONG_NAP if long else (_NAP,):
            time.sleep(seconds)
            turned = self._turns != turns
            if turned:
                break
        if turned:
            self._between_long_naps = _BETWEEN_NAPS
        elif long:
            self._long_nap_at = moment + self._between_long_naps
            most = _MOST_BETWEEN_LONG_NAPS
            self._between_long_naps = min(2 * self._between_long_naps, most)
        if turned or self.records() < self._queue_size:
            self._between_naps = _BETWEEN_NAPS
        else:
            self._between_naps = min(2 * self._between_naps, _MOST_BETWEEN_NAPS)

    def _has_room(self, limit: int) -> bool:
        """Tell whether fewer than ``limit`` records are queued, having some written if need be."""
        if self.records() < limit:
            return True
        self.start()  # there may be no thread, and the file may have taken nothing the last time
        return self.records() < limit

    def _wait_for_room(self, limit: int) -> bool:
        """Wait until there is room; False where nobody may wait."""
        if in_event_loop() or self.mine:
            return False
        with self._room:
            self.waiters += 1
            try:
                give_up = math.inf
                while not self._has_room(limit):
                    if _exit.ending() or self._turns == self._hopeless:
                        return False
                    if monotonic() >= give_up:
                        self._hopeless = self._turns
                    if give_up == math.inf and not threading.main_thread().is_alive():
                        give_up = monotonic() + _exit.PATIENCE  # the end waits for this thread
                    self._room.wait(_LOOK_AGAIN)
            finally:
                self.waiters -= 1
        return True

    def put_mark(self, mark: Mark) -> None:
        """Queue a mark, for which there is always room."""
        with self._tally:
            self._marks += 1
        self.queue.put(mark)

    # ---- taking ----------------------------------------------------------------------------------

    def take(self, *, wait: bool) -> Mark | None:
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

    def done(self) -> None:
        """Note that the batch was written, or given up."""
        self._turns += 1
        if self._since is not None:
            self.worst_delay = max(self.worst_delay, monotonic() - self._since)
            self._since = None
        if self.waiters:
            with self._room:
                self._room.notify_all()

    def give_up(self) -> int:
        """Empty the batch, and return how many records were in it."""
        number = len(self.batch)
        self.batch.clear()
        self.done()
        return number

    def news(self) -> Mapping[int, int]:
        """
        Return what was dropped since the last time, by level, if it is time to tell.

        That is when the crowd is over, or has gone on for long.
        """
        if not self._tell_at or (not self.queue.empty() and monotonic() < self._tell_at):
            return {}
        with self._tally:
            total = dict(self.dropped)
            self._tell_at = 0.0
        told, self._told = self._told, total
        news = {level: number - told.get(level, 0) for level, number in total.items()}
        return {level: number for level, number in news.items() if number}
