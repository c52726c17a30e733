"""Flushing all handlers there are, in a time that is given."""

from __future__ import annotations

import io
import logging
import logging.config
import logging.handlers
import queue
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from mtaio.logging import _flush, _shutdown, flush_all
from tests.logging.tools import run, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.logging.tools import Disk, Logbook

LONG = 60.0
"""Seconds that no test takes."""

SHORT = 0.02


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the handlers that other tests have made and not closed."""
    handlers: list[object] = []
    monkeypatch.setattr(logging, "_handlerList", handlers)
    monkeypatch.setattr(_flush, "_KNOWN", handlers)
    monkeypatch.setattr(_shutdown.process, "writers", {})


@contextmanager
def held(lock: Any) -> Iterator[None]:
    """Have another thread hold a lock during the block."""
    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            over.wait(LONG)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(LONG)
    try:
        yield
    finally:
        over.set()
        for each in [thread, *flushing()]:
            each.join(LONG)


def flushing() -> list[threading.Thread]:
    """Return the threads that are in a handler's ``flush``."""
    return [thread for thread in threading.enumerate() if thread.name == _flush._NAME]


class Keeping(logging.Handler):
    """Keeps messages until it is flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []
        self.flushed: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.kept.append(record.getMessage())

    def flush(self) -> None:
        """Move what was kept."""
        self.flushed += self.kept
        self.kept.clear()


class Failing(logging.Handler):
    """Cannot be flushed."""

    def flush(self) -> None:
        """Fail."""
        raise ZeroDivisionError


def test_all_handlers(book: Logbook) -> None:
    """What was logged before is written, whatever the handlers, and whoever refers to them."""
    keeping = Keeping()
    other = book.folder / "other.log"
    book.open()
    book.open(filename=other)
    book.logger.addHandler(keeping)
    book.logger.addHandler(logging.NullHandler())
    for number in range(2000):
        book.logger.info("%d", number)
    assert flush_all(LONG)
    lines = [str(number) for number in range(2000)]
    assert book.lines() == book.lines(other) == keeping.flushed == lines
    book.logger.removeHandler(keeping)
    del keeping
    assert flush_all(LONG)  # nothing is left to do


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", None])
def test_refused(timeout: Any) -> None:
    """A timeout that is none is refused, with what to pass."""
    with pytest.raises((TypeError, ValueError), match=r"^timeout=.*Pass seconds >= 0"):
        flush_all(timeout)


def test_no_limit(book: Logbook) -> None:
    """The timeout may be infinite."""
    book.open()
    book.logger.addHandler(Keeping())
    book.logger.info("line")
    assert flush_all(float("inf"))
    assert book.lines() == ["line"]


def test_handler_without_references(book: Logbook) -> None:
    """What a handler was given is written, also when the handler is gone."""
    book.open()
    book.logger.info("line")
    book.forget()
    assert flush_all(LONG)
    assert book.lines() == ["line"]


def test_handler_that_logging_forgot() -> None:
    """A handler that dictConfig has made ``logging`` forget is flushed if a logger has it."""
    keeping = Keeping()
    logger = logging.getLogger("tests.logging.forgotten.by.logging")  # with placeholders above it
    logger.addHandler(keeping)
    try:
        logging._handlerList.clear()  # type: ignore[attr-defined]  # as dictConfig does
        logger.warning("line")
        assert flush_all(LONG)
        assert keeping.flushed == ["line"]
    finally:
        logger.removeHandler(keeping)


def test_memory_handler(book: Logbook) -> None:
    """What a MemoryHandler keeps is passed on first, and then written."""
    target = book.open()
    book.logger.removeHandler(target)
    book.logger.addHandler(logging.handlers.MemoryHandler(1000, target=target))
    book.logger.info("line")
    assert flush_all(LONG)
    assert book.lines() == ["line"]


@pytest.mark.parametrize("kind", [queue.Queue, queue.SimpleQueue])
def test_queue_handler(book: Logbook, kind: Callable[[], Any]) -> None:
    """What a QueueHandler has queued is dealt with first, and what the listener passes it to."""
    target = book.open()
    book.logger.removeHandler(target)
    waiting = kind()
    book.logger.addHandler(logging.handlers.QueueHandler(waiting))
    memory = logging.handlers.MemoryHandler(1000, target=target)
    for number in range(500):
        book.logger.info("%d", number)
    listener = logging.handlers.QueueListener(waiting, memory)
    listener.start()
    flushed = flush_all(LONG)
    if kind is queue.Queue:  # of the other kind it is not known what the listener has taken
        assert flushed
        assert book.lines() == [str(number) for number in range(500)]
    listener.stop()


def test_memory_handler_behind_a_queue(book: Logbook) -> None:
    """What a listener passes to a MemoryHandler that was flushed before is written all the same."""

    class Memory(logging.handlers.MemoryHandler):
        def flush(self) -> None:
            super().flush()
            if not self.buffer and listener._thread is None:
                listener.start()

    target = book.open()
    book.logger.removeHandler(target)
    waiting: queue.Queue[Any] = queue.Queue()
    memory = Memory(1000, target=target)
    listener = logging.handlers.QueueListener(waiting, memory)
    book.logger.addHandler(logging.handlers.QueueHandler(waiting))
    book.logger.info("line")
    assert flush_all(LONG)
    assert book.lines() == ["line"]
    listener.stop()


def test_record_that_a_listener_deals_with(book: Logbook) -> None:
    """A record that was taken from a queue.Queue is waited for until it is dealt with."""
    waiting: queue.Queue[Any] = queue.Queue()
    book.logger.addHandler(logging.handlers.QueueHandler(waiting))
    book.logger.info("line")
    waiting.get()
    assert not flush_all(SHORT)
    waiting.task_done()
    assert flush_all(LONG)


def test_queue_nobody_reads(book: Logbook) -> None:
    """Records in a queue that nothing empties are not written, and the others are."""
    book.open()
    book.logger.addHandler(logging.handlers.QueueHandler(queue.Queue()))
    book.logger.info("line")
    assert not flush_all(SHORT)
    until(lambda: book.lines() == ["line"])


def test_queue_that_cannot_say() -> None:
    """A queue that cannot be asked counts as one that is not empty."""
    handler = logging.handlers.QueueHandler(object())  # type: ignore[arg-type]  # no queue
    assert not flush_all(LONG)
    handler.close()


def test_failing_handler(book: Logbook) -> None:
    """A handler that cannot be flushed is reported by the result, and the others are flushed."""
    failing, keeping = Failing(), Keeping()
    book.open()
    book.logger.addHandler(keeping)
    book.logger.warning("line")
    assert not flush_all(LONG)
    assert book.lines() == keeping.flushed == ["line"]
    failing.close()


def test_closed_stream() -> None:
    """A handler whose stream is closed has nothing to flush."""
    stream = io.TextIOWrapper(io.BytesIO())
    handler = logging.StreamHandler(stream)
    assert flush_all(LONG)
    stream.close()
    assert flush_all(LONG)
    handler.close()


def test_full_disk(book: Logbook, disk: Disk) -> None:
    """What a full disk does not take is not written in time, and is written later."""
    keeping = Keeping()
    book.open(on_error=lambda _: None)
    book.logger.addHandler(keeping)
    disk.full = float("inf")
    book.logger.info("line")
    assert not flush_all(SHORT)
    until(lambda: keeping.flushed == ["line"])
    disk.full = 0
    assert flush_all(LONG)
    assert book.lines() == ["line"]


def test_locks_that_are_held(book: Logbook) -> None:
    """The lock of logging itself is not needed, and a handler's lock keeps back it alone."""
    stuck, keeping = logging.StreamHandler(io.StringIO()), Keeping()
    book.open()
    book.logger.addHandler(keeping)
    book.logger.warning("line")
    with held(vars(logging)["_lock"]):
        assert flush_all(LONG)
    with held(stuck.lock):
        book.logger.warning("another")
        assert not flush_all(SHORT)
    until(lambda: book.lines() == keeping.flushed == ["line", "another"])


def test_stuck_handlers_are_bounded(book: Logbook) -> None:
    """Handlers that never return take 32 threads at most, however often they are flushed."""
    book.open()
    lock = threading.Lock()
    stuck = [logging.StreamHandler(io.StringIO()) for _ in range(40)]
    for handler in stuck:
        handler.lock = lock  # type: ignore[assignment]  # one lock for all
    with held(lock):
        assert not flush_all(SHORT)
        book.logger.info("line")
        assert not flush_all(LONG)  # at once, as no thread may be started, but for the file
        assert book.lines() == ["line"]
        assert len(flushing()) == 32
        assert all(thread.daemon for thread in flushing())  # the exit does not wait for them


def test_no_thread_can_be_started(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started, what needs none is flushed, and the result says so."""
    keeping = Keeping()
    book.open()
    book.logger.info("first")
    assert flush_all(LONG)

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    book.logger.info("second")
    assert not flush_all(LONG)
    assert book.lines() == ["first", "second"]
    keeping.close()


def test_before_a_hard_exit(tmp_path: Path) -> None:
    """A thread flushes all and ends the process while the main thread stands still."""
    program = """
    import logging, os, sys, threading, time
    from mtaio.logging import AsyncFileHandler, flush_all

    logger = logging.getLogger("app")
    logger.setLevel(logging.INFO)
    logger.addHandler(AsyncFileHandler("app.log"))
    stuck = logging.StreamHandler()
    logger.addHandler(stuck)

    def guard():
        started.wait()
        flushed = flush_all(1.0)
        os._exit(70 if flushed is False else 1)

    started = threading.Event()
    for number in range(5000):
        logging.getLogger("app").info("%d", number)
    threading.Thread(target=guard, daemon=True).start()
    with logging._lock, stuck.lock:
        started.set()
        time.sleep(1000)
    """
    ended = run(program, tmp_path)
    assert ended.returncode == 70
    lines = (tmp_path / "app.log").read_text(encoding="utf-8").splitlines()
    assert lines == [str(number) for number in range(5000)]
