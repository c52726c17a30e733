from __future__ import annotations

import json
import logging
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import anyio
import pytest

from mtaio.logging import AsyncFileHandler, RedactingFilter, configure, request_id
from tests.logging.tools import Logbook, run, until

if TYPE_CHECKING:
    from pathlib import Path

VARIABLES = ("LEVEL", "FILE", "MAX_BYTES", "BACKUP_COUNT", "FORMAT", "CONSOLE")


@dataclass
class Settings:
    """What an application's settings may look like."""

    log_level: str | int = "info"
    log_file: Path | None = None
    log_max_bytes: int = 1000
    log_backup_count: int = 2
    log_format: str = "text"


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """Return a logger of the test's own; the environment says nothing."""
    for name in VARIABLES:
        monkeypatch.delenv(f"MTAIO_LOG_{name}", raising=False)
    return logging.Logger("configured")  # noqa: LOG001 - no other test is to meet it


def test_settings(
    book: Logbook, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Level, file, console and masks are as the settings say, until the context is left."""
    with configure(Settings(log_file=book.path), logger=logger) as context:
        file, console = context.handlers
        assert logger.handlers == [file, console]
        assert isinstance(file, AsyncFileHandler)
        assert logger.level == logging.INFO
        logger.debug("not seen")
        logger.info("password=%s", "hunter2")
    assert logger.handlers == []
    assert context.handlers == ()
    assert logger.level == logging.NOTSET
    (line,) = book.lines()
    assert line.endswith(" INFO configured: password=***")
    assert capsys.readouterr().err == f"{line}\n"


def test_environment(
    book: Logbook, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without settings the environment says it; an empty variable counts as not set."""
    monkeypatch.setenv("MTAIO_LOG_LEVEL", " warning ")
    monkeypatch.setenv("MTAIO_LOG_FILE", str(book.path))
    monkeypatch.setenv("MTAIO_LOG_MAX_BYTES", "")
    monkeypatch.setenv("MTAIO_LOG_FORMAT", "JSON")
    with configure(logger=logger, console=False, fields={"service": "shop"}):
        logger.info("not seen")
        logger.warning("seen")
    made = json.loads(book.path.read_text())
    assert (made["message"], made["service"]) == ("seen", "shop")


def test_text_of_a_worker(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under ``mtaio run --workers`` a line names its worker, and the request if there is one."""
    monkeypatch.setenv("MTAIO_WORKER", "2")
    with configure(logger=logger, level="INFO", file="", format="text"):
        logger.info("to %s", "all")
        token = request_id.set("abc")
        logger.info("answered")
        request_id.reset(token)
    monkeypatch.delenv("MTAIO_WORKER")
    with configure(logger=logger, level="INFO", file="", format="text"):
        logger.info("alone")
    found = [line.split(" INFO ")[1] for line in capsys.readouterr().err.splitlines()]
    assert found == [
        "configured [worker 2]: to all",
        "configured [worker 2] [abc]: answered",
        "configured: alone",
    ]


@pytest.mark.parametrize("format_", ["text", "json"])
def test_names_of_files_that_are_not_utf_8(
    book: Logbook, logger: logging.Logger, format_: Literal["text", "json"]
) -> None:
    """A record with such a name is written, as with ``logging.basicConfig``, in valid UTF-8."""
    name = os.fsdecode(b"caf\xe9.txt") if os.name != "nt" else "caf\udce9.txt"
    with configure(file=book.path, format=format_, console=False, logger=logger):
        for text in ("before", name, "after"):
            logger.info("read %s", text)
    before, between, after = book.lines()
    assert "read before" in before
    assert "read caf\\udce9.txt" in between
    assert "read after" in after
    if format_ == "json":
        assert json.loads(between)["message"] == f"read {name}"


def test_console_alone(
    book: Logbook, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a file the console has it all, and no file is made."""
    with configure(Settings(), logger=logger) as context:
        assert [type(handler) for handler in context.handlers] == [logging.StreamHandler]
        logger.warning("here")
    assert capsys.readouterr().err.endswith(" WARNING configured: here\n")
    assert book.files() == {}


def test_arguments_win(
    book: Logbook, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given in the call wins over settings and the environment, which is not even read."""
    for name in VARIABLES:
        monkeypatch.setenv(f"MTAIO_LOG_{name}", "nonsense")
    for settings in (None, Settings(log_file=book.folder / "other", log_level=50)):
        with configure(
            settings,
            level="debug",
            file=book.path,
            max_bytes=60,
            backup_count=1,
            format="json",
            console=False,
            logger=logger,
        ) as context:
            assert len(context.handlers) == 1
            assert logger.level == logging.DEBUG
            logger.debug("a")
            logger.debug("b")
    assert json.loads(book.path.read_text())["message"] == "b"
    assert sorted(book.files()) == ["app.log", "app.log.1"]
    with configure(
        file="", level=0, max_bytes=0, backup_count=0, format="text", console=True
    ) as it:
        assert [type(each) for each in it.handlers] == [logging.StreamHandler]


@pytest.mark.parametrize(
    ("text", "handlers"), [("0", 0), ("No", 0), ("off", 0), ("1", 1), ("TRUE", 1), (" ", 1)]
)
def test_console_of_the_environment(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, text: str, handlers: int
) -> None:
    """The environment can switch the console off."""
    monkeypatch.setenv("MTAIO_LOG_CONSOLE", text)
    with configure(logger=logger) as context:
        assert len(context.handlers) == handlers
    with configure(Settings(), logger=logger) as context:
        assert len(context.handlers) == 1


def test_console_of_the_settings(logger: logging.Logger) -> None:
    """Settings may say whether there is a console, and need not."""
    settings = Settings()
    settings.log_console = False  # type: ignore[attr-defined]  # not every settings object has it
    with configure(settings, logger=logger) as context:
        assert context.handlers == ()


def test_logger_by_name(book: Logbook) -> None:
    """A logger may be given by its name."""
    name = "mtaio.tests.named"
    with configure(file=book.path, console=False, logger=name):
        logging.getLogger(f"{name}.child").info("written")
    assert logging.getLogger(name).handlers == []
    assert book.lines()[0].endswith(f" INFO {name}.child: written")


async def test_async_context_flushes_last(book: Logbook, logger: logging.Logger) -> None:
    """Left asynchronously, and even if cancelled, it writes everything."""
    with anyio.CancelScope() as scope:
        async with configure(Settings(log_file=book.path), logger=logger, console=False):
            for number in range(3000):
                logger.info("%d", number)
            scope.cancel()
            await anyio.sleep(1)
    assert scope.cancelled_caught
    assert logger.handlers == []
    files = [book.folder / "app.log.2", book.folder / "app.log.1", book.path]
    last = [line for path in files for line in book.lines(path)][-1]
    assert last.endswith(": 2999")


def test_second_call_takes_the_first_ones_place(book: Logbook, logger: logging.Logger) -> None:
    """Configured twice, a line is not written twice; the context of the first call is spent."""
    first = configure(Settings(log_file=book.path, log_level=10), logger=logger, console=False)
    second = configure(Settings(log_file=book.path), logger=logger, console=False)
    assert first.handlers == ()
    first.close()
    assert logger.level == logging.INFO
    logger.info("once")
    second.close()
    second.close()
    assert len(book.lines()) == 1
    assert logger.level == logging.NOTSET


def test_each_call_puts_back_what_was_there_before_it(
    book: Logbook, logger: logging.Logger
) -> None:
    """A context that was left has no say any more, also if it is closed again."""
    first = configure(Settings(log_file=book.path, log_level=10), logger=logger, console=False)
    first.close()
    logger.setLevel(logging.ERROR)
    first.close()
    assert logger.level == logging.ERROR
    with configure(Settings(log_file=book.path), logger=logger, console=False):
        assert logger.level == logging.INFO
    assert logger.level == logging.ERROR


def test_nothing_is_lost_while_configured_again(book: Logbook, logger: logging.Logger) -> None:
    """What other threads log during further calls is there, once, whichever handlers write it."""
    configure(file=book.path, level="INFO", console=False, logger=logger)
    others = logging.NullHandler()
    logger.addHandler(others)
    logged = 0
    over = threading.Event()

    def storm() -> None:
        nonlocal logged
        while not over.is_set():
            logger.info("%d", logged)
            logged += 1

    thread = threading.Thread(target=storm)
    thread.start()
    for number in range(20):
        until(lambda: logged > 50 * number)  # noqa: B023 - it has ended when the number changes
        context = configure(file=book.path, level="INFO", console=False, logger=logger)
    over.set()
    thread.join()
    assert logger.handlers == [others, *context.handlers]
    context.close()
    assert logger.handlers == [others]
    # One that was on its way to a handler when that was closed has it open the file once more.
    until(lambda: len(book.lines()) >= logged)
    numbers = [int(line.rsplit(" ", 1)[1]) for line in book.lines()]
    assert sorted(numbers) == list(range(logged))


def test_old_handlers_close_when_the_new_ones_are_in_place(
    book: Logbook, logger: logging.Logger
) -> None:
    """While the file of the call before is waited for, records go to the new one."""
    first = configure(file=book.path, console=False, logger=logger)
    (old,) = first.handlers
    closed: list[bool] = []

    def close() -> None:
        logger.info("meanwhile")
        closed.append(True)
        AsyncFileHandler.close(old)  # type: ignore[arg-type]  # that is what it is

    old.close = close  # type: ignore[method-assign]  # to look into its middle
    with configure(file=book.folder / "new.log", console=False, logger=logger):
        assert closed == [True]
    assert book.lines(book.folder / "new.log")[0].endswith(": meanwhile")
    assert book.lines() == []


def test_own_redaction_and_levels(book: Logbook, logger: logging.Logger) -> None:
    """A custom filter replaces the default, and a level may be a number as text."""
    redact = RedactingFilter(patterns=[r"\d{4}"], defaults=False)
    settings = Settings(log_file=book.path, log_level="15")
    with configure(settings, logger=logger, console=False, redact=redact):
        assert logger.level == 15
        logger.info("card 1234 token=abc")
    assert book.lines()[0].endswith("card *** token=abc")


def test_own_filters(book: Logbook, logger: logging.Logger) -> None:
    """They see what goes to all handlers, before the mask, which covers what they add."""

    class Adding(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            record.request, record.token = "r1", "abc"
            return True

    def not_health(record: logging.LogRecord) -> bool:
        return "health" not in record.getMessage()

    filters = (each for each in (Adding(), not_health))
    with configure(file=book.path, format="json", logger=logger, filters=filters) as context:
        assert [len(handler.filters) for handler in context.handlers] == [3, 3]
        logger.info("GET /health")
        logger.info("GET /")
    (line,) = book.lines()
    made = json.loads(line)
    assert (made["message"], made["request"], made["token"]) == ("GET /", "r1", "***")


def test_own_errors(book: Logbook, logger: logging.Logger) -> None:
    """Text that UTF-8 cannot express becomes what ``errors`` says."""
    with configure(file=book.path, console=False, logger=logger, errors="replace"):
        logger.info("caf\udce9")
    assert book.lines()[0].endswith("caf?")


REFUSED: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (None, {"MTAIO_LOG_LEVEL": "LOUD"}, ValueError, r"MTAIO_LOG_LEVEL='LOUD' is not a level. Pass"),
    (
        None,
        {"MTAIO_LOG_MAX_BYTES": "1MB"},
        ValueError,
        r"MTAIO_LOG_MAX_BYTES='1MB' is not a whole n",
    ),
    (
        None,
        {"MTAIO_LOG_BACKUP_COUNT": "-1"},
        ValueError,
        r"MTAIO_LOG_BACKUP_COUNT=-1 is less than 0",
    ),
    (
        None,
        {"MTAIO_LOG_CONSOLE": "maybe"},
        ValueError,
        r"MTAIO_LOG_CONSOLE='maybe' is neither yes no",
    ),
    (
        None,
        {"MTAIO_LOG_FORMAT": "xml"},
        ValueError,
        r"MTAIO_LOG_FORMAT='xml' is unknown. Pass 'text'",
    ),
    (Settings(log_level=None), {}, TypeError, r"log_level=None is a NoneType"),  # type: ignore[arg-type]  # what is refused
    (Settings(log_max_bytes="1"), {}, TypeError, r"log_max_bytes='1' is a str, not an int"),  # type: ignore[arg-type]  # as above
    (Settings(log_format="xml"), {}, ValueError, r"log_format='xml' is unknown"),
    ("app.log", {}, TypeError, r"settings is a str, which has no log_level, log_file, log_max"),
    ({"log_level": 1}, {}, TypeError, r"settings is a dict, which has no log_level"),
    (None, {"level": "LOUD"}, ValueError, r"level='LOUD' is not a level"),
    (None, {"level": "9" * 5000}, ValueError, r"level='9+' is not a level"),
    (None, {"file": 3}, TypeError, r"file=3 is an int, not a path"),
    (None, {"max_bytes": "1"}, TypeError, r"max_bytes='1' is a str, not an int"),
    (None, {"backup_count": -1}, ValueError, r"backup_count=-1 is less than 0"),
    (None, {"format": 3}, ValueError, r"format=3 is unknown. Pass 'text' or 'json'"),
    (None, {"format": "%(message)s"}, ValueError, r"format='%\(message\)s' is unknown"),
    (None, {"console": "no"}, TypeError, r"console='no' is a str, not a bool"),
    (None, {"logger": 3}, TypeError, r"logger=3 is an int, not a logger. Pass a logging.L"),
    (None, {"redact": True}, TypeError, r"redact=True is a bool, not a filter. Pass a Redact"),
    (None, {"filters": 3}, TypeError, r"filters=3 is an int, not several filters\. Pass a list"),
    (
        None,
        {"filters": logging.Filter()},
        TypeError,
        r"filters=<.*> is a Filter, not several filters",
    ),
    (None, {"filters": "ab"}, TypeError, r"filters has 'a', a str, which cannot filter\. Pass a"),
    (None, {"errors": "keep"}, ValueError, r"errors='keep' is unknown\. Pass 'strict'"),
    (None, {"fields": {"time": 1}}, ValueError, r"fields has time"),
    (None, {"file": "missing/app.log"}, FileNotFoundError, r".*No such file"),
]


@pytest.mark.parametrize(("settings", "arguments", "error", "message"), REFUSED)
def test_whatever_is_raised_nothing_has_changed(
    book: Logbook,
    logger: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    *,
    settings: Any,
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    """A bad argument is named, before anything is opened or the call before this is undone."""
    monkeypatch.chdir(book.folder)
    with configure(level=15, logger=logger) as context:
        before = list(logger.handlers)
        given: dict[str, Any] = {"logger": logger, "file": "app.log"}
        for name, value in arguments.items():
            if name.isupper():
                monkeypatch.setenv(name, value)
            else:
                given[name] = value
        with pytest.raises(error, match=f"^{message}"):
            configure(settings, **given)
        assert logger.handlers == before == list(context.handlers)
        assert logger.level == 15
    assert book.files() == {}


def test_bad_file_of_the_settings_is_named(logger: logging.Logger) -> None:
    """A setting that makes no sense is named as it is called there."""
    with pytest.raises(ValueError, match=r"^log_file='a\\x00b' contains a NUL"):
        configure(Settings(log_file="a\0b"), logger=logger)  # type: ignore[arg-type]  # what is refused


def test_root_of_a_whole_program(book: Logbook) -> None:
    """By default it is the root logger, and the interpreter's end flushes."""
    program = """
        import logging
        import os

        os.environ["MTAIO_LOG_FILE"] = "app.log"

        from mtaio.logging import configure

        configure()
        logging.getLogger("shop.orders").info("open")
    """
    done = run(program, book.folder)
    assert done.returncode == 0
    assert done.stderr.endswith(" INFO shop.orders: open\n")
    assert book.lines()[0].endswith(" INFO shop.orders: open")
