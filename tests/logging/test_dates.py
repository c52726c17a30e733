"""Dates that are rendered once a second are those of the standard library."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaio.logging._dates import hurried

if TYPE_CHECKING:
    from tests.logging.tools import Logbook

MOMENTS = st.floats(-3.0, 3.0) | st.floats(0, 2e9) | st.integers(0, 2)


def record(created: object) -> logging.LogRecord:
    """Return a record of a moment."""
    made = logging.makeLogRecord({"msg": "text", "levelname": "INFO", "created": created})
    made.msecs = int(made.created % 1 * 1000) if isinstance(created, int | float) else 0
    return made


@given(
    moments=st.lists(MOMENTS | st.sampled_from([1.0, 1.25, 1.75, 2.0]), max_size=10),
    style=st.sampled_from([("%", "%(asctime)s %(message)s"), ("{", "{asctime}|{message}")]),
    datefmt=st.sampled_from([None, "%H:%M:%S", "%d/%m %Z", ""]),
    msec=st.sampled_from(["%s,%03d", "%s.%03d", None]),
    converter=st.sampled_from([time.localtime, time.gmtime, lambda seconds: time.gmtime(-seconds)]),
)
def test_dates_are_those_of_the_standard_library(
    moments: list[float],
    style: tuple[Any, str],
    datefmt: str | None,
    msec: str | None,
    converter: Any,
) -> None:
    """Whatever is set on the formatter, and whenever, each line is as it makes it itself."""
    formatter = logging.Formatter(style[1], datefmt, style[0])
    quick = hurried(formatter)
    assert type(quick) is not logging.Formatter
    for number, moment in enumerate(moments):
        if number == len(moments) // 2:
            vars(formatter).update(converter=converter, default_msec_format=msec)
        assert quick.format(record(moment)) == formatter.format(record(moment))


def test_date_is_rendered_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a second the clock is asked once, and the milliseconds still count."""
    asked: list[float | None] = []

    def gmtime(seconds: float | None) -> time.struct_time:
        asked.append(seconds)
        return time.gmtime(seconds)

    monkeypatch.setattr("mtaio.logging._dates.gmtime", gmtime)
    formatter = logging.Formatter("%(asctime)s")
    formatter.converter = gmtime
    quick = hurried(formatter)
    texts = [quick.format(record(moment)) for moment in (7.0, 7.25, 7.5, 8.0)]
    assert texts == [
        f"1970-01-01 00:00:0{moment}" for moment in ("7,000", "7,250", "7,500", "8,000")
    ]
    assert asked == [7.0, 8.0]


@pytest.mark.parametrize("created", [None, math.nan, math.inf, 1e30, "text"])
def test_moment_that_is_none(created: object) -> None:
    """A record whose moment makes no sense fails, or does not, as in the standard library."""

    def made_by(formatter: logging.Formatter) -> object:
        try:
            return len(formatter.format(record(created)))  # the moment of None is now
        except (OverflowError, OSError, TypeError, ValueError) as error:
            return type(error), str(error)

    formatter = logging.Formatter("%(asctime)s")
    assert made_by(hurried(formatter)) == made_by(formatter)


def test_other_dates_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A way to make dates that is put into a formatter, or into the class of all, is obeyed."""
    formatter = logging.Formatter("%(asctime)s")
    quick = hurried(formatter)
    vars(formatter)["formatTime"] = lambda *_: "its own"
    assert quick.format(record(0.0)) == "its own"
    del vars(formatter)["formatTime"]
    monkeypatch.setattr(logging.Formatter, "formatTime", lambda *_: "the class's")
    assert quick.format(record(0.0)) == "the class's"
    monkeypatch.undo()
    assert quick.format(record(0.0)) == formatter.format(record(0.0))


def test_other_clocks_are_asked_each_time() -> None:
    """A clock of one's own may tell more than seconds, so it is asked for each record."""
    asked: list[float | None] = []

    def clock(seconds: float | None) -> time.struct_time:
        asked.append(seconds)
        return time.gmtime(seconds)

    formatter = logging.Formatter("%(asctime)s")
    formatter.converter = clock
    quick = hurried(formatter)
    for moment in (7.0, 7.25, 7.25):
        quick.format(record(moment))
    assert asked == [7.0, 7.25, 7.25]


def test_other_formatters_are_left_alone(book: Logbook) -> None:
    """A subclass is used as it is, and one that is set later takes the place of the first."""

    class Own(logging.Formatter):
        def formatTime(self, *_: object) -> str:  # noqa: N802 - as logging's
            return "now"

    own = Own("%(asctime)s %(message)s")
    assert hurried(own) is own
    handler = book.open()
    for formatter in (None, own, logging.Formatter("plain %(message)s", "%H"), None, own):
        handler.setFormatter(formatter)
        book.logger.info("text")
    assert handler.flush()
    assert book.lines() == ["text", "now text", "plain text", "text", "now text"]
