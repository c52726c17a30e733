"""
What a cache has to hold to, clause by clause, for `check_cache`.

Promise: each clause looks at one thing and lets everything else pass.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from mtaio.testing._contract import Contract, require, require_nothing_left
from mtaio.testing._run import run
from mtaio.testing._simulation import settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from mtaio.testing._inject import Victim

__all__ = ["CONTRACT", "ROOM", "Make"]


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
async def _opened(cache: Any) -> AsyncGenerator[Cache]:
    """Enter a cache in the block, if it can be."""
    if hasattr(cache, "__aenter__") and hasattr(cache, "__aexit__"):
        async with cache:
            yield cache
    else:
        yield cache


def _made(make: Make, room: int = ROOM) -> AbstractAsyncContextManager[Cache]:
    return _opened(make(room))


class _Loader:
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


class _Callers:
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


async def _value(make: Make) -> None:
    async with _made(make) as cache:
        await cache.set("key", "value", math.inf)
        await cache.set("none", None, math.inf)
        found = await cache.get("key", NOTHING)
        require(found == "value", f"get() returned {found!r} for what had been set to 'value'")
        found = await cache.get("none", NOTHING)
        require(found is None, f"get() returned {found!r} for what had been set to None")
        found = await cache.get("missing", NOTHING)
        require(found is NOTHING, f"get() returned {found!r}, not the default, for a missing key")
        await cache.set("key", "other", math.inf)
        found = await cache.get("key", NOTHING)
        require(found == "other", f"get() returned {found!r} for what had been set anew to 'other'")
        require(await cache.delete("key"), "delete() said that there had been no value")
        require(not await cache.delete("key"), "delete() said twice that there had been a value")
        found = await cache.get("key", NOTHING)
        require(found is NOTHING, f"get() returned {found!r} for what had been deleted")
        loader = _Loader()
        found = await cache.get_or_set("none", loader)
        require(found is None and not loader.begun, "get_or_set() loaded where None had been set")


async def _time(make: Make) -> None:
    async with _made(make) as cache:
        await cache.set("short", "value", 10)
        await cache.set("over", "value", 0)
        await cache.set("ever", "value", math.inf)
        found = await cache.get("over", NOTHING)
        require(found is NOTHING, f"get() returned {found!r} for what had been set for 0 seconds")
        await anyio.sleep(9)
        found = await cache.get("short", NOTHING)
        require(found == "value", "after 9 of its 10 seconds a value was not found")
        await anyio.sleep(2)
        found = await cache.get("short", NOTHING)
        require(found is NOTHING, "after 11 of its 10 seconds a value was still found")
        require(not await cache.delete("short"), "delete() said that what was over was a value")
        await cache.set("short", "value", 10)
        await anyio.sleep(5)
        await cache.set("short", "value", 10)
        await anyio.sleep(7)
        found = await cache.get("short", NOTHING)
        require(found == "value", "what had been set anew was over in the time of the value before")
        await anyio.sleep(1e9)  # noqa: ASYNC116 - of virtual time
        found = await cache.get("ever", NOTHING)
        require(found == "value", "a value with math.inf seconds to live was not found")


async def _found(cache: Cache, keys: Iterable[Hashable]) -> int:
    return sum([await cache.get(key, NOTHING) is not NOTHING for key in keys])


async def _bound(make: Make) -> None:
    room, keys, found = 2, range(5), 0
    async with _made(make, room) as cache:
        for key in keys:
            await cache.set(key, "value", math.inf)
            found = await _found(cache, keys)
            require(found <= room, f"{found} values were found, with room for {room}")
        require(found > 0, "no value was found, with room for some")
        loader = _Loader(seconds=0)

        async def ask(key: int) -> None:
            with anyio.move_on_after(PATIENCE):
                await cache.get_or_set(key, loader)

        async with anyio.create_task_group() as group:
            for key in range(10, 14):
                group.start_soon(ask, key)
        found = await _found(cache, [*keys, *range(10, 14)])
        require(found <= room, f"{found} values were found after loads, with room for {room}")


async def _load(make: Make) -> None:
    async with _made(make) as cache:
        callers, loader, other = _Callers(cache), _Loader(), _Loader()
        names = ("first", "second", "third")
        begun = anyio.current_time()
        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(callers.wait, name, loader)
            group.start_soon(callers.wait, "one beside", other, "other")
        callers.require("loaded", *names, "one beside", when="with one load for all")
        require(loader.begun == 1, f"{loader.begun} loads were made for 3 who asked at once")
        took = anyio.current_time() - begun
        require(took < 1.5, f"2 loads of a second, of different keys, took {took} seconds")  # noqa: PLR2004 - less than two
        await callers.ask("last", loader)
        require(loader.begun == 1, "what had been loaded was loaded again")
        found = await cache.get("key", NOTHING)
        require(found == "loaded", f"get() returned {found!r} for what had been loaded")


class _LoadError(Exception):
    """What a load raises here."""


async def _error(make: Make) -> None:
    async with _made(make) as cache:
        begun: list[_LoadError] = []
        caught: list[_LoadError] = []

        async def fail() -> str:
            error = _LoadError(f"load {len(begun) + 1}")
            begun.append(error)
            await anyio.sleep(1)
            raise error

        async def ask() -> None:
            with anyio.move_on_after(PATIENCE):
                try:
                    await cache.get_or_set("key", fail)
                except _LoadError as error:
                    caught.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask)
        got = len(caught)
        require(got == 3, f"{got} of 3 who asked got the error of the load")  # noqa: PLR2004 - all
        same = all(any(error is each for each in begun) for error in caught)
        require(same, "an error that came out is not the one that the load had raised")
        require(len(begun) == 1, f"{len(begun)} loads were made for 3 who asked at once")
        found = await cache.get("key", NOTHING)
        require(found is NOTHING, f"get() returned {found!r} after a load that had failed")
        found = await cache.get_or_set("key", _Loader())
        require(found == "loaded", f"after a load that failed, get_or_set() returned {found!r}")


async def _changed(make: Make, *, deleted: bool) -> None:
    async with _made(make) as cache:
        callers, old, new = _Callers(cache), _Loader("old", 2), _Loader("new", 2)
        async with anyio.create_task_group() as group:
            group.start_soon(callers.wait, "first", old)
            await settle()
            await anyio.sleep(1)
            if deleted:
                await cache.delete("key")
            else:
                await cache.set("key", "new", math.inf)
            await anyio.sleep(0.5)
            group.start_soon(callers.wait, "second", new)
        when = f"though the key was {'deleted' if deleted else 'set'} during the load"
        callers.require("old", "first", when=when)
        callers.require("new", "second", when=when)
        found = await cache.get("key", NOTHING)
        require(found == "new", f"get() returned {found!r}, {when}")


async def _set_meanwhile(make: Make) -> None:
    await _changed(make, deleted=False)


async def _deleted_meanwhile(make: Make) -> None:
    await _changed(make, deleted=True)


async def _deleted_and_left(make: Make) -> None:
    async with _made(make) as cache:
        callers = _Callers(cache)
        async with anyio.create_task_group() as group:
            group.start_soon(callers.wait, "first", _Loader("old"))
            await settle()
            await cache.delete("key")
        found = await cache.get("key", NOTHING)
        require(found is NOTHING, f"get() returned {found!r}, deleted while it was loaded")


async def _deadline(make: Make) -> None:
    async with _made(make) as cache:
        loader = _Loader(seconds=50)
        ended: dict[str, float] = {}

        async def ask(name: str, seconds: float) -> None:
            with anyio.move_on_after(seconds), suppress(Exception):  # which is not the question
                await cache.get_or_set("key", loader)
            ended[name] = anyio.current_time()

        begun = anyio.current_time()
        async with anyio.create_task_group() as group:
            for name, seconds in (("first", 2), ("second", 1), ("third", PATIENCE)):
                group.start_soon(ask, name, seconds)
                await settle()
        for name, seconds in (("first", 2), ("second", 1)):
            took = ended[name] - begun
            require(
                took <= seconds,
                f"the {name} of those who asked had {seconds} s, and waited for {took:g}",
            )


async def _recursion(make: Make) -> None:
    async with _made(make) as cache:
        refused: list[Exception] = []

        async def recursive() -> str:
            try:
                await cache.get_or_set("key", _Loader())
            except Exception as error:
                refused.append(error)
                raise
            return "loaded"

        with anyio.move_on_after(PATIENCE) as scope:
            try:
                await cache.get_or_set("key", recursive)
            except Exception as error:  # noqa: BLE001 - whatever the cache has for that
                require(refused, f"{error!r} came out, though the load had met no error")
        waited = scope.cancelled_caught
        require(not waited, "a load that asked for its own key waited for itself for ever")


async def _struck(make: Make, victim: Victim, *order: str, seconds: float) -> None:
    async with _made(make) as cache:
        callers, loader = _Callers(cache), _Loader(seconds=seconds)
        async with anyio.create_task_group() as group:
            for name in order:
                if name == "victim":
                    group.start_soon(victim, partial(callers.ask, name, loader))
                else:
                    group.start_soon(callers.wait, name, loader)
        others = [name for name in order if name != "victim"]
        callers.require("loaded", *others, when="after another was cancelled")
        await callers.wait("next", loader)
        callers.require("loaded", "next", when="after another was cancelled")
        most = 2  # its own, and one in the place of that
        require(loader.begun <= most, f"{loader.begun} loads were made, with one caller cancelled")
        found = await cache.get("key", NOTHING)
        require(found == "loaded", f"get() returned {found!r} for what had been loaded")
    require_nothing_left(cache)


async def _struck_first(make: Make, victim: Victim) -> None:
    await _struck(make, victim, "victim", "second", "third", seconds=1)


async def _struck_between(make: Make, victim: Victim) -> None:
    await _struck(make, victim, "first", "victim", "third", seconds=1)


async def _struck_in_haste(make: Make, victim: Victim) -> None:
    await _struck(make, victim, "victim", "second", seconds=0)


async def _struck_alone(make: Make, victim: Victim) -> None:
    await _struck(make, victim, "victim", seconds=1)


async def _once(cache: Any, number: int) -> None:
    async with _opened(cache) as opened:
        found = await opened.get("key", NOTHING)
        if number:
            require(found == "value", f"get() returned {found!r} for what an earlier loop had set")
        await opened.set("key", "value", math.inf)
        callers, loader = _Callers(opened), _Loader()
        async with anyio.create_task_group() as group:
            for name in ("first", "second"):
                group.start_soon(callers.wait, name, loader, f"of loop {number}")
        callers.require("loaded", "first", "second", when="in another event loop")
    require_nothing_left(cache)


def _reuse(make: Make, backends: Sequence[str]) -> None:
    cache = make(ROOM)
    for number, backend in enumerate((*backends, *backends)):
        run(_once, cache, number, backend=backend)


CONTRACT = Contract("cache", needs=["get", "set", "delete", "get_or_set"])
CONTRACT.add(
    "value", "what was set is found, None included, until it is deleted or set anew", _value
)
CONTRACT.add("time", "a value whose time is over is not found", _time)
CONTRACT.add("bound", "never more values are found than there is room for", _bound)
CONTRACT.add("load", "one load for all who ask, and its value is kept", _load)
CONTRACT.add(
    "error", "an error of a load goes to each who waited for it, as it is, and is not kept", _error
)
CONTRACT.add(
    "change",
    "what was set or deleted during a load is not undone by it",
    _set_meanwhile,
    _deleted_meanwhile,
    _deleted_and_left,
)
CONTRACT.add("deadline", "a caller's deadline ends its waiting", _deadline)
CONTRACT.add(
    "recursion", "a load that asks for its own key gets an error, instead of waiting", _recursion
)
_STRUCK = (_struck_first, _struck_between, _struck_in_haste, _struck_alone)
CONTRACT.add(
    "checkpoint",
    "a caller cancelled as it suspends takes nobody with it, and leaves nothing behind",
    *_STRUCK,
    inject=["checkpoint"],
)
CONTRACT.add(
    "step",
    "a caller cancelled between any two steps takes nobody with it, and leaves nothing behind",
    *_STRUCK,
    inject=["step"],
)
CONTRACT.add(
    "native",
    "a caller cancelled by Task.cancel() takes nobody with it, and leaves nothing behind",
    *_STRUCK,
    inject=["native"],
)
CONTRACT.add(
    "reuse", "made outside of event loops, it serves one after another, on every backend", _reuse
)
