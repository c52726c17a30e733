"""
Where items come from: sync and async iterables alike, read only as fast as they are used.

Promise: sync sources are not read ahead, async ones by at most ``ahead`` items. Each async source
is read and closed in one task, which reads nothing else, because a generator may hold cancel
scopes, and those of two generators would not nest. With batches, all this holds of batches: at most
one is filled that is not begun.
"""

from __future__ import annotations

import inspect
import math
import operator
import reprlib
import types
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from mtaio._internal import checks
from mtaio._internal.backend import new_waiter
from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import Stray, classify, stray_error
from mtaio._internal.checkpoints import FAST_ITEMS, checkpoint
from mtaio._internal.clock import loop_deadline, now
from mtaio.core._errors import conclude
from mtaio.core._intake import is_ack_source, taken_from
from mtaio.core._merge import Merge
from mtaio.core._stream import Stream, results_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from anyio.abc import TaskGroup

    from mtaio._internal.backend import Waiter
    from mtaio.core._journal import Recording
    from mtaio.core._pool import Pool
    from mtaio.core._slots import Slot
    from mtaio.core._types import AnyIterable

__all__ = ["Feed", "Slices", "may_have_more", "open_source", "total_of", "watched"]


def total_of(iterables: tuple[AnyIterable[Any], ...], batch: int | None = None) -> int | None:
    """Return how many items, or batches, the shortest source announces; None if none does."""
    hints = [operator.length_hint(each, -1) for each in iterables]
    known = [hint for hint in hints if hint >= 0]
    return -(-min(known) // (batch or 1)) if known else None


def may_have_more(source: Iterator[Any]) -> bool:
    """Return False if it is known that the source is exhausted."""
    try:
        return operator.length_hint(source, 1) > 0
    except OverflowError:  # a range longer than any list
        return True


def open_source(
    iterables: tuple[AnyIterable[Any], ...],
    ahead: int,
    *,
    batch: int | None = None,
    within: float | None = None,
    ends: bool = False,
    journal: Recording | None = None,
) -> Iterator[Any] | Feed:
    """
    Return what a pool's workers read from: a plain iterator, or a `Feed` for async sources.

    One iterable gives its items, several give tuples and end with the shortest.

    Args:
        iterables: The sources.
        ahead: How many items to read from async ones before a worker waits for them.
        batch: How many items make a batch, which then counts as one; None for no batches.
        within: Seconds after which a batch begins that is not full; None for no limit.
        ends: Whether there has to be a method ``stop``, for the source to be ended from outside.
        journal: What is done with the items that need not be called; None to call all.

    Raises:
        ValueError: No iterable at all.
        TypeError: A source cannot be iterated, or is a single thing: text, a mapping.
    """
    source = _join(iterables, ahead)
    if journal is not None:
        if not isinstance(source, Feed):
            source = _feed_of(source)
        source.sift(journal)
    if isinstance(source, Feed):
        source.prepare(batch or 0, math.inf if within is None else within, ends=ends)
        return source
    return source if batch is None and not ends else Slices(source, batch or 0)


def _join(iterables: tuple[AnyIterable[Any], ...], ahead: int) -> Iterator[Any] | Feed:
    if not iterables:
        raise ValueError(
            "no source given: there is nothing to apply fn to. Pass at least one iterable."
        )
    first, *others = parts = [_open(each, 0 if len(iterables) > 1 else ahead) for each in iterables]
    if not others:
        return first
    feeds = tuple(part for part in parts if isinstance(part, Feed))
    return Feed(_rows(parts), ahead, feeds) if feeds else zip(*parts, strict=False)


def _open(source: AnyIterable[Any], ahead: int) -> Iterator[Any] | Feed:
    if isinstance(source, checks.ONE_THING):
        raise _not_many(cast("object", source))
    if isinstance(source, list | tuple) and source and inspect.iscoroutine(source[0]):
        msg = (
            f"the first item is {source[0]!r}, a coroutine. To await coroutines use "
            f"gather(*coroutines); otherwise pass the function and what to call it with: "
            f"map(fn, arguments)."
        )
        raise TypeError(msg)
    if isinstance(source, Merge):
        return _open_merge(source, ahead)
    if isinstance(source, AsyncIterable):
        return Feed(_items_of(source), ahead)
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


class Slices:
    """
    A sync source that gives batches, or that can be ended from outside.

    An error of the source comes after the batch that it cut short: what was read is begun.

    Args:
        source: What to read.
        size: How many items make a batch; 0 for single items.

    Attributes:
        error: What the source raised in the midst of a batch, until it is raised here.
    """

    __slots__ = ("_ended", "_size", "_source", "error")

    def __init__(self, source: Iterator[Any], size: int) -> None:
        self._source = source
        self._size = size
        self._ended = False
        self.error: BaseException | None = None

    def __iter__(self) -> Slices:
        return self

    def __next__(self) -> Any:
        if self.error is not None:
            error, self.error = self.error, None
            try:
                raise error
            finally:
                del error  # it holds this frame: else they keep each other alive
        if self._ended:
            raise StopIteration
        if not self._size:
            return next(self._source)
        batch: list[Any] = []
        try:
            batch.extend(islice(self._source, self._size))
        except BaseException as error:
            if not batch:
                raise
            self.error = error
        if not batch:
            raise StopIteration
        return batch

    def __length_hint__(self) -> int:
        """Return at least 1 where there may be more."""
        return 0 if self._ended else operator.length_hint(self._source, 1)

    def stop(self) -> bool:
        """Give no more; return whether there may have been more."""
        more = may_have_more(self)
        self._ended = True
        return more


@types.coroutine
def _wait(part: Feed, reader: Reader) -> Generator[Any, Any, bool]:
    return (yield from part.wait(reader))


def _items_of(source: AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(source, Stream):
        return results_of(source)
    return taken_from(source) if is_ack_source(source) else aiter(source)


def _open_merge(merge: Merge[Any], ahead: int) -> Iterator[Any] | Feed:
    parts = [_open(each, 0) for each in merge.sources]
    iterators = [part for part in parts if not isinstance(part, Feed)]
    if len(iterators) == len(parts):
        return _in_turn(iterators)
    feeds = tuple(part if isinstance(part, Feed) else _feed_of(part) for part in parts)
    return _MergedFeed(_merged(feeds), ahead, feeds)


def _in_turn(iterators: list[Iterator[Any]]) -> Iterator[Any]:
    while iterators:
        for each in [*iterators]:
            try:
                item = next(each)
            except StopIteration:
                iterators.remove(each)
            else:
                yield item


def _feed_of(iterator: Iterator[Any]) -> Feed:
    feed = Feed(_each(iterator), 0)
    feed.known = iterator
    return feed


async def _each(iterator: Iterator[Any]) -> AsyncGenerator[Any, None]:
    for item in iterator:
        yield item


async def _merged(parts: tuple[Feed, ...]) -> AsyncGenerator[Any, None]:
    """
    Yield what the parts have in hand, one after another; then have each that has nothing read one.

    So each part has at most one item in hand, and none has two turns while another one has none.
    """
    waiter = new_waiter()
    reader = Reader(waiter)  # of them all: whichever has something wakes it
    left = [*parts]
    while left:
        seen = [part.request(reader) for part in left]
        if not any(seen):
            await waiter
        for part in left:
            for item in part:  # it is one at most
                yield item
        left = [part for part in left if not part.is_over()]


def _is_generator(source: AsyncIterator[Any] | None) -> TypeGuard[AsyncGenerator[Any, Any]]:
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


@types.coroutine
def watched(read: Awaitable[Any], on_wait: Callable[[], object]) -> Generator[Any, Any, Any]:
    """Await ``read``, and call ``on_wait`` if it waits, other than once for others to run."""
    return (yield from _watched(read, _turn(), on_wait))


class Feed:
    """
    An async source as seen by the workers: an iterator over what has been read so far.

    ``next()`` ends when nothing is there for the moment; `wait` says whether more may come.

    Without ``ahead`` an item is read only for a worker that waits, and has a slot and space for the
    result. Workers wait with their slots, in a stack. As soon as the source itself has to wait,
    they give them back: the source may need one, and other calls want to go on. So if a worker has
    no slot, those below it have none. If no slot is free when one is needed, the uppermost worker
    is woken without an item, and queues for a slot like any other.

    Batches: what is read fills one (``_filling``), which joins ``_ready`` when it is full, or when
    there is no more to read. When its time has come (``_due``) a worker takes it as it is; while
    none is free, it goes on filling. So the first item of a batch is read for a worker that waits,
    and the others whether one waits or not. An error of the source comes when the batch that it
    cut short has begun.

    Args:
        source: What to read.
        ahead: How many items to read before a worker waits for them.
        parts: Feeds that ``source`` draws on, and whose sources end with it.

    Attributes:
        known: The sync iterator that ``source`` reads, if it does; it may know that it has no more.

    Invariants:
    - an item is a batch where there are batches, except for ``_filling``;
    - ``_moment`` is when the batch in ``_filling`` is due, ``inf`` if never, or if it is already;
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
        "_due",
        "_ended",
        "_ends",
        "_failure",
        "_filling",
        "_moment",
        "_parked",
        "_parts",
        "_paused",
        "_pool",
        "_reader",
        "_ready",
        "_scope",
        "_sifted",
        "_size",
        "_source",
        "_source_waits",
        "_timer",
        "_timer_idles",
        "_within",
        "known",
    )

    def __init__(
        self, source: AsyncIterator[Any], ahead: int, parts: tuple[Feed, ...] = ()
    ) -> None:
        self._source = source
        self._sifted: AsyncIterator[Any] | None = None
        self._ahead = ahead
        self._parts = parts
        self.known: Iterator[Any] | None = None
        self._pool: Pool | None = None
        self._ready: deque[Any] = deque()
        self._parked: list[Reader] = []
        self._called = 0
        self._reader: Waiter
        self._paused = False
        self._source_waits = False
        self._ended = False
        self._closed = False
        self._cut_short = False
        self._size = 0
        self._within = self._moment = math.inf
        self._filling: list[Any] = []
        self._due = False
        self._failure: Exception | None = None
        self._timer: Waiter | None = None
        self._timer_idles = False
        self._ends = False
        self._scope: anyio.CancelScope | None = None

    def prepare(self, size: int, within: float, *, ends: bool) -> None:
        """
        Say how to read, before anything is read.

        Args:
            size: How many items make a batch; 0 for single items.
            within: Seconds after its first item in which a batch begins; ``inf`` for no limit.
            ends: Whether there will be a `stop`.
        """
        self._size = size
        self._within = within
        self._ends = ends
        for part in self._parts:
            part.prepare(0, math.inf, ends=ends)

    def sift(self, journal: Recording) -> None:
        """Let a journal take out what it has, before anything is read."""
        self._sifted = self._source
        self._source = journal.rest_of(self._sifted, self)

    def is_clear(self) -> bool:
        """Return whether what is read now is the call's next item: nothing waits before it."""
        return not (self._ready or self._size or self._ahead)

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> Any:
        if not self._ready:
            if not self._due:
                raise StopIteration
            self._complete()
        item = self._ready.popleft()
        if self._ahead or self._parked:
            self.look()
        return item

    def has_items(self) -> bool:
        """Return whether there is something that was read to be begun, and is not."""
        return bool(self._ready) and not self._ahead

    def wait(self, reader: Reader) -> Generator[Any, Any, bool]:
        """
        Wait until there may be an item to take; return False if there never will be.

        A worker that has no slot after that has to ask for one before it takes an item.
        """
        while True:
            if self._ready or self._due:
                return True
            if self._closed:
                return False
            if self._pool is not None and (self._source_waits or self._ahead or self._filling):
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

    def request(self, reader: Reader) -> bool:
        """
        Have an item read for a reader that waits for several feeds, unless there is one.

        Such a reader need not be waiting when the item comes, so ``_called`` only grows, and bounds
        nothing: an item is read while the reader is parked, which it is while there is none.

        Returns:
            Whether there is something to see: an item, or the end.
        """
        if self._ready or self._closed:
            return True
        if reader not in self._parked:
            self._parked.append(reader)
            self.look()
        return False

    def is_over(self) -> bool:
        """Return whether there is no item, and never will be."""
        return self._closed and not self._ready

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
        if self._ends:
            self._scope = anyio.CancelScope()
            group.start_soon(self._run_in, self._scope)
        else:
            group.start_soon(self.run)
        if self._size and self._within != math.inf:
            self._timer = new_waiter()
            group.start_soon(self._tick, self._timer)
        for part in self._parts:
            part.start(group)

    def end(self) -> None:
        """Read no more. A source that waits for its next item is not disturbed."""
        self._ended = True
        self.look()
        for part in self._parts:
            part.end()

    def stop(self) -> bool:
        """
        Read no more, and cancel the source if it waits for its next item.

        What was read is still given; so is an item that comes in spite of that.

        Returns:
            Whether there may have been more.
        """
        if self._closed:
            return False
        self.end()
        if self._source_waits:
            cast("anyio.CancelScope", self._scope).cancel()
        for part in self._parts:
            part.stop()
        return self.known is None or may_have_more(self.known)

    async def _run_in(self, scope: anyio.CancelScope) -> None:
        with scope:
            await self.run()

    async def run(self) -> None:
        """Read the whole source, or until `end`, `stop` or cancellation, and close it."""
        errors: list[BaseException] = []
        try:
            await self._read()
        except BaseException as error:  # noqa: BLE001 - raised below
            self._cut_short = True
            # Taken for a real cancellation, a stray one would end the call silently, half done.
            stray = isinstance(classify(error), Stray)
            errors.append(stray_error(error, name_of(self._source)) if stray else error)
        if self._failure is not None:  # cancelled before the batch began that it cut short
            errors.append(self._failure)
            self._failure = None
        if self._filling:
            self._complete()
        self._closed = True
        if self._timer is not None:
            self._timer.wake()
        while self._parked:
            self._send_off()
        self.end()
        await self._close_sources(errors)
        try:
            conclude([], errors)
            if errors:
                raise errors[0]  # nothing but cancellation
        finally:
            errors.clear()  # what is raised holds this frame: else they keep each other alive

    async def _close_sources(self, errors: list[BaseException]) -> None:
        """Close what nobody can read further; other sources are for their owner to close."""
        for source in (self._source, self._sifted):
            if _is_generator(source):
                try:
                    await source.aclose()
                except BaseException as error:  # noqa: BLE001 - raised by `run`
                    if (rest := _without_exit(error)) is not None:
                        errors.append(rest)

    @types.coroutine
    def _read(  # noqa: C901, PLR0912 - each call saved here is saved for every item
        self,
    ) -> Generator[Any, Any, None]:
        """
        Read items and hand them to workers, until there are no more.

        The steps of one turn:

        1. Wait until a worker waits that may begin another item; but not while a batch is being
           filled, and not for the items that are read ahead.
        2. Read an item, unless one that was read before is still there: then its slot went to
           another call. In a batch it joins the others.
        3. If there is an item, or a batch that is full, wake the uppermost worker for it. If that
           may not begin it now, it is woken to ask for what it lacks.
        4. Yield after `FAST_ITEMS` items that came without a wait.

        An error that cuts a batch short is raised when a worker has taken that.
        """
        ready, parked, ahead, pool = self._ready, self._parked, self._ahead, self._pool
        size = self._size
        slots = None if pool is None or ahead else pool.slots
        free = ahead or pool is None or (slots is None and pool.sink.buffer is None)
        unwatched = slots is None and not self._ends
        turn = _turn()
        unyielding = 0
        while not self._ended:
            # 1. Wait for a worker.
            if (
                len(ready) >= ahead
                and not (size and self._filling)
                and not (parked and (free or self._lets_in()))
            ):
                self._paused = True
                yield from self._reader.__await__()
                unyielding = 0
                continue
            # 2. Read an item. The other way, a worker has ended just as it was granted a slot for
            # what was read.
            if ahead or len(ready) <= self._called or self._filling:  # pragma: no branch - as said
                try:
                    read = anext(self._source)
                    item: Any
                    if unwatched:
                        item = yield from read.__await__()
                    else:
                        item = yield from _watched(read, turn, self._on_wait)
                except StopAsyncIteration:
                    return
                except Exception as error:
                    self._source_waits = False
                    if ahead or not self._filling:
                        raise
                    self._failure = error
                    break
                self._source_waits = False
                if size:
                    self._fill(item)
                else:
                    ready.append(item)
                unyielding += 1
            # 3. Wake a worker.
            if parked and (not size or len(ready) > self._called) and (free or self._lets_in()):
                parked[-1].called = True
                self._called += 1
                self._send_off()
            # 4. Yield.
            if unyielding >= FAST_ITEMS:
                unyielding = 0
                yield from checkpoint().__await__()
        if self._failure is not None:
            yield from self._fail()

    def _fail(self) -> Generator[Any, Any, None]:
        """Raise the error of the source, when the batch that it cut short has begun."""
        self._complete()
        while self._ready:
            if self._parked:
                self._send_off()
            self._paused = True
            yield from self._reader.__await__()
        failure, self._failure = cast("Exception", self._failure), None
        try:
            raise failure
        finally:
            del failure  # it holds this frame: else they keep each other alive

    def _fill(self, item: Any) -> None:
        """Add an item to the batch that is being filled, or begin one."""
        filling = self._filling
        filling.append(item)
        if len(filling) == self._size:
            self._complete()
        elif len(filling) == 1:
            self._send_off_with_slot()
            if self._timer is not None:
                self._moment = now() + self._within
                if self._timer_idles:
                    self._timer_idles = False
                    self._timer.wake()

    def _complete(self) -> None:
        """Let the batch begin that is being filled."""
        self._ready.append(self._filling)
        self._filling = []
        self._moment = math.inf
        self._due = False

    async def _tick(self, timer: Waiter) -> None:
        """Note when the batch that is being filled is due."""
        while not self._closed:
            moment = self._moment
            self._timer_idles = moment == math.inf
            with anyio.CancelScope(deadline=loop_deadline(moment)):
                await timer
            # Not now() alone: rounding could put it a hair before the moment slept for.
            if self._moment <= (now() if timer.woken else max(now(), moment)):
                self._moment = math.inf
                self._due = True
                if self._parked:
                    self._send_off()

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
        Note that the source has to wait for its next item; after `stop` it may not.

        The slots are given back by the worker that this wakes, and not here: what the source waits
        for may be such a slot, and trio does not let a task be woken before it has really stopped.
        """
        self._source_waits = True
        if self._ended and self._scope is not None:
            self._scope.cancel()
        self._send_off_with_slot()

    def _send_off_with_slot(self) -> None:
        """Wake the uppermost worker if it has a slot, which it then gives back."""
        if self._parked and self._parked[-1].slot is not None:
            self._send_off()

    def _take_slots_back(self) -> None:
        for reader in reversed(self._parked):
            if self._pool is None or reader.slot is None:
                return
            self._pool.give_slot_back(reader)


class _MergedFeed(Feed):
    """A feed of several, from any of which an item may be begun."""

    __slots__ = ()

    def has_items(self) -> bool:
        """Return whether there is something to be begun, in the hands of a part too."""
        for part in self._parts:
            while part.has_items():
                if self._size:
                    self._fill(next(part))
                else:
                    self._ready.append(next(part))
        if self._filling:
            self._complete()
        return super().has_items()

    def stop(self) -> bool:
        """Have the parts read no more: what they have in hand is still given, and then it ends."""
        stopped = [part.stop() for part in self._parts]
        return any(stopped)
