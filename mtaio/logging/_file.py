"""
The log file: written in batches, rotated by size and by time, reopened after it was moved.

Promise: while nothing fails, the files are byte for byte those of a ``RotatingFileHandler`` that
counts bytes and never rotates an empty file. While something fails, no record is lost, doubled
or torn, and no older file is touched.
Cost: one ``stat`` and one ``write`` for each batch, and a look at the clock with rotation by time.
Why bytes, and why a lock on the file that is renamed: docs/en/design/logging.md.
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import select
import stat
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Final, NamedTuple

from mtaio._internal import file_locks
from mtaio.logging._periods import STAMP

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.logging._periods import Periods

__all__ = ["RotatingFile"]

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
_CLOSED: Final = -1
_REOPEN_AFTER: Final = frozenset({errno.EBADF, errno.ESTALE})
"""Errors of a descriptor that will never work again."""

_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""Errors of a path that leads to no file."""

_LOCKS: Final = sys.platform != "win32"
"""Whether a file is locked to be renamed. Windows refuses to rename what another has open."""

_FIRST_OPENING: Final = {"a": 0, "w": os.O_TRUNC, "x": os.O_EXCL}
_FIRST_PAUSE: Final = 1.0
_LAST_PAUSE: Final = 60.0
"""The seconds without rotation after one that failed: doubled each time, between these."""

_DESCRIPTOR: Final = re.compile(r"/dev/fd/([0-9]{1,9})")
_STANDARD: Final = {"/dev/stdout": 1, "/dev/stderr": 2}


class _Older(NamedTuple):
    """An older file of a log that is rotated by time; they sort as they were written."""

    stamp: str
    number: int
    path: Path


class RotatingFile:
    """
    One log file and its older ones, for one thread at a time.

    Args:
        path: The absolute path; the older ones are ``path.1`` (the newest) to ``path.N``, or with
            ``periods`` ``path.2026-11-30``, ``path.2026-11-30.1`` and so on, the newest last.
        mode: ``"a"``, or what the first opening is to do: ``"w"`` truncates, ``"x"`` must create.
        encoding: The encoding of the records; at most at the start of a file they may begin with a
            byte order mark.
        max_bytes: A record that would bring the file to this size starts a new one; 0 for never.
        backup_count: How many older files are kept; 0 for no rotation, with ``periods`` for all.
        periods: A record starts a new file if that of the last one is over; None for never.
        report: Called with the error when a rotation fails; the record is written all the same.
        close_first: Whether a file must be closed to be renamed, as on Windows.

    Attributes:
        namer: Given the path of an older file, returns the one to use; None for that path itself.
        rotator: Called with the path and that of the newest of the older files, in place of
            renaming the one to the other; None for renaming.
    """

    # Invariants, while no thread is inside:
    # - _fd is _CLOSED, or open and ours to close, and then _identity is the file behind it;
    # - _rotates says that the path names a regular file, which may be renamed;
    # - _unfinished is what the file behind _fd lacks of a record that it has the start of, the
    #   first in the batch that the next write() is given; empty if there is none;
    # - _room is the file for which the older ones were moved out of the way, and the name that it
    #   was to get, if it could not be moved itself then: the next try does neither once more;
    # - _period is when the period of the file behind _fd began, and when it ends;
    # - _torn says that the file of _identity ends in a part of a record that is not continued;
    # - a fork at any moment finds in _fd a descriptor that is still ours, or _CLOSED.
    __slots__ = (
        "_backup_count",
        "_close_first",
        "_failing",
        "_fd",
        "_first",
        "_identity",
        "_line_end",
        "_max_bytes",
        "_pause",
        "_period",
        "_periods",
        "_place",
        "_report",
        "_room",
        "_rotate_after",
        "_rotates",
        "_size",
        "_torn",
        "_unfinished",
        "_within",
        "bytes",
        "namer",
        "path",
        "records",
        "rotation_errors",
        "rotations",
        "rotator",
    )

    def __init__(
        self,
        path: str,
        *,
        mode: str = "a",
        encoding: str = "utf-8",
        max_bytes: int = 0,
        backup_count: int = 0,
        periods: Periods | None = None,
        report: Callable[[Exception], None],
        close_first: bool = os.name == "nt",
    ) -> None:
        self.path: Final = path
        self._place = Path(path)
        self.records = 0
        self.bytes = 0
        self.rotations = 0
        self.rotation_errors = 0
        self.namer: Callable[[str], str | os.PathLike[str]] | None = None
        self.rotator: Callable[[str, str], object] | None = None
        self._first = _FIRST_OPENING[mode]
        self._within = _within_a_file(encoding)
        line_end = "\n".encode(encoding)
        self._line_end = line_end if self._within is None else self._within(line_end)
        self._max_bytes = max_bytes if backup_count or periods is not None else 0
        self._backup_count = backup_count
        self._periods = periods
        self._period = (0.0, 0.0)
        self._report = report
        self._close_first = close_first
        self._fd = _CLOSED
        self._identity = (0, 0)
        self._room: tuple[tuple[int, int], Path] | None = None
        self._rotates = False
        self._size = 0
        self._unfinished = b""
        self._torn = False
        self._failing = False
        self._rotate_after = 0.0
        self._pause = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._fd != _CLOSED

    def open(self) -> None:
        """
        Open the path, in place of what was open before; only the first opening may truncate.

        ``/dev/stdout``, ``/dev/stderr`` and ``/dev/fd/N`` are duplicates of the descriptor. Opening
        one would give a file a second position, from which one writer overwrites the other, and
        fails for a socket.
        """
        descriptor = _descriptor(self.path)
        fd = _open(self._place, _FLAGS | self._first) if descriptor is None else os.dup(descriptor)
        before, self._fd = self._fd, fd
        self._leave_unfinished()
        self._first = 0
        status = os.fstat(fd)
        regular = stat.S_ISREG(status.st_mode)
        self._rotates = regular and descriptor is None
        identity = status.st_dev, status.st_ino
        self._torn = self._torn and identity == self._identity
        self._size = status.st_size if regular else 0
        if self._periods is not None and identity != self._identity:
            # What took the place of a file is later than that, whatever its time says: the clock of
            # a file system is behind ours, by 10 ms on Linux, by seconds on some servers.
            now = time()
            last = max(status.st_mtime, self._period[1]) if self._size else now
            self._period = self._periods.of(min(last, now))
        self._identity = identity
        if before != _CLOSED:
            os.close(before)  # last, as it may fail: on a network that is where a full disk shows

    def close(self) -> None:
        """Close the file, if it is open; the next write opens it again."""
        fd, self._fd = self._fd, _CLOSED
        self._leave_unfinished()
        if fd != _CLOSED:
            os.close(fd)

    def forget(self) -> None:
        """Leave the file to the parent of this process; the first write opens it again."""
        with suppress(OSError):
            self.close()
        self.records = self.bytes = self.rotations = self.rotation_errors = 0
        self._failing = self._torn = False
        self._pause = 0.0

    def write(self, batch: list[bytes]) -> None:
        """
        Write the records of ``batch``, and take out of it what was written.

        Args:
            batch: Records with their line ends, each as it is at the start of a file.

        Raises:
            OSError: What is not written, or not whole, is still in ``batch``, for another try.
        """
        if self._fd == _CLOSED or (self._rotates and self._moved()):
            self.open()
        if self._unfinished:
            self._finish(batch)
        elif self._torn:
            self._end_torn_line()
        while batch:
            count = self._fitting(batch)
            if not count and self._rotate():
                continue
            self._append(batch, count or 1)

    # ---- writing ---------------------------------------------------------------------------------

    def _fitting(self, batch: list[bytes]) -> int:
        """Return how many records from the front go into this file; 0 if a new one is due."""
        if self._failing:
            return 1  # nothing is renamed until it is known that writing works again
        if not self._rotates or (self._pause and monotonic() < self._rotate_after):
            return len(batch)
        periods = self._periods
        if periods is not None and self._is_over(periods):
            return 0
        size = self._size
        within = self._within
        if not self._max_bytes or (
            within is None and size + sum(map(len, batch)) < self._max_bytes
        ):
            return len(batch)
        for number, record in enumerate(batch):
            if size and size + len(record) >= self._max_bytes:
                return number
            size += len(within(record) if within is not None and size else record)
        return len(batch)

    def _append(self, batch: list[bytes], count: int) -> None:
        """Write ``count`` records from the front of ``batch`` in one piece."""
        records = batch if count == len(batch) else batch[:count]
        if self._within is not None:
            first = [] if self._size else records[:1]
            records = [*first, *map(self._within, records[len(first) :])]
        sent, error = self._send(b"".join(records))
        if error is None:
            del batch[:count]
            self.records += count
            return
        whole = 0
        while sent >= len(records[whole]):
            sent -= len(records[whole])
            whole += 1
        if sent:
            self._unfinished = records[whole][sent:]
        del batch[:whole]
        self.records += whole
        raise error

    def _finish(self, batch: list[bytes]) -> None:
        """Write what is missing of the first record of ``batch``."""
        sent, error = self._send(self._unfinished)
        self._unfinished = self._unfinished[sent:]
        if error is not None:
            raise error
        del batch[0]
        self.records += 1

    def _leave_unfinished(self) -> None:
        """Note that the first record of the batch is not continued where it was started."""
        self._torn = self._torn or bool(self._unfinished)
        self._unfinished = b""

    def _end_torn_line(self) -> None:
        """Write a line end, so that the next record has a line of its own."""
        _, error = self._send(self._line_end)
        if error is not None:
            raise error
        self._torn = False

    def _send(self, data: bytes) -> tuple[int, OSError | None]:
        """Write ``data``, in as many pieces as the system takes; return how many bytes it took."""
        sent = 0
        error = None
        try:
            while sent < len(data):
                sent += _write(self._fd, memoryview(data)[sent:] if sent else data)
        except OSError as met:
            error = met
            if met.errno in _REOPEN_AFTER:
                self._fd = _CLOSED  # its number may be another file's by now
        self._failing = error is not None
        self._size += sent
        self.bytes += sent
        return sent, error

    # ---- rotating --------------------------------------------------------------------------------

    def _is_over(self, periods: Periods) -> bool:
        """
        Return whether the file is one of a period that is over.

        A file without records passes to the present period. So does one of a time to come, which is
        there if the clock was wrong; a clock that is only put right a little changes nothing, or
        there would be two files for each midnight that comes twice.
        """
        start, end = self._period
        now = time()
        if now >= end and self._size:
            return True
        if not 2 * start - end <= now < end:
            self._period = periods.of(now)
        return False

    def _rotate(self) -> bool:
        """
        Rename each file to the next number and open a new one.

        A process that renames a file has it locked, and looks again whether it is still the one at
        the path: so no two processes rename the same one, nor each other's. If another has it
        locked, the record goes into the file as it is, which is as good as the one before; but not
        with a rotator, which may have copied the file already, and is waited for.

        Returns:
            False if the next record has to go into the file as it is.
        """
        fd = self._fd
        if _LOCKS and not file_locks.lock(fd, wait=self.rotator is not None):
            return False
        try:
            if not self._moved():
                if self._close_first:
                    self.close()
                older = self._dated()
                newest = self._rename(older)
                self._room = None
                self._pause = 0.0
                self.rotations += 1
                self._delete([each for each in older if each.path != newest])
        except Exception as error:  # noqa: BLE001 - the namer and the rotator are the user's
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LAST_PAUSE)
            self._rotate_after = monotonic() + self._pause
            if self._fd == _CLOSED:
                self.open()
            self.rotation_errors += 1
            self._report(error)
            return False
        finally:
            if _LOCKS and self._fd == fd:
                file_locks.unlock(fd)
        self.open()
        return True

    def _rename(self, older: list[_Older]) -> Path:
        """Make the file the newest of the older ones; return its path."""
        rotator = self.rotator
        room = self._room
        tried = room[1] if room is not None and room[0] == self._identity else None
        if self._periods is None:
            newest = self._older(1)
        else:
            newest = tried or self._free(self._periods, older)
        if newest == self._place:
            msg = (
                f"namer={self.namer!r} returned {self.path!r}, the name of the log file itself, "
                f"for an older file. It has to return a different name for each name that it is "
                f"given."
            )
            raise ValueError(msg)
        # What a rotator that failed has left there is no older file.
        if self._periods is None and (tried is None or (rotator is None and newest.exists())):
            for number in range(self._backup_count - 1, 0, -1):
                with suppress(FileNotFoundError):
                    self._older(number).replace(self._older(number + 1))
        self._room = self._identity, newest
        if rotator is None:
            self._place.replace(newest)
            return newest
        newest.unlink(missing_ok=True)
        rotator(self.path, str(newest))
        if not self._moved() and self._size:
            msg = (
                f"rotator={rotator!r} did not rename, remove or empty {self.path!r}. It has to do "
                f"one of these with the first path that it is given."
            )
            raise RuntimeError(msg)
        return newest

    def _older(self, number: int) -> Path:
        """Return the path of an older file, 1 being the newest."""
        return self._named(str(number))

    def _named(self, end: str) -> Path:
        default = f"{self.path}.{end}"
        return Path(default if self.namer is None else self.namer(default))

    def _dated(self) -> list[_Older]:
        """
        Return the older files that are there, the oldest first; with rotation by time alone.

        They are the files with a name that this one could have given them, and so no other
        program's. Those of a time to come are from before the clock was put back, and so the
        oldest.
        """
        if self._periods is None:
            return []
        stamp = self._periods.stamp(self._period[0])
        folder = self._named(stamp).parent
        found: dict[Path, _Older] = {}
        for path in folder.iterdir() if folder.is_dir() else ():
            for match in STAMP.finditer(path.name):
                for number in (int(match[2] or 0), 0):
                    if self._named(_end(match[1], number)) == path and not path.is_dir():
                        found.setdefault(path, _Older(match[1], number, path))
        return sorted(found.values(), key=lambda each: (each.stamp <= stamp, each))

    def _free(self, periods: Periods, older: list[_Older]) -> Path:
        """Return the name for the file: that of its period, numbered if there are others of it."""
        stamp = periods.stamp(self._period[0])
        number = max((each.number + 1 for each in older if each.stamp == stamp), default=0)
        newest = self._named(_end(stamp, number))
        while newest.exists():  # in a name of the namer's our part may not be found
            taken, number = newest, number + 1
            newest = self._named(_end(stamp, number))
            if newest == taken:
                msg = (
                    f"namer={self.namer!r} returned {str(taken)!r} for two older files. It has to "
                    f"return a different name for each name that it is given."
                )
                raise ValueError(msg)
        return newest

    def _delete(self, older: list[_Older]) -> None:
        """Delete the oldest of the files that were there before this rotation."""
        surplus = len(older) + 1 - self._backup_count if self._backup_count else 0
        for each in older[: max(0, surplus)]:
            try:
                each.path.unlink(missing_ok=True)
            except OSError as error:
                self.rotation_errors += 1
                self._report(error)

    def _moved(self) -> bool:
        """Return whether the path is no longer our file; if it is, note its size."""
        try:
            status = self._place.stat()
        except OSError as error:
            # If it cannot be checked, the open file is written, unless no path leads to it.
            return error.errno in _NOT_THERE or not os.fstat(self._fd).st_nlink
        if (status.st_dev, status.st_ino) != self._identity:
            return True
        self._size = status.st_size
        return False


def _end(stamp: str, number: int) -> str:
    """Return what a period and a number add to the name of a file; 0 is the first of a period."""
    return f"{stamp}.{number}" if number else stamp


def _open(path: Path, flags: int) -> int:
    """
    Open a path; for a named pipe that nobody reads, raise an error and do not wait for a reader.

    Waiting for one has no end: it would hold up the thread that makes the handler.
    """
    try:
        is_pipe = path.is_fifo()
    except OSError:  # pragma: no cover - before 3.14; opening it says what is wrong
        is_pipe = False
    if sys.platform == "win32" or not is_pipe:  # Windows keeps its pipes elsewhere
        return os.open(path, flags, 0o666)
    fd = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(fd, True)
    return fd


def _descriptor(path: str) -> int | None:
    """Return the descriptor of this process that a path stands for, if it does."""
    numbered = _DESCRIPTOR.fullmatch(path)
    return int(numbered[1]) if numbered else _STANDARD.get(path)


def _within_a_file(encoding: str) -> Callable[[bytes], bytes] | None:
    """
    Return what makes of an encoded text what it is further on in a file, None for no change.

    The text layer of the standard library sets the state of its encoder to 0 there, which leaves
    byte order marks and designations out, or has them put in again.
    """
    mark = "".encode(encoding)
    if mark:
        return lambda record: record[len(mark) :]
    encoder = codecs.getincrementalencoder(encoding)()
    encoder.setstate(0)
    if encoder.encode("a\n") == "a\n".encode(encoding):
        return None

    def within(record: bytes) -> bytes:
        encoder.setstate(0)
        return encoder.encode(record.decode(encoding))

    return within


def _write(fd: int, data: bytes | memoryview) -> int:
    """Write what the system takes of ``data``."""
    try:
        return os.write(fd, data)
    except BlockingIOError:  # of a descriptor that is shared with one that made it non-blocking
        if sys.platform == "win32":  # pragma: no cover - Windows has no such descriptors
            raise
        waiting = select.poll()
        waiting.register(fd, select.POLLOUT)
        waiting.poll(1000)
        return 0
