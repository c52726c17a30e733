"""A transaction whose rollback is cancelled together with the work."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import Victim, explore


class Database:
    """Stands for a database at the other end of a network."""

    def __init__(self) -> None:
        self.open = 0

    async def send(self, command: str) -> None:
        """Have a command carried out."""
        await checkpoint()
        self.open += 1 if command == "begin" else -1


class WrongClient:
    """Changes a database, or leaves it as it was."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --8<-- [start:wrong]
    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        """Commit when the block is over, roll back when it fails."""
        await self._database.send("begin")
        try:
            yield
        except BaseException:
            await self._database.send("rollback")
            raise
        await self._database.send("commit")

    # --8<-- [end:wrong]


class RightClient(WrongClient):
    """Has five seconds for the rollback, even when cancelled."""

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        """Commit when the block is over, roll back when it fails."""
        await self._database.send("begin")
        command = "rollback"
        try:
            yield
            command = "commit"
        finally:
            with anyio.fail_after(5, shield=True):
                await self._database.send(command)


# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongClient, RightClient])
@explore(inject=("checkpoint", "step"))
async def test_no_transaction_stays_open(
    kind: type[WrongClient], victim: Victim
) -> None:
    database = Database()
    client = kind(database)

    async def order() -> None:
        async with client.transaction():
            await checkpoint()

    await victim(order)
    assert database.open == 0


# --8<-- [end:test]
