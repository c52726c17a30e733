from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.logging import AsyncFileHandler, RedactingFilter, configure
from tests.logging.tools import Logbook, run

if TYPE_CHECKING:
    from pathlib import Path

VARIABLES = ("LEVEL", "FILE", "MAX_BYTES", "BACKUP_COUNT", "FORMAT")


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


def test_console_alone(
    book: Logbook, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a file the console has it all, and no file is made."""
    with configure(Settings(), logger=logger) as context:
        assert [type(handler) for handler in context.handlers] == [logging.StreamHandler]
        logger.warning("here")
    assert capsys.readouterr().err.endswith(" WARNING configured: here\n")
    assert book.files() == {}


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


def test_own_redaction_and_levels(book: Logbook, logger: logging.Logger) -> None:
    """A filter of one's own replaces the default, and a level may be a number as text."""
    redact = RedactingFilter(patterns=[r"\d{4}"], defaults=False)
    settings = Settings(log_file=book.path, log_level="15")
    with configure(settings, logger=logger, console=False, redact=redact):
        assert logger.level == 15
        logger.info("card 1234 token=abc")
    assert book.lines()[0].endswith("card *** token=abc")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("LEVEL", "LOUD", r"^MTAIO_LOG_LEVEL='LOUD' is no level. Pass one of"),
        ("MAX_BYTES", "1MB", r"^MTAIO_LOG_MAX_BYTES='1MB' is no whole number"),
        ("BACKUP_COUNT", "-1", r"^MTAIO_LOG_BACKUP_COUNT=-1 is less than 0"),
        ("FORMAT", "xml", r"^MTAIO_LOG_FORMAT='xml' is unknown. Pass 'text' or 'json'"),
    ],
)
def test_bad_environment_is_named(
    logger: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    message: str,
) -> None:
    """A variable that makes no sense is named, and nothing is changed."""
    monkeypatch.setenv(f"MTAIO_LOG_{variable}", value)
    with pytest.raises(ValueError, match=message):
        configure(logger=logger)
    assert (logger.handlers, logger.level) == ([], logging.NOTSET)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"log_level": None}, TypeError, r"^log_level=None is a NoneType"),
        ({"log_max_bytes": "1"}, TypeError, r"^log_max_bytes='1' is a str, not an int"),
        ({"log_format": "xml"}, ValueError, r"^log_format='xml' is unknown"),
    ],
)
def test_bad_settings_are_named(
    logger: logging.Logger, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    """A setting that makes no sense is named as it is called there."""
    with pytest.raises(error, match=message):
        configure(Settings(**settings), logger=logger)


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
