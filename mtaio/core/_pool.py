"""
The engine behind `map` and its relatives: a few workers that take items from one source.

Promise: at most ``limit`` items at once, each in a context of its own, though not in a task of its
own; a small fixed cost per item; nothing outlives `Pool.run`.
Cost: 0.4 µs an item beyond a bare asyncio worker pool's 0.9. Why workers and not a task per item,
and why a worker drives coroutines by hand: docs/en/design/executor.md.
"""

from __future__ import annotations

import math
import types
from contextlib import nullcontext
from contextvars import copy_context
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
from anyio.lowlevel import checkpoint

from mtaio._internal import clock, spans, unfinished
from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import (
    is_cancelled,
    raise_failure,
    stray_error,
    without_cancellation,
)
from mtaio._internal.checkpoints import FAST_ITEMS, checkpoint_if_cancelled
from mtaio._internal.clock import now
from mtaio._internal.durations import timed
from mtaio._internal.sentinel import UNSET, Unset
from mtaio.core._errors import ItemError, annotate, conclude, loud, silent_end
from mtaio.core._slots import CURRENT, NO_ITEM, Link, Slot, Slots, TaskIds, here, running_task
from mtaio.core._source import Feed, Reader, Slices, watched
from mtaio.core._timeouts import Watched
from mtaio.exceptions import StrayCancellationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator

    from anyio.abc import TaskGroup

    from mtaio.core._crew import Crew
    from mtaio.core._journal import Recording
    from mtaio.core._statistics import Counters
    from mtaio.core._stream import Buffer
    from mtaio.core._timeouts import Timing, Watch
    from mtaio.core._types import Options, Progress

__all__ = ["FEW", "Pool", "Sink", "Worker", "take_items"]

FEW: Final = 4
"""
Up to how many calls each get a task at once.

For two that is as fast as one worker that starts the other where the first does not suspend, and
takes half the time where it does.
"""

_WORKER: Final = "mtaio.core._pool.Pool._work"
"""The name of a worker's task. AnyIO takes a while to find one out."""


@dataclass(slots=True, eq=False)
class Sink:
    """
    Where the results of one call go.

    Attributes:
        put: Called with the number of each item and its result; with ``errors="return"`` with its
            error too, unless there is ``put_error``.
        put_error: Called with the number of an item, the item and its error.
        results: If given, a list that gets a place for each item that was started; results are
            written there, and ``put`` is for errors alone.
        buffer: If given, it holds workers back while it has no space.
    """

    put: Callable[[int, Any], object]
    put_error: Callable[[int, Any, Exception], object] | None = None
    results: list[Any] | None = None
    buffer: Buffer | None = None


def _no_failures() -> list[ItemError]:
    return []


@dataclass(slots=True, eq=False)
class Worker(Reader):
    """
    What a worker holds while it takes items: a slot, and its part of the watch.

    ``spent`` says that its task was cancelled, but not through its scopes. On asyncio such a task
    stays marked (``Task.cancelling``), which would disturb the scopes of later items.
    """

    watched: Watched | None = None
    spent: bool = False
    task: TaskIds | None = None


@dataclass(slots=True, eq=False)
class Pool:
    """
    One call: a source, a function, workers, and where results go. Made anywhere, run once.

    Invariants:
    - items are numbered in the order in which they are taken, ``started`` of them so far;
    - at most one worker at a time is being started: when an item suspends and no worker is idle,
      so items that never suspend need only one, and a slow source no more than it keeps busy;
    - workers that wait for the source or the buffer are counted in ``_idle``;
    - with a ``crew``, threads take the items, and workers only what those leave to them;
    - ``queued`` workers wait for a slot;
    - ``attentive`` says that `item_suspended` wants to know;
    - ``_cut_short`` says that a worker was ended by a cancellation or worse;
    - after `stop` no item is taken;
    - ``_held`` says that none may be taken yet, as it is not known whether ``until=`` is over, or
      at all, as it was; ``_until_scope`` is the scope in which it is awaited;
    - ``limit_inside`` is set for calls that belong together (`gather` and its relatives): made
      inside an item of the same executor they are part of it, so they take no slots, and this
      limit replaces the other. With slots, calls that wait for each other would hang as soon as
      all slots hold such items;
    - ``bare``, if there is one, returns what users see of an item;
    - ``calls`` is how many of them there are, 0 for a source: if they are `FEW`, and the limits let
      all of them run at once, each gets a task of its own at the start.
    """

    fn: Callable[..., Coroutine[Any, Any, Any]]
    source: Iterator[Any] | Feed
    _: KW_ONLY
    sink: Sink
    subject: object
    many: bool
    limit: int | None
    slots: Slots | None
    counters: Counters
    options: Options
    timing: Timing | None = None
    total: int | None = None
    limit_inside: int | Unset | None = UNSET
    crew: Crew | None = None
    journal: Recording | None = None
    calls: int = 0
    bare: Callable[[Any], Any] | None = None

    started: int = field(default=0, init=False)
    succeeded: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)
    cancelled: int = field(default=0, init=False)
    peak: int = field(default=0, init=False)
    failures: list[ItemError] = field(default_factory=_no_failures, init=False)
    watch: Watch | None = field(default=None, init=False)
    stopping: bool = field(default=False, init=False)
    attentive: bool = field(default=True, init=False)
    queued: int = field(default=0, init=False)
    _around: Link | None = field(default=None, init=False)
    _starting: bool = field(default=False, init=False)
    _all_taken: bool = field(default=False, init=False)
    _held: bool = field(default=False, init=False)
    _until_scope: anyio.CancelScope | None = field(default=None, init=False)
    _cut_short: bool = field(default=False, init=False)
    _progress_failed: bool = field(default=False, init=False)
    _idle: int = field(default=0, init=False)
    live: int = field(default=0, init=False)
    _group: TaskGroup | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.timing is not None:
            self.watch = self.timing.watch(self._pay_attention)
        if spans.hook is not None:
            self.fn = spans.around("item", self.fn, self.subject)

    @property
    def ended(self) -> int:
        """How many items have ended."""
        return self.succeeded + self.failed + self.cancelled

    def run_recorded(self) -> Coroutine[Any, Any, None]:
        """Do what `run` does, within the journal if there is one."""
        return self.run() if self.journal is None else self.journal.run(self)

    async def run(self) -> None:
        """
        Run all items; return when the last worker is gone. A checkpoint.

        Raises:
            The bare error if exactly one item failed and the policy reports it, an ExceptionGroup
            if several did; an error of the source or of the progress callback likewise.
        """
        self._around = here()
        if self._around is not None:
            self._join(self._around)
        escaped: list[BaseException] = []
        self.counters.call_starts(self)
        try:
            try:
                async with anyio.create_task_group() as self._group:
                    if not self._start_calls(self._group):
                        await self._run(self._group)
            finally:
                if isinstance(self.source, Feed | Slices):
                    await self._finish(self.source, escaped)
            if self._group.cancel_scope.cancel_called and not self.stopping:
                escaped.append(silent_end())
            elif not self.stopping and (
                self._cut_short or (isinstance(self.source, Feed) and self.source.cut_short)
            ):
                # The cancellation came to them and not to this task, which asyncio had just woken
                # up for something else. It is due now: half the work is not done.
                await checkpoint_if_cancelled()
        except BaseExceptionGroup as group:
            escaped.extend(loud(each, GeneratorExit, "the source") for each in group.exceptions)
        except BaseException:
            # Cancelled; perhaps each task on its own, as asyncio.run does when its main task ends.
            if all(isinstance(error, StrayCancellationError) for _, error in self.failures):
                raise
        finally:
            self._group = None
            self.counters.absorb(self)
        if self.failures or escaped:
            try:
                conclude(self.failures, escaped)
            finally:
                del escaped  # the error holds this frame: else they keep each other alive

    def _join(self, around: Link) -> None:
        """Take no slots if the calls belong together, and are made inside an item."""
        if (
            self.limit_inside is not UNSET
            and self.slots is not None
            and self.slots.enclosing(around) is not None
        ):
            self.slots, self.limit = None, self.limit_inside

    def _start_calls(self, group: TaskGroup) -> bool:
        """Start a task for each of a few calls, if all may run now; return whether that is so."""
        calls, limit, slots = self.calls, self.limit, self.slots
        if (
            not 0 < calls <= FEW
            or (limit is not None and calls > limit)
            or (slots is not None and calls > slots.limit - slots.in_use)
            or self.stopping
            or is_cancelled()
        ):
            return False
        parent = None
        if slots is not None:
            slots.attach()
            parent = slots.queue.task_id()
        for _ in range(calls):
            group.create_task(self._work_once(parent), name=_WORKER)
        return True

    async def _run(self, group: TaskGroup) -> None:
        try:
            if self.options.until is not None and not self.stopping:
                await self._start_until(self.options.until, group)
        except BaseException:
            self._held = True
            raise
        finally:
            if isinstance(self.source, Feed):
                if self.stopping or self._held:
                    self.source.end()
                self.source.start(group, self)
        # A stream may have been left before this task ran for the first time.
        if self.stopping or self._held:
            return
        if anyio.current_effective_deadline() == -math.inf:
            await checkpoint_if_cancelled()
        self._start_worker()
        if self.watch is not None:
            await self.watch.run()
        elif self.crew is not None:
            await self.crew.attend(self)

    async def _start_until(self, until: Callable[[], Awaitable[object]], group: TaskGroup) -> None:
        """Start to await ``until()``; return when it waits, or is over."""
        self._held = True
        self._until_scope = anyio.CancelScope()
        known = anyio.Event()

        def waits() -> None:
            self._held = False
            known.set()

        async def run(scope: anyio.CancelScope) -> None:
            with scope:
                try:
                    await watched(until(), waits)
                except BaseException as error:
                    raise_failure(error, until, own_task=True)
                    raise
            if not scope.cancelled_caught:
                self._take_no_more()
                known.set()

        group.start_soon(run, self._until_scope)
        await known.wait()

    def _take_no_more(self) -> None:
        """Let what runs go on to its end, and take nothing else from the source."""
        source = cast("Slices | Feed", self.source)
        if source.stop() and not self._all_taken:
            unfinished.note()

    async def _finish(self, source: Feed | Slices, escaped: list[BaseException]) -> None:
        if isinstance(source, Feed):
            await self._begin_what_is_left(source)
        elif source.error is not None:
            escaped.append(source.error)  # it came after the last items that were taken

    async def _begin_what_is_left(self, source: Feed) -> None:
        """
        Call the function with what was read and is not begun, now that the call ends.

        Each is cancelled at its first checkpoint, so that it can give its item back. That is done
        in a task of its own: asyncio's ``Task.cancel()`` of the task that made the call, which goes
        through every shield, only ends the wait for it.
        """
        if not source.has_items():
            return
        self._all_taken = True
        errors: list[BaseException] = []
        try:
            async with anyio.create_task_group() as group:
                group.create_task(self._begin_items(source, errors), name=_WORKER)
            if errors:
                raise errors[0]
        finally:
            errors.clear()  # what is raised holds this frame: else they keep each other alive

    async def _begin_items(self, source: Feed, errors: list[BaseException]) -> None:
        worker = Worker()
        if self.slots is not None:  # beyond the limit: what is cancelled does not queue
            worker.slot = self.slots.force()
            worker.slot.task, worker.slot.around = running_task(), self._around
        while source.has_items():
            try:
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await take_items(self, worker)
            except BaseException as error:  # noqa: BLE001 - raised by the call
                errors.append(error)
        self.give_slot_back(worker)

    def stop(self) -> None:
        """Take no more items and cancel those that run. May be called at any time."""
        self.stopping = True
        if self._group is not None:
            self._group.cancel_scope.cancel()

    def put_without_call(self, value: Any) -> bool:
        """Give the item that comes next a result, if there is space for it; return whether so."""
        if not self._has_space():
            return False
        index = self.started
        self.started = index + 1
        if self.sink.results is None:
            self.sink.put(index, value)
        else:
            self.sink.results.append(value)
        self.succeeded += 1
        if self.options.on_progress is not None:
            self.report(self.options.on_progress)
        return True

    def item_suspended(self) -> None:
        """Note how many run, wake the watch, and start a worker if one is needed."""
        shared = self.counters.is_shared()
        running = self.started - self.ended
        if running > self.peak or shared:
            self.peak = max(self.peak, running)
            self.counters.note_peak()
        if self.watch is not None:
            self.watch.item_suspended()
        may_grow = self.grow()
        self.attentive = may_grow or shared or self.peak < self.live

    def grow(self) -> bool:
        """Start a worker if one is needed; return whether there may be more of them."""
        may_grow = self.may_grow()
        if may_grow and not (self._starting or self._idle or self.stopping):
            self._start_worker()
        return may_grow

    def may_grow(self) -> bool:
        """Return whether the limit and the source leave work to another worker. From any thread."""
        return not self._all_taken and (self.limit is None or self.live < self.limit)

    def count_running(self) -> None:
        """Note how many run, now that a thread has taken an item (in there, under the lock)."""
        running = self.started - self.ended
        if running > self.peak or self.counters.is_shared():
            self.peak = max(self.peak, running)
            self.counters.note_peak()

    def report(self, progress: Progress) -> None:
        """Report the progress, unless that has failed before."""
        if self._progress_failed:
            return
        try:
            progress(self.ended, self.total)
        except BaseException:
            self._progress_failed = True
            raise

    def _pay_attention(self) -> None:
        self.attentive = True

    # ---- workers ----

    async def _work_once(self, parent: int | None) -> None:
        """
        Take one call and make it in this task: `_work` and `take_items` for a single item.

        The task has a context of its own, which is then the item's, and the loop drives it. So
        nothing has to be done here by hand. ``parent`` is the id of the task that started it.
        """
        slot: Slot | None = None
        try:
            if self.slots is not None:
                slot = await self.slots.acquire(self._around, parent)
            if self.stopping:
                return
            # Not each its own call: trio starts tasks in any order, and calls start in the given.
            item = next(self.source)
            index = self.started
            self.started = index + 1
            if self.sink.results is not None:
                self.sink.results.append(None)
            if slot is not None:
                slot.item = index
                CURRENT.set((slot, index))
            running = self.started - self.succeeded - self.failed - self.cancelled
            self.peak = max(self.peak, running)
            self.counters.note_peak_of(running)
            fn, durations = self.fn, self.counters.run_duration
            try:
                result = await (fn(item) if durations is None else timed(durations, fn, item))
            except BaseException as error:
                if self.item_raised(Worker(), index, item, None, error):
                    raise
            else:
                self.sink.put(index, result)
                self.succeeded += 1
        except BaseException:
            self._cut_short = True
            raise
        finally:
            if slot is not None:
                slot.slots.release(slot)

    def _start_worker(self) -> None:
        self._starting = True
        self.live += 1
        group = cast("TaskGroup", self._group)  # items run only while there is one
        group.create_task(self._work(), name=_WORKER)

    async def _work(self) -> None:
        worker = Worker(task=None if self.slots is None else running_task())
        try:
            try:
                await self.admit(worker)
            finally:
                self._starting = False
            self.attentive = True
            watched = nullcontext() if self.watch is None else Watched(self.watch)
            with watched as worker.watched:
                # Here and not in a function of its own: what items yield passes through each.
                if not self.stopping:
                    if self.crew is None:
                        await take_items(self, worker)
                    else:
                        await self.crew.work(self, worker)
            if worker.spent and not self.stopping:
                self._start_worker()
        except BaseException as error:
            self._cut_short = True
            if without_cancellation(error) is not None:
                self.stop()  # before another worker can ask a source that has failed
            raise
        finally:
            self.give_slot_back(worker)
            self.live -= 1
            if isinstance(self.source, Feed):
                self.source.look()
            if not self.live:
                self._end()

    def _end(self) -> None:
        """Let go of what goes on as long as there are workers: the last one has gone."""
        for each in (self.watch, self.crew):
            if each is not None:
                each.end()
        if self._until_scope is not None:
            self._until_scope.cancel()

    async def admit(self, worker: Worker) -> None:
        """
        Wait until the buffer has space, then for a slot; no slot is held while it has none.

        At the source's end the buffer no longer matters.
        """
        buffer = self.sink.buffer
        while True:
            self.give_slot_back(worker)
            while buffer is not None and not self._has_space():
                self._idle += 1
                await buffer.wait_for_space()
                self._idle -= 1
            if self.slots is not None:
                self.queued += 1
                try:
                    worker.slot = await self.slots.acquire(self._around)
                finally:
                    self.queued -= 1
            if self._has_space():  # it may have gone while we queued
                return

    def _has_space(self, besides: int = 0) -> bool:
        """Return whether there is space for one more result, ``besides`` those of so many items."""
        buffer = self.sink.buffer
        return buffer is None or self.started + besides < buffer.until or self._all_taken

    def lets_in(self, reader: Reader, read: int, *, in_hand: bool) -> bool:
        """
        Return whether a worker that waits for the source may begin another item.

        Args:
            reader: The worker. If a slot is free it gets it.
            read: How many items were read and are not begun.
            in_hand: Whether that item is the last of them.
        """
        if not in_hand and not self._has_space(read):
            return False
        if self.slots is not None and reader.slot is None:
            reader.slot = self.slots.acquire_nowait(self._around)
            if reader.slot is None:
                return False
            reader.slot.task = cast("Worker", reader).task
        return True

    def refill(self, worker: Worker) -> Generator[Any, Any, bool]:
        """Wait until an async source has an item; return False if the source has no more."""
        if isinstance(self.source, Feed):
            self._idle += 1
            more = yield from self.source.wait(worker)
            self._idle -= 1
            if more:
                if not self._has_space() or (self.slots is not None and worker.slot is None):
                    yield from self.admit(worker).__await__()
                return True
        self._all_taken = True
        if self.sink.buffer is not None:
            self.sink.buffer.wake_workers()
        return False

    def must_queue(self, worker: Worker, slot: Slot) -> bool:
        """Return whether the worker has to ask for a slot again before it takes another item."""
        worker.slot = slot.slots.end_item(slot)
        return worker.slot is None or slot.slots.contended(worker.slot)

    def give_slot_back(self, worker: Reader) -> None:
        """Release the worker's slot, if it has one."""
        if worker.slot is not None:
            slot, worker.slot = worker.slot, None
            slot.slots.release(slot)

    # ---- errors ----

    def item_raised(
        self, worker: Worker, index: int, item: Any, began: float | None, error: BaseException
    ) -> bool:
        """
        Decide what an item's error means: a failure, a timeout, or a cancellation to pass on.

        Args:
            worker: What ran it.
            index: Its number.
            item: The item.
            began: When, if it is recorded how long items run.
            error: What it raised.

        Returns:
            True if the worker has to re-raise: it is being cancelled, or the error is not one that
            an item may have (``KeyboardInterrupt`` and the like).
        """
        if began is not None:
            self.counters.item_took(began, error)
        watched = worker.watched
        fired = watched is not None and watched.fired
        left = error if watched is None else watched.item_failed(error)
        rest = None if left is None else without_cancellation(left)
        if rest is None and not (self.stopping or is_cancelled()):
            subject = item if self.subject is None else self.subject
            worker.spent = left is not None  # the cancellation came from none of our scopes
            if watched is not None and fired:
                rest = watched.error(name_of(subject))
                rest.__cause__ = error  # its traceback shows where the item was waiting
            else:
                rest = stray_error(error, name_of(subject))
        if rest is None:
            self.cancelled += 1
            return True
        self.failed += 1
        rest = loud(rest, GeneratorExit, name_of(item if self.subject is None else self.subject))
        if not isinstance(rest, Exception):
            self.stop()  # before another worker begins a call
            return True
        self._note_failure(index, item, rest)
        return False

    def _note_failure(self, index: int, item: Any, error: Exception) -> None:
        """Do with an item's error what ``errors`` says."""
        errors, batch = self.options.errors, self.options.batch is not None
        if self.bare is not None:
            item = self.bare(item)
        if errors == "return":
            if self.subject is not None:
                annotate(error, self.subject, index, item, many=self.many, batch=batch)
            if self.sink.put_error is None:
                self.sink.put(index, error)
            else:
                self.sink.put_error(index, item, error)
            return
        annotate(error, self.subject, index, item, many=self.many, batch=batch)
        if callable(errors):
            errors(item, error)
        else:
            self.failures.append((index, error))
        if errors == "raise":
            self.stop()
        elif self.sink.buffer is not None:
            self.sink.buffer.skip(index)


# ---- the loop for which the pool exists: take an item, run it, put its result away ----
#
# It plays the event loop's part towards each item: a coroutine is advanced with ``send`` inside its
# own context, and what it yields is passed on to the real event loop. That isolates context
# variables without a task, and shows whether an item suspended at all.

RETURNED: Final = object()
"""What a driver yields when the coroutine it was sent has returned."""


@types.coroutine
def _drive(result: list[Any]) -> Generator[Any, Any, None]:
    """
    Await one coroutine after another, each sent in, and put what it returns into ``result[0]``.

    What a coroutine yields comes out as it is; `RETURNED` says that the next may be sent. Advanced
    directly, each coroutine would end with a StopIteration, which costs a tenth of the whole.
    """
    coroutine = yield RETURNED
    while True:
        result[0] = yield from coroutine
        coroutine = yield RETURNED


def _new_driver(result: list[Any]) -> Generator[Any, Any, None]:
    driver = cast("Generator[Any, Any, None]", _drive(result))
    next(driver)
    return driver


@types.coroutine
def take_items(  # noqa: C901, PLR0912, PLR0915 - each call saved here is saved for every item
    pool: Pool, worker: Worker
) -> Generator[Any, Any, None]:
    """
    Take items from the pool's source until it has none, for now or for good.

    It is one long function because each call saved is saved for every item. The steps, which the
    body names again:

    1. Take an item and number it. A plain iterator or a `Feed` says by ``StopIteration`` that there
       is none now, which leads to step 8. A place for its result is made at once, so that results
       come in the order of the items, however they end.
    2. Put it into the slot: the slot's item, and a link to it in the context of the item's code, by
       which calls inside it find the slot to borrow. `CURRENT` is set in the worker's own context,
       of which the item gets a copy. If there is a watch, the worker publishes when it is due. If
       it is recorded how long items run, note when this one begins.
    3. Start it: the function is called and its coroutine sent to the driver, which advances it to
       its end or to where it first suspends.
    4. If it suspends, only now does the pool learn that: it may need another worker, and the watch
       may have slept without a moment to wake at. Then pass on what the item yields to the event
       loop, and what comes back to the item, until it returns. An exception that comes back is most
       likely a cancellation. The item gets it like any other, and may swallow it, so that it would
       be lost for this worker, which runs on: hence a checkpoint is due before the next item. A
       ``GeneratorExit`` means that the event loop was closed: nothing may be awaited any more.
    5. It raised: `Pool.item_raised` decides whether that is the item's failure, a timeout, or
       something that ends the worker. The driver has ended with it, so another is made.
    6. It returned: put the result where it belongs, and count it. Then report the progress, outside
       of the slot's item: what the callback calls is not part of the item.
    7. Between two items: end if the call stops; yield after `FAST_ITEMS` items that did not
       suspend, or end if the task is spent (see `Worker`). Then see whether to go on at once. If
       another call waits for the slot, or the item's slot is still lent to a task that outlives
       it, or the buffer is full, the worker has to be admitted again.
    8. The source has nothing now. Wait for it, with the slot if that can be (`Pool.refill`), and
       end if there never will be more.
    """
    # Locals, as each of them is used for every item.
    fn, many, source, progress = pool.fn, pool.many, pool.source, pool.options.on_progress
    sink, counters = pool.sink, pool.counters
    put, results, buffer = sink.put, sink.results, sink.buffer
    queue = None if pool.slots is None else pool.slots.queue.waiters
    link, new_context, returned, reader = CURRENT.set, copy_context, RETURNED, clock.reader
    plain: type[object] | None = None  # the type of an answer that is known to be no error
    watched = worker.watched
    result: list[Any] = [None]
    driver = _new_driver(result)
    send = driver.send
    slot = worker.slot
    unyielding = 0  # how many items came after the last checkpoint
    began: float | None = None
    while True:
        for item in source:
            # 1. Take it.
            index = pool.started
            pool.started = index + 1
            if results is not None:
                results.append(None)
            # 2. Put it into the slot.
            if slot is not None:
                slot.item = index
                link((slot, index))
            context = new_context()
            if watched is not None:
                watched.limit.moment = now() + watched.timeout
            durations = counters.run_duration
            if durations is not None:
                began = reader()()
            try:
                # 3. Start it.
                waits_for = context.run(send, fn(*item) if many else fn(item))
                if waits_for is not returned:
                    # 4. It suspends: what it waits for is the event loop's to answer.
                    unyielding = -1
                    if pool.attentive:
                        pool.item_suspended()
                    while waits_for is not returned:
                        try:
                            answer = yield waits_for
                        except GeneratorExit:
                            pool.stopping = True  # the event loop is gone: nothing drives us
                            context.run(driver.close)
                            raise
                        except BaseException as error:  # noqa: BLE001 - the item decides
                            thrown = error
                        else:
                            if answer is not None and type(answer) is not plain:
                                if hasattr(answer, "error"):
                                    unyielding = FAST_ITEMS  # as below: trio sends them wrapped
                                else:
                                    plain = cast("type[object]", type(answer))
                            waits_for = context.run(send, answer)
                            continue
                        # It may be a cancellation that the item is about to swallow: see to it
                        # that a checkpoint comes before the next item.
                        unyielding = FAST_ITEMS
                        try:
                            # Out of the handler, so that errors of the item's own do not get
                            # this one as their context.
                            waits_for = context.run(driver.throw, thrown)
                        finally:
                            del thrown  # its traceback holds this frame: a cycle
            except BaseException as error:
                # 5. It raised.
                driver = _new_driver(result)  # the error ended the old one
                send = driver.send
                if pool.item_raised(worker, index, item, began, error):
                    raise
            else:
                # 6. It returned.
                if durations is not None and began is not None:
                    durations.observe(reader()() - began)
                if watched is not None:
                    watched.item_returned()
                if results is not None:
                    results[index] = result[0]
                else:
                    put(index, result[0])
                result[0] = None  # else it would live as long as the next item runs
                pool.succeeded += 1
            if progress is not None:
                if slot is not None:
                    slot.item = NO_ITEM
                pool.report(progress)
            # 7. Between two items.
            if pool.stopping:
                return
            unyielding += 1
            if unyielding >= FAST_ITEMS:
                if worker.spent:
                    return
                unyielding = 0
                if slot is not None:
                    slot.item = NO_ITEM
                yield from checkpoint().__await__()
            # Nothing may yield between here and the next item: the buffer counts on it.
            if (
                slot is not None
                and (queue or slot.borrower is not None)
                and pool.must_queue(worker, slot)
            ) or (buffer is not None and pool.started >= buffer.until):
                yield from pool.admit(worker).__await__()
                slot = worker.slot
                if pool.stopping:
                    return
        # 8. The source has nothing now.
        if slot is not None:
            slot.item = NO_ITEM
        if not (yield from pool.refill(worker)) or pool.stopping:
            return
        slot = worker.slot
