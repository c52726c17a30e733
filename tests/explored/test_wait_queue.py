"""The queue in which tasks wait, under many schedules, cancelled everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from mtaio._internal.wait_queue import WaitQueue
from tests.explored.searches import Line, explored, together

if TYPE_CHECKING:
    from mtaio.testing import Simulation, Victim


class Baton:
    """The least that can be handed over: one baton, passed on by whoever has it."""

    def __init__(self, sim: Simulation) -> None:
        self.queue = WaitQueue[str]()
        self.line = Line()
        self.free = True
        self.holders = 0
        self.quitting: set[str] = set()  # cancelled, though they may not have noticed it yet
        sim.always(lambda: self.holders <= 1 and not (self.free and self.holders))

    def pass_on(self) -> None:
        """Hand it to the next, or lay it down."""
        self.free = not self.queue.wake_next()

    async def hold(self, name: str) -> None:
        """Wait for it, hold it for a step, and pass it on."""
        self.line.asks(name)
        try:
            if self.free:
                self.free = False
            else:
                self.queue.attach(self)
                waiter = self.queue.join(name)
                try:
                    await waiter
                except BaseException:
                    if self.queue.leave(waiter):
                        self.pass_on()
                    raise
        except BaseException:
            self.line.leaves(name)
            raise
        ahead = self.line.gets(name)
        assert {*self.line.names[:ahead]} <= self.quitting, self.line.served
        self.holders += 1
        try:
            await checkpoint()
        finally:
            self.holders -= 1
            self.pass_on()

    def ends(self, *served: str) -> None:
        """Make sure that it lies there, and that those who were not cancelled have had it."""
        assert self.free
        assert len(self.queue) == len(self.line) == 0
        assert set(served) <= set(self.line.served)


@explored
async def test_handed_from_one_to_the_next(victim: Victim, sim: Simulation) -> None:
    """What is handed to a task that gives up goes to the next, in the order of asking."""
    baton = Baton(sim)
    await together(
        a=lambda: baton.hold("a"),
        victim=lambda: victim(baton.hold, "victim"),
        b=lambda: baton.hold("b"),
        c=lambda: baton.hold("c"),
    )
    baton.ends("a", "b", "c")


@explored
async def test_several_give_up_as_it_comes(victim: Victim, sim: Simulation) -> None:
    """Those in front are cancelled as they are woken: it is neither lost nor doubled."""
    baton = Baton(sim)
    baton.quitting.add("victim")
    first, second = anyio.CancelScope(), anyio.CancelScope()

    async def quitter(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            await baton.hold(name)

    async def other() -> None:
        baton.quitting.add("first")
        first.cancel()
        await checkpoint()
        baton.quitting.add("second")
        second.cancel()

    await together(
        a=lambda: baton.hold("a"),
        first=lambda: quitter("first", first),
        victim=lambda: victim(baton.hold, "victim"),
        second=lambda: quitter("second", second),
        other=other,
        last=lambda: baton.hold("last"),
    )
    baton.ends("a", "last")
