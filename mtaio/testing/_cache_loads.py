"""
What a cache has to hold to while it loads, clause by clause, for `check_cache`.

Promise: each clause looks at one thing and lets everything else pass.
"""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio

from mtaio.testing._cache_callers import NOTHING, PATIENCE, Callers, Loader, made
from mtaio.testing._contract import require, require_nothing_left
from mtaio.testing._simulation import settle

if TYPE_CHECKING:
    from mtaio.testing._cache_callers import Make
    from mtaio.testing._inject import Victim

__all__ = [
    "STRUCK",
    "deadline",
    "deleted_and_left",
    "deleted_meanwhile",
    "error",
    "load",
    "recursion",
    "set_meanwhile",
]


async def load(make: Make) -> None:
    async with made(make) as cache:
        callers, loader, other = Callers(cache), Loader(), Loader()
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


async def error(make: Make) -> None:
    async with made(make) as cache:
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
        found = await cache.get_or_set("key", Loader())
        require(found == "loaded", f"after a load that failed, get_or_set() returned {found!r}")


async def _changed(make: Make, *, deleted: bool) -> None:
    async with made(make) as cache:
        callers, old, new = Callers(cache), Loader("old", 2), Loader("new", 2)
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


async def set_meanwhile(make: Make) -> None:
    await _changed(make, deleted=False)


async def deleted_meanwhile(make: Make) -> None:
    await _changed(make, deleted=True)


async def deleted_and_left(make: Make) -> None:
    async with made(make) as cache:
        callers = Callers(cache)
        async with anyio.create_task_group() as group:
            group.start_soon(callers.wait, "first", Loader("old"))
            await settle()
            await cache.delete("key")
        found = await cache.get("key", NOTHING)
        require(found is NOTHING, f"get() returned {found!r}, deleted while it was loaded")


async def deadline(make: Make) -> None:
    async with made(make) as cache:
        loader = Loader(seconds=50)
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


async def recursion(make: Make) -> None:
    async with made(make) as cache:
        refused: list[Exception] = []

        async def recursive() -> str:
            try:
                await cache.get_or_set("key", Loader())
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
    async with made(make) as cache:
        callers, loader = Callers(cache), Loader(seconds=seconds)
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


STRUCK = (_struck_first, _struck_between, _struck_in_haste, _struck_alone)
