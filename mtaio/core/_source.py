"""
Where items come from: sync and async iterables alike, read only as fast as they are used.

Promise: a sync source is read one item ahead of nobody, an async one at most ``ahead`` items. Each
async source is read and closed in one task, which reads nothing else, because a generator may hold
cancel scopes, and those of two generators would not nest.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeGuard

import anyio

from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import is_cancelled, stray_error, without_cancellation
from mtaio._internal.checkpoints import FAST_ITEMS, checkpoint
from mtaio._internal.parking import ParkingLot
from mtaio.core import _failures

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

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
    first, *others = parts = [_open(each, 0 if len(iterables) > 1 else ahead) for each in iterables]
    if not others:
        return first
    feeds = tuple(part for part in parts if isinstance(part, Feed))
    return Feed(_rows(parts), ahead, feeds) if feeds else zip(*parts, strict=False)


def _open(source: AnyIterable, ahead: int) -> Iterator[Any] | Feed:
    if isinstance(source, AsyncIterable):
        return Feed(aiter(source), ahead)
    try:
        return iter(source)  # __getitem__ alone will do
    except TypeError:
        msg = (
            f"{source!r} is a {type(source).__name__}, which is neither an iterable nor an async "
            f"iterable. Pass one; a single item goes in a list."
        )
        raise TypeError(msg) from None


async def _rows(parts: list[Iterator[Any] | Feed]) -> AsyncGenerator[tuple[Any, ...], None]:
    while True:
        row: list[Any] = []
        for part in parts:
            if isinstance(part, Feed) and not await part.wait():
                return
            try:
                row.append(next(part))
            except StopIteration:
                return
        yield tuple(row)


def _is_generator(source: AsyncIterator[Any]) -> TypeGuard[AsyncGenerator[Any, Any]]:
    return isinstance(source, AsyncGenerator)


class Feed:
    """
    An async source as seen by its readers: an iterator over what has been read so far.

    ``next()`` ends when nothing is there for the moment; `wait` says whether more will come.

    Args:
        source: What to read.
        ahead: How many items to read before somebody waits for them.
        parts: Feeds that ``source`` draws on, and whose sources end with it.

    Invariants:
    - ``_ready`` holds at most ``_ahead`` items, or one if somebody waits;
    - only `run` touches the source, in one task from the first item to its closing.
    """

    __slots__ = (
        "_ahead",
        "_closed",
        "_cut_short",
        "_ended",
        "_news",
        "_parts",
        "_ready",
        "_room",
        "_source",
        "_wanted",
    )

    def __init__(
        self, source: AsyncIterator[Any], ahead: int, parts: tuple[Feed, ...] = ()
    ) -> None:
        self._source = source
        self._ahead = ahead
        self._parts = parts
        self._ready: deque[Any] = deque()
        self._news = ParkingLot()
        self._room: anyio.Event | None = None
        self._wanted = False
        self._ended = False
        self._closed = False
        self._cut_short = False

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> Any:
        if not self._ready:
            raise StopIteration
        item = self._ready.popleft()
        if self._room is not None:
            self._room.set()
        return item

    async def wait(self) -> bool:
        """Wait until there is an item to take; return False if there never will be."""
        while not self._ready:
            if self._closed:
                return False
            self._wanted = True
            if self._room is not None:
                self._room.set()
            await self._news.park()
        return True

    @property
    def cut_short(self) -> bool:
        """Whether reading ended by a cancellation, or worse."""
        return any(feed._cut_short for feed in (self, *self._parts))  # noqa: SLF001 - one of us

    def start(self, group: TaskGroup) -> None:
        """Begin to read."""
        for feed in (self, *self._parts):
            group.start_soon(feed.run)

    def end(self) -> None:
        """Read no more. A source that waits for its next item is not disturbed."""
        for feed in (self, *self._parts):
            feed._ended = True  # noqa: SLF001 - one of us
            if feed._room is not None:  # noqa: SLF001 - one of us
                feed._room.set()  # noqa: SLF001 - one of us

    async def run(self) -> None:
        """Read the source to its end, or until `end` or cancellation, and close it."""
        errors: list[BaseException] = []
        try:
            await self._read()
        except BaseException as error:  # noqa: BLE001 - raised below
            self._cut_short = True
            # Taken for a real cancellation, it would end the call in silence, half done.
            unasked = without_cancellation(error) is None and not is_cancelled()
            errors.append(stray_error(error, name_of(self._source)) if unasked else error)
        self._closed = True
        self._news.unpark_all()
        self.end()
        # Only what nobody else can read on: other sources are their owner's to close.
        if _is_generator(self._source):
            try:
                await self._source.aclose()
            except BaseException as error:  # noqa: BLE001 - raised below
                errors.append(error)
        try:
            _failures.conclude([], errors)
            if errors:
                raise errors[0]  # nothing but cancellation
        finally:
            errors.clear()  # what is raised holds this frame: else they keep each other alive

    async def _read(self) -> None:
        unyielding = 0
        while not self._ended:
            if len(self._ready) >= (self._ahead or self._wanted):
                self._room = anyio.Event()
                await self._room.wait()
                self._room = None
                unyielding = 0
                continue
            try:
                item = await anext(self._source)
            except StopAsyncIteration:
                return
            self._ready.append(item)
            self._wanted = False
            self._news.unpark()
            unyielding += 1
            if unyielding >= FAST_ITEMS:
                unyielding = 0
                await checkpoint()
