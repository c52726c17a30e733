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
from mtaio._internal import ending
from mtaio.logging import _queue, _shutdown, _writer
from mtaio.logging._queue import FlushRequest
from mtaio.testing import assert_quiescent
from tests.logging.tools import Disk, Logbook, is_open, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def written(book: Logbook, disk: Disk) -> list[str]:
    """Let the disk go on; return all lines but the one it was stopped at."""
    disk.go()
    assert all(handler.flush(20) for handler in book.handlers)
    return [line for line in book.lines() if line != "stuck"]


# ---- dropping ------------------------------------------------------------------------------------


def test_records_beyond_the_bound_are_dropped_counted_and_reported(
    book: Logbook, disk: Disk
) -> None:
    """Exactly ``max_pending`` are kept; one line counts the others, in the handler's format."""
    handler = book.open(max_pending=100, keep_room=0)
    handler.setFormatter(logging.Formatter("%(message)s [%(levelname)s]"))
    handler.addFilter(lambda record: record.name == "book")  # which cannot drop the line
    disk.stop(book)
    for number in range(150):
        book.logger.info("%d", number)
    for _ in range(20):
        book.logger.warning("no room")
    figures = handler.statistics()
    assert (figures.pending, figures.max_pending) == (100, 100)
    assert figures.dropped == {"INFO": 51, "WARNING": 20}
    with pytest.raises(AssertionError, match=r"pending=100"):
        assert_quiescent(handler)
    assert written(book, disk)[1:] == [
        *(f"{number} [INFO]" for number in range(99)),
        "dropped 71 records, because the queue was full (INFO: 51, WARNING: 20) [WARNING]",
    ]
    assert (handler.statistics().pending, handler.statistics().written) == (0, 101)
    assert_quiescent(handler)


def test_queue_without_a_limit(book: Logbook, disk: Disk) -> None:
    """With None every record is kept, however many there are."""
    handler = book.open(max_pending=None)
    disk.stop(book)
    for number in range(20_000):
        book.logger.info("%d", number)
    figures = handler.statistics()
    assert (figures.pending, figures.max_pending, figures.dropped) == (20_001, None, {})
    assert written(book, disk) == [str(number) for number in range(20_000)]


def test_line_counts_those_dropped_since_the_last_line(book: Logbook, disk: Disk) -> None:
    """A line about dropped records counts those since the last such line."""
    handler = book.open(max_pending=1, keep_room=0)
    for number in range(1, 3):
        disk.stop(book)
        for _ in range(number):
            book.logger.info("no room")
        notice = f"dropped {number} records, because the queue was full (INFO: {number})"
        assert written(book, disk)[-1:] == [notice]
    assert handler.statistics().dropped == {"INFO": 3}


def test_line_comes_even_if_the_queue_never_runs_empty(
    book: Logbook, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While records keep coming, dropped ones are reported every ten seconds."""
    monkeypatch.setattr(_queue, "_BETWEEN_NOTICES", 0.0)
    monkeypatch.setattr(_queue, "BATCH", 2)
    book.open(max_pending=10, keep_room=0)
    disk.stop(book)
    for number in range(12):
        book.logger.info("%d", number)
    notice = "dropped 3 records, because the queue was full (INFO: 3)"
    assert written(book, disk) == [notice, *(str(number) for number in range(9))]


def test_errors_have_room_of_their_own(book: Logbook, disk: Disk) -> None:
    """Records at ``keep_level`` and above fit in ``keep_room`` more places."""
    handler = book.open(max_pending=10, keep_level="ERROR", keep_room=5)
    disk.stop(book)
    for number in range(20):
        book.logger.info("%d", number)
    for number in range(10):
        book.logger.error("error %d", number)
    assert handler.statistics().dropped == {"INFO": 11, "ERROR": 5}
    lines = [line for line in written(book, disk) if line.startswith("error")]
    assert lines == [f"error {number}" for number in range(5)]


@pytest.fixture
def custom_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give levels custom names, one of them that of another level."""
    for name in ("_levelToName", "_nameToLevel"):
        monkeypatch.setattr(logging, name, vars(logging)[name].copy())
    for level, name in ((5, "Trace"), (7, "TRACE"), (31, "lärm"), (25, "INFO")):
        logging.addLevelName(level, name)


@pytest.mark.usefixtures("custom_levels")
@pytest.mark.parametrize(
    ("value", "level"), [("Trace", 5), (" trace", 5), ("TRACE", 7), ("LÄRM", 31), ("Error", 40)]
)
def test_level_with_a_custom_name(book: Logbook, disk: Disk, value: str, level: int) -> None:
    """A level is found by its exact name, and failing that by its name in any case."""
    handler = book.open(keep_level=value, max_pending=1, keep_room=1)
    book.logger.setLevel(1)
    disk.stop(book)
    for each in (level, level, level - 1):
        book.logger.log(each, "text")
    dropped = {logging.getLevelName(level): 1, logging.getLevelName(level - 1): 1}
    assert handler.statistics().dropped == dropped


@pytest.mark.usefixtures("custom_levels")
def test_levels_that_share_a_name(book: Logbook, disk: Disk) -> None:
    """Levels that share a name are counted together; a record without a level is counted too."""
    handler = book.open(max_pending=1, keep_room=0)
    disk.stop(book)
    for level in (25, 20, 25):
        book.logger.log(level, "text")
    assert handler.handle(logging.makeLogRecord({"msg": "text"}))
    assert handler.statistics().dropped == {"INFO": 3, "NOTSET": 1}
    notice = "dropped 4 records, because the queue was full (NOTSET: 1, INFO: 3)"
    assert written(book, disk) == [notice]


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
    book: Logbook, disk: Disk, add: Callable[[logging.LogRecord], Any]
) -> None:
    """The line passes the handler's filters, which may add what its format wants."""
    handler = book.open(max_pending=1, keep_room=0)
    handler.setFormatter(logging.Formatter("%(shop)s: %(message)s"))
    handler.addFilter(add)
    disk.stop(book)
    book.logger.info("text")
    notice = "till 1: dropped 1 records, because the queue was full (INFO: 1)"
    assert written(book, disk) == ["till 1: stuck", notice]


PLAIN = "mtaio.logging: dropped 1 records, because the queue was full (INFO: 1)"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_line_about_dropped_records_outlives_the_handler(
    book: Logbook, disk: Disk, encoding: str
) -> None:
    """Without references to the handler the line is plain, in the encoding of the file."""
    book.open(max_pending=1, encoding=encoding)
    disk.stop(book)
    book.logger.info("no room")
    book.forget()
    disk.go()
    until(lambda: not book.threads())
    assert book.path.read_text(encoding) == f"stuck\n{PLAIN}\n"


def test_line_about_dropped_records_survives_the_formatter(book: Logbook, disk: Disk) -> None:
    """If the formatter wants what only the user's records have, the line is plain."""
    handler = book.open(max_pending=1)
    disk.stop(book)
    handler.setFormatter(Picky())
    book.logger.info("text", extra={"request": "one"})
    assert written(book, disk) == [PLAIN]


def test_empty_queue_is_never_half_full(
    book: Logbook, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small the queue is, no caller pauses while nothing is in it."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    book.open(max_pending=1)
    disk.stop(book)
    assert pauses == []
    book.logger.info("no room")
    assert pauses


# ---- waiting for room ----------------------------------------------------------------------------


def test_block_waits_for_room(book: Logbook, disk: Disk) -> None:
    """With ``"block"`` a thread waits until there is room, and nothing is dropped."""
    handler = book.open(max_pending=3, overflow="block")
    disk.stop(book)

    def log(name: str) -> None:
        for number in range(20):
            book.logger.info("%s %d", name, number)

    threads = [threading.Thread(target=log, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    until(lambda: handler.statistics().waiting == 2)
    with pytest.raises(AssertionError, match="waiting=2"):
        assert_quiescent(handler)
    disk.go()
    for thread in threads:
        thread.join()
    lines = written(book, disk)
    for name in "ab":
        mine = [line for line in lines if line.startswith(name)]
        assert mine == [f"{name} {number}" for number in range(20)]
    assert handler.statistics().dropped == {}
    assert_quiescent(handler)


def test_block_never_blocks_an_event_loop(book: Logbook, disk: Disk, backend: str) -> None:
    """With ``"block"`` a record of a task is dropped, and one of its worker thread waits."""
    handler = book.open(max_pending=1, overflow="block")
    disk.stop(book)

    async def main() -> None:
        book.logger.info("in the loop")
        assert handler.statistics().dropped == {"INFO": 1}
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, book.logger.info, "in a thread")
            with anyio.fail_after(60):
                while handler.statistics().waiting == 0:
                    await checkpoint()
            disk.go()

    mtaio.testing.run(main, backend=backend)
    assert "in a thread" in written(book, disk)
    assert handler.statistics().written == 3


def test_block_does_not_make_the_writer_wait_for_itself(book: Logbook, disk: Disk) -> None:
    """What the writing thread itself logs, as a formatter may, is dropped when there is no room."""
    handler = book.open(max_pending=2, overflow="block")

    class Chatty(logging.Formatter):
        notices = 0

        def format(self, record: logging.LogRecord) -> str:
            if record.name == "mtaio.logging":
                self.notices += 1
                if self.notices == 1:
                    for _ in range(5):
                        book.logger.info("from inside")
                    assert not handler.flush(1000)
            return super().format(record)

    disk.stop(book)

    async def drop() -> None:
        for number in range(3):
            book.logger.info("%d", number)

    mtaio.testing.run(drop)
    handler.setFormatter(Chatty())
    disk.go()
    until(lambda: len(book.lines()) == 6)
    assert book.lines() == [
        "stuck",
        "0",
        "dropped 2 records, because the queue was full (INFO: 2)",
        *["from inside"] * 2,
        "dropped 3 records, because the queue was full (INFO: 3)",
    ]


# ---- flushing ------------------------------------------------------------------------------------


async def test_flush_gives_up_after_its_timeout(book: Logbook, disk: Disk) -> None:
    """``flush`` and ``aflush`` return False, in the time they were given, if nothing is taken."""
    handler = book.open()
    disk.stop(book)
    assert not handler.flush(0.01)
    assert not await handler.aflush(0.01)
    disk.go()
    assert await handler.aflush()
    assert handler.flush()


def threads_in_a_wait() -> int:
    """Return how many threads wait for an event, as those that a backend keeps idle do not."""
    waiting = 0
    for thread in sys._current_frames().values():
        frame: FrameType | None = thread
        while frame is not None and frame.f_code is not threading.Event.wait.__code__:
            frame = frame.f_back
        waiting += frame is not None
    return waiting


async def test_aflushes_share_a_thread(book: Logbook, disk: Disk) -> None:
    """Flushing a file that stands still takes one thread, however many tasks do."""
    handler = book.open()
    disk.stop(book)
    before = threads_in_a_wait()
    flushed: list[bool] = []

    async def flush() -> None:
        flushed.append(await handler.aflush(60))

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(flush)
        for _ in range(20):
            await checkpoint()
        until(lambda: threads_in_a_wait() > before)
        assert threads_in_a_wait() == before + 1
        disk.go()
    assert flushed == [True] * 100


async def test_each_aflush_has_its_own_time(book: Logbook, disk: Disk) -> None:
    """One that waits less long than those before it ends first; the others go on waiting."""
    handler = book.open()
    disk.stop(book)
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
        disk.go()
    assert sorted(flushed[1:]) == [("long", True), ("longer", True)]


@pytest.mark.parametrize("cancelled", [{0}, {1}, {0, 1}, {0, 2}, {0, 1, 2, 3}])
async def test_aflush_can_be_cancelled(book: Logbook, disk: Disk, cancelled: set[int]) -> None:
    """It leaves no thread behind, and others go on waiting, whichever has the thread."""
    handler = book.open()
    disk.stop(book)
    flushed: list[int] = []
    scopes = [anyio.CancelScope() for _ in range(4)]

    async def flush(number: int) -> None:
        with scopes[number]:
            assert await handler.aflush(1000)
            flushed.append(number)

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(flush, number)
        for _ in range(10):
            await checkpoint()
        for number in cancelled:
            scopes[number].cancel()
        await checkpoint()
        if len(cancelled) < len(scopes):
            disk.go()
    assert set(flushed) == {0, 1, 2, 3} - cancelled
    disk.go()
    until(lambda: threads_in_a_wait() == 0)


async def test_aflush_needs_none_of_the_common_threads(book: Logbook, disk: Disk) -> None:
    """``aflush`` goes on while all the worker threads there may be are taken."""
    handler = book.open()
    disk.stop(book)
    limiter = anyio.to_thread.current_default_thread_limiter()
    holders = [object() for _ in range(int(limiter.total_tokens))]
    for holder in holders:
        limiter.acquire_on_behalf_of_nowait(holder)
    async with anyio.create_task_group() as group:
        group.start_soon(handler.aflush)
        await checkpoint()
        disk.go()
    for holder in holders:
        limiter.release_on_behalf_of(holder)


async def test_request_that_is_done_before_it_is_waited_for() -> None:
    """A task that waits too late goes on at once, whether others wait in the thread or not."""
    early, late = FlushRequest(), FlushRequest()
    late.finish(written=True)
    with anyio.fail_after(60):
        await late.wait_in_task(math.inf)
        async with anyio.create_task_group() as group:
            group.start_soon(early.wait_in_task, math.inf)
            for _ in range(5):
                await checkpoint()
            await late.wait_in_task(math.inf)
            early.finish(written=False)


def test_flushing_a_file_that_takes_nothing_is_bounded(
    book: Logbook, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flushing again and again, without success, does not fill the memory."""
    monkeypatch.setattr(_writer, "_REQUESTS", 3)
    handler = book.open(max_pending=1, keep_room=0)
    disk.stop(book)
    for _ in range(10):
        assert not handler.flush(0)
    assert handler._queue.pending() <= 5
    assert handler.statistics().pending == 1
    disk.go()
    until(handler.flush)


# ---- closing -------------------------------------------------------------------------------------


def test_close_shares_the_patience_of_a_flush(
    book: Logbook, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``close`` right after a ``flush`` that failed waits for what that left of the patience."""
    monkeypatch.setattr(_shutdown, "PATIENCE", 0.5)
    handler = book.open()
    disk.stop(book)
    start = monotonic()
    assert not handler.flush(0.4)
    handler.close()
    handler.close()
    assert not handler.flush(0)
    assert 0.5 <= monotonic() - start < 0.9
    assert (handler.statistics().lost, handler.statistics().pending) == (1, 0)
    disk.go()  # it is written after all
    until(lambda: not book.threads())
    assert (handler.statistics().lost, handler.statistics().pending) == (0, 0)
    book.logger.info("again")
    assert written(book, disk) == ["again"]


def test_closing_behind_a_stuck_write_counts_what_is_lost(
    book: Logbook, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither another ``close`` nor the exit waits for it again, and it may still be written."""
    handler = book.open()
    disk.stop(book)
    for number in range(10):
        book.logger.info("%d", number)
    assert (handler.statistics().lost, handler.statistics().pending) == (0, 11)
    handler.close(0.05)
    assert (handler.statistics().lost, handler.statistics().pending) == (11, 0)
    handler.close()
    monkeypatch.setattr(_shutdown, "PATIENCE", 1e6)  # for which no test waits
    monkeypatch.setattr(_shutdown, "process", _shutdown._Process())
    _shutdown.watch(handler._writer)
    _shutdown._at_exit()
    handler.close()  # as logging.shutdown does after that
    assert not handler.flush()
    assert (handler.statistics().lost, handler.statistics().pending) == (11, 0)
    _shutdown.process.ends_by = None
    disk.go()
    until(lambda: not book.threads())
    assert (handler.statistics().lost, handler.statistics().pending) == (0, 0)
    assert written(book, disk) == [str(number) for number in range(10)]


def test_exit_takes_what_a_shutdown_has_left(
    book: Logbook, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that take nothing are given up before the process is ended by force."""
    monkeypatch.setattr(_shutdown, "PATIENCE", 1e6)  # for which no test waits
    monkeypatch.setattr(_shutdown, "process", _shutdown._Process())
    handler = book.open()
    disk.stop(book)
    ending.expect(0.1, lambda: None)
    try:
        _shutdown._at_exit()
    finally:
        ending.call_off()
    assert handler.statistics().lost == 1
    _shutdown.process.ends_by = None


def test_close_from_the_writing_thread_does_not_wait(book: Logbook, disk: Disk) -> None:
    """A handler that is closed by its own writing thread is closed when that is done."""
    handler = book.open(max_pending=1)

    class Closing(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.name == "mtaio.logging":
                handler.close()
            return super().format(record)

    disk.stop(book)
    book.logger.info("no room")
    handler.setFormatter(Closing())
    disk.go()
    until(lambda: not book.threads())
    assert "dropped 1 records" in book.lines()[-1]
    assert not is_open(book.path)
