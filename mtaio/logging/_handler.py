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
    """What an `AsyncFileHandler` holds and has done in this process."""

    pending: int = field(metadata=GAUGE)
    """Records that are queued or being written."""
    max_pending: int | None = field(metadata=LIMIT)
    """How many there may be, without the extra room for important ones; None for no limit."""
    waiting: int = field(metadata=GAUGE)
    """Threads that wait for room in the queue."""
    written: int = field(metadata=COUNTER)
    """Records written, lines about dropped ones included."""
    bytes: int = field(metadata=COUNTER)
    """Bytes written."""
    dropped: Mapping[str, int] = field(metadata=COUNTER | {"label": "level"})
    """Records that found no room, by the name of their level."""
    lost: int = field(metadata=COUNTER)
    """Records that a ``close`` gave up, because the file refused them or took nothing. Those behind
    a write that has not returned count as well, until it does and they are written after all."""
    rotations: int = field(metadata=COUNTER)
    """How often the files were rotated."""
    write_errors: int = field(metadata=COUNTER)
    """How often the file could not be opened, written or rotated."""
    max_queue_seconds: float = field(metadata=GAUGE)
    """The most seconds from a record's arrival to its being written, among those measured: one in
    64, and all that found the queue empty."""
    queue_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long each of those measured took; None before ``record_durations()``."""


class AsyncFileHandler(logging.Handler):
    r"""
    A log file, with rotation, that is written by a thread of its own.

    Takes the place of ``logging.FileHandler``, and of ``RotatingFileHandler`` and
    ``TimedRotatingFileHandler`` of ``logging.handlers``. The caller formats the record and puts it
    in a bounded queue, and waits neither for the disk nor for a lock. May be made anywhere, with no
    event loop running, and used from any thread, on either backend or without one. Closing it,
    which ``logging.shutdown`` does at the interpreter's exit, writes what is queued. A process that
    is killed, by SIGTERM too unless it handles it, or that ends by ``os._exit``, loses what is
    queued.

    Args:
        filename: The file. It is opened now, unless ``delay``; the folder must exist.
            ``/dev/stdout``, ``/dev/stderr`` and ``/dev/fd/N`` are written through that descriptor,
            be it a file, a pipe or a socket: never truncated, never rotated.
        mode: ``"a"`` appends, ``"w"`` truncates first, ``"x"`` refuses a file that exists. With
            ``max_bytes`` or ``when`` it is ``"a"``. Later openings always append.
        encoding: How text becomes bytes.
        max_bytes: The size that a file never reaches, unless one record alone does. A record that
            would reach it starts a new file; the old one becomes ``filename.1``. 0 for no limit.
        backup_count: How many older files are kept, ``filename.1`` being the newest. 0 for none:
            then there is no rotation, and the file grows. With ``when`` 0 keeps all of them.
        when: When a new file is started: ``"midnight"`` or ``"D"`` for each day, ``"H"``, ``"M"``
            or ``"S"`` for each hour, minute or second, ``"W0"`` (Monday) to ``"W6"`` for each week,
            in any case; None for never. A file that is older is moved with the next record, to
            ``filename.2026-11-30``, the day or time when its period began, or if that is taken to
            ``filename.2026-11-30.1`` and so on, as it is when ``max_bytes`` is reached before.
            What counts is the time at which a record is written.
        interval: How many of these units pass. Days and weeks are counted from a fixed date, others
            from midnight, not from the start of the program.
        utc: Whether days begin at midnight UTC, and names are in UTC, not in local time.
        at_time: The time of day at which days and weeks begin; None for midnight.
        max_pending: How many records may be queued or being written; None for no limit.
        overflow: What happens to a record that finds no room: with ``"drop_newest"`` it is dropped
            and counted, and a line in the file says how many were. With ``"block"`` the caller
            waits for room, except in an event loop's thread, where it acts like
            ``"drop_newest"``.
        keep_level: The level, as a number or a name, from which a record may use extra room.
        keep_room: How many such records fit beyond ``max_pending``.
        errors: What to do with text that ``encoding`` cannot express, as for ``open``. With
            ``"strict"`` the record goes to ``handleError``.
        delay: Whether to open the file with the first record, not now.
        on_error: Called in the writing thread with the error when the file cannot be opened,
            written or rotated, at most once a minute for each kind of error. It should not log.
            Default: one line on ``sys.stderr``.

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

        Called in the writing thread with a path, such as ``app.log.1``, it returns the one to use,
        the same each time. With ``when`` that is a path such as ``app.log.2026-11-30``, and files
        count as older ones, to be deleted in time, if they are in the folder of the newest, and
        what it returns still has the date, and the number if there is one. Its errors are those of
        a rotation: the records go on into the file as it is, and ``on_error`` is told. None, the
        default, leaves names as they are. A subclass may define it as a method; its handlers then
        live until they are closed.
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

        Called in the writing thread with the path of the file and with that of the older one,
        which does not exist then. It must rename, remove or empty the file; records are queued
        until it returns. Its errors are those of a rotation, as for `namer`, and it is called again
        after a while. None, the default, renames.
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
        known, quick = self._formatters
        if formatter is not known:
            exact = type(formatter) is logging.Formatter
            quick = DateKeepingFormatter(formatter) if exact else formatter
            self._formatters = formatter, quick
        return quick.format(record)

    def emit(self, record: logging.LogRecord) -> None:
        """
        Format the record and queue it. Not a checkpoint.

        A record that cannot be formatted or encoded goes to ``handleError``; one that finds no room
        is not even formatted. After `close` the file is opened again.

        Args:
            record: What to log; it is not changed.
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
        Wait until everything logged before is written; the operating system then has it.

        Blocks the thread: in async code await `aflush`.

        Args:
            timeout: The most seconds to wait; 0 leaves the writing thread no time to answer.

        Returns:
            False if it is not written yet, or was given up; always False in the writing thread.

        Raises:
            TypeError: ``timeout`` is not a number.
            ValueError: ``timeout`` is negative or NaN.
        """
        seconds = checks.at_least("timeout", timeout, 0, way_out="Pass seconds >= 0.")
        return self._writer.wait(self._writer.request_flush(), seconds)

    async def aflush(self, timeout: float = PATIENCE) -> bool:
        """
        Wait until everything logged before is written. A checkpoint.

        Cancelled, it leaves nothing behind, and what is queued is written all the same. However
        many tasks of an event loop wait, they take one worker thread together.

        Args:
            timeout: The most seconds to wait.

        Returns:
            False if it is not.

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
        Write what is queued, close the file and end the thread. May be called again.

        What the file has not taken when the time is over is given up, and counted as ``lost`` when
        this returns, also what is behind a write that does not return, as to a pipe that is not
        read: the exit does not wait for that again. Should such a write return, what is behind it
        is written after all. A record logged after `close` opens the file again.

        Args:
            timeout: The most seconds to wait; None for 5, together with a `flush` that failed just
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
        Keep a histogram from now on of how long records wait to be written.

        It is ``queue_duration`` in the statistics, and has one record in 64, and those that found
        the queue empty, whether they were written or given up. A monitor calls it for what it
        watches. Not a checkpoint; from any thread. Calling it again changes nothing.
        """
        if self._queue.durations is None:
            self._queue.durations = Histogram()

    def statistics(self) -> AsyncFileHandlerStatistics:
        """Return the handler's state and counts, in any thread. Not a checkpoint."""
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
