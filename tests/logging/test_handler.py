from __future__ import annotations

import copy
import dataclasses
import gc
import json
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
from mtaio.logging import AsyncFileHandler
from mtaio.statistics import AsyncFileHandlerStatistics
from mtaio.testing import assert_checkpoints, assert_quiescent
from tests.logging.tools import Disk, Logbook, is_open, run, until

# ---- a handler like any other --------------------------------------------------------------------


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
        "formatters": {
            "plain": {"format": "%(levelname)s %(message)s"},
            "json": {"class": "mtaio.logging.JsonFormatter"},
            "named": {"()": "mtaio.logging.JsonFormatter", "fields": {"service": "shop"}},
        },
        "handlers": {
            "file": {
                "class": "mtaio.logging.AsyncFileHandler",
                "filename": "app.log",
                "max_bytes": 1000,
                "backup_count": 2,
                "keep_level": "WARNING",
                "formatter": "plain",
                "level": "INFO",
            },
            **{
                name: {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stdout",
                    "formatter": name,
                }
                for name in ("json", "named")
            },
        },
        "loggers": {
            "configured": {"handlers": ["file"], "level": "DEBUG"},
            "printed": {"handlers": ["json", "named"]},
        },
    }
    logging_config.dictConfig(config)
    logging.getLogger("printed").warning("text")
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
    """It makes handler and formatters; the handler that it closed, used again, loses nothing."""
    done = run(DICT_CONFIG, book.folder)
    assert done.stderr == ""
    plain, named, *lines = done.stdout.splitlines()
    assert json.loads(plain)["message"] == "text"
    assert json.loads(named)["service"] == "shop"
    assert lines == [f"True <AsyncFileHandler {book.path} (INFO)>", "INFO yes", ""]
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


def test_logging_shutdown_writes_everything(book: Logbook) -> None:
    """``logging.shutdown``, which holds the handler's lock while it closes it, loses nothing."""
    handler = book.open()
    for number in range(600):
        book.logger.info("%d", number)
    logging.shutdown([weakref.ref(handler)])
    assert book.lines() == [str(number) for number in range(600)]
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
    for number in range(1500):
        book.logger.info("%d", number)
    with assert_checkpoints():
        assert await handler.aflush()
    assert len(book.lines()) == 1500
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
        pending=0,
        max_pending=10_000,
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
    handler = book.open(max_pending=1, keep_room=0)
    disk.stop(book)
    for _ in range(2):
        book.logger.info("text")
    figures = handler.statistics()
    book.logger.info("text")
    assert pickle.loads(pickle.dumps(figures)) == figures  # noqa: S301 - our own
    assert dataclasses.asdict(figures)["dropped"] == {"INFO": 2}
    assert copy.deepcopy(figures) == figures


def test_each_figure_says_how_it_moves() -> None:
    """A monitor finds out of each field whether it is a counter, a gauge or a limit."""
    kinds = {
        each.name: each.metadata["kind"] for each in dataclasses.fields(AsyncFileHandlerStatistics)
    }
    assert [name for name, kind in kinds.items() if kind != "counter"] == [
        *("pending", "max_pending", "waiting", "max_queue_seconds", "queue_duration")
    ]
    assert kinds["max_pending"] == "limit"


def test_statistics_in_another_thread(book: Logbook) -> None:
    """Read while others log, flush and drop, they are never broken, and counters only grow."""
    handler = book.open(max_pending=20, keep_room=0, max_bytes=2000, backup_count=1)
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
    assert figures.pending == 0
    assert lines >= 500  # lines about dropped records count as written


# ---- what is refused -----------------------------------------------------------------------------


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
        (None, ("text %d", "x"), "a real number"),
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
