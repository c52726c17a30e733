"""
A submitted task, from its turn in the queue to its end.

Promise: it takes its slot in the order of submission; cancelled before it has begun, its function
is not called; whatever happens, slot and place are given back.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from mtaio._internal.callables import close_unstarted
from mtaio._internal.checkpoints import checkpoint_if_cancelled
from mtaio.core._task import Task, TaskStatus, unmixed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from mtaio.core._block import Block
    from mtaio.core._slots import Slot, Slots, Waiter

    RunItem = Callable[[Slot | None, Callable[[], Awaitable[Any]]], Awaitable[Any]]


class Submitted(Task):
    """
    A task that runs as one item, beside whoever submitted it.

    Args:
        name: Of its function.
        block: The block in which it lives.
        place: Its place among the unfinished tasks; None if they are not limited.

    Invariant: if slots are limited it has one, or a turn in the queue, from `queue_up` to the end.
    """

    __slots__ = ("_block", "_place", "_slot", "_slots", "_turn", "coroutine")

    def __init__(self, name: str, block: Block, place: Slot | None) -> None:
        super().__init__(name, block.loop)
        self._block = block
        self._place = place
        self._slots: Slots | None = None
        self._slot: Slot | None = None
        self._turn: Waiter | None = None
        self.coroutine: Coroutine[Any, Any, None] | None = None
        block.tasks[self] = None

    def queue_up(self, slots: Slots) -> None:
        """Take a free slot, or a turn in the queue."""
        self._slots = slots
        self._slot = slots.acquire_nowait((self, 0))
        if self._slot is None:
            self._turn = slots.enqueue((self, 0))

    async def run(
        self, run_item: RunItem, call: Callable[[], Awaitable[Any]], subject: object
    ) -> None:
        """Wait for the slot, then make ``call`` as an item in it; never raise an ``Exception``."""
        self.enter()
        try:
            await unmixed(self._take_turn, subject)
            self.status = TaskStatus.RUNNING
            if self._slot is not None:
                self._slot.host = self.host
            result = await run_item(self._slot, partial(unmixed, call, subject))
        except Exception as error:  # noqa: BLE001 - kept for whoever awaits the handle
            self.leave()
            self._block.unseen.add(self)
            self.fail(error)
        except BaseException as error:
            self.leave()
            self.fail(error)
            raise
        else:
            self.leave()
            self.succeed(result)
        finally:
            del self  # the frames of an error lead here, and this object keeps the error

    async def _take_turn(self) -> None:
        if self._slots is None or self._turn is None:
            await checkpoint_if_cancelled()
        else:
            turn, self._turn = self._turn, None
            self._slot = await self._slots.wait_for(turn)

    def leave(self) -> None:
        """Give back all that it holds; again, and nothing happens."""
        self._block.tasks.pop(self, None)
        if self._turn is not None and self._slots is not None:
            self._slots.give_up(self._turn)
        for held in (self._slot, self._place):
            if held is not None:
                held.slots.release(held)
        self._turn = self._slot = self._place = self.coroutine = None

    def never_ran(self) -> None:
        """End it in place of its coroutine, which somebody cancelled before its first step."""
        close_unstarted(self.coroutine)
        self.leave()
        self.abandon()
