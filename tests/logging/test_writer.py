"""What writes the queue: one thread, the next one, or the caller."""

from __future__ import annotations

import logging
import math
import threading
import time
from multiprocessing import process, util
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from mtaio.logging import _queue, _shutdown, _writer
from mtaio.logging._queue import FlushRequest, RecordQueue, _Pauses
from tests.logging.tools import Disk, Logbook, is_open, until

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no thread for a log started, as when there are too many."""
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("mtaio log"):
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the interpreter's exit start."""
    monkeypatch.setattr(_shutdown.process, "ends_by", monotonic() + _shutdown.PATIENCE)


# ---- one at a time -------------------------------------------------------------------------------


def test_many_first_records_at_once_start_one_thread(book: Logbook) -> None:
    """However many threads find that nothing writes, one does."""
    handler = book.open()
    barrier = threading.Barrier(8)

    def log(name: str) -> None:
        barrier.wait()
        book.logger.info(name)

    threads = [threading.Thread(target=log, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(book.threads()) == 1)
    handler.close()
    assert not book.threads()
    assert sorted(book.lines()) == list("abcdefgh")


def test_second_thread_ends(book: Logbook, disk: Disk) -> None:
    """A thread that was started while another writes, or has written all, ends at once."""
    handler = book.open()
    handler._writer._run()
    disk.stop(book)
    book.logger.info("one")
    handler._writer._run()
    assert handler.statistics().pending == 2
    disk.go()
    assert handler.flush()
    assert book.lines() == ["stuck", "one"]


def test_no_thread_outlives_close(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """When ``close`` returns, the thread has ended, and not only its work."""
    real = FlushRequest.finish

    def slowly(request: FlushRequest, **options: Any) -> None:
        real(request, **options)
        time.sleep(0.05)

    monkeypatch.setattr(FlushRequest, "finish", slowly)
    handler = book.open()
    book.logger.info("text")
    handler.close()
    assert not book.threads()


def test_batches_are_bounded(book: Logbook, disk: Disk) -> None:
    """However many records are queued, 512 at most are written in one piece."""
    handler = book.open()
    disk.stop(book)
    for number in range(2000):
        book.logger.info("%d", number)
    disk.go()
    assert handler.flush()
    assert disk.tries == 1 + 4
    assert book.lines()[1:] == [str(number) for number in range(2000)]


def test_longest_time_is_that_of_the_first(
    book: Logbook, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time counts from the arrival of the record that has waited longest."""
    moment = 100.0
    for module in (_queue, _writer):
        monkeypatch.setattr(module, "monotonic", lambda: moment)
    handler = book.open()
    disk.stop(book)
    moment += 2
    for number in range(65):
        book.logger.info("%d", number)
        moment += 0.5
    disk.go()
    until(lambda: handler.statistics().pending == 0)
    assert handler.statistics().max_queue_seconds == 34.5


def test_pauses_are_rare_when_they_do_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause comes each 2 ms and lasts until a batch is written; those without effect get rare."""
    moment = 100.0
    made: dict[float, list[float]] = {}
    helpful = 1
    queue = RecordQueue(size=1000, keep_room=0, keep_level=0, blocks=False)
    pauses = _Pauses()

    def sleep(seconds: float) -> None:
        parts = made.setdefault(moment, [])
        parts.append(seconds)
        if len(parts) == helpful:
            queue.batch_done()

    monkeypatch.setattr(_queue, "monotonic", lambda: moment)
    monkeypatch.setattr(time, "sleep", sleep)

    def times(milliseconds: int, *, parts: int | None = None) -> list[int]:
        nonlocal moment
        made.clear()
        start = moment
        for _ in range(milliseconds):
            pauses.pause(queue)
            moment += 0.001
        each = [when for when, slept in made.items() if parts in (None, len(slept))]
        return [round(1000 * (when - start)) for when in each]

    assert times(9, parts=1) == [0, 2, 4, 6, 8]
    assert next(iter(made.values())) == [50e-6]
    helpful = 3
    moment += 1
    assert times(9, parts=3) == [0, 2, 4, 6, 8]
    assert next(iter(made.values())) == [50e-6, 100e-6, 200e-6]
    helpful = 0
    moment += 1
    assert times(445) == list(range(0, 445, 2))
    long = [50e-6, 100e-6, 200e-6, 400e-6, 800e-6]
    assert [slept for slept in made.values() if len(slept) > 1] == [long] * 8
    moment += 3
    assert times(32, parts=5) == [0]  # after one that did not help the next comes much later
    helpful = 5
    moment += 3
    assert times(5, parts=5) == [0, 2, 4]
    helpful = 0
    moment += 1
    for _ in range(1000):
        queue.items.put(b"")  # from here on the queue is full
    assert times(400) == [0, 2, 6, 14, 30, 62, 126, 190, 254, 318, 382]
    helpful = 1
    moment += 1
    assert times(70) == [0, 64, 66, 68]


def test_callers_pause_when_the_queue_is_half_full(
    book: Logbook, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From half of the queue on a caller gives the writer a moment, and not before."""
    slept: list[float] = []
    book.open(max_pending=1000)
    disk.stop(book)
    monkeypatch.setattr(time, "sleep", slept.append)
    for number in range(499):
        book.logger.info("%d", number)
    assert slept == []
    book.logger.info("half")
    assert slept


class Contested(dict[int, object]):
    """A claim that another takes as soon as it is given back."""

    def __init__(self, other: Callable[[], object], claim: dict[int, object]) -> None:
        super().__init__(claim)
        self._other = other
        self.given = 0

    def __delitem__(self, key: int) -> None:
        """Give the claim back, and let the other one have it."""
        super().__delitem__(key)
        self.given += 1
        if self.given == 1:
            self._other()


def test_thread_that_ends_leaves_the_rest_to_another(book: Logbook) -> None:
    """What is logged just as a thread ends is written by the next one, once."""
    handler = book.open()
    book.logger.info("one")
    assert handler.flush()
    handler._writer._claim = Contested(lambda: book.logger.info("two"), handler._writer._claim)
    handler.close()
    assert handler._writer._claim.given == 1
    assert handler.flush()
    until(lambda: len(book.threads()) == 1)
    handler.close()
    assert book.lines() == ["one", "two"]


def test_thread_that_ends_yields_to_another(book: Logbook) -> None:
    """A thread that finds the claim taken as it ends leaves what is queued to the other."""
    handler = book.open()
    writer = handler._writer
    book.logger.info("one")

    def take() -> None:
        handler._queue.items.put(b"two\n")
        writer._claim[0] = object()  # and does not write yet

    assert handler.flush()
    writer._claim = Contested(take, writer._claim)
    handler.close()
    until(lambda: not book.threads())
    assert (handler.statistics().pending, book.lines()) == (1, ["one"])
    writer._claim.clear()
    writer.start(in_thread=False)
    assert book.lines() == ["one", "two"]


def test_thread_that_ends_looks_once_more(book: Logbook) -> None:
    """What another put before the claim was given back is written by the thread that ends."""
    handler = book.open()
    writer = handler._writer
    book.logger.info("one")
    assert handler.flush()
    writer._claim = Contested(lambda: handler._queue.items.put(b"two\n"), writer._claim)
    handler.close()
    handler.close()
    assert book.lines() == ["one", "two"]


def test_thread_that_ends_during_the_exit_waits_for_nothing(
    book: Logbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is logged as the exit closes the file is written by the thread, which then ends."""
    handler = book.open()
    writer = handler._writer
    book.logger.info("one")
    assert handler.flush()

    def exit_begins() -> None:
        monkeypatch.setattr(_shutdown.process, "ends_by", monotonic() + 50)
        handler._queue.items.put(b"two\n")

    writer._claim = Contested(exit_begins, writer._claim)
    handler.close()
    until(lambda: not book.threads())
    assert book.lines() == ["one", "two"]


class Interrupted(dict[int, object]):
    """A claim that a signal interrupts just as it was taken."""

    def setdefault(self, key: int, default: object = None) -> object:
        """Take the claim, and have Ctrl-C pressed."""
        super().setdefault(key, default)
        raise KeyboardInterrupt


def test_signal_cannot_leave_a_claim_that_is_never_given_back(book: Logbook) -> None:
    """A signal whose handler raises as the claim was just taken does not keep it."""
    handler = book.open()
    handler._writer._claim = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        handler.close()
    handler._writer._claim = dict(handler._writer._claim)
    book.logger.info("text")
    handler.close()
    assert book.lines() == ["text"]


def test_record_that_is_being_taken_is_not_overlooked(book: Logbook) -> None:
    """While a thread has taken a record and not written it, nothing is flushed and closed."""
    handler = book.open()
    writer = handler._writer
    writer._claim[0] = object()  # of a thread with a record in its hands
    assert not handler.flush(0)
    assert writer.request_close() is not None
    writer._claim.clear()


def test_tries_become_rare(book: Logbook, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a disk is full it is tried after a twentieth of a second, and then once a second."""
    disk.full = 7
    handler = book.open()
    delays: list[float] = []
    monkeypatch.setattr(handler._writer._retry_now, "wait", delays.append)
    book.logger.info("text")
    assert handler.flush()
    assert delays == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert book.lines() == ["text"]


def test_flush_without_patience_leaves_close_its_own(book: Logbook, disk: Disk) -> None:
    """A flush that gave up at once does not make ``close`` give up a file that is only slow."""
    real = disk.write

    def slowly(fd: int, data: bytes) -> int:
        time.sleep(0.002)
        return real(fd, data)

    disk.write = slowly
    handler = book.open()
    for number in range(5000):
        book.logger.info("%d", number)
    assert not handler.flush(0)
    handler.close()
    assert book.lines() == [str(number) for number in range(5000)]


@pytest.mark.parametrize("seconds", [math.inf, 1e10])
def test_flush_for_ever(book: Logbook, seconds: float) -> None:
    """A patience longer than any clock is one."""
    handler = book.open()
    book.logger.info("text")
    assert handler.flush(seconds)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("flushed", ["flushed", ""])
def test_callback_that_ends_the_thread(book: Logbook, disk: Disk, flushed: str) -> None:
    """An ``on_error`` that exits lets those go on that wait, and the records are kept."""

    def on_error(error: Exception) -> None:
        raise SystemExit(str(error))

    def fill_up(fd: int, data: bytes) -> int:
        disk.write, disk.full = real, 2
        return real(fd, data)

    real = disk.write
    handler = book.open(on_error=on_error)
    disk.stop(book)
    disk.write = fill_up
    book.logger.info("text")
    request = handler._writer.request_flush() if flushed else None
    disk.go()
    until(lambda: not book.threads())
    if request is not None:
        assert request.wait(20)
        assert not request.written
    assert book.lines() == ["stuck"]
    assert handler.flush()
    assert book.lines() == ["stuck", "text"]


# ---- the caller itself ---------------------------------------------------------------------------


@pytest.mark.usefixtures("no_threads")
def test_no_more_threads(book: Logbook) -> None:
    """Where no thread can be started, the caller writes."""
    handler = book.open()
    book.logger.info("by myself")
    assert book.lines() == ["by myself"]
    assert handler.flush()
    handler.close()
    assert not is_open(book.path)


@pytest.mark.usefixtures("no_threads")
@pytest.mark.parametrize("overflow", ["drop_newest", "block"])
def test_caller_that_writes_tries_again(book: Logbook, disk: Disk, overflow: str) -> None:
    """A queue that filled up while the disk was full is written when there is room again."""
    disk.full = 3
    handler = book.open(max_pending=3, keep_room=0, overflow=overflow)
    for number in range(3):
        book.logger.info("%d", number)
    assert handler.statistics().pending == 3
    book.logger.info("3")
    assert disk.tries == 6
    assert book.lines() == ["0", "1", "2", "3"]
    assert handler.statistics().dropped == {}


@pytest.mark.usefixtures("no_threads")
def test_caller_that_waits_tries_again(
    book: Logbook, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``"block"`` and no thread, a caller that waits for room tries now and then."""
    monkeypatch.setattr(_queue, "_CHECK_AGAIN", 0.001)
    disk.full = 10
    handler = book.open(max_pending=1, keep_room=0, overflow="block")
    book.logger.info("one")
    assert disk.tries == 1
    book.logger.info("two")
    assert book.lines() == ["one", "two"]
    assert handler.statistics().write_errors == 10


@pytest.mark.usefixtures("ending")
def test_full_disk_during_the_exit(book: Logbook, disk: Disk) -> None:
    """``"block"`` drops what a full disk has no room for, and closing gives up at once."""
    disk.full = math.inf
    handler = book.open(max_pending=1, keep_room=0, overflow="block")
    start = monotonic()
    book.logger.info("one")
    book.logger.info("two")
    assert handler.statistics().dropped == {"INFO": 1}
    assert not handler.flush()
    assert handler.statistics().lost == 0  # it would still be written if there were room
    handler.close()
    assert (handler.statistics().lost, handler.statistics().pending) == (1, 0)
    assert monotonic() - start < 4
    assert not is_open(book.path)
    disk.full = 0
    book.logger.info("three")
    assert book.lines() == ["three", "dropped 1 records, because the queue was full (INFO: 1)"]


@pytest.mark.usefixtures("ending")
def test_closed_in_the_middle_of_a_write(book: Logbook, disk: Disk) -> None:
    """A handler closed while its caller writes counts what it could not write, and is closed."""
    handler = book.open()
    real = disk.write

    def write(fd: int, data: bytes) -> int:
        written = real(fd, data)
        disk.write = real
        disk.full = math.inf
        handler.handle(logging.makeLogRecord({"msg": "two"}))
        handler.close()  # as a signal handler may
        return written

    disk.write = write
    book.logger.info("one")
    assert book.lines() == ["one"]
    figures = handler.statistics()
    assert (figures.written, figures.lost, figures.pending) == (1, 1, 0)
    assert not is_open(book.path)


# ---- handlers that come and go -------------------------------------------------------------------


def test_multiprocessing_is_told_once(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that uses multiprocessing says once how its children are to end."""
    monkeypatch.setattr(_shutdown, "process", _shutdown._Process())
    calls: list[object] = []
    monkeypatch.setattr(util, "register_after_fork", lambda of, fn: calls.append((of, fn)))
    assert process.parent_process() is None
    for name in ("a.log", "b.log"):
        handler = book.open(filename=book.folder / name)
        book.logger.info("text")
        assert handler.flush()
    assert calls == [(_shutdown.process, _shutdown._close_when_child_ends)]
