"""ConcurrencyLimiter under many schedules, cancelled everywhere."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio import exceptions
from mtaio._internal.checkpoints import FAST_CALLS
from mtaio.resources import ConcurrencyLimiter
from mtaio.testing import Simulation, Victim, assert_no_checkpoints, assert_quiescent
from tests.explored.searches import Line, explored, together

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.explored.searches import Task


async def a_second() -> None:
    """Last."""
    await anyio.sleep(1)


class Watched:
    """
    A limiter, its queue and the tasks inside, with what must hold after every step.

    Args:
        sim: Where it is watched.
        limit: Slots.
        max_waiting: As for the limiter.
    """

    def __init__(self, sim: Simulation, limit: int, *, max_waiting: int | None = None) -> None:
        self.limiter = ConcurrencyLimiter(limit, max_waiting=max_waiting)
        self.line = Line()
        self.inside = 0
        self.allowed = limit
        self.most_allowed = limit
        self.most = 0
        sim.always(self.holds)

    def holds(self) -> bool:
        """Return whether the limiter keeps its promise at this moment."""
        now = self.limiter.statistics()
        self.most = max(self.most, now.in_use)
        fits = self.inside <= now.in_use <= self.allowed
        self.allowed = max(now.limit, min(self.allowed, now.in_use))  # it shrinks as slots return
        idle = now.waiting > 0 and now.in_use < now.limit
        bounded = self.limiter.max_waiting is None or now.waiting <= self.limiter.max_waiting
        return fits and not idle and bounded and now.waiting <= len(self.line)

    def set_limit(self, slots: int) -> None:
        """Change the limit; what is in use already may stay above it."""
        self.allowed = max(slots, self.limiter.statistics().in_use)
        self.most_allowed = max(self.most_allowed, slots)
        self.limiter.limit = slots

    def gets(self, name: str) -> None:
        """Note that a task is inside, and look whether it may be."""
        earlier = self.line.gets(name)
        # Those who asked before may not have resumed yet, but all must have been given a slot.
        assert self.limiter.statistics().waiting <= len(self.line) - earlier, self.line.served
        self.inside += 1

    @contextmanager
    def asking(self, name: str) -> Generator[None]:
        """Be in the queue inside the block."""
        self.line.asks(name)
        try:
            yield
        except BaseException:
            self.line.leaves(name)
            raise
        self.gets(name)

    async def work(self, name: str, then: Task = checkpoint) -> None:
        """Take a slot by hand, do something with it, and give it back."""
        with self.asking(name):
            await self.limiter.acquire()
        try:
            await then()
        finally:
            self.inside -= 1
            self.limiter.release()

    async def block(self, name: str) -> None:
        """Do the same with ``async with``."""
        self.line.asks(name)
        try:
            async with self.limiter:
                self.gets(name)
                try:
                    await checkpoint()
                finally:
                    self.inside -= 1
        except BaseException:
            if name not in self.line.served:
                self.line.leaves(name)
            raise

    def ends(self, *served: str) -> None:
        """Make sure that nothing is left, and that the tasks not cancelled were served."""
        now = self.limiter.statistics()
        assert set(served) <= set(self.line.served)
        assert now.acquired == len(self.line.served)
        assert self.most <= now.peak <= self.most_allowed
        assert (self.inside, len(self.line)) == (0, 0)
        assert_quiescent(self.limiter)


@explored
async def test_one_slot_goes_round(victim: Victim, sim: Simulation) -> None:
    """One slot, four who want it: one at a time, in order, and a cancelled one delays none."""
    watched = Watched(sim, 1)
    await together(
        a=lambda: watched.work("a"),
        victim=lambda: victim(watched.work, "victim"),
        b=lambda: watched.block("b"),
        c=lambda: watched.work("c"),
    )
    watched.ends("a", "b", "c")
    statistics = watched.limiter.statistics()
    assert statistics.cancelled == len(watched.line.left) <= victim.cancelled
    assert statistics.peak == 1


@explored
async def test_waiters_give_up_long_before_their_turn(victim: Victim, sim: Simulation) -> None:
    """A waiter that has left is never handed a slot, at the front of the queue or in the middle."""
    watched = Watched(sim, 1)
    quits = anyio.CancelScope()

    async def quitter() -> None:
        with quits:
            await watched.work("quitter")

    async def other() -> None:
        await checkpoint()
        quits.cancel()

    await together(
        a=lambda: watched.work("a", a_second),
        victim=lambda: victim(watched.work, "victim"),
        b=lambda: watched.work("b"),
        quitter=quitter,
        other=other,
        c=lambda: watched.block("c"),
    )
    watched.ends("a", "b", "c")


@explored
async def test_two_slots_go_round(victim: Victim, sim: Simulation) -> None:
    """Two slots, five tasks, the victim in an ``async with``."""
    watched = Watched(sim, 2)
    await together(
        a=lambda: watched.work("a"),
        b=lambda: watched.block("b"),
        victim=lambda: victim(watched.block, "victim"),
        c=lambda: watched.work("c"),
        d=lambda: watched.work("d"),
    )
    watched.ends("a", "b", "c", "d")


@explored
async def test_waiters_give_up_as_slots_come_back(victim: Victim, sim: Simulation) -> None:
    """Slots come back, waiters are cancelled by others and the victim waits, all at one moment."""
    watched = Watched(sim, 1)
    first, second = anyio.CancelScope(), anyio.CancelScope()

    async def quitter(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            await watched.work(name)

    async def other() -> None:
        await checkpoint()
        first.cancel()
        await checkpoint()
        second.cancel()

    await together(
        holder=lambda: watched.work("holder"),
        first=lambda: quitter("first", first),
        second=lambda: quitter("second", second),
        victim=lambda: victim(watched.work, "victim"),
        other=other,
        last=lambda: watched.work("last"),
    )
    watched.ends("holder", "last")


@explored
async def test_patience_ends_as_a_slot_comes_back(victim: Victim, sim: Simulation) -> None:
    """A slot comes back at the very moment of two waiters' deadlines: got or not, never both."""
    watched = Watched(sim, 1)
    late: list[tuple[float, float | None]] = []

    async def patient(name: str) -> None:
        try:
            with watched.asking(name):
                await watched.limiter.acquire(timeout=1)
        except exceptions.TimeoutError as error:
            late.append((sim.time(), error.deadline))
        else:
            watched.inside -= 1
            watched.limiter.release()

    await together(
        holder=lambda: watched.work("holder", a_second),
        a=lambda: patient("a"),
        victim=lambda: victim(patient, "victim"),
        b=lambda: watched.work("b"),
    )
    watched.ends("holder", "b")
    statistics = watched.limiter.statistics()
    assert statistics.timed_out == len(late)
    assert set(late) <= {(1.0, 1.0)}
    assert statistics.timed_out + statistics.cancelled == len(watched.line.left)


@explored
async def test_full_queue(victim: Victim, sim: Simulation) -> None:
    """With room for one waiter the others are refused at once, and who leaves makes room."""
    watched = Watched(sim, 1, max_waiting=1)
    refused: list[str] = []

    async def pushy(name: str) -> None:
        try:
            await watched.work(name)
        except exceptions.ConcurrencyLimitError:
            assert name in watched.line.left
            refused.append(name)

    await together(
        a=lambda: pushy("a"),
        victim=lambda: victim(pushy, "victim"),
        b=lambda: pushy("b"),
        c=lambda: pushy("c"),
    )
    watched.ends()
    statistics = watched.limiter.statistics()
    assert statistics.rejected == len(refused)
    assert statistics.rejected + statistics.cancelled == len(watched.line.left)
    assert len(refused) < 3
    await watched.work("later")
    watched.ends("later")


@explored
async def test_limit_changes_while_tasks_wait(victim: Victim, sim: Simulation) -> None:
    """Lowered to nothing, raised to two, lowered to one: each takes effect as it can, in order."""
    watched = Watched(sim, 1)

    async def operator() -> None:
        watched.set_limit(0)
        await checkpoint()
        watched.set_limit(2)
        await checkpoint()
        watched.set_limit(1)

    await together(
        a=lambda: watched.work("a"),
        victim=lambda: victim(watched.work, "victim"),
        operator=operator,
        b=lambda: watched.work("b"),
        c=lambda: watched.work("c"),
    )
    watched.ends("a", "b", "c")


@explored
async def test_the_operator_is_the_victim(victim: Victim, sim: Simulation) -> None:
    """The task that raises the limit may be cancelled after it: what was let in is in."""
    watched = Watched(sim, 1)

    async def operator() -> None:
        await checkpoint()
        watched.set_limit(3)
        await checkpoint()
        watched.set_limit(1)

    await together(
        a=lambda: watched.work("a", a_second),
        b=lambda: watched.work("b", a_second),
        operator=lambda: victim(operator),
        c=lambda: watched.work("c", a_second),
    )
    watched.ends("a", "b", "c")


@explored
async def test_slots_given_back_by_others(victim: Victim, sim: Simulation) -> None:
    """A slot belongs to no task: who takes it may leave, be cancelled, and another returns it."""
    watched = Watched(sim, 2)
    taken: list[str] = []

    async def taker(name: str) -> None:
        with watched.asking(name):
            await watched.limiter.acquire()
        taken.append(name)

    async def giver() -> None:
        back = 0
        while back + len(watched.line.left) < 4:
            if taken:
                taken.pop()
                back += 1
                watched.inside -= 1
                watched.limiter.release()
            await checkpoint()

    await together(
        a=lambda: taker("a"),
        b=lambda: taker("b"),
        victim=lambda: victim(taker, "victim"),
        c=lambda: taker("c"),
        giver=giver,
    )
    watched.ends("a", "b", "c")


@explored
async def test_nested_blocks(victim: Victim, sim: Simulation) -> None:
    """One task may hold two slots; cancelled between them it gives back what it has."""
    watched = Watched(sim, 3)

    async def both(name: str) -> None:
        await watched.work(f"{name}1", then=lambda: watched.block(f"{name}2"))

    # Three slots for two tasks that need two each: one of them always gets on.
    await together(
        a=lambda: both("a"), victim=lambda: victim(both, "v"), b=lambda: watched.work("b")
    )
    watched.ends("a1", "a2", "b")


@explored
async def test_no_task_barges_in(victim: Victim, sim: Simulation) -> None:
    """acquire_nowait gets a slot only when no task waits for it, and counts what it refuses."""
    watched = Watched(sim, 1)
    refused = 0

    async def barger() -> None:
        nonlocal refused
        for name in ("x", "y", "z"):
            try:
                with watched.asking(name):
                    watched.limiter.acquire_nowait()
            except exceptions.ConcurrencyLimitError:
                refused += 1
                await checkpoint()
                continue
            try:
                await checkpoint()
            finally:
                watched.inside -= 1
                watched.limiter.release()

    await together(
        a=lambda: watched.work("a"),
        victim=lambda: victim(watched.work, "victim"),
        barger=barger,
        b=lambda: watched.work("b"),
    )
    watched.ends("a", "b")
    assert watched.limiter.statistics().rejected == refused


@explored
async def test_the_call_that_must_yield(victim: Victim, sim: Simulation) -> None:
    """The 64th call yields with its slot in hand: cancelled there it gives the slot back."""
    watched = Watched(sim, 1)
    for _ in range(FAST_CALLS - 1):
        with assert_no_checkpoints():
            async with watched.limiter:
                pass
    before = watched.limiter.statistics().acquired

    await together(
        victim=lambda: victim(watched.block, "victim"),
        a=lambda: watched.work("a"),
        b=lambda: watched.block("b"),
    )
    assert watched.limiter.statistics().acquired - before == len(watched.line.served)
    assert {"a", "b"} <= set(watched.line.served)
    assert_quiescent(watched.limiter)


@explored
async def test_decorated_functions_that_fail(victim: Victim, sim: Simulation) -> None:
    """Errors and cancellations inside a limited function give the slot back, and go on."""
    limiter = ConcurrencyLimiter(1)
    inside = 0
    sim.always(lambda: inside <= limiter.statistics().in_use <= 1)

    @limiter
    async def fail(number: int) -> None:
        nonlocal inside
        inside += 1
        try:
            await checkpoint()
            raise LookupError(number)
        finally:
            inside -= 1

    async def call(number: int) -> None:
        with pytest.raises(LookupError, match=f"^{number}$"):
            await fail(number)

    await together(one=lambda: call(1), victim=lambda: victim(call, 2), three=lambda: call(3))
    assert_quiescent(limiter)


@explored
async def test_a_release_too_many(victim: Victim, sim: Simulation) -> None:
    """A release without a slot is refused at any moment, and disturbs no task."""
    watched = Watched(sim, 1)

    async def confused() -> None:
        for _ in range(2):
            if not watched.limiter.statistics().in_use:
                with pytest.raises(RuntimeError, match=r"^cannot release a slot of "):
                    watched.limiter.release()
            with pytest.raises(ValueError, match=r"^timeout=-1 is "):
                await watched.limiter.acquire(timeout=-1)
            with pytest.raises(ValueError, match=r"^limit=-1 is "):
                watched.limiter.limit = -1
            await checkpoint()

    await together(
        a=lambda: watched.work("a"),
        victim=lambda: victim(watched.work, "victim"),
        confused=confused,
        b=lambda: watched.work("b"),
    )
    watched.ends("a", "b")
