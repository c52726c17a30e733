"""
A log file that never makes the caller wait.

Promise: a real ``logging.Handler``, usable before, after and without an event loop. Its callers pay
for formatting a record and putting it in a queue; what is queued is written by one thread.
Cost: one daemon thread for each handler in use.
Why the caller formats and a thread writes: docs/en/design/logging.md.
"""

from __future__ import annotations

import codecs
import copy
import logging
import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import time
from time import monotonic
from typing import Final, Literal, cast, final

from anyio.lowlevel import checkpoint

from mtaio._internal import checks
from mtaio._internal.durations import recorded
from mtaio._internal.histogram import Histogram, HistogramStatistics
from mtaio._internal.levels import level_number
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, SECONDS
from mtaio.logging._file import RotatingFile
from mtaio.logging._periods import Periods
from mtaio.logging._queue import RecordQueue
from mtaio.logging._reports import DropNotice, ErrorReports, advice, by_level_name
from mtaio.logging._shutdown import PATIENCE
from mtaio.logging._text import DateKeepingFormatter
from mtaio.logging._writer import Writer

__all__ = ["AsyncFileHandler", "AsyncFileHandlerStatistics", "check_encoding"]

_MODES: Final = ("a", "w", "x")
_POLICIES: Final = ("drop_newest", "block")

_FILTER: Final = logging.Filterer.filter
"""What asks the filters, and need not be called where there are none."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncFileHandlerStatistics:
    """The state of an `AsyncFileHandler`, and what it has done in this process."""

    pending: int = field(metadata=GAUGE)
    """Records that are queued or being written."""
    max_pending: int | None = field(metadata=LIMIT)
    """The limit of ``pending``, without the room for important records; None for no limit."""
    waiting: int = field(metadata=GAUGE)
    """Threads that wait for room in the queue."""
    written: int = field(metadata=COUNTER)
    """Records written, including lines about dropped ones."""
    bytes: int = field(metadata=COUNTER)
    """Bytes written."""
    dropped: Mapping[str, int] = field(metadata=COUNTER | {"label": "level"})
    """Records that found no room, by the name of their level."""
    lost: int = field(metadata=COUNTER)
    """Records that ``close`` gave up, because they could not be written. This includes records
    behind a write that has not returned, until it does and they are written."""
    rotations: int = field(metadata=COUNTER)
    """How often the files were rotated."""
    write_errors: int = field(metadata=COUNTER)
    """How often the file could not be opened, written or rotated."""
    max_queue_seconds: float = field(metadata=GAUGE)
    """The most seconds that a measured record waited to be written. One record in 64 is measured,
    and those that found the queue empty."""
    queue_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long measured records waited; None before ``record_durations()``."""


class AsyncFileHandler(logging.Handler):
    r"""
    A log file with rotation, which a separate thread writes.

    It replaces ``logging.FileHandler``, and ``RotatingFileHandler`` and
    ``TimedRotatingFileHandler`` of ``logging.handlers``. The caller formats the record and puts it
    in a bounded queue, and waits neither for the disk nor for a lock. The handler can be created
    and used in any thread, with or without an event loop. Closing it, which ``logging.shutdown``
    does at the interpreter's exit, writes the queued records. They are lost if the process is
    killed, if it gets a SIGTERM that it does not handle, or if it ends with ``os._exit``.

    Args:
        filename: The file. Its folder must exist. ``/dev/stdout``, ``/dev/stderr`` and
            ``/dev/fd/N`` are written through that descriptor, and neither truncated nor rotated.
        mode: ``"a"`` to append, ``"w"`` to truncate first, ``"x"`` to refuse an existing file. With
            ``max_bytes`` or ``when`` it is ``"a"``. When the file is opened again, it is appended
            to.
        encoding: The encoding of the file.
        max_bytes: The size in bytes at which a new file begins. A record that would make the file
            as large goes into a new one, and the old one is renamed to ``filename.1``. 0 for no
            limit.
        backup_count: The number of older files to keep; ``filename.1`` is the newest. With 0 there
            is no rotation and the file grows; with 0 and ``when``, all older files are kept.
        when: When a new file begins: ``"midnight"`` or ``"D"`` for each day, ``"H"``, ``"M"`` or
            ``"S"`` for each hour, minute or second, ``"W0"`` (Monday) to ``"W6"`` for each week;
            None for never. The first record written in a new period moves the old file to
            ``filename.2026-11-30``, named after the start of its period, or to
            ``filename.2026-11-30.1`` and so on if ``max_bytes`` was reached before or that name
            exists.
        interval: The number of these units in a period. Days and weeks are counted from a fixed
            date, other units from midnight.
        utc: Whether days and file names follow UTC instead of local time.
        at_time: The time of day at which days and weeks begin; None for midnight.
        max_pending: Maximum number of records that are queued or being written; None for no limit.
        overflow: What happens to a record if the queue is full. ``"drop_newest"`` drops and counts
            it; a line in the file says how many were dropped. With ``"block"`` the caller waits for
            room, except in an event loop's thread, where it acts like ``"drop_newest"``.
        keep_level: The level, by name or number, from which records may use the extra room.
        keep_room: The number of such records that fit beyond ``max_pending``.
        errors: What to do with text that ``encoding`` cannot express, as for ``open``. With
            ``"strict"`` the record goes to ``handleError``.
        delay: Whether to open the file with the first record instead of now.
        on_error: Called in the writing thread with the error if the file cannot be opened, written
            or rotated, at most once a minute for each kind of error. It should not log. None to
            print a line to ``sys.stderr``.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: ``mode``, ``encoding``, ``errors``, ``overflow``, ``keep_level`` or ``when`` is
            unknown, a number is too small or too large, an argument has no meaning with or without
            ``when``, or no file can be called ``filename``.
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
        mode: Literal["a", "w", "x"] = "a",
        encoding: str = "utf-8",
        *,
        max_bytes: int = 0,
        backup_count: int = 0,
        when: str | None = None,
        interval: int = 1,
        utc: bool = False,
        at_time: time | None = None,
        max_pending: int | None = 10_000,
        overflow: Literal["drop_newest", "block"] = "drop_newest",
        keep_level: int | str = logging.ERROR,
        keep_room: int = 500,
        errors: str = "strict",
        delay: bool = False,
        on_error: Callable[[Exception], object] | None = None,
    ) -> None:
        checks.count("max_bytes", max_bytes, least=0, way_out="0 means no limit.")
        checks.count("backup_count", backup_count, least=0, way_out="0 means no rotation.")
        if when is None:
            _check_unused(interval=(interval, 1), utc=(utc, False), at_time=(at_time, None))
            periods = None
        else:
            periods = Periods(when, interval, utc=utc, at_time=at_time)
        if max_pending is not None:
            way_out = "The queue needs room for a record; None means no limit."
            checks.count("max_pending", max_pending, way_out=way_out)
        checks.count("keep_room", keep_room, least=0, way_out="0 means no extra room.")
        _check_one_of("mode", mode, _MODES)
        _check_one_of("overflow", overflow, _POLICIES)
        if on_error is not None:
            checks.callable_("on_error", on_error, way_out="Pass a function of the error, or None.")
        level = level_number("keep_level", keep_level)
        check_encoding(encoding, errors)
        self.baseFilename: Final = str(checks.path("filename", filename).absolute())
        self.mode: Final = "a" if max_bytes or when else mode
        self.encoding: Final = encoding
        self.errors: Final = errors
        report = ErrorReports(self.baseFilename, on_error)
        file = RotatingFile(
            self.baseFilename,
            mode=self.mode,
            encoding=encoding,
            max_bytes=max_bytes,
            backup_count=backup_count,
            periods=periods,
            report=report,
        )
        if not delay:
            try:
                file.open()
            except OSError as error:
                error.add_note(advice(error, self.baseFilename))
                raise
        super().__init__()
        plain = logging.Formatter()
        self._formatters = plain, plain  # the one that was set last, and what formats in its place
        self._max_pending: Final = max_pending
        self._queue: Final = RecordQueue(
            size=max_pending,
            keep_room=keep_room,
            keep_level=level,
            blocks=overflow == "block",
        )
        notice = DropNotice(weakref.ref(self), encoding)
        self._writer: Final = Writer(self._queue, file, report=report, notice=notice)
        kind = type(self)  # methods of a subclass hide the properties
        if kind.namer is not AsyncFileHandler.namer:
            file.namer = self.namer
        if kind.rotator is not AsyncFileHandler.rotator:
            file.rotator = self.rotator
        # A handler without references must still write what it was given.
        weakref.finalize(self, self._writer.request_close).atexit = False

    @property
    def namer(self) -> Callable[[str], str | os.PathLike[str]] | None:
        """
        Names the older files, like ``namer`` of the standard library's rotating handlers.

        It is called in the writing thread with a path such as ``app.log.1``, or
        ``app.log.2026-11-30`` with ``when``, and returns the path to use, which has to be the same
        each time. With ``when``, older files are deleted only if they are in the folder of the
        newest and their names still contain the date, and the number if there is one. If it raises,
        the file is not rotated and ``on_error`` is called. None, the default, leaves names as they
        are. A subclass may define it as a method; its handlers then live until they are closed.
        """
        return self._writer.file.namer

    @namer.setter
    def namer(self, namer: Callable[[str], str | os.PathLike[str]] | None) -> None:
        if namer is not None:
            checks.callable_("namer", namer, way_out="Pass a function of the path, or None.")
        self._writer.file.namer = namer

    @property
    def rotator(self) -> Callable[[str, str], object] | None:
        """
        Rotates the file, like ``rotator`` of the standard library's rotating handlers.

        It is called in the writing thread with the path of the file and a path for the older file,
        which does not exist yet. It must rename, remove or empty the file. Records are queued until
        it returns. If it raises, ``on_error`` is called, and it is tried again later. None, the
        default, renames the file.
        """
        return self._writer.file.rotator

    @rotator.setter
    def rotator(self, rotator: Callable[[str, str], object] | None) -> None:
        if rotator is not None:
            way_out = "Pass a function of the file and its new path, or None."
            checks.callable_("rotator", rotator, way_out=way_out)
        self._writer.file.rotator = rotator

    def __repr__(self) -> str:
        level = logging.getLevelName(self.level)
        return f"<{type(self).__name__} {self.baseFilename} ({level})>"

    def handle(self, record: logging.LogRecord) -> bool:
        """
        Filter the record and emit it, without taking the handler's lock.

        Not a checkpoint.

        Args:
            record: The record.

        Returns:
            Whether the filters let the record pass.
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
        """Return the text of a record, as the standard handlers do."""
        formatter = self.formatter
        if formatter is None:
            return super().format(record)
        known, quick = self._formatters
        if formatter is not known:
            exact = type(formatter) is logging.Formatter
            quick = DateKeepingFormatter(formatter) if exact else formatter
            self._formatters = formatter, quick
        return quick.format(record)

    def emit(self, record: logging.LogRecord) -> None:
        """
        Format the record and queue it.

        If the record cannot be formatted or encoded, ``handleError`` is called. If the queue is
        full, the record is not formatted. After `close`, the file is opened again. Not a
        checkpoint.

        Args:
            record: The record, which is not changed.
        """
        queue = self._queue
        ahead = queue.items.qsize()
        if ahead >= queue.check_from and not queue.admit(record.levelno, self._writer.start):
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
        self._writer.put(line, ahead)

    def flush(self, timeout: float = PATIENCE) -> bool:  # type: ignore[override]  # logging's returns nothing
        """
        Wait until the operating system has everything that was logged before.

        It blocks the thread; in async code await `aflush`.

        Args:
            timeout: Maximum seconds to wait.

        Returns:
            False if not everything was written in time, and in the writing thread.

        Raises:
            TypeError: ``timeout`` is not a number.
            ValueError: ``timeout`` is negative or NaN.
        """
        seconds = checks.at_least("timeout", timeout, 0, way_out="Pass seconds >= 0.")
        return self._writer.wait(self._writer.request_flush(), seconds)

    async def aflush(self, timeout: float = PATIENCE) -> bool:
        """
        Wait until everything logged before is written.

        All tasks of an event loop that wait share one worker thread. A checkpoint. If it is
        cancelled, the queued records are still written.

        Args:
            timeout: Maximum seconds to wait.

        Returns:
            As for `flush`.

        Raises:
            TypeError, ValueError: As for `flush`.
        """
        seconds = checks.at_least("timeout", timeout, 0, way_out="Pass seconds >= 0.")
        request = self._writer.request_flush()
        if request.is_done():
            await checkpoint()
            return request.written
        try:
            await request.wait_in_task(monotonic() + self._writer.patience(seconds))
        except BaseException:
            request.finish(written=False)
            raise
        return self._writer.wait(request, 0.0)

    def close(self, timeout: float | None = None) -> None:
        """
        Write the queued records, close the file and end the thread.

        Records that were not written in time are given up and counted as ``lost``. That includes
        records behind a write that hangs, such as to a pipe that nobody reads, so the interpreter's
        exit does not wait for it again. If such a write returns later, the records behind it are
        written after all. A record logged after `close` opens the file again. It can be called more
        than once.

        Args:
            timeout: Maximum seconds to wait; None for 5, including a `flush` that failed just
                before.

        Raises:
            TypeError: ``timeout`` is not a number.
            ValueError: ``timeout`` is negative or NaN.
        """
        until = None
        if timeout is not None:
            way_out = "Pass seconds >= 0, or None."
            until = monotonic() + checks.at_least("timeout", timeout, 0, way_out=way_out)
        self._writer.wait_closed(self._writer.request_close(), until)
        super().close()

    def record_durations(self) -> None:
        """
        Begin to keep a histogram of how long records wait to be written.

        It is ``queue_duration`` in the statistics, and counts one record in 64 and those that found
        the queue empty. A monitor calls it for what it watches; repeated calls have no effect. Not
        a checkpoint. It can be called from any thread.
        """
        if self._queue.durations is None:
            self._queue.durations = Histogram()

    def statistics(self) -> AsyncFileHandlerStatistics:
        """
        Return the state and counts.

        Not a checkpoint. It can be called from any thread.
        """
        queue, writer = self._queue, self._writer
        file = writer.file
        abandoned = writer.abandoned()
        return AsyncFileHandlerStatistics(
            pending=0 if abandoned else queue.records(),
            max_pending=self._max_pending,
            waiting=queue.waiting,
            written=file.records,
            bytes=file.bytes,
            dropped=by_level_name(queue.dropped()),
            lost=writer.lost + abandoned,
            rotations=file.rotations,
            write_errors=writer.errors + file.rotation_errors,
            max_queue_seconds=queue.max_seconds,
            queue_duration=recorded(queue.durations),
        )


# ---- what is refused -----------------------------------------------------------------------------


def _check_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        msg = f"{name}={value!r} is unknown. Pass one of {', '.join(map(repr, known))}."
        raise ValueError(msg)


def _check_unused(**arguments: tuple[object, object]) -> None:
    """Refuse what says more about rotation by time, which there is none of."""
    for name, (value, default) in arguments.items():
        if value != default:
            msg = f"{name}={value!r} has no meaning without when. Pass when='midnight', or another."
            raise ValueError(msg)


def check_encoding(encoding: str, errors: str) -> None:
    """Refuse a name that Python knows no codec or error handler by."""
    for name, value in (("encoding", encoding), ("errors", errors)):
        if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] - a user may pass anything
            msg = f"{name}={value!r} is {checks.type_of(value)}, not a str. Pass its name."
            raise TypeError(msg)
    try:
        codecs.lookup_error(errors)
    except (LookupError, ValueError):
        msg = f"errors={errors!r} is unknown. Pass 'strict', 'replace', 'backslashreplace', …"
        raise ValueError(msg) from None
    try:
        "\n".encode(encoding)
    except (LookupError, ValueError) as error:
        msg = f"encoding={encoding!r} cannot be used: {error}. Pass 'utf-8', or another's name."
        raise ValueError(msg) from None
