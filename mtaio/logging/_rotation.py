"""
The file itself: written in batches, rotated by size, found again when somebody moved it.

Promise: while nothing fails, the files are byte for byte those of a ``RotatingFileHandler`` that
counts bytes and never rotates an empty file; while something fails, no record is lost, doubled or
torn, and none of the old files is touched.
Cost: one ``stat`` and one ``write`` a batch.
Why bytes, and why a lock on the file that is moved away: docs/en/design/logging.md.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

from mtaio.logging._descriptor import ANOTHERS, descriptor, duplicate, write
from mtaio.logging._lock import lock, unlock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RotatingFile"]

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
_CLOSED: Final = -1
_GONE: Final = frozenset({errno.EBADF, errno.ESTALE})
"""Errors after which a file is there again only if it is opened again."""

_FIRST: Final = {"a": 0, "w": os.O_TRUNC, "x": os.O_EXCL}
_LEAST_REST: Final = 1.0
_MOST_REST: Final = 60.0
"""The seconds without rotation after one that failed: doubled each time, between these."""


class RotatingFile:
    """
    One log file and its older ones, for one writer at a time.

    Args:
        path: The absolute path; the older ones are ``path.1`` (the newest) to ``path.N``.
        mode: ``"a"``, or what the first opening is to do: ``"w"`` truncates, ``"x"`` must create.
        later: Turns a record as it is at the beginning of a file into what it is further on, where
            the encoding makes a difference: a byte order mark stands at the beginning alone.
        max_bytes: A record that would bring the file to this size starts a new one; 0 for never.
        backup_count: How many older files are kept; 0 for no rotation.
        trouble: Called with the error when a rotation fails; the record is then written all the
            same.
        close_first: Whether a file must be closed to be renamed, as on Windows.
    """

    # Invariants, while nobody is inside:
    # - _fd is _CLOSED or open, ours alone to close, and behind it is what _identity names;
    # - _regular says that the path names a regular file, which may be moved, and no descriptor;
    # - _rest is what the file behind _fd still lacks of a record that it has the beginning of, the
    #   first in the batch that the next write() is given; empty if there is none;
    # - a fork at any moment finds in _fd a descriptor that is still ours, or _CLOSED.
    __slots__ = (
        "_backup_count",
        "_close_first",
        "_failing",
        "_fd",
        "_first",
        "_identity",
        "_later",
        "_max_bytes",
        "_not_before",
        "_place",
        "_pos",
        "_regular",
        "_rest",
        "_resting",
        "_trouble",
        "bytes",
        "path",
        "records",
        "rotations",
        "troubles",
    )

    def __init__(
        self,
        path: str,
        *,
        mode: str = "a",
        later: Callable[[bytes], bytes] | None = None,
        max_bytes: int = 0,
        backup_count: int = 0,
        trouble: Callable[[OSError], None],
        close_first: bool = os.name == "nt",
    ) -> None:
        self.path: Final = path
        self._place = Path(path)
        self.records = 0
        self.bytes = 0
        self.rotations = 0
        self.troubles = 0
        self._first = _FIRST[mode]
        self._later = later
        self._max_bytes = max_bytes
        self._backup_count = backup_count
        self._trouble = trouble
        self._close_first = close_first
        self._fd = _CLOSED
        self._identity = (0, 0)
        self._regular = False
        self._pos = 0
        self._rest = b""
        self._failing = False
        self._not_before = 0.0
        self._resting = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._fd != _CLOSED

    def open(self) -> None:
        """
        Open the path, in place of what was open before; only the first time may truncate.

        A path that names a descriptor is not opened: that would be a second place in a file, from
        which one of the two overwrites the other, and for a socket an error. Nor is it ever moved.
        """
        named = descriptor(self.path)
        if named is None or named == ANOTHERS or self._first & os.O_EXCL:
            fd = os.open(self.path, _FLAGS | self._first, 0o666)
        else:
            fd = duplicate(named, self.path)
        before, self._fd = self._fd, fd
        self._rest = b""
        self._first = 0
        status = os.fstat(fd)
        regular = stat.S_ISREG(status.st_mode)
        self._regular = regular and named is None
        self._identity = (status.st_dev, status.st_ino)
        self._pos = status.st_size if regular else 0
        if before != _CLOSED:
            os.close(before)  # last, as it may fail: on a network that is where a full disk shows

    def close(self) -> None:
        """Close the file, if it is open; the next write opens it again."""
        fd, self._fd = self._fd, _CLOSED
        self._rest = b""
        if fd != _CLOSED:
            os.close(fd)

    def forget(self) -> None:
        """Leave the file to the parent of this process, and begin anew at the first write."""
        with suppress(OSError):
            self.close()
        self.records = self.bytes = self.rotations = self.troubles = 0
        self._failing = False
        self._resting = 0.0

    def write(self, batch: list[bytes]) -> None:
        """
        Write the records of ``batch``, and take out of it what was written.

        Args:
            batch: Records with their line ends, each as it is at the beginning of a file.

        Raises:
            OSError: What is not written, or not whole, is still in ``batch``, for another try.
        """
        if self._fd == _CLOSED or (self._regular and self._moved()):
            self.open()
        if self._rest:
            self._finish(batch)
        while batch:
            count = self._fitting(batch)
            if not count and self._rotate():
                continue
            self._append(batch, count or 1)

    # ---- writing ---------------------------------------------------------------------------------

    def _fitting(self, batch: list[bytes]) -> int:
        """Return how many records from the front go into this file; 0 if a new one is due."""
        if self._failing:
            return 1  # nothing is moved while nobody knows whether anything can be written
        if (
            not self._max_bytes
            or not self._backup_count
            or not self._regular
            or (self._resting and monotonic() < self._not_before)
        ):
            return len(batch)
        pos = self._pos
        later = self._later
        if later is None and pos + sum(map(len, batch)) < self._max_bytes:
            return len(batch)
        for number, record in enumerate(batch):
            if pos and pos + len(record) >= self._max_bytes:
                return number
            pos += len(later(record) if later is not None and pos else record)
        return len(batch)

    def _append(self, batch: list[bytes], count: int) -> None:
        """Write ``count`` records from the front of ``batch`` in one piece."""
        records = batch if count == len(batch) else batch[:count]
        if self._later is not None:
            first = [] if self._pos else records[:1]
            records = [*first, *map(self._later, records[len(first) :])]
        data = b"".join(records)
        sent, error = self._send(data)
        if error is None:
            del batch[:count]
            self.records += count
            return
        whole = 0
        while sent >= len(records[whole]):
            sent -= len(records[whole])
            whole += 1
        if sent and self._fd != _CLOSED:
            self._rest = records[whole][sent:]
        del batch[:whole]
        self.records += whole
        raise error

    def _finish(self, batch: list[bytes]) -> None:
        """Write what is missing of the first record of ``batch``."""
        sent, error = self._send(self._rest)
        self._rest = self._rest[sent:] if self._fd != _CLOSED else b""
        if error is not None:
            raise error
        del batch[0]
        self.records += 1

    def _send(self, data: bytes) -> tuple[int, OSError | None]:
        """Write ``data``, however often the system takes only a part; say how far it came."""
        sent = 0
        error = None
        try:
            while sent < len(data):
                sent += write(self._fd, memoryview(data)[sent:] if sent else data)
        except OSError as met:
            error = met
            if met.errno in _GONE:
                self._fd = _CLOSED  # whoever closed it has taken its number back
        self._failing = error is not None
        self._pos += sent
        self.bytes += sent
        return sent, error

    # ---- rotating --------------------------------------------------------------------------------

    def _rotate(self) -> bool:
        """
        Move the files on by one and open a new one.

        Whoever moves a file has it locked, and looks again whether it is still the one at the path:
        so no two processes move the same one, nor each other's.

        Returns:
            False if the next record has to go into the file as it is.
        """
        fd = self._fd
        if not lock(fd):
            return False
        try:
            if self._moved():
                self.open()
                return True
            if self._close_first:
                self.close()
            self._shift()
        except OSError as error:
            self._resting = min(max(2 * self._resting, _LEAST_REST), _MOST_REST)
            self._not_before = monotonic() + self._resting
            if self._fd == _CLOSED:
                self.open()
            self.troubles += 1
            self._trouble(error)
            return False
        finally:
            if self._fd == fd:
                unlock(fd)
        self._resting = 0.0
        self.rotations += 1
        self.open()
        return True

    def _shift(self) -> None:
        # After a try that failed at the newest file there is a place for it already.
        if not self._resting or self._older(1).exists():
            for number in range(self._backup_count - 1, 0, -1):
                with suppress(FileNotFoundError):
                    self._older(number).replace(self._older(number + 1))
        self._place.replace(self._older(1))

    def _older(self, number: int) -> Path:
        return Path(f"{self.path}.{number}")

    def _moved(self) -> bool:
        """Tell whether the path is no longer our file; learn how long it is if it is."""
        try:
            status = self._place.stat()
        except FileNotFoundError:
            return True
        except OSError:
            return False  # nobody can tell, and what is open can still be written
        if (status.st_dev, status.st_ino) != self._identity:
            return True
        self._pos = status.st_size
        return False
