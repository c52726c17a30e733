"""
What happens between entering and leaving ``async with executor:``.

Promise: submitted tasks and services live inside the block and nowhere else. Leaving it drains
the work, then ends the services; an error leaves no survivors; a failure that was never
looked at is raised by the block. Where no place is free, submitting waits, in order.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from mtaio._internal.block import OwnedBlock
from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import Stray, classify
from mtaio._internal.checkpoints import checkpoint, checkpoint_if_cancelled
from mtaio._internal.notes import note
from mtaio.core._errors import conclude, silent_end
from mtaio.core._slots import Slots, here, parents_of
from mtaio.core._tasks import HandleGuard, Service, Submitted, TaskHandle
from mtaio.exceptions import LimitError, MTAIOError, StrayCancellationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from mtaio._internal.backend import Backend
    from mtaio._internal.periodic import Periodic
    from mtaio.core._slots import Slot
    from mtaio.core._statistics import Counters
    from mtaio.core._tasks import Task
    from mtaio.resilience import Retry

__all__ = ["MOST_KEPT", "Block"]

MOST_KEPT: Final = 1000
"""How many errors are kept for the end of the block; later ones are only counted."""


class Block:
    """
    One block, from entering to leaving; made in its event loop.

    Args:
        owner: The executor, for messages.
        slots: Where the slots of submitted tasks come from; None if there is no limit.
        max_pending: How many submitted tasks may wait for a slot beyond that limit; None for all.
        counters: Where the items are counted.
        on_lost: Called at once with the name and the error of a submitted task that has failed, if
            its handle is gone, so that nobody can look at it before the end of the block. Once the
            block is being left, that end says so.

    Attributes:
        loop, half, task, is_current: As those of `OwnedBlock`.
        on_lost: What was passed, until the block is being left.
        is_limited: Whether a call of `submit` may have to wait for a place.
    """

    # Invariants:
    # - tasks are the submitted tasks that have not ended, in the order of submission;
    # - services are those that have not ended;
    # - _joining counts the calls of submit that were let in and have not started their task yet;
    # - _places are for unfinished submitted tasks, None if there may be any number; an item that
    #   waits for a task that waits for a place would wait for ever, so that task is let in beyond
    #   the limit;
    # - a task that failed is in _failed or counted in _failed_beyond until its end is looked at;
    # - no task is started once _leaving: the task group is being left.

    def __init__(
        self,
        owner: object,
        slots: Slots | None,
        max_pending: int | None,
        counters: Counters,
        on_lost: Callable[[str, Exception], object] | None = None,
    ) -> None:
        self.tasks: OrderedDict[Submitted, None] = OrderedDict()
        self.services: OrderedDict[Service, None] = OrderedDict()
        self.on_lost = on_lost
        self._block = OwnedBlock(owner)
        self._owner = owner
        self._slots = slots
        self._counters = counters
        self._places: Slots | None = None
        if slots is not None and max_pending is not None:
            self._places = Slots(
                slots.limit + max_pending,
                owner,
                exempt=lambda link: slots.enclosing(link) is not None,
            )
        self.is_limited: bool = self._places is not None
        self.is_current: Callable[[], bool] = self._block.is_current
        self.loop: object = self._block.loop
        self.half: Backend = self._block.half
        self.task: int = self._block.task
        self._joining = 0
        self._draining = 0
        self._cancelling = 0
        self._leaving = False
        self._failed: OrderedDict[Task, None] = OrderedDict()
        self._failed_beyond = 0

    def is_over(self) -> bool:
        """Return whether it can no longer be left: its loop has finished, or this is a fork."""
        return self._block.is_over()

    # ---- entering and leaving ----

    async def enter(self) -> None:
        """Enter the task group."""
        await self._block.enter()

    def check_task(self) -> None:
        """Raise ``RuntimeError`` if the running task is not the one that entered."""
        self._block.check_task()

    async def leave(self, exc: BaseException | None) -> bool:
        """Leave the block, which ended with ``exc``; return whether that is dealt with."""
        reason = await self._wind_down() if exc is None else exc
        self._leaving = True
        self.on_lost = None
        from_outside = reason is not None and isinstance(classify(reason), Stray)
        swallowed, raised, escaped = await self._block.leave(reason)
        if escaped:
            raised = None
        for task in [*self.tasks]:
            task.end_unrun()
        for service in [*self.services]:
            service.end_unrun()
        errors = self._take_failures()
        if from_outside:
            # Task.cancel() came for this task, and then it probably came for all of them.
            errors = [each for each in errors if not isinstance(each, StrayCancellationError)]
            escaped = tuple(
                each for each in escaped if not isinstance(each, StrayCancellationError)
            )
        # Swallowed: a task was cancelled natively before its first step.
        if errors or escaped or swallowed:
            others = (*escaped, silent_end()) if swallowed else escaped
            conclude([*enumerate(errors)], others, where="block")
        if raised is None and exc is None and not swallowed:
            raised = reason
        if raised is not None:
            raise raised
        return swallowed

    async def _wind_down(self) -> BaseException | None:
        """Drain, then end the services; return what prevented it."""
        try:
            # First what makes work: its runs may submit more than could ever be drained.
            finishing = [each for each in self.services if each.finish is not None]
            for service in finishing:
                cast("Callable[[], None]", service.finish)()
            for service in finishing:
                await service.wait()
            await self._until_idle()
        except BaseException as error:  # noqa: BLE001 - the task group has to see it first
            return error
        for service in self.services:
            service.cancel()
        return None

    async def _until_idle(self) -> None:
        while self.tasks or self._joining:
            if self.tasks:
                # One by one, because waiting for a task lends it the slot of the item that waits.
                await next(iter(self.tasks)).wait()
            else:
                await checkpoint()  # there are free places, so those who join are about to

    async def drain(self, timeout: float | None) -> bool:
        """Wait for all tasks; cancel those that are left after ``timeout`` seconds."""
        self._draining += 1
        try:
            await checkpoint()
            with anyio.move_on_after(timeout):
                await self._until_idle()
            if not (self.tasks or self._joining):
                return True
            self._cancelling += 1
            try:
                for task in self.tasks:
                    task.cancel()
                await self._until_idle()
            finally:
                self._cancelling -= 1
            return False
        finally:
            self._draining -= 1

    def cancel(self) -> None:
        """Cancel all tasks and services."""
        for task in (*self.tasks, *self.services):
            task.cancel()

    # ---- new work ----

    async def check_open(self, method: str, *, joined: bool = False) -> None:
        """
        Raise ``RuntimeError`` if the block takes no new work.

        In a task that is being cancelled, as those of a block that ends with an error are, the
        cancellation is raised instead.

        Args:
            method: What was called, for the message.
            joined: Whether the call was let in before; draining includes those.
        """
        refusal = self.refusal(method, joined=joined)
        if refusal is not None:
            await checkpoint_if_cancelled()
            raise refusal

    def refusal(self, method: str, *, joined: bool = False) -> RuntimeError | None:
        """Return the error to raise if the block takes no new work; see `check_open`."""
        if self._leaving:
            state = "closing"
        elif self._cancelling or (self._draining and not joined and not self.contains_caller()):
            state = "draining"
        else:
            return None
        return RuntimeError(
            f"{self._owner!r} is {state} and takes no new work. Call {method}() before that, or in "
            f"a submitted task, which it still waits for."
        )

    def contains_caller(self) -> bool:
        """Return whether the running code is part of a submitted task."""
        return any(each in self.tasks for each in parents_of(here()))

    async def join(self, *, yields: bool) -> Slot | None:
        """
        Wait for a place among the unfinished tasks, for `submit`; None if they are not limited.

        An item that submits to its own executor when all places are taken may have one unfinished
        task beyond them; for another it waits for that one, lending it its slot.
        """
        self._joining += 1
        try:
            if yields:
                await checkpoint()
            places = self._places
            if places is None or self._slots is None:
                return None
            link = here()
            item = self._slots.enclosing(link)
            if item is None:
                place = places.acquire_nowait(link)
                return place or await places.wait_for(places.enqueue(link))
            while (place := places.acquire_nowait(None)) is None:
                if item.child is None or item.child.ended:
                    return places.force()
                await item.child.wait()
            return place
        finally:
            self._joining -= 1

    def join_nowait(self, name: str | None) -> Slot | None:
        """Return a free place, None if they are not limited, or raise ``LimitError``."""
        if self._places is None:
            return None
        place = self._places.acquire_nowait(None)
        if place is None:
            msg = (
                "max_workers + max_pending submitted tasks are unfinished. Await submit(), which "
                "waits until one of them has ended, or raise max_pending."
            )
            raise LimitError(msg, name=name)
        return place

    def submit(
        self, call: Callable[[], Awaitable[Any]], subject: object, place: Slot | None
    ) -> TaskHandle[Any]:
        """Start ``call`` as a task, in a place that was joined; return what waits for it."""
        task = Submitted(name_of(subject), self, self._slots, place)
        self.tasks[task] = None
        try:
            if self._slots is not None:
                task.queue_up(self._slots)
                item = self._slots.enclosing(here())
                if item is not None:
                    item.child = task
            # Kept, to be closed if a native cancellation comes before its first step.
            task.coroutine = coroutine = task.run(self._counters, call, subject)
            task.cancellable = self._block.start_coroutine(coroutine, task.name)
        except BaseException:
            task.leave()
            raise
        return TaskHandle(task, None if self.on_lost is None else HandleGuard(task))

    async def start(
        self, name: str, fn: Callable[..., Coroutine[Any, Any, Any]], restart: Retry | None
    ) -> Service:
        """Start a service and wait until it is ready."""
        service = Service(name, self, fn, restart)
        self.services[service] = None
        try:
            with service.awaited():
                await self._block.start_ready(service.run)
        except BaseException:
            service.cancel()  # it may have become ready at the moment we were cancelled
            service.leave()
            raise
        return service

    def repeat(self, periodic: Periodic) -> Service:
        """Start what runs again and again, as a service that is ready at once."""
        service = Service(periodic.name, self, periodic.serve, None)
        service.finish = periodic.stop
        self.services[service] = None
        try:
            # Kept, as in `submit`.
            service.coroutine = service.run(task_status=anyio.TASK_STATUS_IGNORED)
            self._block.start_coroutine(service.coroutine, periodic.name)
        except BaseException:
            service.leave()
            raise
        return service

    # ---- failures that have not been looked at ----

    def keep_failure(self, task: Task) -> None:
        """Note that ``task`` failed; it says so when its end is looked at."""
        task.on_seen = self._forget_failure
        if len(self._failed) < MOST_KEPT:
            self._failed[task] = None
        else:
            self._failed_beyond += 1

    def _forget_failure(self, task: Task) -> None:
        if task in self._failed:
            del self._failed[task]
        else:
            self._failed_beyond -= 1

    def _take_failures(self) -> list[BaseException]:
        """Return the errors, in the order in which they occurred, and consider them seen."""
        errors = [task.error for task in self._failed if task.error is not None]
        for task in self._failed:
            task.on_seen = None
        self._failed.clear()
        more, self._failed_beyond = self._failed_beyond, 0
        if more and errors:
            note(errors[-1], f"{more} more submitted tasks failed after this one")
        elif more:
            msg = (
                f"{more} submitted tasks failed and were not awaited, and their errors are "
                f"lost: at most {MOST_KEPT} are kept. Await handles as you go."
            )
            errors.append(MTAIOError(msg))
        return errors
