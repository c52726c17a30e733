"""A box office that checks, waits and then acts, and sells a ticket twice."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import explore


class Bank:
    """Stands for the bank, which takes a while."""

    async def charge(self) -> None:
        """Take the money."""
        await checkpoint()


# --8<-- [start:wrong]
class WrongOffice:
    """Sells tickets as long as there are any."""

    def __init__(self, bank: Bank, tickets: int) -> None:
        self._bank = bank
        self.left = tickets

    async def sell(self) -> bool:
        """Sell a ticket; return whether there was one."""
        if self.left == 0:
            return False
        await self._bank.charge()
        self.left -= 1
        return True


# --8<-- [end:wrong]
class RightOffice(WrongOffice):
    """Reserves the ticket first, and puts it back if the payment fails."""

    async def sell(self) -> bool:
        """Sell a ticket; return whether there was one."""
        if self.left == 0:
            return False
        self.left -= 1
        try:
            await self._bank.charge()
        except BaseException:
            self.left += 1
            raise
        return True


@pytest.mark.parametrize("kind", [WrongOffice, RightOffice])
@explore()
async def test_nobody_stands_outside(kind: type[WrongOffice]) -> None:
    office = kind(Bank(), tickets=1)
    sold: list[str] = []

    async def visitor(name: str, comes_after: int) -> None:
        for _ in range(comes_after):
            await checkpoint()
        if await office.sell():
            sold.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(visitor, "Ann", 0)
        group.start_soon(visitor, "Ben", 2)
    assert len(sold) == 1
