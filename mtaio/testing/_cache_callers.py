"""
Who asks a cache for values, and what loads them, in the clauses of `check_cache`.

Promise: nothing that is specific to one clause; only names of a cache that `check_cache` asks for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from mtaio.testing._contract import require

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

__all__ = ["NOTHING", "PATIENCE", "ROOM", "Cache", "Callers", "Loader", "Make", "made", "opened"]


class Cache(Protocol):
    """What is looked at, whatever else there is."""

    def get(self, key: Hashable, default: Any, /) -> Awaitable[Any]: ...
    def set(self, key: Hashable, value: Any, ttl: float, /) -> Awaitable[object]: ...
    def delete(self, key: Hashable, /) -> Awaitable[object]: ...
    def get_or_set(
        self, key: Hashable, factory: Callable[[], Awaitable[Any]], /
    ) -> Awaitable[Any]: ...


Make: TypeAlias = Callable[[int], Any]

PATIENCE = 100.0
"""Seconds after which those who wait give up, where that they wait for ever is not the question."""

ROOM = 4
"""How many values there is room for, where the limit is not the question."""

NOTHING = object()
"""What ``get`` returns for a key without a value."""


@asynccontextmanager
async def opened(cache: Any) -> AsyncGenerator[Cache]:
    """Enter a cache in the block, if it can be."""
    if hasattr(cache, "__aenter__") and hasattr(cache, "__aexit__"):
        async with cache:
            yield cache
    else:
        yield cache


def made(make: Make, room: int = ROOM) -> AbstractAsyncContextManager[Cache]:
    return opened(make(room))


class Loader:
    """Counts, and takes its time."""

    def __init__(self, value: str = "loaded", seconds: float = 1.0) -> None:
        self.value = value
        self.seconds = seconds
        self.begun = 0

    async def __call__(self) -> str:
        self.begun += 1
        if self.seconds:
            await anyio.sleep(self.seconds)
        else:
            await checkpoint()
        return self.value


class Callers:
    """Who asks for keys, and what each got."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.got: dict[str, object] = {}

    async def ask(self, name: str, load: Callable[[], Awaitable[Any]], key: str = "key") -> None:
        """Ask, and keep what comes."""
        self.got[name] = await self.cache.get_or_set(key, load)

    async def wait(self, name: str, load: Callable[[], Awaitable[Any]], key: str = "key") -> None:
        """Ask, but not for ever."""
        with anyio.move_on_after(PATIENCE):
            await self.ask(name, load, key)

    def require(self, value: object, *names: str, when: str) -> None:
        """Hold that these got a value."""
        for name in names:
            require(name in self.got, f"the {name} of those who asked got nothing, {when}")
            got = self.got[name]
            require(got == value, f"the {name} of those who asked got {got!r}, {when}")
