"""
Where items come from: sync and async iterables alike, read only as fast as they are used.

Promise: a sync source is read one item ahead of nobody; an async one is read by a single task,
because a generator may hold cancel scopes that must not change hands, and at most ``ahead`` items
before somebody wants them.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, cast

import anyio

from mtaio._internal.coop import FAST_ITEMS, checkpoint
from mtaio.core._bell import Bell

AnyIterable = Iterable[Any] | AsyncIterable[Any]


def total_of(iterables: tuple[AnyIterable, ...]) -> int | None:
    """Return how many items the shortest source announces, or None if none announces any."""
    hints = [operator.length_hint(each, -1) for each in iterables]
    known = [hint for hint in hints if hint >= 0]
    return min(known) if known else None


def open_source(iterables: tuple[AnyIterable, ...], ahead: int) -> Iterator[Any] | Feed:
    """
    Return what a pool's workers read from: a plain iterator, or a `Feed` for async sources.

    One iterable gives its items, several give tuples and end with the shortest.

    Raises:
        ValueError: No iterable at all.
        TypeError: Something that cannot be iterated.
    """
    if not iterables:
        raise ValueError(
            "no source given: there is nothing to apply fn to. Pass at least one iterable."
        )
    opened = [_open(each) for each in iterables]
    iterators = [each for each in opened if isinstance(each, Iterator)]
    if len(iterators) < len(opened):
        return Feed(opened, ahead)
    return iterators[0] if len(iterators) == 1 else zip(*iterators, strict=False)


def _open(source: object) -> Iterator[Any] | AsyncIterator[Any]:
    if isinstance(source, AsyncIterable):
        return aiter(cast("AsyncIterable[Any]", source))
    try:
        return iter(cast("Iterable[Any]", source))  # __getitem__ alone will do
    except TypeError:
        msg = (
            f"{source!r} is a {type(source).__name__}, which is neither an iterable nor an async "
            f"iterable. Pass one; a single item goes in a list."
        )
        raise TypeError(msg) from None


class Feed:
    """
    An async source as seen by workers: an iterator over what has been read so far.

    ``next()`` ends when nothing is there for the moment; `wait` says whether more will come.

    Invariants:
    - ``_ready`` holds at most ``_ahead`` items;
    - only `run` touches the sources, in one task from the first item to their closing.
    """

    __slots__ = ("_ahead", "_news", "_ready", "_room", "_sources", "closed")

    def __init__(self, sources: list[Iterator[Any] | AsyncIterator[Any]], ahead: int) -> None:
        self._sources = sources
        self._ahead = ahead
        self._ready: deque[Any] = deque()
        self._news = Bell()
        self._room: anyio.Event | None = None
        self.closed = False

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> Any:
        if not self._ready:
            raise StopIteration
        item = self._ready.popleft()
        if self._room is not None:
            self._room.set()
            self._room = None
        return item

    async def wait(self) -> bool:
        """Wait until there is an item to take; return False if there never will be."""
        while not self._ready:
            if self.closed:
                return False
            await self._news.wait()
        return True

    async def run(self) -> None:
        """Read the sources to their end, or until cancelled, and close those that need it."""
        try:
            await self._read()
        finally:
            self.closed = True
            self._news.ring_all()
            for source in self._sources:
                close = getattr(source, "aclose", None)
                if close is not None:
                    await close()

    async def _read(self) -> None:
        single = len(self._sources) == 1
        unyielding = 0
        while True:
            if len(self._ready) >= self._ahead:
                self._room = anyio.Event()
                await self._room.wait()
                unyielding = 0
            row: list[Any] = []
            for source in self._sources:
                try:
                    item = next(source) if isinstance(source, Iterator) else await anext(source)
                except (StopIteration, StopAsyncIteration):
                    return
                row.append(item)
            self._ready.append(row[0] if single else tuple(row))
            self._news.ring()
            unyielding += 1
            if unyielding >= FAST_ITEMS:
                unyielding = 0
                await checkpoint()
