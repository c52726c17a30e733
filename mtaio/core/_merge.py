"""
Several sources as one.

Promise: `merge` touches no source; the call that it is given to opens, reads and closes them
(`open_source` in ``_source.py``).
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, cast, final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mtaio.core._types import AnyIterable

__all__ = ["Merge", "merge", "unmerged"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Merge(Generic[T_co]):
    """What `merge` returns: a source for one call."""

    sources: tuple[AnyIterable[T_co], ...]


def merge(*sources: AnyIterable[T]) -> Merge[T]:
    """
    Return a source of what several sources yield, as it comes, for one call of an executor.

    ``await executor.map(fn, merge(a, b, c))``. Each async source is read by a task of its own in
    the call, and those that have something take turns. Items are read on demand: a worker that is
    free has each source that has none in hand read one. So one source never waits for another, and
    with n sources up to n - 1 items may have been read that nobody has asked for yet. They are the
    next to begin; if the call ends before, they begin then, and are cancelled, as other items are
    that have been taken. The items end when all sources have ended; an error of one of them ends
    the call, as that of a single source does.

    Not a checkpoint, and it cannot be iterated by itself: the tasks that read need a call to live
    in.

    Args:
        *sources: Sync and async iterables, streams and other merges. Sync ones take part in the
            turns; where all are sync, nothing is read before it can begin.

    Raises:
        ValueError: No source at all.
        TypeError: They are in a list.
    """
    if not sources:
        raise ValueError("merge() of no sources has no items. Pass at least one iterable.")
    first = sources[0]
    if len(sources) == 1 and isinstance(first, list | tuple):
        several = cast("Iterable[object]", first)
        if any(isinstance(each, AsyncIterable | Merge) for each in several):
            msg = (
                f"merge() takes its sources one by one, and got {first!r:.100}. Write "
                f"merge(*sources)."
            )
            raise TypeError(msg)
    return Merge(sources)


def unmerged(sources: Iterable[object]) -> Iterator[object]:
    """Yield the sources, and in place of a merge what it was made of."""
    for each in sources:
        if isinstance(each, Merge):
            yield from unmerged(cast("Merge[object]", each).sources)
        else:
            yield each
