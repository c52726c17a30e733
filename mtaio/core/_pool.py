"""
The engine behind `map` and its relatives: a few workers that pull items from one source.

Promise: at most ``limit`` items at once, each in a context of its own; a small fixed cost per
item; nothing outlives `Pool.run`.
Cost: 0.6 µs an item beyond a bare asyncio worker pool's 0.9. Why workers and not a task per item,
and why the loop drives coroutines by hand: docs/en/design/executor.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Iterator
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import anyio

from mtaio._internal.checkpoints import checkpoint_if_cancelled
from mtaio.core import _failures
from mtaio.core._call import check_progress
from mtaio.core._items import take_items
from mtaio.core._slots import Link, Slot, Slots, here
from mtaio.core._source import Feed
from mtaio.core._watch import Watch, Watched
from mtaio.exceptions import StrayCancellationError

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from mtaio.core._statistics import Counters

Policy = Literal["raise", "collect", "return"]
Progress = Callable[[int, "int | None"], object]


class Gate(Protocol):
    """What may hold workers back before they take the next item (a stream that is not read)."""

    until: int
    """How many items may have been taken by now."""

    async def wait(self) -> None:
        """Wait until ``until`` may have grown."""
        ...

    def wake_all(self) -> None:
        """End every `wait`."""
        ...

    def skip(self, index: int) -> None:
        """Note that item number ``index`` failed, and that nobody will be handed its result."""
        ...


@dataclass(slots=True, eq=False)
class Worker:
    """
    What a worker holds while it takes items: a slot, and a place under the watch.

    ``spent`` says that somebody other than its scopes cancelled its task. On asyncio such a task
    stays marked (``Task.cancelling``), which would disturb the scopes of later items.
    """

    slot: Slot | None = None
    watched: Watched | None = None
    spent: bool = False


@dataclass(slots=True, eq=False)
class Pool:
    """
    One call: a source, a function, workers, and where results go. Made anywhere, run once.

    Invariants:
    - items are numbered in the order in which they are taken, ``started`` of them so far;
    - at most one worker at a time is being started: when an item suspends and no worker is idle,
      so items that never suspend need only one, and a slow source no more than it keeps busy;
    - workers that wait for the source or the gate are counted in ``_idle``;
    - ``attentive`` says that `item_suspended` wants to know;
    - ``_cut_short`` says that a worker ended before its time, by a cancellation or worse;
    - after `stop` no item is taken.
    """

    fn: Callable[..., Coroutine[Any, Any, Any]]
    source: Iterator[Any] | Feed
    _: KW_ONLY
    subject: object
    many: bool
    limit: int | None
    slots: Slots | None
    counters: Counters
    put: Callable[[int, Any], object]
    put_error: Callable[[int, Exception], object] | None = None
    reserve: Callable[[Any], object] | None = None
    gate: Gate | None = None
    errors: Policy = "raise"
    timeout: float | None = None
    name: str | None = None
    progress: Progress | None = None
    total: int | None = None

    started: int = field(default=0, init=False)
    finished: int = field(default=0, init=False)
    peak: int = field(default=0, init=False)
    failures: list[_failures.Failure] = field(default_factory=list[_failures.Failure], init=False)
    watch: Watch | None = field(default=None, init=False)
    stopping: bool = field(default=False, init=False)
    attentive: bool = field(default=True, init=False)
    _around: Link | None = field(default=None, init=False)
    _starting: bool = field(default=False, init=False)
    _all_taken: bool = field(default=False, init=False)
    _cut_short: bool = field(default=False, init=False)
    _idle: int = field(default=0, init=False)
    _live: int = field(default=0, init=False)
    _group: TaskGroup | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_progress(self.progress)
        if self.timeout is not None and self.timeout != math.inf:
            self.watch = Watch(self.timeout, self._pay_attention)

    async def run(self) -> None:
        """
        Run every item to its end; return when the last worker is gone.

        Raises:
            The bare error if exactly one item failed and the policy reports it, an ExceptionGroup
            if several did; an error of the source or of the progress callback likewise.
        """
        self._around = here()
        escaped: list[BaseException] = []
        self.counters.call_began(self)
        try:
            async with anyio.create_task_group() as self._group:
                await self._run(self._group)
            if not self.stopping:
                if self._group.cancel_scope.cancel_called:
                    escaped.append(_failures.silent_end())
                elif self._cut_short or (isinstance(self.source, Feed) and self.source.cut_short):
                    # The cancellation came to them and not to this task, which asyncio had just
                    # woken up for something else. It is due now: half the work is not done.
                    await checkpoint_if_cancelled()
        except BaseExceptionGroup as group:
            escaped.extend(group.exceptions)
        except BaseException:
            # Cancelled; perhaps each task on its own, as asyncio.run does when its main task ends.
            if all(isinstance(error, StrayCancellationError) for _, error in self.failures):
                raise
        finally:
            self._group = None
            if self.started:  # items that never suspend are noticed by nobody
                self.counters.peak = max(self.counters.peak, 1)
            self.counters.absorb(self)
        try:
            _failures.conclude(self.failures, escaped)
        finally:
            del escaped  # the error holds this frame: else they keep each other alive

    async def _run(self, group: TaskGroup) -> None:
        if isinstance(self.source, Feed):
            if self.stopping:
                self.source.end()
            self.source.start(group)
        if self.stopping:  # a stream that was left before this task had its first turn
            return
        self._hire()
        if self.watch is not None:
            await self.watch.run()

    def stop(self) -> None:
        """Take no more items and cancel those in flight. May be called at any time."""
        self.stopping = True
        if self._group is not None:
            self._group.cancel_scope.cancel()

    def item_suspended(self) -> None:
        """Note how many run, wake the watch, and start a worker if there is room and need."""
        crowded = self.counters.crowded()
        in_flight = self.started - self.finished
        if in_flight > self.peak or crowded:
            self.peak = max(self.peak, in_flight)
            self.counters.note_peak()
        if self.watch is not None:
            self.watch.item_suspended()
        room = not self._all_taken and (self.limit is None or self._live < self.limit)
        if room and not (self._starting or self._idle or self.stopping):
            self._hire()
        self.attentive = room or crowded or self.peak < self._live

    def _pay_attention(self) -> None:
        self.attentive = True

    def _hire(self) -> None:
        self._starting = True
        self._live += 1
        cast("TaskGroup", self._group).start_soon(self._work)  # items run only while there is one

    async def _work(self) -> None:
        worker = Worker()
        try:
            try:
                await self.admit(worker)
            finally:
                self._starting = False
            self.attentive = True
            watched = nullcontext() if self.watch is None else self.watch.over_worker()
            with watched as worker.watched:
                # Here and not in a function of its own: what items yield passes through each.
                while not self.stopping:
                    await take_items(self, worker)
                    if worker.spent or not await self._refill(worker):
                        break
            if worker.spent and not self.stopping:
                self._hire()
        except BaseException:
            self._cut_short = True
            raise
        finally:
            self._give_slot_back(worker)
            self._live -= 1
            if not self._live and self.watch is not None:
                self.watch.end()

    async def admit(self, worker: Worker) -> None:
        """
        Wait for an open gate, then for a slot; while the gate is shut no slot is held.

        At the source's end the gate no longer matters.
        """
        gate = self.gate
        while True:
            self._give_slot_back(worker)
            while gate is not None and self.started >= gate.until and not self._all_taken:
                self._idle += 1
                await gate.wait()
                self._idle -= 1
            if self.slots is not None:
                worker.slot = await self.slots.acquire(self._around)
            # The gate may have shut while we queued.
            if gate is None or self.started < gate.until or self._all_taken:
                return

    async def _refill(self, worker: Worker) -> bool:
        """
        Wait until an async source has an item; return False if the source is at its end.

        No slot is held meanwhile: the source may itself depend on this executor.
        """
        if isinstance(self.source, Feed):
            self._give_slot_back(worker)
            self._idle += 1
            more = await self.source.wait()
            self._idle -= 1
            if more:
                await self.admit(worker)
                return True
        self._all_taken = True
        if self.gate is not None:
            self.gate.wake_all()
        return False

    def must_queue(self, worker: Worker, slot: Slot) -> bool:
        """Tell whether the worker has to ask for a slot again before it takes another item."""
        worker.slot = slot.slots.end_item(slot)
        return worker.slot is None or slot.slots.contended(worker.slot)

    def _give_slot_back(self, worker: Worker) -> None:
        if worker.slot is not None:
            slot, worker.slot = worker.slot, None
            slot.slots.release(slot)
