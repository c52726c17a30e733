"""A cache that loads each key once, until the caller who loads is cancelled."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import Victim, explore


class Flight:
    """A load that is under way."""

    def __init__(self) -> None:
        self.value: str | None = None
        self.done = anyio.Event()


# --8<-- [start:wrong]
class WrongLoader:
    """Lets callers who ask for the same key at the same time share one load."""

    def __init__(self, load: Callable[[str], Awaitable[str]]) -> None:
        self._load = load
        self._flights: dict[str, Flight] = {}

    async def get(self, key: str) -> str | None:
        """Return the value of a key."""
        flight = self._flights.get(key)
        if flight is not None:
            await flight.done.wait()
            return flight.value
        flight = self._flights[key] = Flight()
        flight.value = await self._load(key)
        del self._flights[key]
        flight.done.set()
        return flight.value


# --8<-- [end:wrong]
# --8<-- [start:right]
class RightLoader(WrongLoader):
    """Lets a follower take over when the leader is gone."""

    async def get(self, key: str) -> str | None:
        """Return the value of a key."""
        while (flight := self._flights.get(key)) is not None:
            await flight.done.wait()
            if flight.value is not None:
                return flight.value
        flight = self._flights[key] = Flight()
        try:
            flight.value = await self._load(key)
        finally:
            del self._flights[key]
            flight.done.set()
        return flight.value


# --8<-- [end:right]
# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongLoader, RightLoader])
@explore()
async def test_followers_get_the_value(kind: type[WrongLoader], victim: Victim) -> None:
    """Two ask at once, one of them may give up, and the other has its answer."""

    async def load(key: str) -> str:
        await checkpoint()
        return key.upper()

    loader = kind(load)
    answers: list[str | None] = []

    async def follow() -> None:
        answers.append(await loader.get("a"))

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        await victim(loader.get, "a")
    assert answers == ["A"]


# --8<-- [end:test]
