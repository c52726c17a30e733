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
import types
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeGuard, cast

from anyio.lowlevel import cancel_shielded_checkpoint

from mtaio._internal import checks
from mtaio._internal.backend import new_waiter
from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import Stray, classify, stray_error
from mtaio._internal.checkpoints import FAST_ITEMS, checkpoint
from mtaio.core._errors import conclude

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from anyio.abc import TaskGroup

    from mtaio._internal.backend import Waiter
    from mtaio.core._journal import Recording
    from mtaio.core._pool import Pool
    from mtaio.core._slots import Slot
    from mtaio.core._types import AnyIterable

__all__ = ["Feed", "as_feed", "open_source", "total_of"]


def total_of(iterables: tuple[AnyIterable[Any], ...]) -> int | None:
    """Return how many items the shortest source announces, or None if none announces any."""
    hints = [operator.length_hint(each, -1) for each in iterables]
    known = [hint for hint in hints if hint >= 0]
    return min(known) if known else None


def open_source(iterables: tuple[AnyIterable[Any], ...], ahead: int) -> Iterator[Any] | Feed:
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


def as_feed(source: Iterator[Any] | Feed) -> Feed:
    """Return what `open_source` returned as a `Feed`, whatever it is."""
    return source if isinstance(source, Feed) else Feed(_Async(source), 0)


class _Async:
    """A sync source as an async one."""

    __slots__ = ("_source",)

    def __init__(self, source: Iterator[Any]) -> None:
        self._source = source

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._source)
        except StopIteration:
            raise StopAsyncIteration from None


def _open(source: AnyIterable[Any], ahead: int) -> Iterator[Any] | Feed:
    if isinstance(source, str | bytes | bytearray | memoryview | Mapping):
        raise _not_many(cast("object", source))
    if isinstance(source, list | tuple) and source and inspect.iscoroutine(source[0]):
        msg = (
            f"the first item is {source[0]!r}, a coroutine. To await coroutines use "
            f"gather(*coroutines); otherwise pass the function and what to call it with: "
            f"map(fn, arguments)."
        )
        raise TypeError(msg)
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
        if hasattr(source, "get") and hasattr(source, "put"):
            msg = (
                f"{source!r} is a queue, which cannot be iterated. Pass an async generator that "
                f"yields what its get() returns: `while True: yield await queue.get()`."
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
    reader = Reader()
    while True:
        row: list[Any] = []
        for part in parts:
            if isinstance(part, Feed) and not await _wait(part, reader):
                return
            try:
                row.append(next(part))
            except StopIteration:
                return
        yield tuple(row)


@types.coroutine
def _wait(part: Feed, reader: Reader) -> Generator[Any, Any, bool]:
    return (yield from part.wait(reader))


def _is_generator(source: AsyncIterator[Any]) -> TypeGuard[AsyncGenerator[Any, Any]]:
    return isinstance(source, AsyncGenerator)


def _without_exit(error: BaseException) -> BaseException | None:
    """Return what closing a generator raised, without the exit that a task group in it wrapped."""
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).split(GeneratorExit)[1]
    return error


@dataclass(slots=True, eq=False)
class Reader:
    """
    What takes items from a `Feed`: a worker, or the source that is made of several.

    Attributes:
        waiter: What it waits on, from the first time on.
        slot: The slot that it holds, for an item or while it waits for one.
        called: Whether it was woken for an item, and does not run yet.
    """

    waiter: Waiter | None = None
    slot: Slot | None = None
    called: bool = False


def _turn() -> object:
    """Return what a task yields to the event loop only to let others run."""
    turn = cancel_shielded_checkpoint()
    try:
        return turn.send(None)
    finally:
        turn.close()


async def _settle(read: Awaitable[Any]) -> Any:
    return await read


def _watched(
    read: Awaitable[Any], turn: object, on_wait: Callable[[], object]
) -> Generator[Any, Any, Any]:
    """
    Await ``read``, and call ``on_wait`` if it waits, other than once for others to run.

    It is driven by hand, as `take_items` drives items, because nothing else shows that it waits.
    """
    steps = cast("Any", read if hasattr(read, "send") else _settle(read))
    suspended = waits = False
    answer: Any = None
    thrown: BaseException | None = None
    while True:
        try:
            waits_for = steps.send(answer) if thrown is None else steps.throw(thrown)
        except StopIteration as end:
            return end.value
        finally:
            thrown = None  # its traceback holds this frame: a cycle
        if not waits and (suspended or waits_for is not turn):
            waits = True
            on_wait()
        suspended = True
        try:
            answer = yield waits_for
        except BaseException as error:  # noqa: BLE001 - the source decides what it means
            thrown = error


class Feed:
    """
    An async source as seen by the workers: an iterator over what has been read so far.

    ``next()`` ends when nothing is there for the moment; `wait` says whether more may come.

    Without ``ahead`` an item is read only for a worker that waits, and has a slot and space for the
    result. Workers wait with their slots, in a stack. As soon as the source itself has to wait,
    they give them back: the source may need one, and other calls want to go on. So if a worker has
    no slot, those below it have none. If no slot is free when one is needed, the uppermost worker
    is woken without an item, and queues for a slot like any other.

    Args:
        source: What to read.
        ahead: How many items to read before a worker waits for them.
        parts: Feeds that ``source`` draws on, and whose sources end with it.

    Invariants:
    - ``_ready`` holds what was read and not begun: items for the ``_called`` workers that were
      woken for one and have not run yet, and beyond them at most ``_ahead``; without ``_ahead`` at
      most one, whose slot went to another call while it was being read;
    - while the reading task waits, for the source or because it is ``_paused``, no worker in
      ``_parked`` has a slot; for the source, from the next turn of the event loop on;
    - only `run` touches the source, in one task from the first item to its closing.
    """

    __slots__ = (
        "_ahead",
        "_called",
        "_closed",
        "_cut_short",
        "_ended",
        "_journal",
        "_parked",
        "_parts",
        "_paused",
        "_pool",
        "_reader",
        "_ready",
        "_source",
        "_source_waits",
    )

    def __init__(
        self, source: AsyncIterator[Any], ahead: int, parts: tuple[Feed, ...] = ()
    ) -> None:
        self._source = source
        self._ahead = ahead
        self._parts = parts
        self._pool: Pool | None = None
        self._journal: Recording | None = None
        self._ready: deque[Any] = deque()
        self._parked: list[Reader] = []
        self._called = 0
        self._reader: Waiter
        self._paused = False
        self._source_waits = False
        self._ended = False
        self._closed = False
        self._cut_short = False

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> Any:
        while self._ready:
            item = self._ready.popleft()
            if self._ahead or self._parked:
                self.look()
            if self._journal is None or not self._journal.skips(item):
                return item
        raise StopIteration

    def keep_journal(self, journal: Recording) -> None:
        """Skip items that the journal has."""
        self._journal = journal

    def has_items(self) -> bool:
        """Return whether there is something that was read to be begun, and is not."""
        return bool(self._ready) and not self._ahead

    def wait(self, reader: Reader) -> Generator[Any, Any, bool]:
        """
        Wait until there may be an item to take; return False if there never will be.

        A worker that has no slot after that has to ask for one before it takes an item.
        """
        while True:
            if self._ready:
                return True
            if self._closed:
                return False
            if self._pool is not None and (self._source_waits or self._ahead):
                self._pool.give_slot_back(reader)
                self._take_slots_back()
            if reader.waiter is None:
                reader.waiter = new_waiter()
            self._parked.append(reader)
            self.look()
            try:
                yield from reader.waiter.__await__()
            except BaseException:
                if reader in self._parked:
                    self._parked.remove(reader)
                raise
            finally:
                called, reader.called = reader.called, False
                self._called -= called
            if called or not (self._source_waits or self._closed):
                return True

    def look(self) -> None:
        """Let the reading task look again at who waits."""
        if self._paused:
            self._paused = False
            self._reader.wake()

    @property
    def cut_short(self) -> bool:
        """Whether reading ended by a cancellation, or worse."""
        return self._cut_short or any(part.cut_short for part in self._parts)

    def start(self, group: TaskGroup, pool: Pool | None = None) -> None:
        """Start reading, for the workers of ``pool``."""
        self._pool = pool
        self._reader = new_waiter()
        group.start_soon(self.run)
        for part in self._parts:
            part.start(group)

    def end(self) -> None:
        """Read no more. A source that waits for its next item is not disturbed."""
        self._ended = True
        self.look()
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
        while self._parked:
            self._send_off()
        self.end()
        # Only sources that nobody can read further: others are for their owner to close.
        if _is_generator(self._source):
            try:
                await self._source.aclose()
            except BaseException as error:  # noqa: BLE001 - raised below
                if (rest := _without_exit(error)) is not None:
                    errors.append(rest)
        try:
            conclude([], errors)
            if errors:
                raise errors[0]  # nothing but cancellation
        finally:
            errors.clear()  # what is raised holds this frame: else they keep each other alive

    @types.coroutine
    def _read(self) -> Generator[Any, Any, None]:
        ready, parked, ahead, pool = self._ready, self._parked, self._ahead, self._pool
        journal = self._journal
        slots = None if pool is None or ahead else pool.slots
        free = ahead or pool is None or (slots is None and pool.sink.buffer is None)
        turn = _turn()
        unyielding = 0
        while not self._ended:
            if len(ready) >= ahead and not (parked and (free or self._lets_in())):
                self._paused = True
                yield from self._reader.__await__()
                unyielding = 0
                continue
            # The other way, a worker has ended just as it was granted a slot for what was read.
            if ahead or len(ready) <= self._called:  # pragma: no branch - as said
                try:
                    read = anext(self._source)
                    item: Any
                    if slots is None:
                        item = yield from read.__await__()
                    else:
                        item = yield from _watched(read, turn, self._on_wait)
                except StopAsyncIteration:
                    return
                self._source_waits = False
                unyielding += 1
                if journal is None:
                    ready.append(item)
                else:
                    try:
                        yield from journal.prepare(item).__await__()
                    finally:
                        ready.append(item)
                    if len(ready) == 1 and not ahead and journal.skips(item):
                        ready.clear()  # it takes its place at once, as none is before it
            if ready and parked and (free or self._lets_in()):
                parked[-1].called = True
                self._called += 1
                self._send_off()
            if unyielding >= FAST_ITEMS:
                unyielding = 0
                yield from checkpoint().__await__()

    def _lets_in(self) -> bool:
        """
        Return whether the uppermost worker may begin the next item.

        If not, it is woken to ask for what it lacks.
        """
        pool, read = cast("Pool", self._pool), len(self._ready)
        if pool.lets_in(self._parked[-1], read, in_hand=read > self._called):
            return True
        self._take_slots_back()
        self._send_off()
        return False

    def _send_off(self) -> None:
        """Wake the uppermost worker."""
        cast("Waiter", self._parked.pop().waiter).wake()

    def _on_wait(self) -> None:
        """
        Note that the source has to wait for its next item.

        The slots are given back by the worker that this wakes, and not here: what the source waits
        for may be such a slot, and trio does not let a task be woken before it has really stopped.
        """
        self._source_waits = True
        if self._parked and self._parked[-1].slot is not None:
            self._send_off()

    def _take_slots_back(self) -> None:
        for reader in reversed(self._parked):
            if self._pool is None or reader.slot is None:
                return
            self._pool.give_slot_back(reader)
