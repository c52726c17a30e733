"""
A word from work that stopped early to whoever runs it: there is more to do.

Promise: `note` reaches every `watching` block around the running code, and those of the tasks
around it; outside of any it does nothing. From any task that was started inside the block.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Watch", "note", "watching"]


class Watch:
    """What a block of `watching` learns; ``noted`` says whether work was left undone in it."""

    __slots__ = ("_around", "noted")

    def __init__(self, around: Watch | None) -> None:
        self.noted: bool = False
        self._around = around

    def note(self) -> None:
        """Note it here, and in the blocks around."""
        self.noted = True
        if self._around is not None:
            self._around.note()


_watch: Final[ContextVar[Watch | None]] = ContextVar("mtaio.unfinished", default=None)


def note() -> None:
    """Note that work was left undone."""
    watch = _watch.get()
    if watch is not None:
        watch.note()


@contextmanager
def watching() -> Iterator[Watch]:
    """Learn whether work is left undone in the block."""
    watch = Watch(_watch.get())
    token = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(token)
