"""A fallback that mistakes cancellation for a failure, and goes on regardless."""

import logging
from collections.abc import Awaitable, Callable

import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import Victim, explore

log = logging.getLogger(__name__)


# --8<-- [start:wrong]
class WrongQuotes:
    """Asks for a price, and falls back to the last one."""

    def __init__(self, ask: Callable[[], Awaitable[int]], last: int) -> None:
        self._ask = ask
        self.last = last

    async def price(self) -> int:
        """Return the price."""
        try:
            self.last = await self._ask()
        except:  # noqa: E722 - the bug
            log.warning("the quotes are down, going on with the last price")
        return self.last


# --8<-- [end:wrong]
# --8<-- [start:right]
class RightQuotes(WrongQuotes):
    """Catches only what it can handle."""

    async def price(self) -> int:
        """Return the price."""
        try:
            self.last = await self._ask()
        except OSError:
            log.warning("the quotes are down, going on with the last price")
        return self.last


# --8<-- [end:right]
# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongQuotes, RightQuotes])
@explore()
async def test_price_is_todays(kind: type[WrongQuotes], victim: Victim) -> None:
    """While the quotes are up, a task that gets a price gets today's."""

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
