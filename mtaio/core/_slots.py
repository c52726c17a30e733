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
from typing import TYPE_CHECKING, TypeGuard, cast

import anyio

from mtaio._internal import clock
from mtaio._internal.loops import LoopBound
from mtaio.core._nesting import CURRENT, NOBODY, Enclosure, Link, enclosures, here, live

if TYPE_CHECKING:
    from mtaio.core._task import Task

__all__ = ["CURRENT", "NOBODY", "Link", "Slot", "Slots", "Waiter", "here"]


class Slot(Enclosure):
    """
    Permission for one item at a time.

    Invariants:
    - ``tenant`` is the slot lent to a nested call, whose ``parent`` is this one;
    - ``child`` is the task that its item submitted last;
    - it counts only as long as ``age`` is that of its ``slots``: see `Slots.write_off`;
    - there are no ``heirs`` while there is no tenant: they would have been lent the slot.
    """

    __slots__ = ("age", "child", "parent", "slots", "tenant")

    def __init__(self, slots: Slots, parent: Slot | None) -> None:
        super().__init__()
        self.slots: Slots = slots
        self.age: int = slots.age
        self.parent: Slot | None = parent
        self.tenant: Slot | None = None
        self.child: Task | None = None

    def reclaim(self) -> None:
        """Take the slot back from a tenant that does not run inside any more."""
        self.slots.reclaim(self)


class Waiter:
    """A task that waits for a slot; ``slot`` is set with the event, by whoever gives one up."""

    __slots__ = ("around", "event", "known", "slot", "slots")

    def __init__(self, slots: Slots, around: Link | None) -> None:
        self.slots: Slots = slots
        self.around: Link | None = around
        self.event: anyio.Event = anyio.Event()
        self.slot: Slot | None = None
        self.known: list[Enclosure] = []  # whose heir it is

    def look_again(self) -> None:
        """Find out anew what encloses it."""
        self.slots.look_again(self)


class Slots:
    """
    A counter of slots with a queue.

    Args:
        limit: How many there are.
        owner: What they belong to, for messages.
        lasting: Whether those in use may come back after their event loop is over, as worker
            threads do; the tasks of a loop that is over never run again.

    Invariants:
    - a waiter stands in ``queue``, and among the heirs of all that encloses it, until it is
      granted a slot or gives up;
    - ``in_use`` counts slots without a parent; it exceeds ``limit`` only through `force` and
      `reclaim`, and what is released first pays that back;
    - a free slot and a waiter never coexist.
    """

    __slots__ = (
        "_bound",
        "_lasting",
        "_owner",
        "age",
        "in_use",
        "limit",
        "queue",
        "wait_seconds",
        "waits",
    )

    def __init__(self, limit: int, owner: object, *, lasting: bool = False) -> None:
        self._owner = owner
        self._lasting = lasting
        self.age: int = 0
        self.limit: int = limit
        self.in_use: int = 0
        self.waits: int = 0
        self.wait_seconds: float = 0.0
        self.queue: OrderedDict[Waiter, None] = OrderedDict()
        self._bound = LoopBound()

    def enclosing(self, link: Link | None) -> Slot | None:
        """Return the slot of the innermost item of this pool inside which ``link`` lies, if any."""
        return next(iter(self.lenders(link)), None)

    def acquire_nowait(self, around: Link | None) -> Slot | None:
        """
        Return a slot, lent by an item around or free and wanted by nobody else, or None.

        Raises:
            RuntimeError: Another event loop that is still alive holds slots or waits for them.
        """
        if self._bound.bind(self._owner, waiting=bool(self.in_use or self.queue)):
            self.write_off()
        around = live(around)
        for lender in self.lenders(around):
            if lender.tenant is None:
                slot = self._lend(lender)
                break
        else:
            if self.in_use >= self.limit:
                return None
            slot = self.force()
        slot.around = around
        return slot

    def force(self) -> Slot:
        """Return a slot at once, if need be beyond the limit."""
        self.in_use += 1
        return Slot(self, None)

    def write_off(self) -> None:
        """Forget those who waited in an event loop that is over, and what they will not return."""
        while self.queue:
            self._unlink(next(iter(self.queue)))
        if not self._lasting:
            self.in_use = 0
            self.age += 1

    async def acquire(self, around: Link | None) -> Slot:
        """
        Wait for a slot in the order of asking.

        Args:
            around: What encloses the caller, that is `here` when the call began.

        Returns:
            The slot, for items that run in the calling task.

        Cancelled, it leaves nothing behind: a slot already granted goes to the next in line.
        """
        slot = self.acquire_nowait(around)
        if slot is None:
            slot = await self.wait_for(self.enqueue(around))
        slot.host = anyio.get_current_task()
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

    def enqueue(self, around: Link | None) -> Waiter:
        """Join the queue, and the heirs of all that encloses the caller."""
        waiter = Waiter(self, live(around))
        self.queue[waiter] = None
        self.waits += 1
        self.look_again(waiter)
        return waiter

    def give_up(self, waiter: Waiter) -> None:
        """Leave the queue, or pass on what was granted and cannot be used."""
        if waiter.slot is not None:
            self.release(waiter.slot)
        elif waiter in self.queue:
            self._unlink(waiter)

    def look_again(self, waiter: Waiter) -> None:
        """Make a waiter the heir of all that encloses it now; it may get a slot at once."""
        if waiter not in self.queue:
            return
        around = enclosures(waiter.around)
        for enclosure in around:
            if self._has(enclosure) and enclosure.tenant is None:
                self.grant(waiter, self._lend(enclosure))
                return
        for enclosure in waiter.known:
            if enclosure not in around:
                enclosure.remove_heir(waiter)
        waiter.known = [each for each in around if not isinstance(each, Slot) or self._has(each)]
        for enclosure in waiter.known:
            enclosure.add_heir(waiter)

    def release(self, slot: Slot) -> None:
        """Give a slot back: to the heirs of the one that lent it, or to that one, or the queue."""
        if slot.age != self.age or self.end_item(slot) is None:
            return
        parent = slot.parent
        if parent is not None:
            parent.tenant = None
            self._lend_to_heir(parent)
            return
        self.in_use -= 1
        if self.queue and self.in_use < self.limit:
            self.grant(next(iter(self.queue)), self.force())

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
        slot.heirs = slot.tenant = None
        tenant.parent = slot.parent
        if slot.parent is not None:
            slot.parent.tenant = tenant
        return None

    def reclaim(self, slot: Slot) -> None:
        """
        Take ``slot`` back from a tenant that does not run inside its item any more.

        That is a task which the item stopped waiting for. Both go on, one of them beyond the
        limit until the next slot comes back: who is cancelled must not wait for a slot.
        """
        tenant = slot.tenant
        if slot.age != self.age or tenant is None:
            return
        if slot not in self.lenders(tenant.around):
            slot.tenant = tenant.parent = None
            self.in_use += 1
            self._lend_to_heir(slot)

    def lenders(self, link: Link | None) -> list[Slot]:
        """Return the slots of this pool inside whose items code with this ``link`` runs."""
        return [each for each in enclosures(link) if self._has(each)]

    def _has(self, enclosure: Enclosure) -> TypeGuard[Slot]:
        return isinstance(enclosure, Slot) and enclosure.slots is self

    def _lend(self, parent: Slot) -> Slot:
        slot = Slot(self, parent)
        parent.tenant = slot
        return slot

    def _lend_to_heir(self, parent: Slot) -> None:
        if parent.heirs:
            self.grant(next(iter(parent.heirs)), self._lend(parent))

    def grant(self, waiter: Waiter, slot: Slot) -> None:
        self._unlink(waiter)
        slot.around = waiter.around
        waiter.slot = slot
        waiter.event.set()

    def _unlink(self, waiter: Waiter) -> None:
        del self.queue[waiter]
        self._disown(waiter)

    def _disown(self, waiter: Waiter) -> None:
        for enclosure in waiter.known:
            enclosure.remove_heir(waiter)
        waiter.known.clear()
