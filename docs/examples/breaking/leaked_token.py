"""A pool that loses a connection if a caller is cancelled at the wrong line."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import Victim, explore


class Connection:
    """Stands for a connection to a database."""

    async def ping(self) -> None:
        """Ask whether the other side is still there."""
        await checkpoint()


class WrongPool:
    """Lends out a fixed number of connections."""

    def __init__(self, size: int) -> None:
        self.idle = [Connection() for _ in range(size)]
        self._slots = anyio.Semaphore(size)

    # --8<-- [start:wrong]
    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """Lend a connection that works, for the block."""
        await self._slots.acquire()
        connection = self.idle.pop()
        await connection.ping()
        try:
            yield connection
        finally:
            self.idle.append(connection)
            self._slots.release()

    # --8<-- [end:wrong]


class RightPool(WrongPool):
    """Begins the ``try`` as soon as there is something to give back."""

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """Lend a connection that works, for the block."""
        await self._slots.acquire()
        connection = self.idle.pop()
        try:
            await connection.ping()
            yield connection
        finally:
            self.idle.append(connection)
            self._slots.release()


# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongPool, RightPool])
@explore()
async def test_connections_come_back(
    kind: type[WrongPool], victim: Victim
) -> None:
    pool = kind(1)

    async def query() -> None:
        async with pool.connection():
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(query)
        await victim(query)
    assert len(pool.idle) == 1


# --8<-- [end:test]
