"""
What an `AsyncFileHandler` can tell about itself.

Promise: a snapshot that does not change afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AsyncFileHandlerStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncFileHandlerStatistics:
    """What an `AsyncFileHandler` holds and has done in this process."""

    queued: int
    """Records that are queued or being written."""
    waiters: int
    """Threads that wait for room in the queue."""
    written: int
    """Records written, lines about dropped ones included."""
    bytes: int
    """Bytes written."""
    dropped: Mapping[str, int]
    """Records that found no room, by the name of their level."""
    lost: int
    """Records that could not be written before the handler was closed."""
    rotations: int
    """How often the files were moved on by one."""
    write_errors: int
    """How often the file could not be opened, written or rotated."""
    worst_queue_delay: float
    """The most seconds from a record's arrival to its being written, among those looked at: one
    in 64, and all that found nobody ahead of them."""
