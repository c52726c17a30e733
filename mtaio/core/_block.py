"""
What happens between entering and leaving ``async with executor:``.

Promise: submitted tasks and services live inside the block and nowhere else. Leaving it drains
the work, then ends the services; an error leaves no survivors; a failure that nobody awaited is
raised by the block.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from mtaio._internal import loops, scope
from mtaio._internal.cancellation import Stray, classify
from mtaio.core._failures import conclude, silent_end
from mtaio.core._nesting import enclosures, here
from mtaio.core._slots import Slots, Waiter
from mtaio.core._unseen import Unseen
from mtaio.exceptions import StrayCancellationError

if TYPE_CHECKING:
    from mtaio.core._service import Service
    from mtaio.core._submitted import Submitted


class Places(Slots):
    """
    Room for unfinished submitted tasks.

    Whoever waits here inside an item of the executor, be it since somebody began to wait for him,
    is let in beyond the limit: the item could not end otherwise.
    """

    __slots__ = ("_slots",)

    def __init__(self, limit: int, slots: Slots) -> None:
        super().__init__(limit, slots)
        self._slots = slots

    def look_again(self, waiter: Waiter) -> None:
        """Find out anew what encloses the waiter."""
        super().look_again(waiter)
        if self._slots.lenders(waiter.around):
            self.grant(waiter, self.force())


class Block:
    """
    One block, from entering to leaving; made in its event loop.

    Invariants:
    - ``tasks`` are the submitted tasks that have not ended, in the order of submission;
    - ``services`` are those that have not ended;
    - ``joining`` counts the calls of submit that were let in and have not started their task yet;
    - no task is started once ``ending``: the task group is being left.
    """

    def __init__(self, places: Places | None) -> None:
        self.loop = loops.current_loop()
        self.group = anyio.create_task_group()
        self.places = places
        self.tasks: OrderedDict[Submitted, None] = OrderedDict()
        self.services: OrderedDict[Service, None] = OrderedDict()
        self.unseen = Unseen()
        self.ending = False
        self.joining = 0
        self._draining = 0
        self._cutting_short = 0

    async def leave(self, exc: BaseException | None) -> bool:
        """Leave the block, which ended with ``exc``; return whether that is dealt with."""
        reason = await self._wind_down() if exc is None else exc
        self.ending = True
        from_outside = reason is not None and isinstance(classify(reason), Stray)
        swallowed, left, escaped = await scope.leave(self.group, reason)
        if escaped:
            left = None
        for task in [*self.tasks]:
            task.never_ran()
        errors = self.unseen.take()
        if from_outside:
            # Task.cancel() came for this task, and then it probably came for all of them.
            errors = [each for each in errors if not isinstance(each, StrayCancellationError)]
            escaped = tuple(
                each for each in escaped if not isinstance(each, StrayCancellationError)
            )
        if swallowed:
            errors.append(silent_end())  # a task was cancelled natively before its first step
        conclude([*enumerate(errors)], escaped)
        if left is None and exc is None and not swallowed:
            left = reason
        if left is not None:
            raise left
        return swallowed

    async def _wind_down(self) -> BaseException | None:
        """Drain, then end the services; return what prevented it."""
        try:
            await self._until_idle()
        except BaseException as error:  # noqa: BLE001 - the task group has to see it first
            return error
        for service in self.services:
            service.cancel()
        return None

    async def _until_idle(self) -> None:
        while self.tasks or self.joining:
            if self.tasks:
                # One by one, because waiting for a task lends it the slot of the item that waits.
                await next(iter(self.tasks)).wait()
            else:
                await checkpoint()  # there is room for those who join, so they are about to

    async def drain(self, timeout: float | None) -> bool:
        """Wait for all tasks; cancel those that are left after ``timeout`` seconds."""
        self._draining += 1
        try:
            await checkpoint()
            with anyio.move_on_after(timeout):
                await self._until_idle()
            if not (self.tasks or self.joining):
                return True
            self._cutting_short += 1
            try:
                for task in self.tasks:
                    task.cancel()
                await self._until_idle()
            finally:
                self._cutting_short -= 1
            return False
        finally:
            self._draining -= 1

    def cancel(self) -> None:
        """Cancel all tasks and services."""
        for task in (*self.tasks, *self.services):
            task.cancel()

    def refuses(self, *, joined: bool) -> str | None:
        """
        Return what the block is doing, if it takes no new work meanwhile.

        Args:
            joined: Whether the call was let in before; draining includes those.
        """
        if self.ending:
            return "being left"
        if self._cutting_short or (self._draining and not joined and not self.encloses_caller()):
            return "draining"
        return None

    def cuts_caller_short(self) -> bool:
        """Tell whether the running code is part of a task that `drain` has cancelled."""
        return bool(self._cutting_short) and self.encloses_caller()

    def encloses_caller(self) -> bool:
        """Tell whether the running code is part of a submitted task."""
        return any(each in self.tasks for each in enclosures(here()))
