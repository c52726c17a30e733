"""
Plain functions over a list, a tuple or a range: worker threads that take the items themselves.

Promise: what holds for any item in a worker thread: a context of its own, no more at once than the
limits allow, slots and threads in the order in which calls asked. A cancelled call waits for the
functions that run, and begins no more.
Cost: 2 to 3 µs an item. The way to a thread and back, 60 to 100 µs, is gone once for a row of items
and not for each. Why only where an item's end concerns nobody else: docs/en/design/executor.md.

How a row goes:

1. A worker of the pool waits for its slot and for a thread, as for a single item, and goes there.
2. The thread takes an item, numbers it, calls the function and puts the result away, one item after
   another. What all threads of the call and the event loop share are its figures and its source,
   which change under ``Counters.lock``. No code of a user's runs under it: the iterators of these
   sources are Python's own.
3. It comes back when the event loop is needed: another call waits for the thread or the slot, or
   has borrowed it; the call stops; the source has no more; or an item did not just return. That
   item (`Left`) is taken to its end by the worker, which deals with errors and awaitable results.
4. The worker begins the next row, or ends.
"""

from __future__ import annotations

import types
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from operator import length_hint
from typing import TYPE_CHECKING, Any, Final

import anyio

from mtaio._internal.callables import close_unstarted
from mtaio.core._slots import CURRENT, NO_ITEM, Parent, live
from mtaio.core._threads import ThreadCall, explain, warn_of_awaitable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

    from mtaio.core._pool import Pool, Worker
    from mtaio.core._slots import Link, Slot
    from mtaio.core._threads import WorkerLimiter

__all__ = ["Crew", "is_at_hand"]

_AT_HAND: Final = frozenset({list, tuple, range})


def is_at_hand(iterables: tuple[object, ...]) -> bool:
    """Return whether to take items from these sources runs no code but Python's own."""
    return all(type(each) in _AT_HAND for each in iterables)


class Item(Parent):
    """An item in a thread: it runs inside the slots of both its thread and its worker."""

    __slots__ = ("_inside",)

    def __init__(self, around: Link | None, inside: list[Link]) -> None:
        super().__init__()
        self.item = 0
        self.around = around
        self._inside = inside

    def parents(self) -> list[Link]:
        """Return links to the slots."""
        return [link for link in map(live, self._inside) if link is not None]


@dataclass(slots=True, eq=False)
class Left:
    """An item that is left to the event loop: it raised, or returned something to await."""

    index: int
    item: Any
    place: Item
    result: Any = None
    error: BaseException | None = None


class Crew:
    """
    The threads of one call.

    Args:
        fn: The function.
        threads: The limit on them.

    Invariants:
    - ``_waiting`` counts the workers of this call that wait for a thread: they are no reason for
      its own threads to come back;
    - after ``stopped`` no thread takes an item; ``all_taken`` says that there is none.
    """

    def __init__(self, fn: Callable[..., Any], threads: WorkerLimiter) -> None:
        self.fn: Final = fn
        self.stopped: bool = False
        self.all_taken: bool = False
        self._threads = threads
        self._waiting = 0
        self._ended = anyio.Event()

    def end(self) -> None:
        """Let `attend` return: the last worker has gone."""
        self._ended.set()

    async def attend(self) -> None:
        """Wait until `end`; cancelled, see to it that the threads come back."""
        try:
            await self._ended.wait()
        finally:
            self.stopped = True

    async def work(self, pool: Pool, worker: Worker) -> None:
        """Take items in a thread, one row after another, until the source has none."""
        while not (self.all_taken or pool.stopping or self.stopped or worker.spent):
            self._waiting += 1
            try:
                slot = await self._threads.enter()
            finally:
                self._waiting -= 1
            row = _Row(self, pool, worker.slot, slot)
            thread = ThreadCall(self._threads, slot, row.take_items)
            if worker.slot is not None:
                worker.slot.item = 0
            left: Left | None = None
            try:
                if length_hint(pool.source, 1):
                    pool.grow()
                left = await thread.make()
                if left is not None:
                    await self._settle(pool, worker, left)
            except BaseException as error:
                present = row.give_up()
                if present is None or pool.item_raised(worker, *present, error):
                    raise
            finally:
                if left is not None:
                    left.place.item = NO_ITEM
                    close_unstarted(left.result)
                thread.leave()
            if worker.slot is not None and pool.must_queue(worker, worker.slot):
                await pool.admit(worker)

    def is_needed(self, slot: Slot, own: int) -> bool:
        """
        Return whether the thread has to come back with ``slot`` (in the thread).

        Args:
            slot: What it holds.
            own: How many workers of the same call wait for such a slot.
        """
        if slot.borrower is not None:
            return True
        if slot.lender is not None:
            return bool(slot.lender.requests)
        return len(slot.slots.queue.waiters) > own

    def must_return(self, pool: Pool, slot: Slot | None, thread: Slot) -> bool:
        """Return whether a thread has to come back before it takes another item (in the thread)."""
        return (
            pool.stopping
            or self.stopped
            or self.is_needed(thread, self._waiting)
            or (slot is not None and self.is_needed(slot, pool.queued))
        )

    async def _settle(self, pool: Pool, worker: Worker, left: Left) -> None:
        """Take an item to its end in the event loop."""
        context = copy_context()
        context.run(CURRENT.set, (left.place, 0))
        try:
            result = await _await_in(context, self._conclude(left, many=pool.many))
        except BaseException as error:
            if pool.item_raised(worker, left.index, left.item, error):
                raise
        else:
            pool.sink.put(left.index, result)
            with pool.counters.lock:
                pool.succeeded += 1

    async def _conclude(self, left: Left, *, many: bool) -> Any:
        """Raise what an item raised, or await what it returned, as if it had been called alone."""
        error, left.error = left.error, None
        call = partial(self.fn, *(left.item if many else (left.item,)))
        try:
            if error is None:
                warn_of_awaitable(call)
                return await left.result
            raise error  # noqa: TRY301 - explained below like what was awaited
        except BaseException as raised:
            explain(raised, call)
            raise
        finally:
            del error  # it holds this frame: else they keep each other alive


class _Row:
    """
    The items that one thread takes one after another.

    Invariant: ``_present`` is the item that the thread is at, until its end is counted, or it is
    left to the event loop, or taken over by `give_up`.
    """

    def __init__(self, crew: Crew, pool: Pool, slot: Slot | None, thread: Slot) -> None:
        self._crew = crew
        self._pool = pool
        self._slot = slot
        self._thread = thread
        self._present: tuple[int, Any] | None = None
        self._given_up = False

    def take_items(self) -> Left | None:
        """Take items until the event loop is needed (in the thread); return one that is left."""
        pool, crew, slot, thread = self._pool, self._crew, self._slot, self._thread
        fn, many, lock, source = crew.fn, pool.many, pool.counters.lock, pool.source
        put, results = pool.sink.put, pool.sink.results
        inside: list[Link] = [(thread, 0)] if slot is None else [(thread, 0), (slot, 0)]
        new_context = copy_context().copy
        present: tuple[int, Any] | None = None
        begun: tuple[int, Any]
        following: Any
        while True:
            # What is let go of here may run code of the user's, so no last reference is dropped
            # under the lock: `present` keeps the item before until it is left.
            with lock:
                if self._given_up:
                    return None
                if present is not None:
                    pool.succeeded += 1
                    self._present = None
                if crew.must_return(pool, slot, thread):
                    return None
                following = next(source, _NONE)
                if following is _NONE:
                    crew.all_taken = True
                    return None
                index = pool.started
                pool.started = index + 1
                if results is not None:
                    results.append(None)
                self._present = begun = (index, following)
                pool.count_running()
            present, following = begun, None
            item: Any = begun[1]
            place = Item(thread.around, inside)
            run = new_context().run
            run(CURRENT.set, (place, 0))
            try:
                result = run(fn, *item) if many else run(fn, item)
            except BaseException as error:  # noqa: BLE001 - for the worker to deal with
                return self._leave(Left(index, item, place, error=error))
            if isawaitable(result):
                return self._leave(Left(index, item, place, result))
            place.item = NO_ITEM
            put(index, result)
            del result, item  # else they would live as long as the next item runs

    def _leave(self, left: Left) -> Left | None:
        """Leave an item to the worker, if that is still there."""
        with self._pool.counters.lock:
            self._present = None
            if not self._given_up:
                return left
        left.place.item = NO_ITEM
        close_unstarted(left.result)
        return None

    def give_up(self) -> tuple[int, Any] | None:
        """Have nobody wait for the thread any more; return the item that it is at, if any."""
        with self._pool.counters.lock:
            self._given_up = True
            present, self._present = self._present, None
        return present


_NONE: Final = object()


@types.coroutine
def _await_in(context: Context, call: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Await ``call`` in a context of its own, as the pool's loop over items does."""
    answer: Any = None
    thrown: BaseException | None = None
    while True:
        try:
            if thrown is None:
                waits_for = context.run(call.send, answer)
            else:
                waits_for = context.run(call.throw, thrown)
        except StopIteration as end:
            return end.value
        finally:
            thrown = None  # its traceback holds this frame: a cycle
        try:
            answer = yield waits_for
        except BaseException as error:  # noqa: BLE001 - the call decides
            thrown = error
