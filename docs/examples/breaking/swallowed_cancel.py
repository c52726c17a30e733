"""A fallback that mistakes cancellation for a failure, and goes on."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import Victim, explore


class WrongQuotes:
    """Asks for a price, and falls back to the last one."""

    def __init__(self, ask: Callable[[], Awaitable[int]], last: int) -> None:
        self._ask = ask
        self.last = last

    # --8<-- [start:wrong]
    async def price(self) -> int:
        """Return the price."""
        with suppress(BaseException):  # the server may be down
            self.last = await self._ask()
        return self.last

    # --8<-- [end:wrong]


class RightQuotes(WrongQuotes):
    """Catches only what it can handle."""

    async def price(self) -> int:
        """Return the price."""
        with suppress(OSError):
            self.last = await self._ask()
        return self.last


# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongQuotes, RightQuotes])
@explore()
async def test_price_is_todays(kind: type[WrongQuotes], victim: Victim) -> None:
    async def ask() -> int:
        await checkpoint()
        return 2

    bought: list[int] = []

    async def buy() -> None:
        price = await kind(ask, last=1).price()
        bought.append(price)

    await victim(buy)
    assert bought in ([2], [])


# --8<-- [end:test]
