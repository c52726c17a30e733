"""
A log file that never makes the caller wait.

Promise: a real ``logging.Handler``, usable before, after and without an event loop, whose callers
pay for formatting a record and putting it in a queue; what is queued is written by one thread.
Cost: one daemon thread for each handler in use.
Why records are formatted by the caller and written by a thread: docs/en/design/logging.md.
"""

from __future__ import annotations

import copy
import logging
import weakref
from time import monotonic
from typing import TYPE_CHECKING, Final, Literal, cast

from anyio.lowlevel import checkpoint

from mtaio._internal import checks
from mtaio.logging._arguments import absolute, check_encoding, later_in_a_file, one_of
from mtaio.logging._dates import hurried
from mtaio.logging._exit import PATIENCE
from mtaio.logging._flushes import flushes_here
from mtaio.logging._levels import by_name, level_number
from mtaio.logging._reports import Notice, Trouble, advice
from mtaio.logging._rotation import RotatingFile
from mtaio.logging._statistics import AsyncFileHandlerStatistics
from mtaio.logging._writer import Writer

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

__all__ = ["AsyncFileHandler"]

_MODES: Final = ("a", "w", "x")
_POLICIES: Final = ("drop", "block")
_FILTER: Final = logging.Filterer.filter
"""What asks the filters, and need not be called where there are none."""


class AsyncFileHandler(logging.Handler):
    r"""
    A log file, with rotation, that is written by a thread of its own.

    Takes the place of ``logging.FileHandler`` and ``logging.handlers.RotatingFileHandler``. The
    caller formats the record and puts it in a bounded queue; he waits neither for the disk nor for
    a lock. May be made anywhere, with no event loop running, and used from any thread, on either
    backend or without one. Closing it, which ``logging.shutdown`` does at the interpreter's end,
    writes what is queued. A process that is killed, by SIGTERM too unless it handles it, or that
    ends by ``os._exit``, loses what is queued.

    Args:
        filename: The file. It is opened now, unless ``delay``; the folder must exist. A path that
            names a descriptor, as ``/dev/stderr`` and ``/dev/fd/3`` do, is written through that
            descriptor, be it a file, a pipe or a socket: never truncated, never rotated.
        mode: ``"a"`` appends, ``"w"`` truncates first, ``"x"`` refuses a file that exists. With
            ``max_bytes`` it is ``"a"``. Later openings always append.
        encoding: How text becomes bytes.
        max_bytes: The size that a file never reaches, unless one record alone does. A record that
            would bring it there begins a new file; the old one becomes ``filename.1``. 0 for no
            limit.
        backup_count: How many older files are kept, ``filename.1`` being the newest. 0 for none:
            then there is no rotation, and the file grows.
        queue_size: How many records may be queued or in hand.
        when_full: What becomes of a record that finds no room: with ``"drop"`` it is dropped and
            counted, and a line in the file tells how many were. With ``"block"`` the caller waits
            for room, except in an event loop's thread, where it is as with ``"drop"``.
        keep_level: The level, as a number or a name, from which a record may use extra room.
        keep_room: How many such records fit beyond ``queue_size``.
        errors: What to do with text that ``encoding`` cannot express, as for ``open``. With
            ``"strict"`` the record goes to ``handleError``.
        delay: Whether to open the file with the first record, not now.
        on_error: Called in the writing thread with the error when the file cannot be opened,
            written or rotated, at most once a minute for each kind of error. It should not log.
            Default: one line on ``sys.stderr``.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: ``mode``, ``encoding``, ``errors``, ``when_full`` or ``keep_level`` is unknown,
            a number is too small, or ``filename`` is nothing that a file can be called.
        OSError: The file cannot be opened.

    Example:
        ```python
        import logging
        import tempfile
        from pathlib import Path

        from mtaio.logging import AsyncFileHandler

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "app.log")
            handler = AsyncFileHandler(path, max_bytes=10_000_000, backup_count=5)
            handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
            logger = logging.getLogger("example")
            logger.addHandler(handler)
            logger.warning("disk %s is nearly full", "sda")
            assert handler.flush()
            assert path.read_text() == "WARNING disk sda is nearly full\n"
            logger.removeHandler(handler)
            handler.close()
        ```
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        mode: str = "a",
        encoding: str = "utf-8",
        *,
        max_bytes: int = 0,
        backup_count: int = 0,
        queue_size: int = 10_000,
        when_full: Literal["drop", "block"] = "drop",
        keep_level: int | str = logging.ERROR,
        keep_room: int = 500,
        errors: str = "strict",
        delay: bool = False,
        on_error: Callable[[Exception], object] | None = None,
    ) -> None:
        checks.count("max_bytes", max_bytes, least=0, way_out="0 means no limit.")
        checks.count("backup_count", backup_count, least=0, way_out="0 means no rotation.")
        checks.count("queue_size", queue_size, way_out="The queue needs room for a record.")
        checks.count("keep_room", keep_room, least=0, way_out="0 means no extra room.")
        one_of("mode", mode, _MODES)
        one_of("when_full", when_full, _POLICIES)
        if on_error is not None:
            checks.callable_("on_error", on_error, way_out="Pass a function of the error, or None.")
        level = level_number("keep_level", keep_level)
        check_encoding(encoding, errors)
        self.baseFilename: Final = str(absolute(filename))
        self.mode: Final = "a" if max_bytes else mode
        self.encoding: Final = encoding
        self.errors: Final = errors
        trouble = Trouble(self.baseFilename, on_error)
        file = RotatingFile(
            self.baseFilename,
            mode=self.mode,
            later=later_in_a_file(encoding),
            max_bytes=max_bytes,
            backup_count=backup_count,
            trouble=trouble,
        )
        if not delay:
            try:
                file.open()
            except OSError as error:
                error.add_note(advice(error, self.baseFilename))
                raise
        super().__init__()
        plain = logging.Formatter()
        self._quick = plain, plain
        self._writer: Final = Writer(
            file,
            queue_size=queue_size,
            keep_room=keep_room,
            keep_level=level,
            blocks=when_full == "block",
            trouble=trouble,
            notice=Notice(weakref.ref(self)),
        )
        # A handler that nobody holds any more is still to write what it was given.
        weakref.finalize(self, self._writer.ask_to_close).atexit = False

    def __repr__(self) -> str:
        level = logging.getLevelName(self.level)
        return f"<{type(self).__name__} {self.baseFilename} ({level})>"

    def handle(self, record: logging.LogRecord) -> bool:
        """
        Filter the record and emit it, without the handler's lock. Not a checkpoint.

        Args:
            record: What to log.

        Returns:
            Whether the filters let it pass.
        """
        if self.filters or type(self).filter is not _FILTER:
            passed = cast("object", self.filter(record))
            if not passed:
                return False
            if isinstance(passed, logging.LogRecord):  # from Python 3.12 on
                record = passed
        self.emit(record)
        return True

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record, as any handler does."""
        formatter = self.formatter
        if formatter is None:
            return super().format(record)
        known, quick = self._quick
        if formatter is not known:
            quick = hurried(formatter)
            self._quick = formatter, quick
        return quick.format(record)

    def emit(self, record: logging.LogRecord) -> None:
        """
        Format the record and queue it. Not a checkpoint.

        A record that cannot be formatted or encoded goes to ``handleError``; one that finds no room
        is not even formatted. After `close` the file is opened again.

        Args:
            record: What to log; it is not changed.
        """
        writer = self._writer
        ahead = writer.queue.qsize()
        if ahead >= writer.calm and not writer.admits(record.levelno):
            return
        try:
            if record.exc_info:
                record = copy.copy(record)  # formatting would store the traceback in it
            line = (self.format(record) + "\n").encode(self.encoding, self.errors)
        except RecursionError:
            raise  # as logging's handlers do: handleError would meet it too
        except Exception:  # noqa: BLE001 - whatever it is, it goes where logging sends it
            self.handleError(record)
            return
        writer.put(line, ahead)

    def flush(self, timeout: float = PATIENCE) -> bool:  # type: ignore[override]  # it tells more than logging's does
        """
        Wait until everything logged before is written; the operating system then has it.

        Blocks the thread: in async code await `aflush`.

        Args:
            timeout: The most seconds to wait; 0 leaves the writing thread no time to answer.

        Returns:
            False if nothing is known of that yet, or if called in the writing thread.

        Raises:
            TypeError: ``timeout`` is no number.
            ValueError: ``timeout`` is negative or NaN.
        """
        seconds = checks.at_least("timeout", timeout, 0, way_out="Pass seconds >= 0.")
        return self._writer.wait(self._writer.mark(), seconds)

    async def aflush(self, timeout: float = PATIENCE) -> bool:
        """
        Wait until everything logged before is written. A checkpoint.

        Cancelled, it leaves nothing behind, and what is queued is written all the same. However
        many wait in an event loop, they take one worker thread together.

        Args:
            timeout: The most seconds to wait.

        Returns:
            False if it is not.

        Raises:
            TypeError, ValueError: As for `flush`.
        """
        seconds = checks.at_least("timeout", timeout, 0, way_out="Pass seconds >= 0.")
        mark = self._writer.mark()
        if mark.is_reached():
            await checkpoint()
            return mark.written
        try:
            await flushes_here().wait(mark, monotonic() + self._writer.patience(seconds))
        except BaseException:
            mark.let_go()
            raise
        return self._writer.wait(mark, 0.0)

    def close(self) -> None:
        """
        Write what is queued, close the file and end the thread. May be called again.

        Waits 5 seconds at most, together with a `flush` that failed just before; what cannot be
        written by then is counted as lost. A record logged after that opens the file again.
        """
        self._writer.wait_closed(self._writer.ask_to_close())
        super().close()

    def statistics(self) -> AsyncFileHandlerStatistics:
        """Return what the handler holds and has done. Not a checkpoint."""
        writer = self._writer
        file = writer.file
        dropped = by_name(dict(writer.dropped))
        return AsyncFileHandlerStatistics(
            queued=writer.records(),
            waiters=writer.waiters,
            written=file.records,
            bytes=file.bytes,
            dropped=dropped,
            lost=writer.lost,
            rotations=file.rotations,
            write_errors=writer.errors + file.troubles,
            worst_queue_delay=writer.worst_delay,
        )
