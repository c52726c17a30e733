"""
The slots in which items run: counted across all calls of an executor, and lent to nested calls.

Promise: never more than ``limit`` items run at once; slots are given first come, first served;
and a call made inside an item does not wait for that item, which lends it its own slot.

Why lending and not releasing: an outer item that waits for an inner call is idle, but it will go
on. Were its slot released, the next outer item would take it, and every outer item would be started
before the first inner one ran.

Who may borrow is known from the context: it links to the item in which the code runs, and so on
outwards, whatever lies between: calls of other executors, worker threads, and submitted tasks that
are waited for. An item that has ended lends nothing, also to tasks that outlive it.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import takewhile
from typing import TYPE_CHECKING, Final, TypeGuard, cast

import anyio

from mtaio._internal import clock, loops

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from mtaio.core._tasks import Task

__all__ = ["CURRENT", "NO_ITEM", "Awaited", "Link", "Slot", "Slots", "Waiter", "here", "live"]

NO_ITEM: Final = -1


class Parent:
    """
    Something inside which calls are made: a slot with its item, or a submitted task.

    Invariants:
    - ``item`` is the number of the item that runs in it now, or `NO_ITEM`;
    - ``around`` links to its own parent;
    - ``task`` is the task in which its item runs; None if unknown;
    - ``waiters`` are those inside it that wait for a slot, of whatever pool.
    """

    __slots__ = ("around", "item", "task", "waiters")

    def __init__(self) -> None:
        self.item: int = NO_ITEM
        self.around: Link | None = None
        self.task: anyio.TaskInfo | None = None
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()

    def parents(self) -> list[Link]:
        """Return links to its parents; forget one that has ended, so that chains do not grow."""
        self.around = live(self.around)
        return [] if self.around is None else [self.around]


Link = tuple[Parent, int]
"""A parent and the number of the item that runs in it."""

CURRENT: Final[ContextVar[Link | None]] = ContextVar("mtaio.core.parent", default=None)
"""The innermost parent of the running code, or of what started its task; see `here`."""


def live(link: Link | None) -> Link | None:
    """Return a link to an item that still runs: this one, or if it has ended one around it."""
    while link is not None:
        parent, item = link
        if parent.item == item:
            return link
        link = parent.around
    return None


def here() -> Link | None:
    """
    Return a link to the innermost item that contains the running code.

    A task keeps the context of the item that started it, though it may outlive the item, or have
    been started in a task group outside: then the item does not wait for it. The latter shows: the
    task is a sibling of the one in which the item runs.
    """
    link = live(CURRENT.get())
    if link is not None:
        try:
            task = anyio.get_current_task()
        except RuntimeError:  # a callback of the event loop, which nothing can wait for
            return None
        while link is not None and _is_sibling(task, link[0].task):
            link = live(link[0].around)
    return link


def _is_sibling(task: anyio.TaskInfo, other: anyio.TaskInfo | None) -> bool:
    if other is None or task.id == other.id:
        return False
    return task.parent_id is not None and task.parent_id == other.parent_id


def parents_of(link: Link | None) -> list[Parent]:
    """Return all that contains code with this ``link``, the innermost first."""
    link = live(link)
    if link is None:
        return []
    found, seen = [link], {link}
    for parent, _ in found:  # it grows on the way; tasks that wait for each other form a cycle
        for each in parent.parents():
            if each not in seen:
                seen.add(each)
                found.append(each)
    return [parent for parent, _ in found]


class Slot(Parent):
    """
    Permission for one item at a time.

    Invariants:
    - ``borrower`` is the slot lent to a nested call, whose ``lender`` is this one;
    - ``child`` is the task that its item submitted last;
    - it counts only as long as ``generation`` is that of its ``slots``: see `Slots.write_off`;
    - there are no ``waiters`` of its pool while it is not lent, except those that `reclaim` has
      to keep waiting: they would have been lent it.
    """

    __slots__ = ("borrower", "child", "generation", "lender", "slots")

    def __init__(self, slots: Slots, lender: Slot | None) -> None:
        super().__init__()
        self.slots: Slots = slots
        self.generation: int = slots.generation
        self.lender: Slot | None = lender
        self.borrower: Slot | None = None
        self.child: Task | None = None


class Waiter:
    """A task that waits for a slot; ``slot`` is set with the event when it is granted one."""

    __slots__ = ("around", "event", "parents", "slot", "slots")

    def __init__(self, slots: Slots, around: Link | None) -> None:
        self.slots: Slots = slots
        self.around: Link | None = around
        self.event: anyio.Event = anyio.Event()
        self.slot: Slot | None = None
        self.parents: list[Parent] = []  # those that have it among their waiters


class Slots:
    """
    A counter of slots with a queue.

    Args:
        limit: How many there are.
        owner: What they belong to, for messages.
        lasting: Whether those in use may come back after their event loop has finished, as worker
            threads do; the tasks of a loop that has finished never run again.
        exempt: Returns whether a waiter with this link gets a slot beyond the limit.

    Invariants:
    - a waiter is in ``queue``, and among the waiters of all its parents, until it is granted a
      slot or gives up;
    - ``in_use`` counts slots without a lender; it exceeds ``limit`` only through `force` and
      `reclaim`, and what is released first makes up for that;
    - ``_owing`` are the slots that `reclaim` has taken back, until the limit is kept again: they
      are lent to no task that is waited for, so none of them is exceeded by more than one;
    - a free slot and a waiter never coexist.
    """

    __slots__ = (
        "_exempt",
        "_lasting",
        "_loop",
        "_owing",
        "_owner",
        "generation",
        "in_use",
        "limit",
        "queue",
        "wait_seconds",
        "waits",
    )

    def __init__(
        self,
        limit: int,
        owner: object,
        *,
        lasting: bool = False,
        exempt: Callable[[Link | None], bool] | None = None,
    ) -> None:
        self._owner = owner
        self._lasting = lasting
        self._exempt = exempt
        self._loop: object = None
        self.generation: int = 0
        self.limit: int = limit
        self.in_use: int = 0
        self.waits: int = 0
        self.wait_seconds: float = 0.0
        self.queue: OrderedDict[Waiter, None] = OrderedDict()
        self._owing: OrderedDict[Slot, None] = OrderedDict()

    # ---- asking ----

    def acquire_nowait(self, around: Link | None) -> Slot | None:
        """
        Return a slot, lent by an item around, or free; None if there is neither.

        Raises:
            RuntimeError: Another event loop, which has not finished, has slots in use.
        """
        self._attach()
        slot = None
        if around is not None:
            around = live(around)
            slot = self._borrow(parents_of(around))
        if slot is None:
            if self.in_use >= self.limit:
                return None
            slot = self.force()
        slot.around = around
        return slot

    def force(self) -> Slot:
        """Return a slot at once, beyond the limit if there is none left."""
        self.in_use += 1
        return Slot(self, None)

    async def acquire(self, around: Link | None) -> Slot:
        """
        Wait in the queue for a slot.

        Cancelled, it leaves nothing behind: a slot already granted goes to the next in the queue.

        Args:
            around: What `here` returned when the call began.

        Returns:
            The slot, for items that run in the calling task.
        """
        slot = self.acquire_nowait(around)
        if slot is None:
            slot = await self.wait_for(self.enqueue(around))
        slot.task = anyio.get_current_task()
        return slot

    def enqueue(self, around: Link | None) -> Waiter:
        """Join the queue, and the waiters of each parent."""
        waiter = Waiter(self, live(around))
        self.queue[waiter] = None
        self.waits += 1
        self.reconsider(waiter)
        return waiter

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

    def give_up(self, waiter: Waiter) -> None:
        """Leave the queue, or pass on what was granted and cannot be used."""
        if waiter.slot is not None:
            self.release(waiter.slot)
        else:
            self._dequeue(waiter)

    def reconsider(self, waiter: Waiter) -> None:
        """Find out what contains a waiter now, which may get it a slot at once."""
        parents = parents_of(waiter.around)
        slot = self._borrow(parents)
        if slot is None and self._exempt is not None and self._exempt(waiter.around):
            slot = self.force()
        if slot is not None:
            self._grant(waiter, slot)
            return
        for parent in waiter.parents:
            if parent not in parents:
                parent.waiters.pop(waiter, None)
        # A slot of another pool lends it nothing.
        waiter.parents = [each for each in parents if isinstance(each, Awaited) or self._owns(each)]
        for parent in waiter.parents:
            parent.waiters[waiter] = None

    # ---- giving back ----

    def release(self, slot: Slot) -> None:
        """Give a slot back to its lender, and to a waiter inside that, or to the queue."""
        if slot.generation != self.generation or self.end_item(slot) is None:
            return
        self._owing.pop(slot, None)
        lender = slot.lender
        if lender is not None:
            lender.borrower = None
            self._lend_to_next(lender)
            return
        self.in_use -= 1
        self._settle()
        if self.queue and self.in_use < self.limit:
            self._grant(next(iter(self.queue)), self.force())

    def end_item(self, slot: Slot) -> Slot | None:
        """
        Note that the item in ``slot`` ended.

        Returns:
            The slot, or None if a task that outlives the item has borrowed it: it then keeps it
            as its own, and the caller has to ask for another.
        """
        slot.item = NO_ITEM
        borrower = slot.borrower
        if borrower is None:
            return slot
        slot.waiters.clear()
        slot.borrower = None
        borrower.lender = slot.lender
        if slot.lender is not None:
            slot.lender.borrower = borrower
        return None

    def contended(self, slot: Slot) -> bool:
        """Return whether another would get this slot if it were released."""
        return bool(self.queue if slot.lender is None else slot.lender.waiters)

    def reclaim(self, slot: Slot) -> None:
        """
        Take ``slot`` back from a borrower that does not run inside its item any more.

        That is a task which the item stopped waiting for. Both go on, one of them beyond the
        limit until the next slot comes back: what is cancelled must not wait for a slot. Until
        then this slot is not lent to such tasks: an item that stops waiting for one after another,
        as a cancelled `gather` of handles does, would let each of them run beyond the limit.
        """
        borrower = slot.borrower
        if slot.generation != self.generation or borrower is None:
            return
        if slot not in parents_of(borrower.around):
            slot.borrower = borrower.lender = None
            self.in_use += 1
            self._owing[slot] = None
            self._settle()
            self._lend_to_next(slot)

    def write_off(self) -> None:
        """Forget the waiters of an event loop that has finished, and what they will not return."""
        while self.queue:
            self._dequeue(next(iter(self.queue)))
        if not self._lasting:
            self.in_use = 0
            self.generation += 1
            self._owing.clear()

    # ---- inside ----

    def enclosing(self, link: Link | None) -> Slot | None:
        """Return the slot of the innermost item of this pool that contains ``link``, if any."""
        return next((each for each in parents_of(link) if self._owns(each)), None)

    def _attach(self) -> None:
        loop = loops.current_loop()
        if loop is not self._loop:
            if self._loop is not None and (self.in_use or self.queue):
                if not loops.is_over(self._loop):
                    raise loops.two_loops_error(self._owner)
                self.write_off()
            self._loop = loop

    def _owns(self, parent: Parent) -> TypeGuard[Slot]:
        return isinstance(parent, Slot) and parent.slots is self

    def _borrow(self, parents: list[Parent]) -> Slot | None:
        for parent in parents:
            if self._owns(parent) and self._would_lend(parent, parents):
                return self._lend(parent)
        return None

    def _would_lend(self, lender: Slot, parents: list[Parent]) -> bool:
        """Return whether ``lender`` is free for a call with these parents, of which it is one."""
        if lender.borrower is not None:
            return False
        inside = takewhile(lambda parent: parent is not lender, parents)
        return lender not in self._owing or not any(isinstance(each, Awaited) for each in inside)

    def _lend(self, lender: Slot) -> Slot:
        lender.borrower = Slot(self, lender)
        return lender.borrower

    def _lend_to_next(self, lender: Slot) -> None:
        for waiter in lender.waiters:
            if self._would_lend(lender, waiter.parents):
                self._grant(waiter, self._lend(lender))
                return

    def _settle(self) -> None:
        """Let slots that owe lend again, the oldest first, as far as the limit is kept."""
        while len(self._owing) > max(0, self.in_use - self.limit):
            slot, _ = self._owing.popitem(last=False)
            self._lend_to_next(slot)

    def _grant(self, waiter: Waiter, slot: Slot) -> None:
        self._dequeue(waiter)
        slot.around = waiter.around
        waiter.slot = slot
        waiter.event.set()

    def _dequeue(self, waiter: Waiter) -> None:
        self.queue.pop(waiter, None)  # not there if its loop has finished
        for parent in waiter.parents:
            parent.waiters.pop(waiter, None)
        waiter.parents.clear()


class Awaited(Parent):
    """
    A task apart from what started it: its parents are the items that wait for it, while they do.

    Invariant: ``_waits`` links to the items that wait for it now, once for each wait.
    """

    __slots__ = ("_waits",)

    def __init__(self) -> None:
        super().__init__()
        self.item = 0
        self._waits: list[Link] = []

    def parents(self) -> list[Link]:
        """Return links to its parents."""
        return [link for link in map(live, self._waits) if link is not None]

    @contextmanager
    def awaited(self) -> Generator[None]:
        """Let the task run inside the item that waits for it in this block."""
        link = here()
        if link is None:
            yield
            return
        self.add_wait(link)
        try:
            yield
        finally:
            self.end_wait(link)

    def add_wait(self, link: Link) -> None:
        """Note that the item of ``link`` waits for the task."""
        self._waits.append(link)
        self._reconsider_waiters()

    def end_wait(self, link: Link) -> None:
        """Note that it waits no more, and take back what it lent."""
        if link in self._waits:
            self._waits.remove(link)
        self._reconsider_waiters()
        for parent in parents_of(link):
            if isinstance(parent, Slot):
                parent.slots.reclaim(parent)

    def end_waits(self) -> None:
        """Note that all waiters go on."""
        for link in [*self._waits]:
            self.end_wait(link)

    def contains(self, link: Link | None) -> bool:
        """Return whether code with this ``link`` is part of the task, not just waited for by it."""
        while link is not None:
            if link[0] is self:
                return True
            link = live(link[0].around)
        return False

    def end(self) -> None:
        """Note that the task ended: what outlives it is not inside the items that waited for it."""
        self.item: int = NO_ITEM
        self._waits.clear()

    def _reconsider_waiters(self) -> None:
        for waiter in list(self.waiters):
            waiter.slots.reconsider(waiter)
