"""Who writes what is queued: one thread, the next one, or whoever logs."""

from __future__ import annotations

import logging
import math
import threading
import time
from multiprocessing import process, util
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from mtaio.logging import _backlog, _exit, _writer
from mtaio.testing import assert_quiescent
from tests.logging.tools import Disk, Logbook, until

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
    """Have the interpreter's end begin."""
    monkeypatch.setattr(_exit._process, "ends_by", monotonic() + _exit.PATIENCE)


# ---- one at a time -------------------------------------------------------------------------------


def test_many_who_begin_at_once_have_one_thread(book: Logbook) -> None:
    """However many find that nobody writes, one thread does."""
    handler = book.open()
    barrier = threading.Barrier(8)

    def begin(name: str) -> None:
        barrier.wait()
        book.logger.info(name)

    threads = [threading.Thread(target=begin, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(book.threads()) == 1)
    handler._writer.start()
    assert len(book.threads()) == 1
    handler.close()
    assert not book.threads()
    assert sorted(book.lines()) == list("abcdefgh")


def test_thread_that_comes_too_late_ends(book: Logbook) -> None:
    """A thread that is started when another has done everything, or does, ends at once."""
    handler = book.open()
    writer = handler._writer
    writer._own()
    assert writer.idle
    writer.queue.put(b"one\n")
    writer._right[0] = object()  # somebody has it
    writer._own()
    assert writer.pending() == 1
    writer._right.clear()
    assert handler.flush()
    assert book.lines() == ["one"]


def test_queued_records_are_told_of(book: Logbook) -> None:
    """A handler with records still to be written is not quiescent, and says how many."""
    handler = book.open()
    assert_quiescent(handler)
    writer = handler._writer
    writer._right[0] = object()  # somebody has it, and is slow
    book.logger.info("one")
    book.logger.info("two")
    with pytest.raises(AssertionError, match=r"queued=2"):
        assert_quiescent(handler)
    writer._right.clear()
    assert handler.flush()
    assert_quiescent(handler)


def test_worst_delay_is_that_of_the_first(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """The delay counts from the arrival of the record that has waited longest."""
    moment = 100.0
    for module in (_backlog, _writer):
        monkeypatch.setattr(module, "monotonic", lambda: moment)
    handler = book.open()
    writer = handler._writer
    writer._right[0] = object()  # somebody has it, and is slow
    for number in range(65):
        book.logger.info("%d", number)
        moment += 0.5
    writer._right.clear()
    writer.start(patient=False)
    assert handler.statistics().worst_queue_delay == 32.5


def test_batches_are_bounded(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many records are queued, 512 at most are written in one piece."""
    disk = Disk(monkeypatch)
    handler = book.open()
    writer = handler._writer
    writer._right[0] = object()  # as above
    for number in range(2000):
        book.logger.info("%d", number)
    writer._right.clear()
    writer.start(patient=False)
    assert disk.tries == 4
    assert book.lines() == [str(number) for number in range(2000)]


def test_callers_nap_when_the_queue_is_half_full(
    book: Logbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From half of the queue on a caller leaves the writer a moment, rarely if that is in vain."""
    moment = 100.0
    naps: dict[float, list[float]] = {}
    helpful = 1
    handler = book.open(queue_size=1000, keep_room=0)
    writer = handler._writer

    def nap(seconds: float) -> None:
        parts = naps.setdefault(moment, [])
        parts.append(seconds)
        if len(parts) == helpful:
            writer.done()

    monkeypatch.setattr(_backlog, "monotonic", lambda: moment)
    monkeypatch.setattr(time, "sleep", nap)
    writer._right[0] = object()  # somebody has it, and is starved
    for number in range(500):
        book.logger.info("%d", number)
    assert naps == {}

    def nap_times(milliseconds: int, *, parts: int | None = None) -> list[int]:
        nonlocal moment
        naps.clear()
        start = moment
        for _ in range(milliseconds):
            book.logger.info("text")
            moment += 0.001
        each = [when for when, slept in naps.items() if parts in (None, len(slept))]
        return [round(1000 * (when - start)) for when in each]

    assert nap_times(9, parts=1) == [0, 2, 4, 6, 8]
    assert next(iter(naps.values())) == [50e-6]
    helpful = 3
    moment += 1
    assert nap_times(9, parts=3) == [0, 2, 4, 6, 8]
    assert next(iter(naps.values())) == [50e-6, 100e-6, 200e-6]
    helpful = 0
    moment += 1
    assert nap_times(445) == list(range(0, 445, 2))
    long = [50e-6, 100e-6, 200e-6, 400e-6, 800e-6]
    assert [slept for slept in naps.values() if len(slept) > 1] == [long] * 8
    moment += 3
    assert nap_times(32, parts=5) == [0]  # after one in vain the next comes much later
    helpful = 5
    moment += 3
    assert nap_times(5, parts=5) == [0, 2, 4]
    helpful = 0
    moment += 1  # from here on the queue is full
    assert nap_times(400) == [0, 2, 6, 14, 30, 62, 126, 190, 254, 318, 382]
    helpful = 1
    moment += 1
    assert nap_times(70) == [0, 64, 66, 68]
    assert handler.statistics().dropped == {"INFO": 470}
    writer._right.clear()


def test_empty_queue_is_never_half_full(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the queue is, nobody naps while nothing is in it."""
    naps: list[float] = []
    monkeypatch.setattr(time, "sleep", naps.append)
    writer = book.open(queue_size=1)._writer
    writer._right[0] = object()  # as above
    book.logger.info("first")
    assert naps == []
    book.logger.info("no room")
    assert naps
    writer._right.clear()


class Contested(dict[int, object]):
    """The right to write, which another takes as soon as it is given back."""

    def __init__(self, other: Callable[[], object], right: dict[int, object]) -> None:
        super().__init__(right)
        self._other = other
        self.given = 0

    def __delitem__(self, key: int) -> None:
        """Give the right back, and let the other one have it."""
        super().__delitem__(key)
        self.given += 1
        if self.given == 1:
            self._other()


def test_thread_that_ends_leaves_the_rest_to_another(book: Logbook) -> None:
    """What is logged just as a thread ends is written by the next one, once."""
    handler = book.open()
    book.logger.info("one")
    assert handler.flush()
    handler._writer._right = Contested(lambda: book.logger.info("two"), handler._writer._right)
    handler.close()
    assert handler._writer._right.given == 1
    assert handler.flush()
    until(lambda: len(book.threads()) == 1)
    handler.close()
    assert book.lines() == ["one", "two"]


def test_thread_that_ends_yields_to_another(book: Logbook) -> None:
    """A thread that finds the right taken as it ends leaves what is queued to who took it."""
    handler = book.open()
    writer = handler._writer
    book.logger.info("one")

    def take() -> None:
        writer.queue.put(b"two\n")
        writer._right[0] = object()  # and is slow to begin

    assert handler.flush()
    writer._right = Contested(take, writer._right)
    handler.close()
    until(lambda: not book.threads())
    assert (writer.pending(), book.lines()) == (1, ["one"])
    writer._right.clear()
    writer.start(patient=False)
    assert book.lines() == ["one", "two"]


def test_thread_that_ends_looks_once_more(book: Logbook) -> None:
    """What another put before the right was given back is written by the one who ends."""
    handler = book.open()
    writer = handler._writer
    book.logger.info("one")
    assert handler.flush()
    writer._right = Contested(lambda: writer.queue.put(b"two\n"), writer._right)
    handler.close()
    handler.close()
    assert book.lines() == ["one", "two"]


def test_tries_become_rare(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a disk is full it is tried after a twentieth of a second, and then once a second."""
    Disk(monkeypatch, full=7)
    handler = book.open()
    delays: list[float] = []
    monkeypatch.setattr(handler._writer._nudge, "wait", delays.append)
    book.logger.info("text")
    assert handler.flush()
    assert delays == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert book.lines() == ["text"]


def test_flush_without_patience_leaves_close_its_own(
    book: Logbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush that gave up at once does not make ``close`` give up a file that is only slow."""
    disk = Disk(monkeypatch)
    real = disk.write

    def slowly(fd: int, data: bytes) -> int:
        time.sleep(0.02)
        return real(fd, data)

    disk.write = slowly
    handler = book.open()
    for number in range(5000):
        book.logger.info("%d", number)
    assert not handler.flush(0)
    handler.close()
    assert book.lines() == [str(number) for number in range(5000)]


def test_flush_for_ever(book: Logbook) -> None:
    """A patience longer than any clock is one."""
    handler = book.open()
    for seconds in (math.inf, 1e10):
        book.logger.info("text")
        assert handler.flush(seconds)


class Interrupted(dict[int, object]):
    """The right to write, which a signal interrupts just as somebody has got it."""

    def setdefault(self, key: int, default: object = None) -> object:
        """Get the right, and have Ctrl-C pressed."""
        super().setdefault(key, default)
        raise KeyboardInterrupt


def test_signal_cannot_leave_nobody_with_the_right(book: Logbook) -> None:
    """A signal whose handler raises as the right was just taken does not lose it."""
    handler = book.open()
    handler._writer._right = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        handler.close()
    assert handler._writer.idle
    handler._writer._right = {}
    book.logger.info("text")
    handler.close()
    assert book.lines() == ["text"]


def test_mark_behind_what_is_in_hand(book: Logbook) -> None:
    """While somebody has taken a record and not written it, nothing is flushed and closed."""
    handler = book.open()
    writer = handler._writer
    writer._right[0] = object()  # somebody has it, and a record in his hands
    assert not handler.flush(0)
    assert writer.ask_to_close() is not None
    assert writer.pending() == 2
    writer._right.clear()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("flushed", ["flushed", ""])
def test_callback_that_ends_the_thread(
    book: Logbook, monkeypatch: pytest.MonkeyPatch, flushed: str
) -> None:
    """An ``on_error`` that exits lets those go on who wait, and the records are kept."""
    disk = Disk(monkeypatch, full=1)
    begun = threading.Event()

    def on_error(error: Exception) -> None:
        begun.wait(20)
        raise SystemExit(str(error))

    handler = book.open(on_error=on_error)
    writer = handler._writer
    writer._right[0] = object()  # until all is queued
    book.logger.info("text")
    mark = writer.mark() if flushed else None
    writer._right.clear()
    begun.set()
    writer.start()
    if mark is not None:
        assert mark.wait(20)
        assert not mark.written
    until(lambda: not book.threads())
    assert handler.flush()
    assert disk.tries == 2
    assert book.lines() == ["text"]


# ---- nobody but the caller -----------------------------------------------------------------------


@pytest.mark.usefixtures("no_threads")
def test_no_more_threads(book: Logbook) -> None:
    """Where no thread can be started, the caller writes himself."""
    handler = book.open()
    book.logger.info("by myself")
    assert book.lines() == ["by myself"]
    assert handler.flush()
    handler.close()
    assert handler._writer.idle
    assert not handler._writer.file.is_open


@pytest.mark.usefixtures("no_threads")
@pytest.mark.parametrize("when_full", ["drop", "block"])
def test_caller_who_writes_tries_again(
    book: Logbook, monkeypatch: pytest.MonkeyPatch, when_full: str
) -> None:
    """A queue that filled up while the disk was full is written when there is room again."""
    disk = Disk(monkeypatch, full=3)
    handler = book.open(queue_size=3, keep_room=0, when_full=when_full)
    for number in range(3):
        book.logger.info("%d", number)
    assert handler.statistics().queued == 3
    book.logger.info("3")
    assert disk.tries == 6
    assert book.lines() == ["0", "1", "2", "3"]
    assert handler.statistics().dropped == {}
    handler.close()


@pytest.mark.usefixtures("no_threads")
def test_caller_who_waits_tries_again(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``"block"`` and no thread, who waits for room looks now and then whether there is."""
    monkeypatch.setattr(_backlog, "_LOOK_AGAIN", 0.001)
    disk = Disk(monkeypatch, full=10)
    handler = book.open(queue_size=1, keep_room=0, when_full="block")
    book.logger.info("one")
    assert disk.tries == 1
    book.logger.info("two")
    assert book.lines() == ["one", "two"]
    assert handler.statistics().write_errors == 10


@pytest.mark.usefixtures("ending")
def test_nobody_waits_for_room_at_the_end(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the end has begun, ``"block"`` drops what a full disk has no room for."""
    disk = Disk(monkeypatch, full=math.inf)
    handler = book.open(queue_size=1, keep_room=0, when_full="block")
    start = monotonic()
    book.logger.info("one")
    book.logger.info("two")
    assert handler.statistics().dropped == {"INFO": 1}
    assert not handler.flush()
    handler.close()
    assert monotonic() - start < 4
    disk.full = 0
    assert handler.flush()
    assert book.lines() == [
        "one",
        "dropped 1 records, because the queue was full (INFO: 1)",
    ]


@pytest.mark.usefixtures("ending")
def test_closed_by_the_way_on_a_full_disk(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler closed while its caller writes counts what it could not write, and is closed."""
    handler = book.open()
    disk = Disk(monkeypatch)
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
    assert (figures.written, figures.lost, figures.queued) == (1, 1, 0)
    assert not handler._writer.file.is_open


# ---- a child of multiprocessing ------------------------------------------------------------------


def test_multiprocessing_is_told_once(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has multiprocessing tells it once how its children are to end."""
    monkeypatch.setattr(_exit, "_process", _exit._Process())
    told: list[object] = []
    monkeypatch.setattr(util, "register_after_fork", lambda of, fn: told.append((of, fn)))
    assert process.parent_process() is None
    for name in ("a.log", "b.log"):
        handler = book.open(filename=book.folder / name)
        book.logger.info("text")
        assert handler.flush()
    assert told == [(_exit._process, _exit._close_when_child_ends)]


def test_thread_of_a_handler_nobody_holds_ends(book: Logbook) -> None:
    """The thread of a handler that was dropped without being closed ends when all is written."""
    handler = book.open()
    book.logger.info("text")
    book.logger.removeHandler(handler)
    book.handlers.clear()
    del handler
    until(lambda: not book.threads())
    assert book.lines() == ["text"]
