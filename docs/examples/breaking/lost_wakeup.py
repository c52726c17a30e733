"""A semaphore that hands its slot to a waiter that has just been cancelled."""

from collections import deque

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import Victim, explore


class WrongSemaphore:
    """Limits how many run at once, in the order of asking."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._queue: deque[anyio.Event] = deque()

    # --8<-- [start:wrong]
    async def acquire(self) -> None:
        """Wait for a slot."""
        if self._free:
            self._free -= 1
            return
        woken = anyio.Event()
        self._queue.append(woken)
        try:
            await woken.wait()
        except BaseException:
            if woken in self._queue:
                self._queue.remove(woken)
            raise

    def release(self) -> None:
        """Hand the slot to the next in the queue."""
        if self._queue:
            self._queue.popleft().set()
        else:
            self._free += 1

    # --8<-- [end:wrong]


class RightSemaphore(WrongSemaphore):
    """Passes on a slot that came too late."""

    async def acquire(self) -> None:
        """Wait for a slot."""
        if self._free:
            self._free -= 1
            return
        woken = anyio.Event()
        self._queue.append(woken)
        try:
            await woken.wait()
        except BaseException:
            if woken.is_set():
                self.release()
            else:
                self._queue.remove(woken)
            raise


# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongSemaphore, RightSemaphore])
@explore()
async def test_slot_comes_back(
    kind: type[WrongSemaphore], victim: Victim
) -> None:
    semaphore = kind(1)

    async def work() -> None:
        await semaphore.acquire()
        try:
            for _ in range(3):
                await checkpoint()
        finally:
            semaphore.release()

    async def waiter() -> None:
        await victim(work)

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        group.start_soon(waiter)
    await work()


# --8<-- [end:test]
