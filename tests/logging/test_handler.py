from __future__ import annotations

import dataclasses
import gc
import logging
import logging.handlers
import os
import pickle
import queue
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

import mtaio.testing
from mtaio.logging import AsyncFileHandler, AsyncFileHandlerStatistics
from mtaio.testing import assert_checkpoints, assert_quiescent
from tests.logging.tools import Disk, Logbook, is_open, run, until

# ---- a handler like any other --------------------------------------------------------------------


def test_record_is_written_in_the_format_that_was_set(book: Logbook) -> None:
    """A formatter that is set on the handler makes the line."""
    handler = book.open()
    handler.setFormatter(logging.Formatter("%(levelname)s:%(name)s:%(message)s"))
    book.logger.warning("disk %s", "sda")
    assert handler.flush()
    assert book.lines() == ["WARNING:book:disk sda"]


def test_level_and_filters_hold(book: Logbook) -> None:
    """Records below the handler's level, and those that a filter drops, are not written."""
    handler = book.open()
    handler.setLevel(logging.WARNING)
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    for message in ("good", "secret"):
        book.logger.info(message)
        book.logger.warning(message)
    assert handler.flush()
    assert book.lines() == ["good"]


def test_filter_may_give_another_record(book: Logbook) -> None:
    """A record that a filter returns is what is written, where the standard library does that."""

    class Other(logging.Filter):
        def filter(self, record: logging.LogRecord) -> Any:
            return logging.makeLogRecord({"msg": f"{record.msg}, masked"})

    handler = book.open()
    handler.addFilter(Other())
    book.logger.info("as it was")
    assert handler.flush()
    replaced = hasattr(logging, "getHandlerNames")  # both came with Python 3.12
    assert book.lines() == ["as it was, masked" if replaced else "as it was"]


@pytest.mark.parametrize("passes", [True, False])
def test_filter_of_a_subclass(book: Logbook, passes: bool) -> None:  # noqa: FBT001 - a parameter
    """A handler whose own ``filter`` answers as it always did in the standard library is obeyed."""

    class Subclass(AsyncFileHandler):
        def filter(self, record: logging.LogRecord) -> bool:
            return bool(super().filter(record)) and passes

    handler = Subclass(book.path)
    assert handler.handle(logging.makeLogRecord({"msg": "text"})) is passes
    handler.addFilter(lambda _: True)
    assert handler.handle(logging.makeLogRecord({"msg": "text"})) is passes
    handler.close()
    assert book.lines() == ["text", "text"] * passes


def test_handle_returns_whether_the_record_passed(book: Logbook) -> None:
    """``handle`` answers as the standard library's does."""
    handler = book.open()
    record = logging.makeLogRecord({"msg": "text"})
    assert handler.handle(record)
    handler.addFilter(lambda _: False)
    assert not handler.handle(record)
    assert handler.flush()
    assert book.lines() == ["text"]


def test_traceback_is_written_and_not_kept_in_the_record(
    book: Logbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception's traceback is in the file, and the record is not changed for other handlers."""
    seen: list[logging.LogRecord] = []
    handler = book.open()
    other = logging.Handler()
    monkeypatch.setattr(other, "emit", seen.append)  # the least handler there is
    book.logger.addHandler(other)
    try:
        int("gone")
    except ValueError:
        book.logger.exception("it failed")
    assert handler.flush()
    assert book.lines()[0] == "it failed"
    assert book.lines()[-1].endswith("with base 10: 'gone'")
    assert seen[0].exc_text is None


def test_arguments_are_rendered_at_once(book: Logbook) -> None:
    """What an argument becomes after the call is not seen in the file."""
    handler = book.open()
    items = [1]
    book.logger.info("items %s", items)
    items.append(2)
    assert handler.flush()
    assert book.lines() == ["items [1]"]


DICT_CONFIG = """
    import logging
    from logging import config as logging_config

    from mtaio.logging import AsyncFileHandler

    config = {
        "version": 1,
        "formatters": {"plain": {"format": "%(levelname)s %(message)s"}},
        "handlers": {
            "file": {
                "class": "mtaio.logging.AsyncFileHandler",
                "filename": "app.log",
                "max_bytes": 1000,
                "backup_count": 2,
                "keep_level": "WARNING",
                "formatter": "plain",
                "level": "INFO",
            }
        },
        "loggers": {"configured": {"handlers": ["file"], "level": "DEBUG"}},
    }
    logging_config.dictConfig(config)
    logger = logging.getLogger("configured")
    (handler,) = logger.handlers
    print(type(handler) is AsyncFileHandler, handler)
    logger.debug("no")
    logger.info("yes")
    logging_config.dictConfig({"version": 1, "disable_existing_loggers": False})
    print(open("app.log").read())
    logger.addHandler(handler)  # of which logging itself knows no more
    logger.info("and again")
"""


def test_dict_config(book: Logbook) -> None:
    """``dictConfig`` makes the handler and closes it; used after that, it still loses nothing."""
    done = run(DICT_CONFIG, book.folder)
    assert done.stderr == ""
    assert done.stdout == f"True <AsyncFileHandler {book.path} (INFO)>\nINFO yes\n\n"
    assert book.lines() == ["INFO yes", "INFO and again"]


def test_behind_a_queue_handler(book: Logbook) -> None:
    """Records that come through a ``QueueHandler`` and its listener are written too."""
    handler = AsyncFileHandler(book.path)
    between: queue.SimpleQueue[Any] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(between, handler)
    book.logger.addHandler(logging.handlers.QueueHandler(between))
    listener.start()
    book.logger.warning("from %s", "afar")
    listener.stop()
    handler.close()
    assert book.lines() == ["from afar"]


def test_memory_handler_in_front(book: Logbook) -> None:
    """A ``MemoryHandler`` may have it for its target."""
    handler = AsyncFileHandler(book.path)
    memory = logging.handlers.MemoryHandler(10, target=handler)
    book.logger.addHandler(memory)
    book.logger.info("kept")
    memory.close()
    handler.close()
    assert book.lines() == ["kept"]


def test_logging_shutdown_writes_everything(book: Logbook) -> None:
    """``logging.shutdown``, which holds the handler's lock while it closes it, loses nothing."""
    handler = book.open()
    for number in range(2000):
        book.logger.info("%d", number)
    logging.shutdown([weakref.ref(handler)])
    assert book.lines() == [str(number) for number in range(2000)]
    assert not book.threads()


# ---- opening, closing, writing again -------------------------------------------------------------


def test_close_may_be_called_again_and_a_record_opens_again(book: Logbook) -> None:
    """After ``close`` the file is opened again by the next record, and never truncated."""
    handler = book.open(mode="w")
    book.logger.info("one")
    handler.close()
    handler.close()
    assert not book.threads()
    book.logger.info("two")
    handler.close()
    assert book.lines() == ["one", "two"]


def test_close_without_a_record(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that was never used is closed by the caller, without a thread."""
    monkeypatch.delattr(threading.Thread, "start")
    handler = book.open()
    assert is_open(book.path)
    handler.close()
    assert not is_open(book.path)
    assert book.files() == {"app.log": b""}


def test_modes(book: Logbook) -> None:
    """``"w"`` truncates at first, ``"x"`` must create, and with ``max_bytes`` all is appended."""
    book.path.write_text("old\n")
    handler = book.open(mode="w", max_bytes=1000)
    assert handler.mode == "a"
    handler.close()
    assert book.lines() == ["old"]
    with pytest.raises(FileExistsError) as raised:
        AsyncFileHandler(book.path, "x")
    assert raised.value.__notes__[0].endswith("Mode 'x' must create it; pass 'a' to append.")
    AsyncFileHandler(book.path, "w").close()
    assert book.lines() == []


def test_delay_opens_with_the_first_record(book: Logbook) -> None:
    """With ``delay`` there is no file before the first record, and mode ``"x"`` applies then."""
    handler = book.open(delay=True, mode="x")
    assert book.files() == {}
    book.logger.info("first")
    assert handler.flush()
    assert book.lines() == ["first"]


def test_constructor_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A file that cannot be opened is an error at once, and no half-made handler is registered."""
    before = len(logging._handlerList)  # type: ignore[attr-defined]  # where shutdown finds them
    path = tmp_path / "missing" / "app.log"
    with pytest.raises(FileNotFoundError) as raised:
        AsyncFileHandler(path)
    (note,) = raised.value.__notes__
    assert note == (
        f"AsyncFileHandler opens its file when it is made. Make the folder {str(path.parent)!r} "
        f"first."
    )
    assert len(logging._handlerList) == before  # type: ignore[attr-defined]  # as above


def test_handler_without_references_writes_and_ends(book: Logbook) -> None:
    """A handler that was dropped without being closed writes what it had, and its thread ends."""
    handler = AsyncFileHandler(book.path)
    book.logger.addHandler(handler)
    for number in range(1000):
        book.logger.info("%d", number)
    book.logger.removeHandler(handler)
    gone = weakref.ref(handler)
    del handler
    gc.collect()
    assert gone() is None
    until(lambda: not book.threads())
    assert len(book.lines()) == 1000


def test_relative_paths_stay_where_they_were(
    book: Logbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is that of the moment at which the handler is made."""
    monkeypatch.chdir(book.folder)
    handler = book.open(filename="app.log", delay=True)
    monkeypatch.chdir("/")
    book.logger.info("here")
    assert handler.flush()
    assert book.lines() == ["here"]
    assert handler.baseFilename == str(book.path)


# ---- flushing ------------------------------------------------------------------------------------


async def test_aflush_waits_until_all_is_written(book: Logbook) -> None:
    """``aflush`` is a checkpoint, and afterwards everything logged before is in the file."""
    handler = book.open()
    with assert_checkpoints():
        assert await handler.aflush()
    for number in range(5000):
        book.logger.info("%d", number)
    with assert_checkpoints():
        assert await handler.aflush()
    assert len(book.lines()) == 5000
    assert_quiescent(handler)


def test_module_level_handler_serves_one_loop_after_another(book: Logbook, backend: str) -> None:
    """One handler is used by one event loop after another, and between them."""
    handler = book.open()

    async def main(name: str) -> None:
        book.logger.info(name)
        assert await handler.aflush()

    for name in ("one", "two"):
        mtaio.testing.run(main, name, backend=backend)
    assert handler.flush()
    assert book.lines() == ["one", "two"]


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_flush_refuses_a_bad_timeout(book: Logbook, timeout: float) -> None:
    """A negative timeout, or NaN, is refused."""
    handler = book.open()
    with pytest.raises(ValueError, match=r"^timeout="):
        handler.flush(timeout)


async def test_aflush_refuses_a_bad_timeout(book: Logbook) -> None:
    """A timeout that is not a number is refused."""
    handler = book.open()
    with pytest.raises(TypeError, match=r"^timeout='1' is a str, not a number"):
        await handler.aflush("1")  # type: ignore[arg-type]  # what is refused


# ---- statistics ----------------------------------------------------------------------------------


def test_statistics(book: Logbook) -> None:
    """The statistics count records, bytes and rotations, and the delay of those looked at."""
    handler = book.open(max_bytes=20, backup_count=3)
    for number in range(6):
        book.logger.info("text %d", number)
    assert handler.flush()
    figures = handler.statistics()
    assert 0 < figures.max_queue_seconds < 20
    assert figures == AsyncFileHandlerStatistics(
        queued=0,
        max_queued=10_000,
        waiting=0,
        written=6,
        bytes=42,
        dropped={},
        lost=0,
        rotations=2,
        write_errors=0,
        max_queue_seconds=figures.max_queue_seconds,
    )


def test_statistics_can_be_copied(book: Logbook, disk: Disk) -> None:
    """Statistics can be sent to another process, become plain data, and do not change later."""
    handler = book.open(queue_size=1, keep_room=0)
    disk.stop(book)
    for _ in range(2):
        book.logger.info("text")
    figures = handler.statistics()
    book.logger.info("text")
    assert pickle.loads(pickle.dumps(figures)) == figures  # noqa: S301 - our own
    assert dataclasses.asdict(figures)["dropped"] == {"INFO": 2}


def test_each_figure_says_how_it_moves() -> None:
    """A monitor finds out of each field whether it is a counter, a gauge or a limit."""
    kinds = {
        each.name: each.metadata["kind"] for each in dataclasses.fields(AsyncFileHandlerStatistics)
    }
    assert [name for name, kind in kinds.items() if kind != "counter"] == [
        *("queued", "max_queued", "waiting", "max_queue_seconds")
    ]
    assert kinds["max_queued"] == "limit"


def test_statistics_in_another_thread(book: Logbook) -> None:
    """Read while others log, flush and drop, they are never broken, and counters only grow."""
    handler = book.open(queue_size=20, keep_room=0, max_bytes=2000, backup_count=1)
    over = threading.Event()
    read: list[AsyncFileHandlerStatistics] = []

    def watch() -> None:
        while not over.is_set():
            read.append(handler.statistics())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(500):
        book.logger.log(number % 50 + 10, "%d", number)
        if number % 100 == 0:
            handler.flush()
    over.set()
    watcher.join()
    read.append(handler.statistics())
    totals = [(each.written, each.bytes, sum(each.dropped.values())) for each in read]
    for sort in zip(*totals, strict=True):
        assert list(sort) == sorted(sort)
    assert handler.flush()
    figures = handler.statistics()
    lines = sum(figures.dropped.values()) + figures.written
    assert figures.queued == 0
    assert lines >= 500  # lines about dropped records count as written


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_bytes": -1}, ValueError, r"^max_bytes=-1 is less than 0"),
        ({"max_bytes": 1.5}, TypeError, r"^max_bytes=1.5 is a float, not an int"),
        ({"backup_count": -1}, ValueError, r"^backup_count=-1 is less than 0"),
        ({"backup_count": True}, TypeError, r"^backup_count=True is a bool"),
        ({"queue_size": 0}, ValueError, r"^queue_size=0 is less than 1"),
        ({"keep_room": -1}, ValueError, r"^keep_room=-1 is less than 0"),
        ({"when_full": "raise"}, ValueError, r"^when_full='raise' is unknown. Pass one of 'drop'"),
        ({"mode": "r"}, ValueError, r"^mode='r' is unknown. Pass one of 'a', 'w', 'x'"),
        ({"keep_level": "LOUD"}, ValueError, r"^keep_level='LOUD' is not a level. Pass one of"),
        ({"keep_level": None}, TypeError, r"^keep_level=None is a NoneType, not an int"),
        ({"encoding": "klingon"}, ValueError, r"^encoding='klingon' cannot be used: unknown enc"),
        ({"encoding": "hex"}, ValueError, r"^encoding='hex' cannot be used: 'hex' is not a text"),
        ({"encoding": None}, TypeError, r"^encoding=None is a NoneType, not a str"),
        ({"errors": "shrug"}, ValueError, r"^errors='shrug' is unknown"),
        ({"errors": 1}, TypeError, r"^errors=1 is a int, not a str"),
        ({"errors": "no\0ne"}, ValueError, r"^errors='no\\x00ne' is unknown"),
        ({"on_error": 1}, TypeError, r"^on_error=1 is a int, which is not callable"),
        ({"filename": 3}, TypeError, r"^filename=3 is a int, not a path"),
        ({"filename": "a\0b", "delay": True}, ValueError, r"^filename='a\\x00b' has a NUL"),
    ],
)
def test_bad_arguments_are_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """A wrong argument is refused at once, by name, before a file is made."""
    with pytest.raises(error, match=message):
        AsyncFileHandler(**{"filename": tmp_path / "app.log", **options})
    assert list(tmp_path.iterdir()) == []


# ---- records that cannot be written --------------------------------------------------------------


class Unprintable:
    def __str__(self) -> str:
        raise ZeroDivisionError("no text")


class NoText(logging.Formatter):
    def format(self, record: logging.LogRecord) -> Any:  # noqa: D102 - as logging's
        return record.getMessage().encode()


class Failing(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:  # noqa: D102 - as logging's
        raise NotImplementedError(record.msg)


@pytest.mark.parametrize(
    ("formatter", "call", "complaint"),
    [
        (None, ("text %s", Unprintable()), "ZeroDivisionError: no text"),
        (None, (Unprintable(),), "ZeroDivisionError: no text"),
        (None, ("text %d", "x"), "TypeError: %d format"),
        (None, ("lone \ud800",), "UnicodeEncodeError: 'utf-8' codec can't encode"),
        (NoText(), ("text",), "TypeError: can't concat str to bytes"),
        (Failing(), ("text",), "NotImplementedError: text"),
    ],
    ids=["argument", "message", "format", "surrogate", "no text", "formatter"],
)
def test_record_that_cannot_be_formatted_goes_to_handle_error(
    book: Logbook,
    capsys: pytest.CaptureFixture[str],
    formatter: logging.Formatter | None,
    call: tuple[object, ...],
    complaint: str,
) -> None:
    """It is reported as the standard library does, in the caller's thread; the others survive."""
    handler = book.open()
    book.logger.info("before")
    handler.setFormatter(formatter)
    book.logger.info(*call)
    handler.setFormatter(None)
    book.logger.info("after")
    assert handler.flush()
    assert book.lines() == ["before", "after"]
    printed = capsys.readouterr().err
    assert printed.startswith("--- Logging error ---")
    assert complaint in printed


def test_recursion_error_travels_as_in_the_standard_library(book: Logbook) -> None:
    """A formatter that never ends is not made worse by ``handleError``."""

    class Endless(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return self.format(record)

    book.open().setFormatter(Endless())
    with pytest.raises(RecursionError):
        book.logger.info("text")


def test_values_that_are_no_text_are_rendered(book: Logbook) -> None:
    """A message may be any object, and arguments need not be picklable."""
    handler = book.open()
    book.logger.info({"a": 1})
    book.logger.info("a %s", threading.Lock)
    assert handler.flush()
    assert book.lines() == ["{'a': 1}", f"a {threading.Lock}"]


def test_errors_policy(book: Logbook) -> None:
    """With ``errors`` other than strict, text that the encoding lacks is written as it says."""
    handler = book.open(encoding="latin-1", errors="backslashreplace")
    book.logger.info("né日")
    assert handler.flush()
    assert book.path.read_bytes() == b"n\xe9\\u65e5" + os.linesep.encode()[-1:]


def test_path_like_is_accepted(tmp_path: Path) -> None:
    """Any ``os.PathLike`` names the file."""

    class Named:
        def __fspath__(self) -> str:
            return str(tmp_path / "named.log")

    handler = AsyncFileHandler(Named())
    handler.close()
    assert (tmp_path / "named.log").exists()
    assert Path(handler.baseFilename) == tmp_path / "named.log"
