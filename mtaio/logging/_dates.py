"""
Dates that are rendered once a second.

Promise: the text is that of the standard library's formatter, letter for letter. Only its own class
is hurried, with its own clocks; a subclass, or another way to make a date, be it put into that very
class, is left as it is.
Cost: a comparison for each record; a date costs as much as all the rest of a line.

A time zone or locale that the process changes shows from the next second on.
"""

from __future__ import annotations

import logging
from time import gmtime, localtime, strftime
from typing import Final

__all__ = ["hurried"]

_STANDARD: Final = logging.Formatter.formatTime


def hurried(formatter: logging.Formatter) -> logging.Formatter:
    """Return a formatter that does what ``formatter`` does, whatever is set on that, but faster."""
    return _Hurried(formatter) if type(formatter) is logging.Formatter else formatter


class _Hurried(logging.Formatter):
    __slots__ = ("_known",)

    def __init__(self, formatter: logging.Formatter) -> None:
        self.__dict__ = formatter.__dict__  # one and the same settings
        self._known: tuple[object, str] = None, ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - as logging's
        created = record.created
        converter = self.converter
        if (
            type(created) is not float
            or (converter is not localtime and converter is not gmtime)
            or logging.Formatter.formatTime is not _STANDARD
        ):
            return super().formatTime(record, datefmt)
        asked = created // 1, datefmt or self.default_time_format, converter
        known, text = self._known
        if asked != known:
            text = strftime(asked[1], converter(created))
            self._known = asked, text
        if datefmt or not self.default_msec_format:
            return text
        return self.default_msec_format % (text, record.msecs)
