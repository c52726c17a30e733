"""A cache whose shared load dies with the caller that runs it."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import Victim, explore


class Load:
    """A load in flight."""

    def __init__(self) -> None:
        self.value: str | None = None
        self.done = anyio.Event()


class WrongLoader:
    """Lets callers who ask for the same key at the same time share one load."""

    def __init__(self, load: Callable[[str], Awaitable[str]]) -> None:
        self._load = load
        self._loads: dict[str, Load] = {}

    # --8<-- [start:wrong]
    async def get(self, key: str) -> str | None:
        """Return the value of a key."""
        load = self._loads.get(key)
        if load is not None:
            await load.done.wait()
            return load.value
        load = self._loads[key] = Load()
        load.value = await self._load(key)
        del self._loads[key]
        load.done.set()
        return load.value

    # --8<-- [end:wrong]


class RightLoader(WrongLoader):
    """Lets a follower take over when the leader is gone."""

    async def get(self, key: str) -> str | None:
        """Return the value of a key."""
        while (load := self._loads.get(key)) is not None:
            await load.done.wait()
            if load.value is not None:
                return load.value
        load = self._loads[key] = Load()
        try:
            load.value = await self._load(key)
        finally:
            del self._loads[key]
            load.done.set()
        return load.value


# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongLoader, RightLoader])
@explore()
async def test_followers_get_the_value(
    kind: type[WrongLoader], victim: Victim
) -> None:
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
