"""A queue that is full, because the file takes nothing."""

from __future__ import annotations

import logging
import math
import sys
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import mtaio.testing
from mtaio.logging import AsyncFileHandler, _backlog, _exit, _writer
from mtaio.logging._flushes import Flushes, flushes_here
from mtaio.logging._mark import Mark
from mtaio.testing import assert_quiescent
from tests.logging.tools import Logbook, until
from tests.logging.tools_posix import BIG, Fifo, stall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

assert sys.platform != "win32"


@pytest.fixture
def fifo(book: Logbook) -> Iterator[Fifo]:
    """Return the sink behind ``app.log``."""
    fifo = Fifo(book.path)
    yield fifo
    handlers = [handler for handler in book.handlers if handler._writer.file.is_open]
    fifo.read_until(lambda: all(handler.flush(0.1) for handler in handlers))
    book.close()
    fifo.close()


def drain(fifo: Fifo, handler: AsyncFileHandler) -> list[str]:
    """Let the writer go on until it has nothing left; return the lines without the big one."""
    text = fifo.read_until(lambda: handler._writer.pending() == 0 and handler.flush(0.1))
    lines = text.decode().splitlines()
    return [line for line in lines if line != BIG]


def test_records_beyond_the_bound_are_dropped_counted_and_told(book: Logbook, fifo: Fifo) -> None:
    """Exactly ``queue_size`` are kept; of the rest one line tells, in the handler's format."""
    handler = book.open(queue_size=100, keep_room=0)
    handler.setFormatter(logging.Formatter("%(message)s [%(levelname)s]"))
    handler.addFilter(lambda record: record.name == "book")  # the line is not the filter's to drop
    stall(book, handler)
    for number in range(150):
        book.logger.info("%d", number)
    for _ in range(20):
        book.logger.warning("no room")
    figures = handler.statistics()
    assert figures.queued == 100
    assert figures.dropped == {"INFO": 51, "WARNING": 20}
    assert drain(fifo, handler)[-100:] == [
        *(f"{number} [INFO]" for number in range(99)),
        "dropped 71 records, because the queue was full (INFO: 51, WARNING: 20) [WARNING]",
    ]
    figures = handler.statistics()
    assert (figures.queued, figures.written) == (0, 101)
    assert_quiescent(handler)


def test_each_crowd_is_told_of_by_itself(book: Logbook, fifo: Fifo) -> None:
    """A line about dropped records counts those since the last such line."""
    handler = book.open(queue_size=1, keep_room=0)
    for number in range(1, 3):
        stall(book, handler)
        for _ in range(number):
            book.logger.info("no room")
        assert drain(fifo, handler)[-1:] == [
            f"dropped {number} records, because the queue was full (INFO: {number})"
        ]
    assert handler.statistics().dropped == {"INFO": 3}


def test_endless_crowd_is_told_of_now_and_then(
    book: Logbook, fifo: Fifo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the queue is never empty, dropped records are told of every ten seconds."""
    monkeypatch.setattr(_backlog, "_BETWEEN_TELLING", 0.0)
    monkeypatch.setattr(_backlog, "BATCH", 2)
    handler = book.open(queue_size=10, keep_room=0)
    stall(book, handler)
    for number in range(12):
        book.logger.info("%d", number)
    lines = drain(fifo, handler)
    assert lines == [
        "dropped 3 records, because the queue was full (INFO: 3)",
        *(str(number) for number in range(9)),
    ]


def test_errors_have_room_of_their_own(book: Logbook, fifo: Fifo) -> None:
    """Records at ``keep_level`` and above fit in ``keep_room`` more places."""
    handler = book.open(queue_size=10, keep_level="ERROR", keep_room=5)
    stall(book, handler)
    for number in range(20):
        book.logger.info("%d", number)
    for number in range(10):
        book.logger.error("error %d", number)
    assert handler.statistics().dropped == {"INFO": 11, "ERROR": 5}
    lines = drain(fifo, handler)
    assert [line for line in lines if line.startswith("error")] == [f"error {n}" for n in range(5)]


class Picky(logging.Formatter):
    """Formats the user's records alone."""

    def format(self, record: logging.LogRecord) -> str:  # noqa: D102 - as logging's
        return str(record.request)  # type: ignore[attr-defined]  # what only the user's records have


def changed(record: logging.LogRecord) -> Any:
    """Add to the record, as filters do in all versions."""
    vars(record)["shop"] = "till 1"
    return True


def replaced(record: logging.LogRecord) -> Any:
    """Return another record, as filters may from Python 3.12 on."""
    return logging.makeLogRecord({**vars(record), "shop": "till 1"})


ADDING = [changed, replaced] if hasattr(logging, "getHandlerNames") else [changed]


@pytest.mark.parametrize("add", ADDING)
def test_line_about_dropped_records_has_what_filters_add(
    book: Logbook, add: Callable[[logging.LogRecord], Any]
) -> None:
    """The line passes the handler's filters, which may add what its format wants."""
    handler = book.open(queue_size=1, keep_room=0)
    handler.setFormatter(logging.Formatter("%(shop)s: %(message)s"))
    handler.addFilter(add)
    writer = handler._writer
    writer._right[0] = object()  # somebody has it, and is slow
    for _ in range(2):
        book.logger.info("text")
    writer._right.clear()
    writer.start(patient=False)
    notice = "till 1: dropped 1 records, because the queue was full (INFO: 1)"
    assert book.lines() == ["till 1: text", notice]


def test_line_about_dropped_records_survives_the_formatter(book: Logbook, fifo: Fifo) -> None:
    """If the formatter wants what only the user's records have, the line is plain."""
    handler = book.open(queue_size=1)
    stall(book, handler)
    handler.setFormatter(Picky())
    book.logger.info("text", extra={"request": "one"})
    assert drain(fifo, handler) == [
        "mtaio.logging: dropped 1 records, because the queue was full (INFO: 1)"
    ]


def test_line_about_dropped_records_outlives_the_handler(book: Logbook, fifo: Fifo) -> None:
    """If nobody holds the handler any more, the line is plain."""
    handler = book.open(queue_size=1)
    stall(book, handler)
    book.logger.info("no room")
    writer = handler._writer
    book.logger.removeHandler(handler)
    book.handlers.clear()
    del handler
    text = fifo.read_until(lambda: writer.idle and not writer.file.is_open).decode()
    assert text.splitlines()[1:] == [
        "mtaio.logging: dropped 1 records, because the queue was full (INFO: 1)"
    ]


def test_block_waits_for_room(book: Logbook, fifo: Fifo) -> None:
    """With ``"block"`` a thread waits until there is room, and nothing is dropped."""
    handler = book.open(queue_size=3, when_full="block")
    stall(book, handler)

    def log(name: str) -> None:
        for number in range(20):
            book.logger.info("%s %d", name, number)

    threads = [threading.Thread(target=log, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    until(lambda: handler.statistics().waiters == 2)
    with pytest.raises(AssertionError, match="waiters=2"):
        assert_quiescent(handler)
    text = fifo.read_until(lambda: not any(thread.is_alive() for thread in threads)).decode()
    text += "\n".join(drain(fifo, handler))
    for name in "ab":
        mine = [line for line in text.splitlines() if line.startswith(name)]
        assert mine == [f"{name} {number}" for number in range(20)]
    assert handler.statistics().dropped == {}
    assert_quiescent(handler)


def test_block_never_blocks_an_event_loop(book: Logbook, fifo: Fifo, backend: str) -> None:
    """With ``"block"`` a record of a task is dropped, and one of its worker thread waits."""
    handler = book.open(queue_size=1, when_full="block")
    stall(book, handler)

    async def main() -> None:
        book.logger.info("in the loop")
        assert handler.statistics().dropped == {"INFO": 1}
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, book.logger.info, "in a thread")
            with anyio.fail_after(60):
                while handler.statistics().waiters == 0:
                    await checkpoint()
            await anyio.to_thread.run_sync(fifo.read_until, lambda: handler.flush(0.1))

    mtaio.testing.run(main, backend=backend)
    fifo.read_until(lambda: handler.flush(0.1))
    assert handler.statistics().written == 3


def test_block_does_not_make_the_writer_wait_for_itself(book: Logbook, fifo: Fifo) -> None:
    """What the writing thread itself logs, as a formatter may, is dropped when there is no room."""
    handler = book.open(queue_size=2, when_full="block")

    class Chatty(logging.Formatter):
        told = 0

        def format(self, record: logging.LogRecord) -> str:
            if record.name == "mtaio.logging":
                self.told += 1
                if self.told == 1:
                    for _ in range(5):
                        book.logger.info("from inside")
                    assert not handler.flush(1000)
            return super().format(record)

    stall(book, handler)

    async def drop() -> None:
        for number in range(3):
            book.logger.info("%d", number)

    mtaio.testing.run(drop)
    handler.setFormatter(Chatty())
    lines = drain(fifo, handler)
    assert lines == [
        "0",
        "dropped 2 records, because the queue was full (INFO: 2)",
        *["from inside"] * 2,
        "dropped 3 records, because the queue was full (INFO: 3)",
    ]


def test_flush_gives_up_after_its_timeout(book: Logbook, fifo: Fifo) -> None:
    """``flush`` tells that the file took nothing, in the time it was given."""
    handler = book.open()
    stall(book, handler)
    assert not handler.flush(0.01)
    drain(fifo, handler)
    assert handler.flush()


async def test_aflush_gives_up(book: Logbook, fifo: Fifo) -> None:
    """``aflush`` tells so too."""
    handler = book.open()
    stall(book, handler)
    assert not await handler.aflush(0.01)
    drain(fifo, handler)
    assert await handler.aflush()


async def test_aflush_can_be_cancelled(book: Logbook, fifo: Fifo) -> None:
    """``aflush`` that is cancelled leaves no thread behind, however long it wanted to wait."""
    handler = book.open()
    stall(book, handler)
    flushes = flushes_here()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(handler.aflush, 1000)
            while not flushes._at_work:
                await checkpoint()
            bell = flushes._bell
            assert not bell.is_set()
            scope.cancel()
    assert scope.cancelled_caught
    assert bell.is_set()  # for which the thread waited
    assert not flushes._waiting
    drain(fifo, handler)


async def test_many_aflushes_share_a_thread(book: Logbook, fifo: Fifo) -> None:
    """Flushing a file that stands still takes one thread, however many tasks do."""
    handler = book.open()
    stall(book, handler)
    before = threading.active_count()
    flushed: list[bool] = []

    async def flush() -> None:
        flushed.append(await handler.aflush(60))

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(flush)
        while handler._writer._marks < 100:
            await checkpoint()
        for _ in range(10):
            await checkpoint()
        assert threading.active_count() <= before + 1
        await anyio.to_thread.run_sync(drain, fifo, handler)
    assert flushed == [True] * 100
    assert not flushes_here()._waiting


async def test_each_aflush_has_its_own_time(book: Logbook, fifo: Fifo) -> None:
    """One that waits less long than those before it ends first; the others go on waiting."""
    handler = book.open()
    stall(book, handler)
    flushed: list[tuple[str, bool]] = []

    async def flush(name: str, seconds: float) -> None:
        flushed.append((name, await handler.aflush(seconds)))

    async with anyio.create_task_group() as group:
        group.start_soon(flush, "long", math.inf)
        await checkpoint()
        group.start_soon(flush, "longer", 1e10)
        await checkpoint()
        assert not await handler.aflush(0.01)
        await flush("short", 0.02)
        assert flushed == [("short", False)]
        await anyio.to_thread.run_sync(drain, fifo, handler)
    assert sorted(flushed[1:]) == [("long", True), ("longer", True)]


@pytest.mark.parametrize("cancelled", [{0}, {1}, {0, 1}, {0, 2}])
async def test_one_aflush_is_cancelled_others_are_not(
    book: Logbook, fifo: Fifo, cancelled: set[int]
) -> None:
    """Whoever has the thread wait for all may be cancelled: another has it wait then."""
    handler = book.open()
    stall(book, handler)
    flushed: list[int] = []
    scopes = [anyio.CancelScope() for _ in range(4)]

    async def flush(number: int) -> None:
        with scopes[number]:
            assert await handler.aflush(60)
            flushed.append(number)

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(flush, number)
        while handler._writer._marks < 4 or not flushes_here()._at_work:
            await checkpoint()
        for number in cancelled:
            scopes[number].cancel()
        await checkpoint()
        await anyio.to_thread.run_sync(drain, fifo, handler)
    assert set(flushed) == {0, 1, 2, 3} - cancelled
    assert not flushes_here()._waiting


async def test_mark_that_is_reached_before_it_is_waited_for() -> None:
    """Whoever comes too late to be told goes on all the same, though others wait in the thread."""
    flushes = Flushes()
    early, late = Mark(), Mark()
    async with anyio.create_task_group() as group:
        group.start_soon(flushes.wait, early, math.inf)
        while not flushes._at_work:
            await checkpoint()
        late.reach(written=True)
        with anyio.fail_after(60):
            await flushes.wait(late, math.inf)
        early.let_go()


async def test_mark_that_is_reached_before_anybody_waits() -> None:
    """A mark that is reached just before it is waited for is not waited for in a thread."""
    mark = Mark()
    mark.reach(written=True)
    too_late = monotonic() + 30
    await Flushes().wait(mark, too_late)
    assert monotonic() < too_late


async def test_aflush_needs_none_of_the_common_threads(book: Logbook, fifo: Fifo) -> None:
    """``aflush`` goes on while all the worker threads there may be are taken."""
    handler = book.open()
    stall(book, handler)
    limiter = anyio.to_thread.current_default_thread_limiter()
    holders = [object() for _ in range(int(limiter.total_tokens))]
    for holder in holders:
        limiter.acquire_on_behalf_of_nowait(holder)
    flushed: list[bool] = []

    async def flush() -> None:
        flushed.append(await handler.aflush(60))

    async with anyio.create_task_group() as group:
        group.start_soon(flush)
        await checkpoint()
        with anyio.fail_after(60):
            while not flushed:
                fifo.read()
                await checkpoint()
    assert flushed == [True]
    for holder in holders:
        limiter.release_on_behalf_of(holder)


def test_flushing_a_dead_file_is_bounded(
    book: Logbook, fifo: Fifo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who flush a file that takes nothing, again and again, do not fill the memory."""
    monkeypatch.setattr(_writer, "_MARKS", 3)
    handler = book.open(queue_size=1, keep_room=0)
    stall(book, handler)
    for _ in range(10):
        assert not handler.flush(0)
    assert handler._writer.pending() <= 5
    assert handler.statistics().queued == 1
    drain(fifo, handler)
    assert handler.flush()


def test_close_shares_the_patience_of_a_flush(
    book: Logbook, fifo: Fifo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``close`` right after a ``flush`` that failed waits for what that left of the patience."""
    monkeypatch.setattr(_exit, "PATIENCE", 3.0)
    handler = book.open()
    stall(book, handler)
    start = monotonic()
    assert not handler.flush(2.5)
    handler.close()
    pending = handler._writer.pending()
    handler.close()
    assert handler._writer.pending() == pending
    assert not handler.flush(0)
    assert 3 <= monotonic() - start < 5.5
    text = fifo.read_until(lambda: handler._writer.idle)
    assert text.decode() == BIG + "\n"
    book.logger.info("again")
    assert drain(fifo, handler)[-1:] == ["again"]


def test_dead_files_share_the_patience(
    book: Logbook, fifo: Fifo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing all handlers at a process's end takes one patience, however many there are."""
    monkeypatch.setattr(_exit, "_process", _exit._Process())
    fifos = [fifo, *(Fifo(book.folder / name) for name in ("two", "three"))]
    handlers = [book.open(filename=each.path) for each in fifos]
    book.logger.warning(BIG)
    until(lambda: all(handler._writer.batch for handler in handlers))
    start = monotonic()
    _exit._close_all(2)
    assert 2 <= monotonic() - start < 5.5
    for each, handler in zip(fifos[1:], handlers[1:], strict=True):
        writer = handler._writer
        each.read_until(lambda writer=writer: writer.idle)  # type: ignore[misc]  # bound at once
        each.close()


def test_close_from_the_writing_thread_does_not_wait(book: Logbook, fifo: Fifo) -> None:
    """A handler that is closed by its own writing thread is closed when that is done."""
    handler = book.open(queue_size=1)

    class Closing(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.name == "mtaio.logging":
                handler.close()
            return super().format(record)

    stall(book, handler)
    book.logger.info("no room")
    handler.setFormatter(Closing())
    text = fifo.read_until(lambda: handler._writer.idle).decode()
    assert "dropped 1 records" in text
    assert not handler._writer.file.is_open


def test_fifo_is_never_rotated(book: Logbook, fifo: Fifo) -> None:
    """What is no regular file is written as it is, whatever ``max_bytes`` says."""
    handler = book.open(max_bytes=10, backup_count=3)
    for number in range(20):
        book.logger.info("record %d", number)
    assert drain(fifo, handler) == [f"record {number}" for number in range(20)]
    assert [path.name for path in book.folder.iterdir()] == ["app.log"]
    assert handler.statistics().rotations == 0
