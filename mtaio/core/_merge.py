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
    Combine several sources into one for an executor's call, which takes items as they come.

    ``await executor.map(fn, merge(a, b, c))``. The call reads each async source in a task of its
    own, so that no source waits for another; sources that have items take turns. Sources are read
    on demand: a free worker makes each source that has no item ready read one. With n sources, up
    to n - 1 items may therefore have been read ahead. They start next, or are cancelled if the call
    ends first. The items end when all sources have ended; an error of a source ends the call.

    Not a checkpoint. The result cannot be iterated by itself.

    Args:
        *sources: Sync and async iterables, streams and other merges. If all are sync, nothing is
            read ahead.

    Raises:
        ValueError: No sources were given.
        TypeError: The sources were passed as a list.
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
