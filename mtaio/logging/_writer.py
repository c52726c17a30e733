"""
Writes the queue to the file: in one thread, or in the caller's if none can be started.

Promise: what is queued is written, once and in order. A file that refuses is tried again, with the
records kept, until closing runs out of patience. Flushing and closing wait for a place in the
queue, and no longer than they are told to.
Cost: a daemon thread from the first record on; a ``stat`` and a ``write`` for each batch.
Why there is no lock: docs/en/design/logging.md.
"""

from __future__ import annotations

import threading
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Final

from mtaio.logging import _shutdown
from mtaio.logging._queue import TIMED, FlushRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mtaio.logging._file import RotatingFile
    from mtaio.logging._queue import RecordQueue

__all__ = ["Writer"]

_REQUESTS: Final = 1000
"""How many flush requests may be queued beyond the records while a file takes nothing."""

_FIRST_RETRY: Final = 0.05
_LAST_RETRY: Final = 1.0
"""The seconds between two tries: doubled each time, between these."""

_GRACE: Final = 1.0
"""Seconds that closing waits for the writer to give up, once the file has refused a try."""


class Writer:
    """
    Writes the records of a queue to a file, in one thread at a time.

    Args:
        queue: What is to be written.
        file: Where it goes.
        report: Called with an error of the file, in the thread that writes.
        notice: Returns the record to write about dropped ones, given their number by level.
    """

    # Invariants:
    # - _claim holds the token of the one that writes, and is empty while none does: to put one's
    #   own token there, if there is none, is to get the claim, atomically; to delete it gives it
    #   back;
    # - only with the claim may one touch the file, and take from the queue;
    # - the one that gives it back looks into the queue afterwards, and the one that puts looks at
    #   the claim afterwards: so one of the two writes what was put;
    # - a token is made before it is put there: a signal handler that raises in between cannot leave
    #   a claim that no thread gives back;
    # - nothing here refers to the handler, so that a handler without references can be collected.
    def __init__(
        self,
        queue: RecordQueue,
        file: RotatingFile,
        *,
        report: Callable[[Exception], None],
        notice: Callable[[Mapping[int, int]], bytes],
    ) -> None:
        self.queue: Final = queue
        self.file: Final = file
        self._report = report
        self._notice = notice
        self._reset()
        _shutdown.watch(self)

    def _reset(self) -> None:
        self.lost = 0
        """Records that were given up."""
        self.errors = 0
        """Tries that failed."""
        self._claim: dict[int, object] = {}
        self._failing = False
        self._retry_now = threading.Event()
        self._closing: FlushRequest | None = None
        self._missed: FlushRequest | None = None

    def forget(self) -> None:
        """Start again in a forked child: what is queued here is written by the parent."""
        self.queue.clear()
        self._reset()
        self.file.forget()

    def put(self, record: bytes, ahead: int) -> None:
        """Queue a record that was admitted when so many were ``ahead`` of it."""
        self.queue.items.put(record if ahead % TIMED else (monotonic(), record))
        if not self._claim:
            self.start()

    # ---- waiting until it is written -------------------------------------------------------------

    def request_flush(self) -> FlushRequest:
        """Queue a request that is done when all that was put before is written."""
        request = FlushRequest()
        if self.queue.is_consumer() or self.queue.pending() >= self.queue.most + _REQUESTS:
            request.finish(written=False)  # it would wait for itself, or with a thousand others
        elif self._nothing_left():
            request.finish(written=True)
        else:
            self.queue.put_request(request)
            self.start()
        return request

    def wait(self, request: FlushRequest, seconds: float) -> bool:
        """Wait for ``request``; return whether all before it was written within ``seconds``."""
        if request.wait(self.patience(seconds)):
            return request.written
        self._missed = request
        return False

    def patience(self, seconds: float) -> float:
        """Return how long to wait for a request if ``seconds`` are wanted."""
        ends_by = _shutdown.process.ends_by
        if ends_by is None:
            return seconds
        if not self._claim or self._gives_up():
            return 0.0  # the file has refused what the caller wrote, or has had its time already
        return max(0.0, min(seconds, ends_by - monotonic()))  # all handlers share what is left

    def request_close(self) -> FlushRequest | None:
        """Queue a request that closes the file and ends the thread; None if there is nothing to."""
        if self._gives_up():
            return self._closing
        nothing_left = self._nothing_left()
        if nothing_left and not self.file.is_open:
            return None
        request = FlushRequest(closes=True)
        self.queue.put_request(request)
        self.start(in_thread=not nothing_left)
        return request

    def wait_closed(self, request: FlushRequest | None, until: float | None = None) -> None:
        """
        Wait for what `request_close` returned; then give up what the file refuses.

        Args:
            request: What to wait for.
            until: For how long; by default as long as a flush that failed before left over.
        """
        if request is None or self.queue.is_consumer():
            return
        if until is None:
            until = monotonic()
            if request is not self._closing:  # for which another close has lost patience
                missed = self._missed
                since = until if missed is None or missed.is_done() else missed.made_at
                until = since + _shutdown.PATIENCE
        if not request.wait(max(0.0, self.patience(until - monotonic()))):
            self._closing = request
            self._retry_now.set()
            if not self._claim:
                self._run(wait=False)
            elif self._failing:
                request.wait(_GRACE)
        if request.thread is not None:
            request.thread.join(1)

    def abandoned(self) -> int:
        """Return how many records closing gave up that may be written yet: behind a write."""
        return self.queue.records() if self._gives_up() else 0

    def _nothing_left(self) -> bool:
        """Return whether all that was put before this call is written or given up."""
        # In this order: a record that has left the queue may still be with the writer.
        return not self.queue.pending() and not self._claim and not self.queue.batch

    def _gives_up(self) -> bool:
        """Return whether closing ran out of patience, and the file is not closed yet."""
        return self._closing is not None and not self._closing.is_done()

    # ---- writing ---------------------------------------------------------------------------------

    def start(self, *, in_thread: bool = True) -> None:
        """Make sure that what is queued is written, by this thread if not ``in_thread``."""
        if self._claim:
            return
        if in_thread and _shutdown.process.ends_by is None:
            name = f"mtaio log {self.file.path}"
            try:
                threading.Thread(target=self._run, name=name, daemon=True).start()
            except RuntimeError:
                pass  # there are too many, or the interpreter is exiting
            else:
                _shutdown.thread_started()
                return
        self._run(wait=False)

    def _run(self, *, wait: bool = True) -> None:
        """
        Write what there is to write, unless another thread does.

        Args:
            wait: Whether to wait for more, and to try again what fails, as the thread does.
        """
        while self.queue.pending():
            closed = None
            token = object()
            try:
                if self._claim.setdefault(0, token) is not token:
                    return
                self.queue.consumer = get_ident()
                closed = self._write_queue(wait=wait)
            finally:  # without a call, after which a signal might be handled
                if 0 in self._claim and self._claim[0] is token:  # pragma: no branch - after return
                    self.queue.consumer = None
                    del self._claim[0]
            more = not self.queue.items.empty() and (closed is not None or not self.queue.batch)
            if closed is not None:
                ends = wait and not more
                closed.finish(written=True, thread=threading.current_thread() if ends else None)
            if not more:
                return
            # What was put behind the request that closes is written now. Once the exit has begun
            # there is no other such request, so nobody would end a thread that waits for more, and
            # a child that was forked in a thread would go on for as long as that thread.
            wait = wait and _shutdown.process.ends_by is None

    def _write_queue(self, *, wait: bool) -> FlushRequest | None:
        """Write until a request closes the file, or, without ``wait``, until nothing is left."""
        queue = self.queue
        lost = self.lost
        while True:
            request = None if queue.batch else queue.take(wait=wait)
            try:
                written = self._write_batch(wait=wait) and self.lost == lost
                if written and (dropped := queue.dropped_to_report()):
                    queue.batch.append(self._notice(dropped))
                    self._write_batch(wait=wait)
            except BaseException:  # on_error may end the thread
                if request is not None:
                    request.finish(written=False)
                raise
            if request is not None:
                if request.closes:
                    request.written = self._close_file() and written
                    return request
                request.finish(written=written)
                if not self.file.is_open and queue.items.empty():
                    return None  # it was put after one that closed
            elif not wait and (queue.batch or queue.items.empty()):
                return None

    def _write_batch(self, *, wait: bool) -> bool:
        """Write the batch, again and again with ``wait``; return whether it was written."""
        queue = self.queue
        delay = _FIRST_RETRY
        while queue.batch:
            try:
                self.file.write(queue.batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, the records are still there
                self.errors += 1
                self._failing = True
                self._report(error)
                if self._gives_up():
                    self.lost += queue.give_up_batch()
                    return False
                if not wait:
                    return False
                self._retry_now.wait(delay)
                self._retry_now.clear()
                delay = min(2 * delay, _LAST_RETRY)
        self._failing = False
        queue.batch_done()
        return True

    def _close_file(self) -> bool:
        """Close the file; return False if records had to be given up."""
        given_up = len(self.queue.batch)
        if given_up:
            self.lost += self.queue.give_up_batch()
        try:
            self.file.close()
        except OSError as error:
            self.errors += 1
            self._report(error)
        return not given_up
