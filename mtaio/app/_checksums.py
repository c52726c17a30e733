"""
A file of digests in the form that ``sha256sum --check`` reads, complete or not there at all.

Promise: until the block has come to its end the file is what it was before; then it holds every
digest, on disk. After an error or Ctrl-C nothing is left of the attempt.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mtaio.app._outcomes import kind_of, printable, reason_of
from mtaio.app._walk import place_of

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from mtaio.app._outcomes import Hashed
    from mtaio.app._walk import Place

_ENOUGH: Final = 1 << 16


class OutputError(Exception):
    """The file of digests cannot be written."""


def checksum_line(hashed: Hashed) -> bytes:
    """
    Return a file's line, as coreutils writes it.

    A name is its bytes, whether or not they are text. Backslashes and line breaks in it are
    escaped, and a backslash at the beginning of the line says so.
    """
    path = hashed.path.replace(os.sep, "/")
    name = os.fsencode("./-" if path == "-" else path)  # a mere "-" would mean standard input
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"" if escaped == name else b"\\"
    return mark + hashed.digest.encode() + b"  " + escaped + b"\n"


class ChecksumFile:
    """
    Writes digests to a temporary file, which takes the place of ``path`` when all went well.

    Enter it with ``with``. Everything in it blocks; only `add` is quick.

    Args:
        path: The file; if it is a symbolic link, what that leads to.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(os.path.realpath(path))  # resolve() raises where links go in a circle
        self._partial = self._path.with_name(f".mtaio-{secrets.token_hex(8)}.tmp")
        self._lines: list[bytes] = []
        self._size = 0
        self._mode: int | None = None

    def __enter__(self) -> Self:
        """
        Open the temporary file.

        Raises:
            OutputError: There is no such folder, it is not writable, or something else than a
                regular file stands at the path.
        """
        try:
            with suppress(FileNotFoundError):
                mode = self._path.stat().st_mode
                if not stat.S_ISREG(mode):
                    reason = f"it is a {kind_of(mode)}. Name a regular file."
                    raise self._error(reason)
                self._mode = stat.S_IMODE(mode)
            self._file = self._partial.open("xb")
        except OSError as error:
            raise self._error(reason_of(error)) from error
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """
        Put the file in its place, or remove what there is of it if the block raised.

        Raises:
            OutputError: It could not be written to the end.
        """
        try:
            if exc_type is None:
                self._finish()
        finally:
            with suppress(OSError):  # it is of no use any more, or it is closed
                self._file.close()
            with suppress(FileNotFoundError):  # it has its new name
                self._partial.unlink()

    @property
    def places(self) -> tuple[Place, Place]:
        """Where the file and the temporary one stand."""
        return place_of(str(self._path)), place_of(str(self._partial))

    @property
    def full(self) -> bool:
        """Whether so much was added that it should be written."""
        return self._size >= _ENOUGH

    def add(self, hashed: Hashed) -> None:
        """Keep a digest until the next `flush`."""
        line = checksum_line(hashed)
        self._lines.append(line)
        self._size += len(line)

    def flush(self) -> None:
        """
        Write what was added.

        Raises:
            OutputError: There is no room, or the device failed.
        """
        try:
            self._file.write(b"".join(self._lines))
            self._file.flush()
        except OSError as error:
            raise self._error(reason_of(error)) from error
        self._lines.clear()
        self._size = 0

    def _finish(self) -> None:
        self.flush()
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            if self._mode is not None:
                self._partial.chmod(self._mode)
            self._partial.replace(self._path)
        except OSError as error:
            raise self._error(reason_of(error)) from error

    def _error(self, reason: str) -> OutputError:
        return OutputError(f"cannot write {printable(str(self._path))}: {reason}")
