"""
What a log says about itself: to whoever makes it, to whoever looks after it, to its reader.

Promise: an error says what to do about it; the same trouble is told of once a minute at most; what
was dropped is told in the file, in the format of its lines.
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

from mtaio.logging._levels import by_name

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable, Mapping

    from mtaio.logging._handler import AsyncFileHandler

__all__ = ["Notice", "Trouble", "advice"]

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
        remedy = "Mode 'x' wants to make it; pass 'a' to append."
    elif error.errno in {errno.ENXIO, errno.EOPNOTSUPP}:
        remedy = f"{path!r} is a socket, which has no opening by path; use logging.StreamHandler."
    elif error.errno == errno.EBADF:
        remedy = f"{path!r} names a descriptor that is not open for writing; name a file."
    else:
        remedy = f"See that {path!r} and the folder {folder!r} may be written to."
    return f"AsyncFileHandler opens its file when it is made. {remedy}"


class Trouble:
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
                f"mtaio.logging: trouble with {self._path!r}: {error}. Records are kept, as many "
                f"as the queue holds, and tried again.\n"
            )


class Notice:
    """Makes the line about dropped records, in the handler's own format as long as it lives."""

    __slots__ = ("_handler",)

    def __init__(self, handler: weakref.ref[AsyncFileHandler]) -> None:
        self._handler = handler

    def __call__(self, dropped: Mapping[int, int]) -> bytes:
        names = by_name(dict(sorted(dropped.items())))
        levels = ", ".join(f"{name}: {number}" for name, number in names.items())
        total = sum(dropped.values())
        message = f"dropped {total} records, because the queue was full ({levels})"
        handler = self._handler()
        if handler is None:
            return f"mtaio.logging: {message}\n".encode()
        record = logging.LogRecord(
            "mtaio.logging", logging.WARNING, __file__, 0, message, None, None, "close"
        )
        try:
            # For what filters add; this line is not theirs to drop.
            passed = cast("object", handler.filter(record))
            line = handler.format(passed if isinstance(passed, logging.LogRecord) else record)
        except Exception:  # noqa: BLE001 - a formatter may want what only the user's records have
            line = f"mtaio.logging: {message}"
        return f"{line}\n".encode(handler.encoding, "backslashreplace")
