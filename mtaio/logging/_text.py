"""
Records as text, one line each and a traceback: what `configure` uses unless it is told ``json``.

Promise: the text is that of the standard library's formatter, with the worker's number in a worker
of ``mtaio run --workers``, and the request's id where there is one. They stand before the message,
where nothing that is logged can be taken for them.
Cost: a date is rendered once a second; one look at a context variable for each record.
"""

from __future__ import annotations

import logging
import os
from time import gmtime, localtime, strftime
from typing import Final

from mtaio._internal import environment
from mtaio._internal.request_context import request_id

__all__ = ["DateKeepingFormatter", "TextFormatter"]

_FORMAT_TIME: Final = logging.Formatter.formatTime


class DateKeepingFormatter(logging.Formatter):
    """
    Formats as another formatter does, with all its settings, but renders a date once a second.

    The text is that of the standard library's formatter, letter for letter. A subclass is never
    replaced by this, and other clocks and other ways to make a date are obeyed. A time zone or
    locale that the process changes shows from the next second on.
    """

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
            or logging.Formatter.formatTime is not _FORMAT_TIME
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


class TextFormatter(DateKeepingFormatter):
    """Formats as ``date LEVEL logger [worker 1] [request id]: message``, with those there are."""

    __slots__ = ("_worker",)

    def __init__(self) -> None:
        super().__init__(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        number = environment.text(os.environ, environment.WORKER)
        self._worker: Final = "" if number is None else f" [worker {number}]"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as logging's
        request, whose = request_id.get(), self._worker
        if request is not None:
            whose = f"{whose} [{request}]"
        elif not whose:
            return super().formatMessage(record)
        return f"{record.asctime} {record.levelname} {record.name}{whose}: {record.message}"
