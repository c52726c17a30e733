"""
Where items come from: sync and async iterables alike, read only as fast as they are used.

Promise: sync sources are not read ahead, async ones by at most ``ahead`` items. Each async source
is read and closed in one task, which reads nothing else, because a generator may hold cancel
scopes, and those of two generators would not nest.
"""

from __future__ import annotations

import inspect
import operator
import reprlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import anyio

from mtaio._internal import checks
from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import Stray, classify, stray_error
from mtaio._internal.checkpoints import FAST_ITEMS, checkpoint
from mtaio._internal.parking import ParkingLot
from mtaio.core._errors import conclude

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from mtaio.core._types import AnySource

__all__ = ["Feed", "open_source", "total_of"]


def total_of(iterables: tuple[AnySource, ...]) -> int | None:
    """Return how many items the shortest source announces, or None if none announces any."""
    hints = [operator.length_hint(each, -1) for each in iterables]
    known = [hint for hint in hints if hint >= 0]
    return min(known) if known else None


def open_source(iterables: tuple[AnySource, ...], ahead: int) -> Iterator[Any] | Feed:
    """
    Return what a pool's workers read from: a plain iterator, or a `Feed` for async sources.

    One iterable gives its items, several give tuples and end with the shortest.

    Raises:
        ValueError: No iterable at all.
        TypeError: A source cannot be iterated, or is a single thing: text, a mapping.
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


def _open(source: AnySource, ahead: int) -> Iterator[Any] | Feed:
    if isinstance(source, str | bytes | bytearray | memoryview | Mapping):
        raise _not_many(cast("object", source))
    if isinstance(source, AsyncIterable):
        return Feed(aiter(source), ahead)
    try:
        return iter(source)  # __getitem__ alone will do
    except TypeError:
        if inspect.isroutine(source):
            msg = (
                f"{source!r} is a function, not an iterable. Call it: pass "
                f"{name_of(source)}(...) instead."
            )
            raise TypeError(msg) from None
        msg = (
            f"{source!r} is {checks.type_of(source)}, which is neither an iterable nor an async "
            f"iterable. Pass one; a single item goes in a list."
        )
        raise TypeError(msg) from None


def _not_many(source: object) -> TypeError:
    """Return the error for a source that can be iterated, but is hardly ever meant to be."""
    shown = reprlib.repr(source)
    if isinstance(source, Mapping):
        msg = (
            f"{shown} is a mapping, and only its keys would be items. Pass its keys() or "
            f"values(), or both of them to a function of two arguments."
        )
        return TypeError(msg)
    msg = (
        f"{shown} is {checks.type_of(source)}, and each character or byte would be an item. Pass "
        f"it in a list for one item, or list(...) of it if that is intended."
    )
    return TypeError(msg)


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
        ahead: How many items to read before a reader waits for them.
        parts: Feeds that ``source`` draws on, and whose sources end with it.

    Invariants:
    - ``_ready`` holds at most ``_ahead`` items, or one if a reader waits;
    - only `run` touches the source, in one task from the first item to its closing.
    """

    __slots__ = (
        "_ahead",
        "_arrivals",
        "_closed",
        "_cut_short",
        "_ended",
        "_parts",
        "_ready",
        "_source",
        "_space",
        "_wanted",
    )

    def __init__(
        self, source: AsyncIterator[Any], ahead: int, parts: tuple[Feed, ...] = ()
    ) -> None:
        self._source = source
        self._ahead = ahead
        self._parts = parts
        self._ready: deque[Any] = deque()
        self._arrivals = ParkingLot()
        self._space: anyio.Event | None = None
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
        if self._space is not None:
            self._space.set()
        return item

    async def wait(self) -> bool:
        """Wait until there is an item to take; return False if there never will be."""
        while not self._ready:
            if self._closed:
                return False
            self._wanted = True
            if self._space is not None:
                self._space.set()
            await self._arrivals.park()
        return True

    @property
    def cut_short(self) -> bool:
        """Whether reading ended by a cancellation, or worse."""
        return self._cut_short or any(part.cut_short for part in self._parts)

    def start(self, group: TaskGroup) -> None:
        """Start reading."""
        group.start_soon(self.run)
        for part in self._parts:
            part.start(group)

    def end(self) -> None:
        """Read no more. A source that waits for its next item is not disturbed."""
        self._ended = True
        if self._space is not None:
            self._space.set()
        for part in self._parts:
            part.end()

    async def run(self) -> None:
        """Read the whole source, or until `end` or cancellation, and close it."""
        errors: list[BaseException] = []
        try:
            await self._read()
        except BaseException as error:  # noqa: BLE001 - raised below
            self._cut_short = True
            # Taken for a real cancellation, a stray one would end the call silently, half done.
            stray = isinstance(classify(error), Stray)
            errors.append(stray_error(error, name_of(self._source)) if stray else error)
        self._closed = True
        self._arrivals.unpark_all()
        self.end()
        # Only sources that nobody can read further: others are for their owner to close.
        if _is_generator(self._source):
            try:
                await self._source.aclose()
            except BaseException as error:  # noqa: BLE001 - raised below
                errors.append(error)
        try:
            conclude([], errors)
            if errors:
                raise errors[0]  # nothing but cancellation
        finally:
            errors.clear()  # what is raised holds this frame: else they keep each other alive

    async def _read(self) -> None:
        unyielding = 0
        while not self._ended:
            if len(self._ready) >= (self._ahead or self._wanted):
                self._space = anyio.Event()
                await self._space.wait()
                self._space = None
                unyielding = 0
                continue
            try:
                item = await anext(self._source)
            except StopAsyncIteration:
                return
            self._ready.append(item)
            self._wanted = False
            self._arrivals.unpark()
            unyielding += 1
            if unyielding >= FAST_ITEMS:
                unyielding = 0
                await checkpoint()
