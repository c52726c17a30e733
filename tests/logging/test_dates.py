"""Dates that are rendered once a second are those of the standard library."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaio.logging import AsyncFileHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.logging.tools import Logbook

MOMENTS = st.floats(-3.0, 3.0) | st.floats(0, 2e9) | st.integers(0, 2)


def record(created: object) -> logging.LogRecord:
    """Return a record of a moment."""
    made = logging.makeLogRecord({"msg": "text", "levelname": "INFO", "created": created})
    made.msecs = int(made.created % 1 * 1000) if isinstance(created, int | float) else 0
    return made


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsyncFileHandler]:
    """Return a handler, to format with."""
    handler = AsyncFileHandler(tmp_path_factory.mktemp("dates") / "app.log", delay=True)
    yield handler
    handler.close()


@given(
    moments=st.lists(MOMENTS | st.sampled_from([1.0, 1.25, 1.75, 2.0]), max_size=10),
    style=st.sampled_from([("%", "%(asctime)s %(message)s"), ("{", "{asctime}|{message}")]),
    datefmt=st.sampled_from([None, "%H:%M:%S", "%d/%m %Z", ""]),
    msec=st.sampled_from(["%s,%03d", "%s.%03d", None]),
    converter=st.sampled_from([time.localtime, time.gmtime, lambda seconds: time.gmtime(-seconds)]),
)
def test_dates_are_those_of_the_standard_library(  # noqa: PLR0917 - what Hypothesis draws
    handler: AsyncFileHandler,
    moments: list[float],
    style: tuple[Any, str],
    datefmt: str | None,
    msec: str | None,
    converter: Any,
) -> None:
    """Whatever is set on the formatter, and whenever, each line is as it makes it itself."""
    formatter = logging.Formatter(style[1], datefmt, style[0])
    handler.setFormatter(formatter)
    for number, moment in enumerate(moments):
        if number == len(moments) // 2:
            vars(formatter).update(converter=converter, default_msec_format=msec)
        assert handler.format(record(moment)) == formatter.format(record(moment))


def test_date_is_rendered_once_a_second(
    handler: AsyncFileHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a second the clock is asked once, and the milliseconds still count."""
    asked: list[float | None] = []

    def gmtime(seconds: float | None) -> time.struct_time:
        asked.append(seconds)
        return time.gmtime(seconds)

    monkeypatch.setattr("mtaio.logging._text.gmtime", gmtime)
    formatter = logging.Formatter("%(asctime)s")
    formatter.converter = gmtime
    handler.setFormatter(formatter)
    texts = [handler.format(record(moment)) for moment in (7.0, 7.25, 7.5, 8.0)]
    assert texts == [
        f"1970-01-01 00:00:0{moment}" for moment in ("7,000", "7,250", "7,500", "8,000")
    ]
    assert asked == [7.0, 8.0]


@pytest.mark.parametrize("created", [None, math.nan, math.inf, 1e30, "text"])
def test_moment_that_makes_no_sense(handler: AsyncFileHandler, created: object) -> None:
    """A record with such a moment fails, or does not, as in the standard library."""

    def made_by(formatter: logging.Formatter | logging.Handler) -> object:
        try:
            return len(formatter.format(record(created)))  # the moment of None is now
        except (OverflowError, OSError, TypeError, ValueError) as error:
            return type(error), str(error)

    formatter = logging.Formatter("%(asctime)s")
    handler.setFormatter(formatter)
    assert made_by(handler) == made_by(formatter)


def test_other_dates_are_left_alone(
    handler: AsyncFileHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A way to make dates that is put into a formatter, or into the class of all, is obeyed."""
    formatter = logging.Formatter("%(asctime)s")
    handler.setFormatter(formatter)
    vars(formatter)["formatTime"] = lambda *_: "its own"
    assert handler.format(record(0.0)) == "its own"
    del vars(formatter)["formatTime"]
    monkeypatch.setattr(logging.Formatter, "formatTime", lambda *_: "the class's")
    assert handler.format(record(0.0)) == "the class's"
    monkeypatch.undo()
    assert handler.format(record(0.0)) == formatter.format(record(0.0))


def test_other_clocks_are_asked_each_time(handler: AsyncFileHandler) -> None:
    """A custom clock may know more than seconds, so it is asked for each record."""
    asked: list[float | None] = []

    def clock(seconds: float | None) -> time.struct_time:
        asked.append(seconds)
        return time.gmtime(seconds)

    formatter = logging.Formatter("%(asctime)s")
    formatter.converter = clock
    handler.setFormatter(formatter)
    for moment in (7.0, 7.25, 7.25):
        handler.format(record(moment))
    assert asked == [7.0, 7.25, 7.25]


def test_other_formatters_are_left_alone(book: Logbook) -> None:
    """A subclass is used as it is, and one that is set later takes the place of the first."""

    class Own(logging.Formatter):
        def formatTime(self, *_: object) -> str:  # noqa: N802 - as logging's
            return "now"

    own = Own("%(asctime)s %(message)s")
    handler = book.open()
    for formatter in (None, own, logging.Formatter("plain %(message)s", "%H"), None, own):
        handler.setFormatter(formatter)
        book.logger.info("text")
    assert handler.flush()
    assert book.lines() == ["text", "now text", "plain text", "text", "now text"]
