"""A client that connects on first use, and twice if two first uses overlap."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import explore


class WrongClient:
    """Connects when it is first needed."""

    def __init__(self, connect: Callable[[], Awaitable[int]]) -> None:
        self._connect = connect
        self._connection: int | None = None

    # --8<-- [start:wrong]
    async def connection(self) -> int:
        """Return the connection."""
        if self._connection is None:
            self._connection = await self._connect()
        return self._connection

    # --8<-- [end:wrong]


class RightClient(WrongClient):
    """Checks and connects under one lock."""

    def __init__(self, connect: Callable[[], Awaitable[int]]) -> None:
        super().__init__(connect)
        self._lock = anyio.Lock()

    async def connection(self) -> int:
        """Return the connection."""
        async with self._lock:
            return await super().connection()


# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongClient, RightClient])
@explore()
async def test_one_connection(kind: type[WrongClient]) -> None:
    connections = 0

    async def connect() -> int:
        nonlocal connections
        await checkpoint()
        connections += 1
        return connections

    client = kind(connect)

    async def request(comes_after: int) -> None:
        for _ in range(comes_after):
            await checkpoint()
        await client.connection()

    async with anyio.create_task_group() as group:
        group.start_soon(request, 0)
        group.start_soon(request, 2)
    assert connections == 1


# --8<-- [end:test]
