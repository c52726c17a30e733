"""
Who writes what was logged: one thread, or the caller himself once no thread can be started.

Promise: what is queued is written, once and in order, by whoever holds the right to write; a file
that takes nothing is tried again, with the records kept; whoever flushes or closes waits for a mark
in the queue, and not longer than he wants to.
Cost: a daemon thread from the first record on; a ``stat`` and a ``write`` for each batch.
Why there is no lock: docs/en/design/logging.md.
"""

from __future__ import annotations

import threading
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Final

from mtaio.logging import _exit
from mtaio.logging._backlog import STAMPED, Backlog
from mtaio.logging._mark import Mark

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mtaio.logging._rotation import RotatingFile

__all__ = ["Writer"]

_MARKS: Final = 1000
"""How much may be queued beyond the records: those who flush a file that takes nothing."""

_FIRST_RETRY: Final = 0.05
_LAST_RETRY: Final = 1.0
"""The seconds between two tries: doubled each time, between these."""


class Writer(Backlog):
    """
    A backlog, and the right to write it to a file.

    Args:
        file: Where the records go.
        queue_size: As for `Backlog`.
        keep_room: As for `Backlog`.
        keep_level: As for `Backlog`.
        blocks: As for `Backlog`.
        trouble: Called with an error of the file, in the thread that writes.
        notice: Returns the record to write about so many dropped ones, by their levels.
    """

    # Invariants:
    # - _right holds the token of who may write, and is empty while nobody may: to put one's own
    #   there, if there is none, is to get the right, atomically; to delete it is to give it back;
    # - only who has the right touches the file, and is the owner of the backlog;
    # - who gives it back looks into the queue afterwards, and who puts looks at the right after
    #   that: so one of the two sees to what was put;
    # - whoever takes the right is sure already to give it back: a signal whose handler raises
    #   cannot come between and leave nobody with it;
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
        super().__init__(
            queue_size=queue_size, keep_room=keep_room, keep_level=keep_level, blocks=blocks
        )
        self.file: Final = file
        self._most = queue_size + keep_room + _MARKS
        self._trouble = trouble
        self._notice = notice
        _exit.watch(self)

    def clear(self) -> None:
        """Begin anew, with nothing queued and nothing counted."""
        super().clear()
        self.lost = 0
        self.errors = 0
        self._right: dict[int, object] = {}
        self._nudge = threading.Event()
        self._closing: Mark | None = None
        self._unmet: Mark | None = None

    def forget(self) -> None:
        """Begin anew in a forked child: what is queued here is written by the parent."""
        self.clear()
        self.file.forget()

    @property
    def idle(self) -> bool:
        """Whether nobody has the right to write."""
        return not self._right

    def put(self, record: bytes, ahead: int) -> None:
        """Queue a record that was admitted when so many were ``ahead`` of it."""
        self.queue.put(record if ahead % STAMPED else (monotonic(), record))
        if not self._right:
            self.start()

    # ---- waiting for what was put ----------------------------------------------------------------

    def mark(self) -> Mark:
        """Queue a mark, which is reached when all that was put before is written."""
        mark = Mark()
        if self.mine or self.pending() >= self._most:
            mark.let_go()  # it would wait for itself, or with a thousand others for nothing
        elif self._quiet():
            mark.reach(written=True)
        else:
            self._queue(mark)
        return mark

    def wait(self, mark: Mark, seconds: float) -> bool:
        """Wait for ``mark``; tell whether all before it was written within ``seconds``."""
        if mark.wait(self.patience(seconds)):
            return mark.written
        self._unmet = mark
        return False

    def patience(self, seconds: float) -> float:
        """Return how long to wait for a mark now, if ``seconds`` are wanted."""
        return 0.0 if self._abandoned() else _exit.patience(seconds)

    def ask_to_close(self) -> Mark | None:
        """Queue a mark at which the file is closed and the thread ends; None if it was already."""
        if self._given_up():
            return self._closing
        if not self._quiet():
            return self._queue(Mark(closes=True))
        if self.file.is_open:
            mark = Mark(closes=True)
            return self._queue(mark, patient=False)
        return None

    def _quiet(self) -> bool:
        """Tell whether all that was put before this call is written, or was given up."""
        # In this order: what is no more in the queue may be in the hands of somebody.
        return not self.pending() and self.idle and not self.batch

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
        if mark is None or self.mine or (mark is self._closing and until is None):
            return
        if until is None:
            unmet = self._unmet
            until = monotonic() + _exit.PATIENCE
            if unmet is not None and not unmet.is_reached():
                until = min(until, unmet.began + _exit.PATIENCE)
        left = self.patience(until - monotonic())
        if mark.wait(max(0.0, left)):
            if mark.ended is not None:
                mark.ended.join(1)
            return
        self._closing = mark
        self._nudge.set()

    def _abandoned(self) -> bool:
        """Tell whether nobody writes any more: the end has begun, and the file takes nothing."""
        return _exit.ending() and self.idle

    def _queue(self, mark: Mark, *, patient: bool = True) -> Mark:
        self.put_mark(mark)
        self.start(patient=patient)
        return mark

    # ---- writing ---------------------------------------------------------------------------------

    def start(self, *, patient: bool = True) -> None:
        """See to it that somebody writes what is queued: this thread, if not ``patient``."""
        if self._right:
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
        """Write while there is something to write, and nobody else does."""
        while self.pending():
            mark = None
            token = object()
            try:
                if self._right.setdefault(0, token) is not token:
                    return
                self._owner = get_ident()
                mark = self._work(patient=patient)
            finally:  # without a call, after which a signal might be handled
                if 0 in self._right and self._right[0] is token:  # pragma: no branch - after return
                    self._owner = None
                    del self._right[0]
            more = not self.queue.empty() and (mark is not None or not self.batch)
            if mark is not None:
                ended = threading.current_thread() if patient and not more else None
                mark.reach(written=True, ended=ended)
            if not more:
                return

    def _work(self, *, patient: bool) -> Mark | None:
        """Write until a mark closes the file, or, if not ``patient``, until nothing is left."""
        while True:
            mark = None if self.batch else self.take(wait=patient)
            try:
                written = self._write(patient=patient)
                if written and (news := self.news()):
                    self.batch.append(self._notice(news))
                    self._write(patient=patient)
            except BaseException:  # on_error may end the thread
                if mark is not None:
                    mark.let_go()
                raise
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
                    self.lost += self.give_up()
                    return False
                if not patient:
                    return False
                self._nudge.wait(delay)
                self._nudge.clear()
                delay = min(2 * delay, _LAST_RETRY)
        self.done()
        return True

    def _shut(self, mark: Mark) -> None:
        """Close the file, with nothing left behind but the count."""
        if self.batch:
            mark.written = False
            self.lost += self.give_up()
        try:
            self.file.close()
        except OSError as error:
            self.errors += 1
            self._trouble(error)
