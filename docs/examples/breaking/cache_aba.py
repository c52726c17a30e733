"""A cache that takes "absent again" for "still absent", and keeps old data."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import explore


class WrongCache:
    """Loads missing values."""

    def __init__(self, load: Callable[[str], Awaitable[int]]) -> None:
        self._load = load
        self._values: dict[str, int] = {}

    # --8<-- [start:wrong]
    async def get(self, key: str) -> int:
        """Return the value of a key."""
        if key in self._values:
            return self._values[key]
        value = await self._load(key)
        if key not in self._values:  # a value set during the load is newer
            self._values[key] = value
        return self._values[key]

    # --8<-- [end:wrong]
    def set(self, key: str, value: int) -> None:
        """Give a key a value."""
        self._values[key] = value

    def invalidate(self, key: str) -> None:
        """Forget the value of a key."""
        self._values.pop(key, None)


class RightCache(WrongCache):
    """Counts changes, to tell "absent again" from "still absent"."""

    def __init__(self, load: Callable[[str], Awaitable[int]]) -> None:
        super().__init__(load)
        self._changes = 0

    async def get(self, key: str) -> int:
        """Return the value of a key."""
        if key in self._values:
            return self._values[key]
        before = self._changes
        value = await self._load(key)
        if self._changes == before:
            self._values[key] = value
        return self._values.get(key, value)

    def set(self, key: str, value: int) -> None:
        """Give a key a value."""
        self._changes += 1
        super().set(key, value)

    def invalidate(self, key: str) -> None:
        """Forget the value of a key."""
        self._changes += 1
        super().invalidate(key)


# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongCache, RightCache])
@explore()
async def test_cache_is_up_to_date(kind: type[WrongCache]) -> None:
    database = {"price": 1}

    async def load(key: str) -> int:
        value = database[key]
        await checkpoint()  # the answer is on its way
        return value

    cache = kind(load)

    async def change(value: int) -> None:
        for _ in range(2):
            await checkpoint()
        database["price"] = value
        cache.set("price", value)
        cache.invalidate("price")  # no room left

    async with anyio.create_task_group() as group:
        group.start_soon(cache.get, "price")
        group.start_soon(change, 2)
    assert await cache.get("price") == database["price"]


# --8<-- [end:test]
