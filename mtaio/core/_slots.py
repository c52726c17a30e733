"""
The places in which items run: counted across all calls of an executor, FIFO when contended.

Promise: never more than ``limit`` items run at once, whoever asks first is served first, and a
call made from inside an item always makes progress, since the item lends it its own slot.

Why lending and not releasing: an outer item that waits for an inner call is idle, but it will go
on. Were its slot released to the pool, the pool would give it to the next outer item, and every
outer item would be started before the first inner one ran.
"""

from __future__ import annotations

from collections import OrderedDict
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, cast

import anyio

from mtaio._internal import clock
from mtaio._internal.loops import LoopBound

if TYPE_CHECKING:
    from mtaio.core._handle import TaskHandle

NOBODY: Final = -1

Link = tuple["Slot", int]
"""A slot and the number of the item that runs in it."""

CURRENT: Final[ContextVar[Link | None]] = ContextVar("mtaio.core.slot", default=None)
"""The innermost item whose code is running. It may be out of date: see `Slots.enclosing`."""


class Slot:
    """
    Permission for one item at a time.

    Invariants:
    - ``item`` is the item that runs in it now, or `NOBODY`;
    - ``around`` is the item inside which the slot was asked for;
    - ``tenant`` is the slot lent to a nested call, whose ``parent`` is this one;
    - ``heirs`` are the waiters that would take this slot, lent, when the tenant gives it back.
    """

    __slots__ = ("around", "child", "heirs", "item", "parent", "slots", "tenant")

    def __init__(self, slots: Slots, parent: Slot | None) -> None:
        self.slots = slots
        self.parent = parent
        self.around: Link | None = None
        self.item = NOBODY
        self.tenant: Slot | None = None
        self.heirs: OrderedDict[Waiter, None] | None = None
        self.child: TaskHandle[object] | None = None


class Waiter:
    """A task that waits for a slot; ``slot`` is set with the event, by whoever gives one up."""

    __slots__ = ("event", "parent", "slot")

    def __init__(self, parent: Slot | None) -> None:
        self.event = anyio.Event()
        self.parent = parent
        self.slot: Slot | None = None


class Slots:
    """
    A counter of slots with a queue.

    Invariants:
    - a waiter stands in ``queue``, and in its parent's ``heirs`` if it has one, until it is
      granted a slot or gives up;
    - ``in_use`` counts slots without a parent; it exceeds ``limit`` only through `force`.
    """

    __slots__ = ("_bound", "in_use", "limit", "peak", "queue", "wait_seconds", "waits")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_use = 0
        self.peak = 0
        self.waits = 0
        self.wait_seconds = 0.0
        self.queue: OrderedDict[Waiter, None] = OrderedDict()
        self._bound = LoopBound()

    def __repr__(self) -> str:
        return f"<{self.limit} slots, {self.in_use} in use, {len(self.queue)} waiting>"

    def enclosing(self, link: Link | None) -> Slot | None:
        """
        Return the slot of the item of this pool inside which the caller runs, if any.

        A context outlives its item in tasks that the item started elsewhere; hence the look at
        which item the slot serves now.
        """
        while link is not None:
            slot, item = link
            if slot.slots is self and slot.item == item:
                return slot
            link = slot.around
        return None

    def acquire_nowait(self, around: Link | None) -> Slot | None:
        """Return a slot, lent by the item around or free and wanted by nobody else, or None."""
        parent = self.enclosing(around)
        if parent is not None and parent.tenant is None:
            slot = self._lend(parent)
        elif self.in_use < self.limit and not self.queue:
            slot = self.force()
        else:
            return None
        slot.around = around
        return slot

    def force(self) -> Slot:
        """Return a slot at once, if need be beyond the limit; those released first pay it back."""
        self.in_use += 1
        self.peak = max(self.peak, self.in_use)
        return Slot(self, None)

    async def acquire(self, around: Link | None) -> Slot:
        """
        Wait for a slot in the order of asking.

        Args:
            around: The item inside which the caller runs, that is `CURRENT` when the call began.

        Cancelled, it leaves nothing behind: a slot already granted goes to the next in line.
        """
        slot = self.acquire_nowait(around)
        if slot is None:
            slot = await self.wait_for(self.enqueue(self.enclosing(around)))
            slot.around = around
        return slot

    async def wait_for(self, waiter: Waiter) -> Slot:
        """Wait until ``waiter``, which is in the queue, is granted a slot."""
        began = clock.now()
        try:
            await waiter.event.wait()
        except BaseException:
            self.give_up(waiter)
            raise
        finally:
            self.wait_seconds += clock.now() - began
        return cast("Slot", waiter.slot)  # set before the event

    def enqueue(self, parent: Slot | None) -> Waiter:
        """Join the queue, and the heirs of ``parent``."""
        if self._bound.bind(self, waiting=bool(self.queue)):
            self.queue.clear()
        waiter = Waiter(parent)
        self.queue[waiter] = None
        if parent is not None:
            self._make_heir(waiter, parent)
        self.waits += 1
        return waiter

    def give_up(self, waiter: Waiter) -> None:
        """Leave the queue, or pass on what was granted and cannot be used."""
        if waiter.slot is not None:
            self.release(waiter.slot)
        elif waiter in self.queue:
            self._unlink(waiter)

    def release(self, slot: Slot) -> None:
        """Give a slot back: to its parent's heirs or to its parent, else to the queue."""
        if self.end_item(slot) is None:
            return
        parent = slot.parent
        if parent is not None:
            parent.tenant = None
            if parent.heirs:
                waiter = next(iter(parent.heirs))
                self._grant(waiter, self._lend(parent))
            return
        self.in_use -= 1
        if self.queue and self.in_use < self.limit:
            self._grant(next(iter(self.queue)), self.force())

    def contended(self, slot: Slot) -> bool:
        """Tell whether somebody waits who would get this slot if it were released."""
        if slot.parent is None:
            return bool(self.queue)
        return bool(slot.parent.heirs)

    def end_item(self, slot: Slot) -> Slot | None:
        """
        Note that the item in ``slot`` ended.

        Returns:
            The slot, or None if a task that outlives the item still has it on loan: it then
            keeps it as its own, and the caller has to ask for another.
        """
        slot.item = NOBODY
        tenant = slot.tenant
        if tenant is None:
            return slot
        self._disinherit(slot)
        slot.tenant = None
        tenant.parent = slot.parent
        if slot.parent is not None:
            slot.parent.tenant = tenant
        return None

    def offer(self, slot: Slot, waiter: Waiter) -> None:
        """Let ``waiter`` run in ``slot``, whose item is about to wait for it."""
        if waiter.slot is not None or waiter.parent is not None or waiter not in self.queue:
            return
        waiter.parent = slot
        if slot.tenant is None:
            self._grant(waiter, self._lend(slot))
        else:
            self._make_heir(waiter, slot)

    def take_back(self, slot: Slot, waiter: Waiter) -> None:
        """
        End an `offer` because the item stopped waiting.

        If the waiter runs in the slot meanwhile, both go on, one of them beyond the limit, until
        the next slots come back: a task that is being cancelled must not wait for a slot.
        """
        if waiter.parent is slot and waiter.slot is None:
            self._disown(waiter)
        elif slot.tenant is not None and slot.tenant is waiter.slot:
            slot.tenant.parent = None
            slot.tenant = None
            self.in_use += 1

    def _lend(self, parent: Slot) -> Slot:
        slot = Slot(self, parent)
        parent.tenant = slot
        return slot

    def _grant(self, waiter: Waiter, slot: Slot) -> None:
        self._unlink(waiter)
        waiter.slot = slot
        waiter.event.set()

    def _make_heir(self, waiter: Waiter, parent: Slot) -> None:
        if parent.heirs is None:
            parent.heirs = OrderedDict()
        parent.heirs[waiter] = None

    def _unlink(self, waiter: Waiter) -> None:
        del self.queue[waiter]
        self._disown(waiter)

    def _disown(self, waiter: Waiter) -> None:
        if waiter.parent is not None and waiter.parent.heirs is not None:
            waiter.parent.heirs.pop(waiter, None)
        waiter.parent = None

    def _disinherit(self, slot: Slot) -> None:
        for waiter in list(slot.heirs or ()):
            self._disown(waiter)
