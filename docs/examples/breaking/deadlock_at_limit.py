"""A service that holds one connection of a pool of two and takes a second."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import explore


# --8<-- [start:wrong]
class WrongService:
    """Answers requests with two connections at most."""

    def __init__(self) -> None:
        self._connections = anyio.Semaphore(2)

    async def answer(self) -> None:
        """Handle a request, and record that it was done."""
        async with self._connections:
            await checkpoint()
            await self._write_down()

    async def _write_down(self) -> None:
        async with self._connections:
            await checkpoint()


# --8<-- [end:wrong]
class RightService(WrongService):
    """Holds one connection at a time."""

    async def answer(self) -> None:
        """Handle a request, and record that it was done."""
        async with self._connections:
            await checkpoint()
        await self._write_down()


# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongService, RightService])
@explore()
async def test_requests_are_answered(kind: type[WrongService]) -> None:
    service = kind()

    async def request(comes_after: int) -> None:
        for _ in range(comes_after):
            await checkpoint()
        await service.answer()

    async with anyio.create_task_group() as group:
        group.start_soon(request, 0)
        group.start_soon(request, 3)


# --8<-- [end:test]
