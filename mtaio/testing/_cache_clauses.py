"""
What a cache has to hold to, clause by clause, for `check_cache`.

Promise: each clause looks at one thing and lets everything else pass.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio

from mtaio.testing import _cache_loads as loads
from mtaio.testing._cache_callers import NOTHING, PATIENCE, ROOM, Callers, Loader, made, opened
from mtaio.testing._contract import Contract, require, require_nothing_left
from mtaio.testing._simulation import run

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from mtaio.testing._cache_callers import Cache, Make

__all__ = ["CONTRACT"]


async def _value(make: Make) -> None:
    async with made(make) as cache:
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
        loader = Loader()
        found = await cache.get_or_set("none", loader)
        require(found is None and not loader.begun, "get_or_set() loaded where None had been set")


async def _time(make: Make) -> None:
    async with made(make) as cache:
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
    async with made(make, room) as cache:
        for key in keys:
            await cache.set(key, "value", math.inf)
            found = await _found(cache, keys)
            require(found <= room, f"{found} values were found, with room for {room}")
        require(found > 0, "no value was found, with room for some")
        loader = Loader(seconds=0)

        async def ask(key: int) -> None:
            with anyio.move_on_after(PATIENCE):
                await cache.get_or_set(key, loader)

        async with anyio.create_task_group() as group:
            for key in range(10, 14):
                group.start_soon(ask, key)
        found = await _found(cache, [*keys, *range(10, 14)])
        require(found <= room, f"{found} values were found after loads, with room for {room}")


async def _once(cache: Any, number: int) -> None:
    async with opened(cache) as entered:
        found = await entered.get("key", NOTHING)
        if number:
            require(found == "value", f"get() returned {found!r} for what an earlier loop had set")
        await entered.set("key", "value", math.inf)
        callers, loader = Callers(entered), Loader()
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
CONTRACT.add("load", "one load for all who ask, and its value is kept", loads.load)
CONTRACT.add(
    "error",
    "an error of a load goes to each who waited for it, as it is, and is not kept",
    loads.error,
)
CONTRACT.add(
    "change",
    "what was set or deleted during a load is not undone by it",
    loads.set_meanwhile,
    loads.deleted_meanwhile,
    loads.deleted_and_left,
)
CONTRACT.add("deadline", "a caller's deadline ends its waiting", loads.deadline)
CONTRACT.add(
    "recursion",
    "a load that asks for its own key gets an error, instead of waiting",
    loads.recursion,
)
CONTRACT.add_struck("a caller", "takes nobody with it, and leaves nothing behind", *loads.STRUCK)
CONTRACT.add(
    "reuse", "made outside of event loops, it serves one after another, on every backend", _reuse
)
