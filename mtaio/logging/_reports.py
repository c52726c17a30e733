"""
What the log says about itself: to its author, to the operator, to its reader.

Promise: an error says what to do about it; each kind of error is reported at most once a minute;
dropped records are reported in the file, in its own format.
"""

from __future__ import annotations

import errno
import logging
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable, Mapping

    from mtaio.logging._handler import AsyncFileHandler

__all__ = ["DropNotice", "ErrorReports", "advice", "by_level_name"]

_BETWEEN_REPORTS: Final = 60.0
"""Seconds for which an error of one kind is not reported again."""


def advice(error: OSError, path: str) -> str:
    """Return what to do about a file that could not be opened when its handler was made."""
    folder = str(Path(path).parent)
    if isinstance(error, FileNotFoundError):
        remedy = f"Make the folder {folder!r} first."
    elif isinstance(error, IsADirectoryError):
        remedy = f"{path!r} is a folder; name a file in it."
    elif isinstance(error, FileExistsError):
        remedy = "Mode 'x' must create it; pass 'a' to append."
    elif error.errno == errno.ENXIO and Path(path).is_fifo():
        remedy = f"{path!r} is a named pipe that nobody reads. Start the reader first."
    elif error.errno in {errno.ENXIO, errno.EOPNOTSUPP}:
        remedy = f"{path!r} is a socket, which cannot be opened by path; use logging.StreamHandler."
    elif error.errno == errno.EBADF:
        remedy = f"{path!r} names a descriptor that is not open; name a file."
    else:
        remedy = f"Check that {path!r} and the folder {folder!r} may be written to."
    return f"AsyncFileHandler opens its file when it is made. {remedy}"


def by_level_name(counts: Mapping[int, int]) -> dict[str, int]:
    """Return the counts of levels by their names, which several levels may share."""
    named: dict[str, int] = {}
    for level, number in counts.items():
        name = logging.getLevelName(level)
        named[name] = named.get(name, 0) + number
    return named


class ErrorReports:
    """Reports errors of the file, each kind once a minute at most."""

    __slots__ = ("_path", "_report", "_silent_until")

    def __init__(self, path: str, report: Callable[[Exception], object] | None) -> None:
        self._path = path
        self._report = report or self._print
        self._silent_until: dict[object, float] = {}  # as many as there are error numbers

    def __call__(self, error: Exception) -> None:
        kind = getattr(error, "errno", None) or type(error)
        moment = monotonic()
        if moment < self._silent_until.get(kind, 0.0):
            return
        self._silent_until[kind] = moment + _BETWEEN_REPORTS
        try:
            self._report(error)
        except Exception:  # noqa: BLE001 - the records must be written whatever a callback does
            if logging.raiseExceptions and sys.stderr is not None:
                with suppress(Exception):  # which may be what failed
                    traceback.print_exc()

    def _print(self, error: Exception) -> None:
        if logging.raiseExceptions and sys.stderr is not None:
            sys.stderr.write(
                f"mtaio.logging: trouble with {self._path!r}: {error}. mtaio tries again, and "
                f"keeps as many records as the queue holds.\n"
            )


class DropNotice:
    """Makes the line about dropped records, in the handler's own format while that exists."""

    __slots__ = ("_encoding", "_handler")

    def __init__(self, handler: weakref.ref[AsyncFileHandler], encoding: str) -> None:
        self._handler = handler
        self._encoding = encoding

    def __call__(self, dropped: Mapping[int, int]) -> bytes:
        names = by_level_name(dict(sorted(dropped.items())))
        levels = ", ".join(f"{name}: {number}" for name, number in names.items())
        total = sum(dropped.values())
        message = f"dropped {total} records, because the queue was full ({levels})"
        line = self._formatted(message) or f"mtaio.logging: {message}"
        return f"{line}\n".encode(self._encoding, "backslashreplace")

    def _formatted(self, message: str) -> str | None:
        """Return the line as the handler makes it; None if it cannot."""
        handler = self._handler()
        if handler is None:
            return None
        record = logging.LogRecord(
            "mtaio.logging", logging.WARNING, __file__, 0, message, None, None, "close"
        )
        try:
            # Filters may add to this line, but not drop it.
            passed = cast("object", handler.filter(record))
            return handler.format(passed if isinstance(passed, logging.LogRecord) else record)
        except Exception:  # noqa: BLE001 - a formatter may want what only the user's records have
            return None
