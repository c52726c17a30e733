"""
Which of the processes that share a log file may move it.

Promise: one at a time, and nobody waits for another.
"""

from __future__ import annotations

import sys
from contextlib import suppress

__all__ = ["lock", "unlock"]

if sys.platform == "win32":  # pragma: no cover - Windows refuses to rename what another has open

    def lock(fd: int) -> bool:  # noqa: ARG001 - the same signature everywhere
        return True

    def unlock(fd: int) -> None:
        pass

else:
    import fcntl

    def lock(fd: int) -> bool:
        """Take the file for ourselves, if no other process has; without waiting."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without locks: then whoever shares the file is on his own
        return True

    def unlock(fd: int) -> None:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
