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

How a crew grows: the thread that begins has the event loop send for the next, and so on. If
functions are so short that others took many items while a thread came, it would only be in the
way: all of them want the interpreter's lock, and so does the event loop, which would get it once in
as many turns as there are threads (5 ms each). So it stands by, the only one that does: it looks
from time to time, and begins when the functions take longer, or block for good.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

import anyio

from mtaio._internal import loops, spans
from mtaio._internal.callables import close_unstarted
from mtaio._internal.clock import now
from mtaio._internal.gil import has_gil
from mtaio._internal.steps import run_in
from mtaio.core._slots import CURRENT, NO_ITEM, Parent, live
from mtaio.core._source import may_have_more
from mtaio.core._threads import ThreadCall, explain, warn_of_awaitable

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.core._pool import Pool, Worker
    from mtaio.core._slots import Link, Slot
    from mtaio.core._threads import WorkerLimiter

__all__ = ["Crew"]

_SHORTEST: Final = 30e-6
"""Seconds: functions that take less on average are left to the threads that there are."""

_BLINK: Final = 50e-6
"""Seconds that a thread lets pass before it looks for the first time: others may wait for it."""

_FIRST_LOOK: Final = 0.001
"""Seconds after which a thread that stands by looks again; then the double, and so on."""

_LAST_LOOK: Final = 0.008


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
    began: float | None
    result: Any = None
    error: BaseException | None = None

    def end(self) -> None:
        """Note that it has ended, or that nobody takes it to its end."""
        self.place.item = NO_ITEM
        close_unstarted(self.result)
        self.error = None


class Crew:
    """
    The threads of one call.

    Args:
        fn: The function.
        threads: The limit on them.

    Invariants:
    - ``_waiting`` counts the workers of this call that wait for a thread: they are no reason for
      its own threads to come back;
    - ``active`` counts the workers whose threads have begun to take items, to the end of what those
      leave to them; it changes under ``Counters.lock``;
    - after ``stopped`` no thread takes an item; ``all_taken`` says that there is none; ``over`` is
      set then, for the thread that stands by.
    """

    def __init__(self, fn: Callable[..., Any], threads: WorkerLimiter) -> None:
        self.fn: Final = fn
        self.stopped: bool = False
        self.all_taken: bool = False
        self.active: int = 0
        self.over: Final = threading.Event()
        self.one_at_a_time: Final = has_gil()
        self._threads = threads
        self._waiting = 0
        self._ended = False
        self._called = anyio.Event()

    def end(self) -> None:
        """Let `attend` return: the last worker has gone."""
        self._ended = True
        self._called.set()

    def call(self) -> None:
        """Have `attend` look whether another thread is needed (in the event loop)."""
        self._called.set()

    async def attend(self, pool: Pool) -> None:
        """Send for threads until `end`; cancelled, see to it that they come back."""
        try:
            while not self._ended:
                await self._called.wait()
                self._called = anyio.Event()
                # The last that was sent for has begun.
                if self.active >= pool.live and not self.all_taken and may_have_more(pool.source):
                    pool.grow()
        finally:
            self.stopped = True
            self.over.set()

    async def work(self, pool: Pool, worker: Worker) -> None:
        """Take items in a thread, one row after another, until the source has none."""
        while not (self.all_taken or pool.stopping or self.stopped or worker.spent):
            self._waiting += 1
            try:
                slot = await self._threads.enter()
            finally:
                self._waiting -= 1
            row = _Row(self, pool, worker.slot, slot)
            thread = ThreadCall(self._threads, slot, row.work)
            if worker.slot is not None:
                worker.slot.item = 0
            left: Left | None = None
            try:
                await thread.make()
                left = row.take_over()
                if left is not None:
                    await self._settle(pool, worker, left)
            except BaseException as error:
                present = row.give_up()
                if present is None or pool.item_raised(worker, *present, error):
                    raise
            finally:
                if left is not None:
                    left.end()
                if pool.stopping:
                    self.over.set()
                row.end()
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
            result = await run_in(context, self._conclude(left, many=pool.many))
        except BaseException as error:
            if pool.item_raised(worker, left.index, left.item, left.began, error):
                raise
        else:
            pool.sink.put(left.index, result)
            with pool.counters.lock:
                pool.succeeded += 1
                if left.began is not None:
                    pool.counters.item_took(left.began)

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

    Invariants:
    - ``_present`` is the item that the thread is at, until its end is counted or somebody takes it
      over; the thread may have come to its end without it, then ``_left`` says how;
    - after `give_up` the thread takes no item, and leaves none.
    """

    def __init__(self, crew: Crew, pool: Pool, slot: Slot | None, thread: Slot) -> None:
        self._crew = crew
        self._pool = pool
        self._slot = slot
        self._thread = thread
        self._present: tuple[int, Any, float | None] | None = None
        self._left: Left | None = None
        self._given_up = False
        self._active = False
        self._loop = loops.current_loop()
        self._started = pool.started
        self._fn = crew.fn
        if spans.hook is not None:
            self._fn = partial(spans.call, "item", crew.fn, crew.fn)

    def work(self) -> None:
        """Take items if that helps the others (in the thread)."""
        pool, crew = self._pool, self._crew
        if not self._is_of_use():
            return
        if pool.may_grow() and crew.active >= pool.live:
            loops.call_in(self._loop, crew.call)
        self._take_items()

    def end(self) -> None:
        """Count it no more as active (in the event loop)."""
        with self._pool.counters.lock:
            self._crew.active -= self._active
            self._active = False

    def _is_of_use(self) -> bool:
        """
        Stand by as long as the active threads are quick; then count as one of them.

        Returns:
            False if there is nothing more to do. If another call waits for the thread or the slot,
            an active one comes back, and this takes its place.
        """
        pool, crew, seconds, most = self._pool, self._crew, _FIRST_LOOK, 1.0
        if crew.active and crew.one_at_a_time:
            crew.over.wait(_BLINK)
        while True:
            with pool.counters.lock:
                if self._given_up or crew.all_taken or pool.stopping or crew.stopped:
                    return False
                taken = pool.started - self._started
                if not (crew.active and crew.one_at_a_time) or taken <= most * crew.active:
                    crew.active += 1
                    self._active = True
                    return True
                self._started = pool.started
            most = seconds / _SHORTEST
            crew.over.wait(seconds)
            seconds = min(2 * seconds, _LAST_LOOK)

    def _take_items(self) -> None:
        """Take items until the event loop is needed."""
        pool, crew, slot, thread = self._pool, self._crew, self._slot, self._thread
        fn, many, counters, source = self._fn, pool.many, pool.counters, pool.source
        lock = counters.lock
        put, results = pool.sink.put, pool.sink.results
        inside: list[Link] = [(thread, 0)] if slot is None else [(thread, 0), (slot, 0)]
        new_context = copy_context().copy
        present: tuple[int, Any, float | None] | None = None
        begun: tuple[int, Any, float | None]
        following: Any
        while True:
            # What is let go of here may run code of the user's, so no last reference is dropped
            # under the lock: `present` keeps the item before until it is left.
            with lock:
                if self._given_up:
                    return
                if present is not None:
                    pool.succeeded += 1
                    if present[2] is not None:
                        counters.item_took(present[2])
                    self._present = None
                    # Not before the first: calls that want the same slot would only swap it.
                    if crew.must_return(pool, slot, thread):
                        return
                following = next(source, _NONE)
                if following is _NONE:
                    crew.all_taken = True
                    crew.over.set()
                    return
                index = pool.started
                pool.started = index + 1
                if results is not None:
                    results.append(None)
                began = None if counters.run_duration is None else now()
                self._present = begun = (index, following, began)
                pool.count_running()
            present, following = begun, None
            item: Any = begun[1]
            place = Item(thread.around, inside)
            run = new_context().run
            run(CURRENT.set, (place, 0))
            try:
                result = run(fn, *item) if many else run(fn, item)
            except BaseException as error:  # noqa: BLE001 - for the worker to deal with
                self._leave(Left(index, item, place, began, error=error))
                return
            if isawaitable(result):
                self._leave(Left(index, item, place, began, result))
                return
            place.item = NO_ITEM
            put(index, result)
            del result, item  # else they would live as long as the next item runs

    def _leave(self, left: Left) -> None:
        """Leave an item to the worker, if that is still there."""
        with self._pool.counters.lock:
            if not self._given_up:
                self._left = left
                return
        left.end()

    def take_over(self) -> Left | None:
        """Return the item that was left, if any; from now on it is the caller's."""
        left, self._left, self._present = self._left, None, None
        return left

    def give_up(self) -> tuple[int, Any, float | None] | None:
        """Have nobody wait for the thread any more; return the item that it is at, if any."""
        with self._pool.counters.lock:
            self._given_up = True
            present, left = self._present, self.take_over()
        if left is not None:
            left.end()
        return present


_NONE: Final = object()
