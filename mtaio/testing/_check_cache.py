"""
The contract of a cache: it keeps values by key, and loads missing ones.

Promise: `check_cache` uses only ``get``, ``set``, ``delete`` and ``get_or_set`` of a cache, and
``async with`` if it has that.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeAlias

import anyio

from mtaio.testing._contract import PATIENCE, Clause, check, require, require_nothing_left, struck
from mtaio.testing._inject import Victim
from mtaio.testing._simulation import run, settle

__all__ = ["check_cache"]

Make: TypeAlias = Callable[[int], Any]
Load: TypeAlias = Callable[[], Awaitable[Any]]

CAPACITY = 4
"""How many values may be kept, where the limit is not the question."""

NOTHING = object()
"""What ``get`` returns for a key without a value."""


def check_cache(
    factory: Callable[[int], Any],
    *,
    seeds: int = 100,
    exhaustive: int | None = 2,
    without: Iterable[str] = (),
    backends: Sequence[str] | None = None,
) -> None:
    """
    Raise `ContractError` unless ``factory`` makes a correct loading cache.

    Use it to test a cache of your own, or a wrapper around one. The cache is tested like
    `mtaio.cache.TTLCache`: on each backend, under all schedules with few delays and some random
    ones, and cancelled at any point. It needs ``await get(key, default)``,
    ``await set(key, value, ttl)``, ``await delete(key)``, which returns whether there was a value,
    and ``await get_or_set(key, load)``, which awaits ``load()`` if there is no value. If it
    supports ``async with``, it is entered. The clauses, in the order in which they are checked:

    - ``"value"``: a value that was set, also None, is found until it is deleted or set again;
    - ``"time"``: an expired value is not found; a ttl of 0 expires at once, ``math.inf`` never;
    - ``"bound"``: no more values are found than the cache may keep, with and without loads;
    - ``"load"``: callers share one load, whose value is kept; keys do not wait for each other;
    - ``"error"``: an error of a load reaches all callers that waited, unchanged, and is not kept;
    - ``"change"``: a load does not undo what was set or deleted during it;
    - ``"deadline"``: a caller's deadline ends its wait, whether it asked first or later;
    - ``"recursion"``: a load that asks for its own key gets an error instead of waiting;
    - ``"checkpoint"``: a caller cancelled when it suspends does not harm the others, and leaves
      nothing behind;
    - ``"step"``: the same for a caller cancelled between any two steps;
    - ``"native"``: the same, on asyncio, for a caller cancelled by ``Task.cancel()``;
    - ``"reuse"``: created outside event loops, it works in one after another, on each backend.

    Args:
        factory: Returns a new cache; called with the number of values that it may keep.
        seeds: The number of random schedules for each clause on each backend.
        exhaustive: As for `explore`.
        without: Clauses that the cache does not promise, to be left out.
        backends: Names of backends; None for those of asyncio and trio that are installed.

    Raises:
        ContractError: A clause is broken; ``clause`` is its name.
        TypeError: What ``factory`` makes lacks one of the methods.
        ValueError: There is no such clause or backend, or a number is negative.
        BaseException: What ``factory`` raises when it is first called.

    Example:
        ```python
        from mtaio import TTLCache
        from mtaio.testing import check_cache


        def make(capacity: int) -> TTLCache[object]:
            return TTLCache(60, max_size=capacity)


        check_cache(make, exhaustive=1, seeds=10)
        ```
    """
    __tracebackhide__ = True
    how: dict[str, Any] = {"seeds": seeds, "exhaustive": exhaustive}
    check("cache", CLAUSES, NEEDS, factory, CAPACITY, without=without, backends=backends, **how)


# ---- callers and loads ---------------------------------------------------------------------------


@asynccontextmanager
async def _opened(cache: Any) -> AsyncGenerator[Any]:
    """Enter a cache in the block, if it can be."""
    if hasattr(cache, "__aenter__") and hasattr(cache, "__aexit__"):
        async with cache:
            yield cache
    else:
        yield cache


async def _require_found(cache: Any, key: Hashable, value: object, told: str) -> None:
    """Hold that ``get`` returns a value; in the message {} is what it returned."""
    found = await cache.get(key, NOTHING)
    require(found == value, told.format(f"get() returned {found!r}"))


class _Loader:
    """A load that takes its time, and counts how often it was started."""

    def __init__(self, value: str = "loaded", seconds: float = 1.0) -> None:
        self.value = value
        self.seconds = seconds
        self.started = 0

    async def __call__(self) -> str:
        self.started += 1
        await anyio.sleep(self.seconds)
        return self.value


class _Callers:
    """Those who ask for keys, and what each got."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache
        self.got: dict[str, object] = {}

    async def ask(self, name: str, load: Load, key: Hashable = "key") -> None:
        """Ask, and keep what comes."""
        self.got[name] = await self.cache.get_or_set(key, load)

    async def wait(self, name: str, load: Load, key: Hashable = "key") -> None:
        """Ask, but not for ever."""
        with anyio.move_on_after(PATIENCE):
            await self.ask(name, load, key)

    def require(self, value: object, *names: str, when: str) -> None:
        """Hold that these got a value."""
        for name in names:
            require(name in self.got, f"the {name} of those who asked got nothing, {when}")
            got = self.got[name]
            require(got == value, f"the {name} of those who asked got {got!r}, {when}")


# ---- clauses -------------------------------------------------------------------------------------


async def _value(make: Make) -> None:
    """What was set is found, None included, until it is deleted or set again."""
    async with _opened(make(CAPACITY)) as cache:
        await cache.set("key", "value", math.inf)
        await cache.set("none", None, math.inf)
        await _require_found(cache, "key", "value", "{} for what had been set to 'value'")
        await _require_found(cache, "none", None, "{} for what had been set to None")
        await _require_found(cache, "missing", NOTHING, "{}, not the default, for a missing key")
        await cache.set("key", "other", math.inf)
        await _require_found(cache, "key", "other", "{} for what had been set again to 'other'")
        require(await cache.delete("key"), "delete() said that there had been no value")
        require(not await cache.delete("key"), "delete() said twice that there had been a value")
        await _require_found(cache, "key", NOTHING, "{} for what had been deleted")
        loader = _Loader()
        found = await cache.get_or_set("none", loader)
        told = "get_or_set() loaded where None had been set"
        require(found is None and not loader.started, told)


async def _time(make: Make) -> None:
    """An expired value is not found."""
    async with _opened(make(CAPACITY)) as cache:
        for key, ttl in (("short", 10), ("none", 0), ("ever", math.inf)):
            await cache.set(key, "value", ttl)
        await _require_found(cache, "none", NOTHING, "{} for what had been set for 0 seconds")
        await anyio.sleep(9)
        told = "after 9 of its 10 seconds a value was not found"
        await _require_found(cache, "short", "value", told)
        await anyio.sleep(2)
        told = "after 11 of its 10 seconds a value was still found"
        await _require_found(cache, "short", NOTHING, told)
        require(not await cache.delete("short"), "delete() said that an expired one was a value")
        for seconds in (5, 7):
            await cache.set("short", "value", 10)
            await anyio.sleep(seconds)
        told = "what had been set again expired with the time of the value before"
        await _require_found(cache, "short", "value", told)
        await anyio.sleep(1e9)  # noqa: ASYNC116 - of virtual time
        told = "a value with math.inf seconds to live was not found"
        await _require_found(cache, "ever", "value", told)


async def _bound(make: Make) -> None:
    """Never more values are found than the cache may keep."""
    capacity, loader = 2, _Loader(seconds=0)
    async with _opened(make(capacity)) as cache:

        async def found(keys: Iterable[Hashable]) -> int:
            return sum([await cache.get(key, NOTHING) is not NOTHING for key in keys])

        for key in range(5):
            await cache.set(key, "value", math.inf)
            kept = await found(range(5))
            require(kept <= capacity, f"{kept} values were found, with room for {capacity}")
        require(await found(range(5)), "no value was found, with room for some")
        callers = _Callers(cache)
        async with anyio.create_task_group() as group:
            for key in range(5, 9):
                group.start_soon(callers.wait, str(key), loader, key)
        kept = await found(range(9))
        require(kept <= capacity, f"{kept} values were found after loads, with room for {capacity}")


async def _load(make: Make) -> None:
    """One load for all who ask, and its value is kept."""
    async with _opened(make(CAPACITY)) as cache:
        callers, loader = _Callers(cache), _Loader()
        names = ("first", "second", "third")
        start = anyio.current_time()
        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(callers.wait, name, loader)
            group.start_soon(callers.wait, "fourth", _Loader(), "other")
        callers.require("loaded", *names, "fourth", when="with one load for all")
        require(loader.started == 1, f"{loader.started} loads were made for 3 who asked at once")
        took = anyio.current_time() - start
        require(took < 1.5, f"2 loads of a second, of different keys, took {took} seconds")  # noqa: PLR2004 - less than two
        await callers.ask("last", loader)
        require(loader.started == 1, "what had been loaded was loaded again")
        await _require_found(cache, "key", "loaded", "{} for what had been loaded")


class _LoadError(Exception):
    """What a load raises here."""


async def _error(make: Make) -> None:
    """An error of a load goes to each who waited for it, as it is, and is not kept."""
    async with _opened(make(CAPACITY)) as cache:
        raised: list[_LoadError] = []
        caught: list[_LoadError] = []

        async def fail() -> str:
            error = _LoadError(f"load {len(raised) + 1}")
            raised.append(error)
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
        same = all(any(error is each for each in raised) for error in caught)
        require(same, "an error that came out is not the one that the load had raised")
        require(len(raised) == 1, f"{len(raised)} loads were made for 3 who asked at once")
        await _require_found(cache, "key", NOTHING, "{} after a load that had failed")
        found = await cache.get_or_set("key", _Loader())
        require(found == "loaded", f"after a load that failed, get_or_set() returned {found!r}")


async def _change(make: Make, *, deleted: bool, asked_again: bool = True) -> None:
    """What was set or deleted during a load is not undone by it."""
    async with _opened(make(CAPACITY)) as cache:
        callers = _Callers(cache)
        when = f"though the key was {'deleted' if deleted else 'set'} during the load"
        async with anyio.create_task_group() as group:
            group.start_soon(callers.wait, "first", _Loader("old", 2))
            await settle()
            await anyio.sleep(1)
            if deleted:
                await cache.delete("key")
            else:
                await cache.set("key", "new", math.inf)
            if asked_again:
                await anyio.sleep(0.5)
                group.start_soon(callers.wait, "second", _Loader("new", 2))
        callers.require("old", "first", when=when)
        if asked_again:
            callers.require("new", "second", when=when)
        await _require_found(cache, "key", "new" if asked_again else NOTHING, f"{{}}, {when}")


async def _deadline(make: Make) -> None:
    """A caller's deadline ends its waiting."""
    async with _opened(make(CAPACITY)) as cache:
        loader = _Loader(seconds=50)
        ended: dict[str, float] = {}

        async def ask(name: str, seconds: float) -> None:
            with anyio.move_on_after(seconds), suppress(Exception):  # which is not the question
                await cache.get_or_set("key", loader)
            ended[name] = anyio.current_time()

        limits = {"first": 2.0, "second": 1.0, "third": PATIENCE}
        start = anyio.current_time()
        async with anyio.create_task_group() as group:
            for name, seconds in limits.items():
                group.start_soon(ask, name, seconds)
                await settle()
        for name, seconds in limits.items():
            took = ended[name] - start
            told = f"the {name} of those who asked had {seconds:g} s, and waited for {took:g}"
            require(took <= seconds, told)


async def _recursion(make: Make) -> None:
    """A load that asks for its own key gets an error, instead of waiting."""
    async with _opened(make(CAPACITY)) as cache:
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


async def _struck(make: Make, victim: Victim, *, order: Sequence[str], seconds: float = 1) -> None:
    """Does not harm the others, and leaves nothing behind."""
    async with _opened(make(CAPACITY)) as cache:
        callers, loader = _Callers(cache), _Loader(seconds=seconds)
        when = "after another was cancelled"
        async with anyio.create_task_group() as group:
            for name in order:
                if name == "victim":
                    group.start_soon(victim, partial(callers.ask, name, loader))
                else:
                    group.start_soon(callers.wait, name, loader)
        callers.require("loaded", *(name for name in order if name != "victim"), when=when)
        await callers.wait("next", loader)
        callers.require("loaded", "next", when=when)
        most = 2  # its own, and one in the place of that
        started = loader.started
        require(started <= most, f"{started} loads were made, with one caller cancelled")
        await _require_found(cache, "key", "loaded", "{} for what had been loaded")
    require_nothing_left(cache)


async def _once(cache: Any, number: int) -> None:
    async with _opened(cache) as entered:
        if number:
            told = "{} for what an earlier loop had set"
            await _require_found(entered, "key", "value", told)
        await entered.set("key", "value", math.inf)
        callers, loader = _Callers(entered), _Loader()
        async with anyio.create_task_group() as group:
            for name in ("first", "second"):
                group.start_soon(callers.wait, name, loader, f"of loop {number}")
        callers.require("loaded", "first", "second", when="in another event loop")
    require_nothing_left(cache)


def _reuse(make: Make, backends: Sequence[str]) -> None:
    """Made outside of event loops, it serves one after another, on every backend."""
    cache = make(CAPACITY)
    for number, backend in enumerate((*backends, *backends)):
        run(_once, cache, number, backend=backend)


NEEDS = ["get", "set", "delete", "get_or_set"]

CLAUSES = [
    *(Clause(each) for each in (_value, _time, _bound, _load, _error)),
    Clause(_change, {"deleted": False}, {"deleted": True}, {"deleted": True, "asked_again": False}),
    *(Clause(each) for each in (_deadline, _recursion)),
    *struck(
        "a caller",
        _struck,
        {"order": ["victim", "second", "third"]},
        {"order": ["first", "victim", "third"]},
        {"order": ["victim", "second"], "seconds": 0},
        {"order": ["victim"]},
    ),
    Clause(_reuse),
]
