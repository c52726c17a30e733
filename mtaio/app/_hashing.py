"""
The work itself: SHA-256 of files, in a worker thread.

Promise: whatever cannot be read is an outcome and not an error, a path that turned into a FIFO or a
device does not hold the thread up, and a call that is cancelled ends within one chunk.
Cost: one chunk of memory, however large the file.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Final

from anyio import from_thread

from mtaio.app._outcomes import Failed, Found, Hashed, Skipped, kind_of, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtaio.app._outcomes import Entry, Outcome

CHUNK: Final = 256 * 1024

# Windows has only O_BINARY of these, the other systems have all but that one.
_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO without a writer would block in open()
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


def hash_files(entries: Iterable[Entry]) -> list[Outcome]:
    """
    Hash each file that was found; what was skipped or failed before is passed on as it is.

    For a worker thread of anyio's: it looks after each chunk whether its call was cancelled.
    """
    return [hash_file(entry.path) if isinstance(entry, Found) else entry for entry in entries]


def hash_file(path: str) -> Outcome:
    """Read one file to its end, as `hash_files` does."""
    try:
        descriptor = os.open(path, _FLAGS)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):  # it was one when it was found
                return Skipped(path, kind_of(mode))
            sha256 = hashlib.sha256()
            size = 0
            while chunk := os.read(descriptor, CHUNK):
                from_thread.check_cancelled()
                sha256.update(chunk)
                size += len(chunk)
        finally:
            os.close(descriptor)
    except OSError as error:
        return Failed(path, reason_of(error))
    return Hashed(path, size, sha256.hexdigest())
