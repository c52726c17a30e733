"""
The engine behind `map` and its relatives: a few workers that pull items from one source.

Promise: at most ``limit`` items at once, each in a context of its own; a small fixed cost per
item; nothing outlives `Pool.run`.
Cost: 0.6 µs an item beyond a bare asyncio worker pool's 0.9. Why workers and not a task per item,
and why the loop drives coroutines by hand: docs/en/design/0003-worker-pool.md.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Literal, Protocol

import anyio

from mtaio._internal.clock import now
from mtaio._internal.coop import FAST_ITEMS, checkpoint
from mtaio.core import _failures
from mtaio.core._call import name_of
from mtaio.core._slots import CURRENT, NOBODY, Slot, Slots
from mtaio.core._source import Feed
from mtaio.core._watch import Watch, Watched
from mtaio.exceptions import TimeoutError  # noqa: A004 - the refined one

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from mtaio.core._statistics import Counters

Policy = Literal["raise", "collect", "return"]
Progress = Callable[[int, "int | None"], object]


class Gate(Protocol):
    """What may hold workers back before they take the next item (a stream that is not read)."""

    @property
    def shut(self) -> bool:
        """Whether no item may be taken now."""
        ...

    async def wait(self) -> None:
        """Wait until the gate may be open."""
        ...


class Worker:
    """What a worker holds while it takes items: a slot, and a place under the watch."""

    __slots__ = ("slot", "watched")

    def __init__(self) -> None:
        self.slot: Slot | None = None
        self.watched: Watched | None = None


class Pool:
    """
    One call: a source, a function, workers, and where results go.

    Invariants:
    - items are numbered in the order in which they are taken, ``started`` of them so far;
    - at most one worker at a time is being started: the next one when an item suspends, so items
      that never suspend need only one;
    - after `stop` no item is taken.
    """

    __slots__ = (
        "_all_taken",
        "_group",
        "_live",
        "_starting",
        "around",
        "counters",
        "errors",
        "failures",
        "finished",
        "fn",
        "gate",
        "growing",
        "limit",
        "many",
        "name",
        "peak",
        "progress",
        "put",
        "put_error",
        "reserve",
        "slots",
        "source",
        "started",
        "stopping",
        "subject",
        "total",
        "watch",
    )

    def __init__(
        self,
        fn: Callable[..., Coroutine[Any, Any, Any]],
        source: Iterator[Any] | Feed,
        *,
        subject: object,
        many: bool,
        limit: int | None,
        slots: Slots | None,
        counters: Counters,
        put: Callable[[int, Any], object],
        put_error: Callable[[int, Exception], object] | None = None,
        reserve: Callable[[Any], object] | None = None,
        gate: Gate | None = None,
        errors: Policy = "raise",
        timeout: float | None = None,
        name: str | None = None,
        progress: Progress | None = None,
        total: int | None = None,
    ) -> None:
        self.fn = fn
        self.source = source
        self.subject = subject
        self.many = many
        self.limit = limit
        self.slots = slots
        self.counters = counters
        self.put = put
        self.put_error = put if put_error is None else put_error
        self.reserve = reserve
        self.gate = gate
        self.errors = errors
        self.name = name
        self.progress = progress
        self.total = total
        self.watch = None if timeout is None else Watch(timeout)
        self.around = CURRENT.get()
        self.failures: list[_failures.Failure] = []
        self.started = 0
        self.finished = 0
        self.peak = 0
        self.stopping = False
        self.growing = False
        self._starting = False
        self._all_taken = False
        self._live = 0
        self._group: TaskGroup | None = None

    async def run(self) -> None:
        """
        Run every item to its end; return when the last worker is gone.

        Raises:
            The bare error if exactly one item failed and the policy reports it, an ExceptionGroup
            if several did; an error of the source or of the progress callback likewise.
        """
        escaped: tuple[BaseException, ...] = ()
        self.counters.pools.add(self)
        try:
            async with anyio.create_task_group() as self._group:
                if isinstance(self.source, Feed):
                    self._group.start_soon(self.source.run)
                self._hire()
                if self.watch is not None:
                    await self.watch.run()
        except BaseExceptionGroup as group:
            escaped = group.exceptions
        except BaseException:
            if not self.failures:
                raise  # cancelled, and nothing to report instead
        finally:
            self._group = None
            self.counters.absorb(self)
        _failures.conclude(self.failures, escaped)

    def stop(self) -> None:
        """Take no more items and cancel those in flight. May be called at any time."""
        self.stopping = True
        if self._group is not None:
            self._group.cancel_scope.cancel()

    def grow(self) -> None:
        """An item suspended: note how many run, and start a worker if there is room for one."""
        in_flight = self.started - self.finished
        if in_flight > self.peak:
            self.peak = in_flight
            self.counters.note_peak()
        room = not self._all_taken and (self.limit is None or self._live < self.limit)
        if room and not self._starting and not self.stopping:
            self._hire()
        self.growing = room or self.peak < self._live

    def fail(self, worker: Worker, index: int, item: Any, error: BaseException) -> bool:
        """
        Deal with the end of an item that raised.

        Returns:
            True if the worker has to re-raise: it is being cancelled, or the error is not one
            that an item may have (``KeyboardInterrupt`` and the like).
        """
        left = error
        watched = worker.watched
        if watched is not None:
            watched.limit.moment = math.inf
            if watched.fired:
                left = watched.renew(error) or self._timed_out(item, watched, error)
        if isinstance(left, Exception):
            self._record(index, item, left)
            return False
        rest = _failures.without_cancellation(left)
        if rest is not left and not _failures.is_cancelled():
            rest = rest or _failures.stray(left, self.subject or item)
            if isinstance(rest, Exception):
                self._record(index, item, rest)
                return False
        if isinstance(rest, Exception):  # it failed while it was being cancelled
            self._record(index, item, rest)
        else:
            self.counters.cancelled += 1
        return True

    def _timed_out(self, item: Any, watched: Watched, cancellation: BaseException) -> TimeoutError:
        self.counters.timed_out += 1
        error = TimeoutError(
            f"{name_of(self.subject or item)} did not end within timeout={watched.timeout!r} s",
            timeout=watched.timeout,
            deadline=watched.due,
            name=self.name,
        )
        error.__cause__ = cancellation  # its traceback shows where the item was waiting
        return error

    def _record(self, index: int, item: Any, error: Exception) -> None:
        self.counters.failed += 1
        if self.errors == "return":
            self.put_error(index, error)
            return
        _failures.annotate(error, self.subject, index, item, many=self.many)
        self.failures.append((index, error))
        if self.errors == "raise":
            self.stop()

    def _hire(self) -> None:
        if self._group is not None:
            self._starting = True
            self._live += 1
            self._group.start_soon(self._work)

    async def _work(self) -> None:
        worker = Worker()
        try:
            try:
                await self.admit(worker)
            finally:
                self._starting = False
            self.growing = True
            if self.watch is None:
                await _take_items(self, worker)
            else:
                with self.watch.over_worker() as worker.watched:
                    await _take_items(self, worker)
        finally:
            self._give_slot_back(worker)
            self._live -= 1
            if not self._live and self.watch is not None:
                self.watch.end()

    async def admit(self, worker: Worker) -> None:
        """Wait for an open gate, then for a slot; while the gate is shut no slot is held."""
        while True:
            self._give_slot_back(worker)
            while self.gate is not None and self.gate.shut:
                await self.gate.wait()
            if self.slots is not None:
                worker.slot = await self.slots.acquire(self.around)
            if self.gate is None or not self.gate.shut:  # it may have shut while we queued
                return

    async def refill(self, worker: Worker) -> bool:
        """
        Wait until an async source has an item; return False if the source is at its end.

        No slot is held meanwhile: the source may itself depend on this executor.
        """
        if not isinstance(self.source, Feed):
            self._all_taken = True
            return False
        self._give_slot_back(worker)
        if not await self.source.wait():
            self._all_taken = True
            return False
        await self.admit(worker)
        return True

    def must_queue(self, worker: Worker) -> bool:
        """Tell whether the worker has to ask for a slot again before it takes another item."""
        if worker.slot is None or self.slots is None:
            return True
        worker.slot = self.slots.end_item(worker.slot)
        return worker.slot is None or self.slots.contended(worker.slot)

    def _give_slot_back(self, worker: Worker) -> None:
        if worker.slot is not None and self.slots is not None:
            slot, worker.slot = worker.slot, None
            self.slots.release(slot)


@types.coroutine
def _take_items(  # noqa: C901, PLR0912, PLR0915 - each call saved here is saved for every item
    pool: Pool, worker: Worker
) -> Generator[Any, Any, None]:
    """
    Take items from the source until there are none: the loop for which this module exists.

    It plays the event loop's part towards each item: a coroutine is advanced with ``send`` inside
    a context of its own, and what it yields is passed on to the real event loop. That isolates
    context variables without a task, and shows whether an item suspended at all.
    """
    fn, many, source, put, reserve = pool.fn, pool.many, pool.source, pool.put, pool.reserve
    gate, progress = pool.gate, pool.progress
    queue = None if pool.slots is None else pool.slots.queue
    watched = worker.watched
    unyielding = 0
    while True:
        for item in source:
            index = pool.started
            pool.started = index + 1
            if reserve is not None:
                reserve(None)
            slot = worker.slot
            if slot is not None:
                slot.item = index
                CURRENT.set((slot, index))
            run = copy_context().run
            if watched is not None:
                watched.limit.moment = now() + watched.timeout
            try:
                coro = fn(*item) if many else fn(item)
                send = coro.send
                waits_for = run(send, None)
                unyielding = -1
                if pool.growing:
                    pool.grow()
                while True:
                    try:
                        answer = yield waits_for
                    except GeneratorExit:
                        run(coro.close)
                        raise
                    except BaseException as error:  # noqa: BLE001 - the item decides what it means
                        thrown = error
                    else:
                        waits_for = run(send, answer)
                        continue
                    # Out of the handler, lest errors of the item's own get this one as context.
                    waits_for = run(coro.throw, thrown)
            except StopIteration as end:
                if watched is not None:
                    watched.item_ended()
                put(index, end.value)
                pool.finished += 1
            except BaseException as error:
                pool.finished += 1
                if pool.fail(worker, index, item, error):
                    raise
            if slot is not None:
                slot.item = NOBODY
            if progress is not None:
                progress(pool.finished, pool.total)
            if pool.stopping:
                return
            unyielding += 1
            if unyielding >= FAST_ITEMS:
                unyielding = 0
                yield from checkpoint().__await__()
            # Nothing may yield between here and the next item: the gate counts on it.
            if (
                slot is not None and (queue or slot.tenant is not None) and pool.must_queue(worker)
            ) or (gate is not None and gate.shut):
                yield from pool.admit(worker).__await__()
        if not (yield from pool.refill(worker).__await__()):
            return
