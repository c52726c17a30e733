"""
Parked tasks, woken in the order in which they parked: what every primitive here waits on.

Promise: parking, leaving from anywhere in the queue and waking cost the same however many tasks
wait; a task that is woken but cancelled before it resumes passes on what it was woken for. A lot
is made anywhere and used by one event loop after another: tasks of a loop that has finished are
forgotten, and two running loops are an error that says what to do.
Cost: one event for each task that waits.
Source: ``trio.lowlevel.ParkingLot``.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import current_token

from mtaio._internal import loops

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ParkingLot"]


class ParkingLot:
    """
    A FIFO queue of parked tasks.

    ``len(lot)`` is how many tasks are parked.

    Attributes:
        tasks: An event for each parked task, oldest first. For a hot path to see whether there are
            any without a call; not to be changed.
    """

    # Invariants:
    # - an event is in tasks, or set, or its task has given up: never two of these;
    # - all in tasks belong to _loop, which _ask returns if it runs here.
    __slots__ = ("_ask", "_loop", "tasks")

    def __init__(self) -> None:
        self.tasks: OrderedDict[anyio.Event, None] = OrderedDict()
        self._loop: object = None
        self._ask: Callable[[], object]

    def __len__(self) -> int:
        return len(self.tasks)

    def attach(self, owner: object) -> bool:
        """
        Make ready for a task of the running loop that is about to park.

        Args:
            owner: The object that the lot belongs to, for the message.

        Returns:
            Whether that loop has finished, so that its tasks were forgotten.

        Raises:
            RuntimeError: Tasks of another loop, which has not finished, wait here.
        """
        loop: object = current_token().native_token
        before = self._loop
        if before is loop:
            return False
        forgets = before is not None and bool(self.tasks)
        if forgets:
            if not loops.is_over(before):
                raise loops.two_loops_error(owner)
            self.tasks.clear()
        self._loop, self._ask = loop, loops.asker_of(loop)
        return forgets

    def call_there(self, fn: Callable[[], object]) -> None:
        """
        Call ``fn`` where parked tasks may be woken: here at once, or else soon, in their loop.

        From any thread. If their loop has finished, they are forgotten, and ``fn`` is called here.
        """
        loop = self._loop
        if loop is not None and not self._runs_here():
            # By the time that it is called there, tasks of another loop may be parked.
            if not loops.is_over(loop) and loops.call_in(loop, partial(self.call_there, fn)):
                return
            # So they may by now. Nothing is called between the look and the clearing, so no other
            # thread runs between: those of the next loop are not forgotten with the last.
            if self._loop is not loop:
                self.call_there(fn)
                return
            self.tasks.clear()
        fn()

    def _runs_here(self) -> bool:
        """Return whether the loop runs in this thread, also in a callback without any context."""
        try:
            return self._ask() is self._loop
        except RuntimeError:  # trio's answer where it does not run
            return False

    def forget(self) -> None:
        """Forget every parked task: their loop has finished."""
        self.tasks.clear()

    async def park(
        self,
        on_lost: Callable[[], object] | None = None,
        on_parked: Callable[[], object] | None = None,
    ) -> None:
        """
        Wait to be woken.

        Args:
            on_parked: Called when the task is in the queue, where other threads see it.
            on_lost: Called for a task that was woken and is cancelled before it resumes, to pass
                on what it was woken for. By default the next task is woken.
        """
        event = anyio.Event()
        self.tasks[event] = None
        if on_parked is not None:
            on_parked()
        try:
            await event.wait()
        except BaseException:
            if event.is_set():
                (on_lost or self.unpark)()
            else:
                self.tasks.pop(event, None)  # not there if its loop was thought to be over
            raise

    def unpark(self) -> None:
        """Wake the task that has been parked longest, if there is one."""
        if self.tasks:
            self.tasks.popitem(last=False)[0].set()

    def unpark_all(self) -> None:
        """Wake every parked task."""
        while self.tasks:
            self.unpark()
