"""
The slots in which items run: counted across all calls of an executor, and lent to nested calls.

Promise: never more than ``limit`` items run at once; slots are given first come, first served;
and a call made inside an item does not wait for that item, which lends it its own slot.

What would go wrong with a semaphore: ``map`` over outer items, each of which calls ``map`` of the
same executor. As soon as outer items hold all the slots, the inner ones wait for slots that come
back only when the outer ones end, which wait for the inner ones: a deadlock. Nor is it enough that
an outer item releases its slot while it waits. The next outer item would take it, and all of them
would be started before the first inner one ran. So slots are lent:

1. **Who contains whom.** `CURRENT` is a context variable with a `Link`: the innermost `Parent` of
   the running code, which is a `Slot` with the number of its item, or a submitted task (`Awaited`).
   Each parent knows what is around itself, and so on outwards, whatever lies between: calls of
   other executors, worker threads, tasks that are waited for. An item that has ended contains
   nothing, not even tasks that outlive it: its number is not the slot's present one any more, and
   `live` steps over such links. A submitted task runs in a context of its own, and has for parents
   the items that wait for it now (`Awaited.awaited`), as many as there are.

2. **Acquiring.** `Slots.acquire_nowait` looks at the parents from the inside outwards. The first
   that is a slot of this pool and has no ``borrower`` yet lends its slot: a new `Slot` with a
   ``lender``, which is not counted, since of the two items one only waits. If none lends, a free
   slot is taken and counted in ``in_use``. If there is none either, the task waits: its `Request`
   stands in the queue, and also among the ``requests`` of each parent that could lend to it. (A
   request that is `exempt` gets a slot beyond the limit instead: see `Block`.)

3. **Giving back.** `Slots.release` of a borrowed slot lends it again, to the first request inside
   the lender; only if there is none is the lender's slot simply its own again. Release of a slot
   that counts gives it to the first in the queue. A task that is given a slot leaves both the queue
   and its parents' ``requests`` in the same step, so it is never given two.

4. **Handing over** is `_hand_over`, and only there do tasks leave the queue with a slot. The task
   is woken first. If it is being cancelled `WaitQueue.wake` returns False: it will never use a
   slot, so none is made for it, and the next request is tried. If it is cancelled after it was
   woken and before it resumes, it holds a slot, and gives it up as it leaves (`Slots.give_up`).

5. **When the nesting changes** while somebody waits or borrows:

   - An item begins to wait for a task: requests from inside that task are looked at again
     (`Slots.reconsider`), since the item may lend them its slot now.
   - An item ends while its slot is lent, to a task that outlives it: `Slots.end_item` makes the
     borrower the owner. It takes the item's place with the lender, or in ``in_use``, and what
     ran the item has to acquire another slot.
   - An item stops waiting for a task that borrows its slot, as its wait was cancelled. Both go on,
     and one of them has to be beyond the limit, because what is being cancelled must not queue:
     `Slots.reclaim` counts the borrower by itself. An item that stops waiting for one task after
     another, as a cancelled `gather` of handles does, must not add one each time. So its slot then
     *owes*: it is lent to no task that is waited for, until slots have come back and the limit is
     kept again (`_settle`). Calls that the item itself makes may borrow it as ever; otherwise they
     would wait for their own item.

   A slot that is given back while ``in_use`` exceeds ``limit`` goes to nobody.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import takewhile
from typing import TYPE_CHECKING, Final, TypeGuard, cast

import anyio

from mtaio._internal import clock, loops
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.durations import WaitTimes
from mtaio._internal.wait_queue import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from mtaio._internal.backend import Waiter
    from mtaio.core._tasks import Task

__all__ = [
    "CURRENT",
    "NO_ITEM",
    "Awaited",
    "Link",
    "Request",
    "Slot",
    "Slots",
    "TaskIds",
    "here",
    "live",
    "running_task",
]

NO_ITEM: Final = -1


class Parent:
    """
    Something inside which calls are made: a slot with its item, or a submitted task.

    Invariants:
    - ``item`` is the number of the item that runs in it now, or `NO_ITEM`;
    - ``around`` links to its own parent;
    - ``task`` is the task in which its item runs; None if unknown;
    - ``requests`` are those of tasks inside it that wait for a slot, of whatever pool, and might
      be lent one because of it.
    """

    __slots__ = ("around", "item", "requests", "task")

    def __init__(self) -> None:
        self.item: int = NO_ITEM
        self.around: Link | None = None
        self.task: TaskIds | None = None
        self.requests: OrderedDict[Request, None] = OrderedDict()

    def parents(self) -> list[Link]:
        """Return links to its parents; forget one that has ended, so that chains do not grow."""
        self.around = live(self.around)
        return [] if self.around is None else [self.around]


TaskIds = tuple[int, int | None]
"""The ids of a task and of its parent, as AnyIO has them."""

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
    link = CURRENT.get()
    if link is not None and (link := live(link)) is not None:
        try:
            task = running_task()
        except RuntimeError:  # a callback of the event loop, which nothing can wait for
            return None
        while link is not None and _is_sibling(task, link[0].task):
            link = live(link[0].around)
    return link


def running_task() -> TaskIds:
    """Return what is asked of the running task here."""
    task = anyio.get_current_task()
    return task.id, task.parent_id


def _is_sibling(task: TaskIds, other: TaskIds | None) -> bool:
    if other is None or task[0] == other[0]:
        return False
    return task[1] is not None and task[1] == other[1]


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
    - there are no ``requests`` of its pool while it is not lent, except those that `reclaim` has
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


class Request:
    """
    What a task waits for a slot with.

    Invariants:
    - ``slot`` is set in the step in which the task is woken;
    - until then ``waiter`` is in the queue of ``slots``, unless the task is being cancelled, and
      this is among the ``requests`` of all ``parents``.
    """

    __slots__ = ("around", "parents", "slot", "slots", "waiter")

    def __init__(self, slots: Slots, around: Link | None) -> None:
        self.slots: Slots = slots
        self.around: Link | None = around
        self.slot: Slot | None = None
        self.parents: Iterable[Parent] = ()
        self.waiter: Waiter = slots.queue.join(self)


class Slots:
    """
    A counter of slots with a queue.

    Args:
        limit: How many there are.
        owner: What they belong to, for messages.
        lasting: Whether those in use may come back after their event loop has finished, as worker
            threads do; the tasks of a loop that has finished never run again.
        exempt: Returns whether a request with this link gets a slot beyond the limit.

    Invariants:
    - ``queue`` is attached to ``_loop``, in which all slots in use were taken;
    - ``in_use`` counts slots without a lender; it exceeds ``limit`` only through `force` and
      `reclaim`, and what is released first makes up for that;
    - ``_owing`` are the slots that `reclaim` has taken back, until the limit is kept again: they
      are lent to no task that is waited for, so none of them is exceeded by more than one;
    - a free slot and a request that can be granted never coexist.
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
        "wait_times",
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
        self.wait_times: Final = WaitTimes()
        self.queue: WaitQueue[Request] = WaitQueue()
        self._owing: OrderedDict[Slot, None] = OrderedDict()

    # ---- asking ----

    def attach(self) -> None:
        """Make ready for the running event loop; `RuntimeError` if another one uses the slots."""
        if self._loop is not None and self.queue.runs_here():
            return
        loop = loops.current_loop()
        if self._loop is not None and (self.in_use or self.queue.waiters):
            if not loops.is_over(self._loop):
                raise loops.two_loops_error(self._owner)
            self.write_off()
        self.queue.attach(self._owner)
        self._loop = loop

    def acquire_nowait(self, around: Link | None) -> Slot | None:
        """
        Return a slot, lent by an item around, or free; None if there is neither.

        Raises:
            RuntimeError: Another event loop, which has not finished, has slots in use.
        """
        self.attach()
        slot = None
        if around is not None:
            around = live(around)
            lender = self._find_lender(parents_of(around))
            if lender is not None:
                slot = self._lend(lender)
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

    async def acquire(self, around: Link | None, parent: int | None = None) -> Slot:
        """
        Wait in the queue for a slot.

        Cancelled, it leaves nothing behind: a slot already granted goes to the next in the queue.

        Args:
            around: What `here` returned when the call began.
            parent: The id of the task in whose group the calling task is, if that is known: it
                takes a microsecond to ask.

        Returns:
            The slot, for items that run in the calling task.
        """
        slot = self.acquire_nowait(around)
        if slot is None:
            slot = await self.wait_for(self.enqueue(around))
        slot.task = running_task() if parent is None else (self.queue.task_id(), parent)
        return slot

    def enqueue(self, around: Link | None) -> Request:
        """Join the queue, and the requests of each parent."""
        request = Request(self, live(around))
        self.waits += 1
        self.reconsider(request)
        return request

    async def wait_for(self, request: Request) -> Slot:
        """Wait until ``request``, which `enqueue` returned, is granted a slot. A checkpoint."""
        began = clock.now()
        try:
            if request.slot is None:
                await request.waiter
            else:  # granted before its task came here, so nobody would wake it
                await checkpoint()
        except BaseException as error:
            self.give_up(request)
            if type(error) is not GeneratorExit:  # closed, after its loop: the clock is another
                self.wait_times.count(clock.now() - began)
            raise
        self.wait_times.count(clock.now() - began)
        return cast("Slot", request.slot)

    def give_up(self, request: Request) -> None:
        """Leave the queue, or pass on what was granted and cannot be used."""
        if request.slot is not None:
            self.release(request.slot)
        else:
            self.queue.leave(request.waiter)
            self._leave_parents(request)

    def reconsider(self, request: Request) -> None:
        """Find out what contains a task that waits, which may get it a slot at once."""
        parents = parents_of(request.around)
        lender = self._find_lender(parents)
        if lender is not None or (self._exempt is not None and self._exempt(request.around)):
            self._hand_over(request, lender)
            return
        for parent in request.parents:
            if parent not in parents:
                parent.requests.pop(request, None)
        # A slot of another pool lends it nothing. Most requests come from outside of all items.
        request.parents = [each for each in parents if self._may_lend(each)] if parents else ()
        for parent in request.parents:
            parent.requests[request] = None

    # ---- giving back ----

    def release(self, slot: Slot) -> None:
        """Give a slot back to its lender, and lend that again, or to the first in the queue."""
        if slot.generation != self.generation or self.end_item(slot) is None:
            return
        self._owing.pop(slot, None)
        lender = slot.lender
        if lender is not None:
            lender.borrower = None
            self._lend_to_next(lender)
            return
        self.in_use -= 1
        if self._owing:
            self._settle()
        requests = self.queue.waiters
        while requests and self.in_use < self.limit:  # more than once if the first is cancelled
            self._hand_over(next(iter(requests.values())), None)

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
        slot.requests.clear()
        slot.borrower = None
        borrower.lender = slot.lender
        if slot.lender is not None:
            slot.lender.borrower = borrower
        return None

    def contended(self, slot: Slot) -> bool:
        """Return whether another would get this slot if it were released."""
        return bool(self.queue.waiters if slot.lender is None else slot.lender.requests)

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
        """Forget the tasks of an event loop that has finished, and what they will not return."""
        for request in self.queue.waiters.values():
            self._leave_parents(request)
        self.queue.forget()
        if not self._lasting:
            self.in_use = 0
            self.generation += 1
            self._owing.clear()

    # ---- inside ----

    def enclosing(self, link: Link | None) -> Slot | None:
        """Return the slot of the innermost item of this pool that contains ``link``, if any."""
        if link is None:
            return None
        return next((each for each in parents_of(link) if self._owns(each)), None)

    def _may_lend(self, parent: Parent) -> bool:
        return isinstance(parent, Awaited) or self._owns(parent)

    def _owns(self, parent: Parent) -> TypeGuard[Slot]:
        return isinstance(parent, Slot) and parent.slots is self

    def _find_lender(self, parents: list[Parent]) -> Slot | None:
        """Return the innermost of these parents that lends its slot to a call inside them all."""
        for parent in parents:
            if self._owns(parent) and self._would_lend(parent, parents):
                return parent
        return None

    def _would_lend(self, lender: Slot, parents: Iterable[Parent]) -> bool:
        """Return whether ``lender`` is free for a call with these parents, of which it is one."""
        if lender.borrower is not None:
            return False
        # An owing slot is not for tasks that are waited for: is one between the call and the item?
        inside = takewhile(lambda parent: parent is not lender, parents)
        return lender not in self._owing or not any(isinstance(each, Awaited) for each in inside)

    def _lend(self, lender: Slot) -> Slot:
        lender.borrower = Slot(self, lender)
        return lender.borrower

    def _lend_to_next(self, lender: Slot) -> None:
        """Lend a slot to the first request inside its item that may have it."""
        while lender.borrower is None:
            request = next(
                (each for each in lender.requests if self._would_lend(lender, each.parents)), None
            )
            if request is None:
                return
            self._hand_over(request, lender)  # if its task is cancelled, the next one gets it

    def _settle(self) -> None:
        """Let slots that owe lend again, the oldest first, as far as the limit is kept."""
        while len(self._owing) > max(0, self.in_use - self.limit):
            slot, _ = self._owing.popitem(last=False)
            self._lend_to_next(slot)

    def _hand_over(self, request: Request, lender: Slot | None) -> None:
        """
        Take a request out of the queue and wake its task with a slot, lent or counted.

        If the task is being cancelled it leaves the queue without one, and nothing has changed.
        """
        self._leave_parents(request)
        if self.queue.wake(request.waiter):
            # Only now, that it is sure to be used or passed on. The task has not resumed yet.
            request.slot = slot = self.force() if lender is None else self._lend(lender)
            slot.around = request.around

    def _leave_parents(self, request: Request) -> None:
        for parent in request.parents:
            parent.requests.pop(request, None)
        request.parents = ()


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
        self._reconsider_requests()

    def end_wait(self, link: Link) -> None:
        """Note that it waits no more, and take back what it lent."""
        if link in self._waits:
            self._waits.remove(link)
        self._reconsider_requests()
        for parent in parents_of(link):
            if isinstance(parent, Slot):
                parent.slots.reclaim(parent)

    def end_waits(self) -> None:
        """Note that all items that wait for it go on."""
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
        if self.requests:
            self._reconsider_requests()

    def _reconsider_requests(self) -> None:
        for request in list(self.requests):
            request.slots.reconsider(request)
