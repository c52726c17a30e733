"""A queue in which a newcomer overtakes the waiter that has just been woken."""

from collections import deque

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import explore


class WrongQueue:
    """A lock that serves tasks in the order of asking."""

    def __init__(self) -> None:
        self._free = True
        self._queue: deque[anyio.Event] = deque()

    # --8<-- [start:wrong]
    async def acquire(self) -> None:
        """Wait for the lock."""
        while not self._free:
            woken = anyio.Event()
            self._queue.append(woken)
            await woken.wait()
        self._free = False

    def release(self) -> None:
        """Let the next one in."""
        self._free = True
        if self._queue:
            self._queue.popleft().set()

    # --8<-- [end:wrong]


class RightQueue(WrongQueue):
    """Hands the lock over: it is never free while a task waits."""

    async def acquire(self) -> None:
        """Wait for the lock."""
        if self._free:
            self._free = False
            return
        woken = anyio.Event()
        self._queue.append(woken)
        await woken.wait()

    def release(self) -> None:
        """Let the next one in."""
        if self._queue:
            self._queue.popleft().set()
        else:
            self._free = True


# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongQueue, RightQueue])
@explore()
async def test_first_come_first_served(kind: type[WrongQueue]) -> None:
    queue = kind()
    asked: list[str] = []
    served: list[str] = []

    async def customer(name: str) -> None:
        asked.append(name)
        await queue.acquire()
        served.append(name)
        await checkpoint()
        queue.release()

    async with anyio.create_task_group() as group:
        for name in ("Ann", "Ben", "Cem"):
            group.start_soon(customer, name)
    assert served == asked


# --8<-- [end:test]
