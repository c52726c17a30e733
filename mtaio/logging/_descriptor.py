"""
Paths that stand for a descriptor which is open already: ``/dev/stderr``, ``/dev/fd/3`` and so on.

Promise: what such a path names is written through a duplicate of the descriptor, at the place where
the others who have it write, be it a pipe, a socket, a terminal or a file.
Why they are not opened like other paths: docs/en/design/logging.md.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from typing import Final

__all__ = ["ANOTHERS", "descriptor", "duplicate", "write"]

ANOTHERS: Final = -1
"""Stands for a descriptor of another process."""

_FOLDERS: Final = re.compile(r"/dev/fd|/proc/[0-9]+(/task/[0-9]+)?/fd")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_STANDARD: Final = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_MOST_LINKS: Final = 40
"""Links that follow each other, before they are taken for a circle; as many as Linux follows."""

if sys.platform == "win32":  # pragma: no cover - Windows has no such paths

    def descriptor(path: str) -> int | None:  # noqa: ARG001 - the same signature everywhere
        return None

    def duplicate(number: int, path: str) -> int:
        raise OSError(errno.EBADF, f"no descriptor {number}", path)

    def write(fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

else:
    import fcntl
    import select

    _LOOK_AGAIN: Final = 1000
    """Milliseconds after which it is tried again whether a descriptor takes something."""

    def descriptor(path: str) -> int | None:
        """
        Return which descriptor an absolute path names.

        Returns:
            `ANOTHERS` for one of another process; None for a path that names none.
        """
        for _ in range(_MOST_LINKS):
            folder, name = os.path.split(path)
            folder = os.path.realpath(folder)
            if _NUMBER.fullmatch(name) and _FOLDERS.fullmatch(folder):
                ours = folder == "/dev/fd" or folder.startswith(
                    f"{os.path.realpath('/proc/self')}/"
                )
                return int(name) if ours else ANOTHERS
            try:
                path = os.path.join(folder, os.readlink(path))  # noqa: PTH115, PTH118 - a Path would leave out ".."
            except OSError:
                return _STANDARD.get(path)  # no link; some systems have devices there, some nothing
        return None

    def duplicate(number: int, path: str) -> int:
        """Return a duplicate of the descriptor that ``path`` names, if it can be written to."""
        try:
            mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
            fd = os.dup(number)
        except OSError as error:
            error.filename = path
            raise
        if mode == os.O_RDONLY:
            os.close(fd)
            raise OSError(errno.EBADF, f"descriptor {number} is open for reading only", path)
        return fd

    def write(fd: int, data: bytes | memoryview) -> int:
        """Write what the system takes of ``data``, waiting for it also where others would not."""
        while True:
            try:
                return os.write(fd, data)
            except BlockingIOError:
                # Whoever shares a descriptor shares whether it blocks.
                waiting = select.poll()
                waiting.register(fd, select.POLLOUT)
                waiting.poll(_LOOK_AGAIN)
