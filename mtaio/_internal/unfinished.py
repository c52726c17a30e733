"""
Whether a call returned although its source may have had more items.

Promise: `note` changes nothing where nobody records it. A record belongs to a context, so what one
task notes is seen by the block around it, and by no other.

Who notes it: a call of an executor that its ``until=`` has cut short. Who records it: a job, whose
exit code says whether it is complete.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Record", "note", "recording"]


@final
class Record:
    """Whether anything inside a block was noted."""

    __slots__ = ("noted",)

    def __init__(self) -> None:
        self.noted: bool = False


_record: Final[ContextVar[Record | None]] = ContextVar("mtaio.unfinished", default=None)


def note() -> None:
    """Note that a call was cut short. Not a checkpoint."""
    record = _record.get()
    if record is not None:
        record.noted = True


@contextmanager
def recording() -> Generator[Record]:
    """Record what is noted in the block, and in the tasks that are started in it."""
    record = Record()
    token = _record.set(record)
    try:
        yield record
    finally:
        _record.reset(token)
