"""
Locks on files, which keep processes apart, and the descriptors of one process.

Promise: a lock ends with its descriptor, so none outlives its process. Where a file system has no
locks, each one is granted: who shares such a file takes the risk.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

__all__ = ["lock", "unlock"]

if sys.platform == "win32":  # pragma: no cover - Windows
    import msvcrt

    def lock(fd: int, *, wait: bool) -> bool:
        """Lock a byte that no file reaches; if another has, return False, or ``wait`` 10 s."""
        os.lseek(fd, 1 << 40, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock(fd: int) -> None:
        """Give the lock back."""
        os.lseek(fd, 1 << 40, os.SEEK_SET)
        with suppress(OSError):
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def lock(fd: int, *, wait: bool) -> bool:
        """Lock a file; if another has, return False, or ``wait`` until it has not."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without locks
        return True

    def unlock(fd: int) -> None:
        """Give the lock back."""
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
