"""Slots under random events, against a plain model of which items contain which."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtaio.core._slots import Awaited, Link, Request, Slot, Slots, parents_of
from mtaio.testing import run

if TYPE_CHECKING:
    import asyncio

# ---- the model: who runs inside whom, told by walking outwards every time ------------------------


@dataclass(eq=False)
class Item:
    """An item, and where it was asked for."""

    slot: Slot
    number: int
    around: Place
    alive: bool = True

    @property
    def link(self) -> Link:
        """Return what the item's code has as its context."""
        return self.slot, self.number


@dataclass(eq=False)
class Job:
    """A submitted task, and the items that wait for it."""

    awaited: Awaited = field(default_factory=Awaited)
    waits: list[Item] = field(default_factory=list)
    alive: bool = True

    @property
    def link(self) -> Link:
        """Return what the task's code has as its context."""
        return self.awaited, 0


@dataclass(eq=False)
class Asking:
    """A call in the queue of a pool, or one that was granted a slot and has not resumed."""

    pool: Slots
    around: Place
    request: Request
    cancelled: bool = False


Place: TypeAlias = "Item | Job | None"


def living(place: Place) -> Place:
    """Return the place, or if it has ended the nearest around it that has not."""
    while place is not None and not place.alive:
        place = place.around if isinstance(place, Item) else None
    return place


def around(place: Place) -> set[Item]:
    """Return all items inside which code at this place runs."""
    found: set[Item | Job] = set()
    pending = [place]
    while pending:
        each = living(pending.pop())
        if each is None or each in found:
            continue
        found.add(each)
        pending += [each.around] if isinstance(each, Item) else each.waits
    return {each for each in found if isinstance(each, Item)}


# ---- the machine that plays a script -------------------------------------------------------------

Step: TypeAlias = tuple[str, int, int]

VERBS = (
    "pause",  # the simplest, so that a failing script shrinks to what matters
    "ask",
    "ask",
    "ask",
    "resume",
    "resume",
    "end",
    "end",
    "next",
    "give up",
    "cancel",
    "submit",
    "wait",
    "wait",
    "stop waiting",
    "end task",
)

scripts = st.lists(
    st.tuples(st.sampled_from(VERBS), st.integers(0, 31), st.integers(0, 31)),
    min_size=30,
    max_size=80,
)


class World:
    """Two pools, the items and tasks in them, and a judge of every step."""

    def __init__(self, limits: tuple[int, int]) -> None:
        self.pools = [Slots(limit, None) for limit in limits]
        self.items: list[Item] = []
        self.jobs: list[Job] = []
        self.waits: list[tuple[Job, Item]] = []
        self.asking: list[Asking] = []
        self.numbers = 0

    # -- steps: each picks by number from what there is, or does nothing --

    def pause(self, _a: int, _b: int) -> None:
        """Do nothing."""

    def ask(self, a: int, b: int) -> None:
        """Ask for a slot, anywhere."""
        pool = self.pools[a % 2]
        places: list[Place] = [None, *self.items, *self.jobs]
        self.ask_at(pool, places[b % len(places)])

    def ask_at(self, pool: Slots, place: Place) -> None:
        """Ask for a slot from this place."""
        link = None if place is None else place.link
        slot = pool.acquire_nowait(link)
        if slot is None:
            self.asking.append(Asking(pool, place, pool.enqueue(link)))
        else:
            self.start(slot, place)

    def start(self, slot: Slot, place: Place) -> None:
        """Start an item."""
        self.numbers += 1
        slot.item = self.numbers
        self.items.append(Item(slot, self.numbers, place))

    def resume(self, a: int, _: int) -> None:
        """Let a call that was granted a slot start."""
        granted = [each for each in self.asking if each.request.slot is not None]
        if granted:
            asking = granted[a % len(granted)]
            self.asking.remove(asking)
            assert asking.request.slot is not None
            assert not asking.cancelled, "a slot for a task that was cancelled before"
            self.start(asking.request.slot, asking.around)

    def give_up(self, a: int, _: int) -> None:
        """Cancel a call that asks, in the queue or as it is granted a slot."""
        if self.asking:
            asking = self.asking.pop(a % len(self.asking))
            asking.pool.give_up(asking.request)

    def cancel(self, a: int, _: int) -> None:
        """Cancel the wait of a call, which gives up only later."""
        waiting = [each for each in self.asking if each.request.slot is None and not each.cancelled]
        if waiting:
            asking = waiting[a % len(waiting)]
            asking.cancelled = True
            future: asyncio.Future[None] = next(asking.request.waiter.__await__())
            future.cancel()

    def end(self, a: int, _: int) -> None:
        """End an item and give its slot back."""
        if self.items:
            item = self.finish(a)
            item.slot.slots.release(item.slot)

    def next(self, a: int, _: int) -> None:
        """Go on to the next item in the same slot as a worker does, or ask for another."""
        if not self.items:
            return
        item = self.finish(a)
        pool = item.slot.slots
        slot = pool.end_item(item.slot)
        if slot is not None and not pool.contended(slot):
            self.start(slot, item.around)
        else:
            if slot is not None:
                pool.release(slot)
            self.ask_at(pool, item.around)

    def finish(self, a: int) -> Item:
        """End an item."""
        item = self.items.pop(a % len(self.items))
        item.alive = False
        return item

    def submit(self, _a: int, _b: int) -> None:
        """Submit a task."""
        self.jobs.append(Job())

    def wait(self, a: int, b: int) -> None:
        """Let an item wait for a task."""
        if self.items and self.jobs:
            item, job = self.items[a % len(self.items)], self.jobs[b % len(self.jobs)]
            job.waits.append(item)
            job.awaited.add_wait(item.link)
            self.waits.append((job, item))

    def stop_waiting(self, a: int, _: int) -> None:
        """Let it wait no more."""
        if self.waits:
            job, item = self.waits.pop(a % len(self.waits))
            if job.alive:
                job.waits.remove(item)
            job.awaited.end_wait(item.link)

    def end_task(self, a: int, _: int) -> None:
        """End a task."""
        if self.jobs:
            job = self.jobs.pop(a % len(self.jobs))
            job.alive = False
            job.waits.clear()
            job.awaited.end()

    # -- the judge --

    def play(self, step: Step) -> None:
        """Take one step, and judge it."""
        verb, a, b = step
        before = [pool.in_use for pool in self.pools]
        queues = [list(pool.queue.waiters.values()) for pool in self.pools]
        getattr(self, verb.replace(" ", "_"))(a, b)
        for pool, was, queue in zip(self.pools, before, queues, strict=True):
            if verb != "stop waiting":
                assert pool.in_use <= max(pool.limit, was), "beyond the limit"
            self.judge(pool, queue)

    def judge(self, pool: Slots, queue_before: list[Request]) -> None:
        """Check all that must hold after a step."""
        queue = list(pool.queue.waiters.values())
        assert not (queue and pool.in_use < pool.limit), "a free slot and a waiter"
        granted = [each for each in queue_before if each.slot is not None]
        for request in granted:
            if request.slot in self.unparented(pool):
                first = next(each for each in queue_before if not self.is_cancelled(each))
                assert request is first, "first come, first served"
                assert pool.in_use <= pool.limit, "what is beyond the limit is paid back first"
        waiting = {each.request: each for each in self.asking if each.pool is pool}
        assert [w for w in waiting if w.slot is None and not self.is_cancelled(w)] == [
            w for w in queue if not self.is_cancelled(w)
        ], "the queue keeps its order"
        for request in queue:
            lenders = {item.slot for item in around(waiting[request].around)}
            lenders = {slot for slot in lenders if slot.slots is pool}
            assert lenders == {
                each
                for each in parents_of(request.around)
                if isinstance(each, Slot) and each.slots is pool
            }, "who encloses a request"
            for slot in lenders:
                assert slot.borrower is not None or self.must_wait(request, slot), (
                    "an idle slot and a request inside its item"
                )
                assert request in slot.requests
        slots = self.slots_of(pool)
        assert pool.in_use == sum(slot.lender is None for slot in slots), "slots are counted"
        for slot in slots:
            assert slot.lender is None or slot.lender.borrower is slot
            assert slot.borrower is None or slot.borrower.lender is slot
            assert slot.borrower is None or slot.borrower in slots
            for request in slot.requests:
                assert slot.borrower is not None or self.must_wait(request, slot)
                assert request in queue, "a request that does not wait"
                inside = {item.slot for item in around(waiting[request].around)}
                assert slot in inside, "a request of a task that is not inside"
        users = {asking.request.slot: asking.around for asking in self.asking}
        users |= {item.slot: item.around for item in self.items}
        idle = set[Item]().union(*(around(item) for _, item in self.waits))
        for item in self.items:
            if item.slot.borrower is not None and item not in idle:
                assert item in around(users[item.slot.borrower]), "a borrower that is not inside"

    def is_cancelled(self, request: Request) -> bool:
        """Return whether the task that waits is being cancelled."""
        return any(each.cancelled for each in self.asking if each.request is request)

    def must_wait(self, request: Request, slot: Slot) -> bool:
        """Return whether the request is of a task that is waited for, and the limit exceeded."""
        asking = next(each for each in self.asking if each.request is request)
        place = living(asking.around)
        while isinstance(place, Item) and place.slot is not slot:
            place = living(place.around)
        return isinstance(place, Job) and slot.slots.in_use > slot.slots.limit

    def slots_of(self, pool: Slots) -> set[Slot]:
        """Return the slots that are held."""
        held = {item.slot for item in self.items}
        held |= {each.request.slot for each in self.asking if each.request.slot is not None}
        return {slot for slot in held if slot.slots is pool}

    def unparented(self, pool: Slots) -> set[Slot]:
        """Return those that count."""
        return {slot for slot in self.slots_of(pool) if slot.lender is None}

    def close(self) -> None:
        """Let everything end; all that wait must be served."""
        while self.waits:
            self.play(("stop waiting", 0, 0))
        while self.jobs:
            self.play(("end task", 0, 0))
        for asking in [each for each in self.asking if each.cancelled]:
            self.play(("give up", self.asking.index(asking), 0))
        while self.items or self.asking:
            waiting = len(self.asking)
            self.play(("resume", 0, 0))
            if len(self.asking) == waiting:
                assert self.items, "all wait, none runs"
                self.play(("end", len(self.items) - 1, 0))
        for pool in self.pools:
            assert pool.in_use == 0
            assert not pool.queue


OUTLIVING: list[Step] = [
    *[("ask", 0, 0), ("submit", 0, 0), ("wait", 0, 0)],
    *[("ask", 0, 2), ("ask", 0, 3), ("end task", 0, 0)],
]
"""What a task started waits for a slot, and the task ends."""


@settings(max_examples=60)
@example((1, 1), OUTLIVING)
@given(st.tuples(st.integers(1, 3), st.integers(1, 2)), scripts)
def test_slots_keep_their_promises_in_any_order_of_events(
    limits: tuple[int, int], script: list[Step]
) -> None:
    """FIFO, within the limit, no call waits inside an item whose slot is idle, nothing leaks."""

    async def play() -> None:
        world = World(limits)
        for step in script:
            world.play(step)
        world.close()

    run(play)
