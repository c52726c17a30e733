"""A limiter that releases a slot it never acquired, so that two are inside."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import Victim, explore


class WrongLimiter:
    """Limits how many are inside at once."""

    def __init__(self, slots: int) -> None:
        self._slots = anyio.Semaphore(slots)

    # --8<-- [start:wrong]
    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[None]:
        """Hold a slot for the block."""
        try:
            await self._slots.acquire()
            yield
        finally:
            self._slots.release()

    # --8<-- [end:wrong]


class RightLimiter(WrongLimiter):
    """Begins the ``try`` only when there is something to give back."""

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[None]:
        """Hold a slot for the block."""
        await self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release()


# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongLimiter, RightLimiter])
@explore()
async def test_one_at_a_time(kind: type[WrongLimiter], victim: Victim) -> None:
    limiter = kind(1)
    inside = most = 0

    async def work() -> None:
        nonlocal inside, most
        async with limiter.slot():
            inside += 1
            most = max(most, inside)
            try:
                for _ in range(3):
                    await checkpoint()
            finally:
                inside -= 1

    async def impatient() -> None:
        await victim(work)

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        group.start_soon(impatient)
        group.start_soon(work)
    assert most == 1


# --8<-- [end:test]
