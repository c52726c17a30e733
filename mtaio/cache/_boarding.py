"""
Who asks for a load, and what he is answered with.

Promise: one load for each key and event loop, however many ask; who asks for what he is himself
loading is told so.
Cost: a load that nobody else asks for takes the lock once, at its end.
Why callers wait as they do, and why so much is written out: docs/en/design/caching.md.
"""

from __future__ import annotations

import reprlib
from contextlib import suppress
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from mtaio._internal import clock, loops
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.sentinel import UNSET
from mtaio.cache._course import Course, check_awaitable
from mtaio.cache._entry import Entry, Failure, Laden
from mtaio.cache._flight import (
    CLOSED,
    FAILED,
    LANDED,
    LOADING,
    RUNNING,
    Flight,
    probable_loop,
)
from mtaio.cache._keys import unhashable
from mtaio.exceptions import CacheClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from mtaio.cache._block import Block

__all__ = ["NOTHING", "Boarding"]

T = TypeVar("T")

NOTHING: Final[dict[str, Any]] = {}
"""The keyword arguments of a factory that takes none."""

_COROUTINE: type = CoroutineType
_OVER = (LANDED, FAILED)


class Boarding(Course[T]):
    """The part of `TTLCache` that decides who loads, and who waits for whom."""

    __slots__ = ()

    async def _fetch(  # noqa: PLR0915, PLR0917 - what each load does, without calls
        self,
        key: Hashable,
        factory: Callable[..., Awaitable[T]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        ttl: float,
        tags: frozenset[Hashable],
        *,
        anew: bool = False,
    ) -> T:
        """Answer a call for which there is no value, or that wants a new one."""
        flights = self._flights
        table = flights.table
        mine = Flight()
        mine.cache = self
        mine.key = key
        mine.ttl = ttl
        mine.tags = tags
        mine.event = mine.company = mine.other = mine.outer = None
        mine.state = RUNNING
        mine.wanted = True
        mine.waiters = 0
        if LOADING.get() is not None:
            mine.outer = course_of(self, key)
        if table or anew or not (self._straight and self._gate.free):
            alone = False
        else:
            # Nobody loads anything: this is what `_board` comes to then, without lock and calls.
            # A flight of this loop cannot come meanwhile, for only tasks of this thread begin one.
            mine.loop = probable_loop()
            mine.began = clock.read()
            try:
                alone = table.setdefault(key, mine) is mine
            except TypeError as error:
                raise unhashable(key, error) from error
        if alone:
            flights.last = 0
            flights.loads += 1
            self._misses += 1
        else:
            mine.factory = factory
            mine.args = args
            mine.kwargs = kwargs
            found = await self._ride(mine, *self._board(mine, anew=anew))
            if type(found) is Failure:
                raised, trace = found.error, found.traceback
                del mine, found  # which have the error, whose traceback has this frame
                try:
                    raise raised.with_traceback(trace)
                finally:
                    del raised, trace
            if found is not UNSET:
                return cast("T", found)
        token = LOADING.set(mine)
        try:
            if flights.loads % FAST_CALLS == 0:
                await checkpoint()
            call = factory(*args, **kwargs) if kwargs else factory(*args)  # ** makes a dict
            if type(call) is not _COROUTINE:
                check_awaitable(factory, call)
            value = await call
            self._land(mine, value)
        except BaseException as error:
            with suppress(ValueError):  # the garbage collector closes it in any context
                LOADING.reset(token)
            self._fallen(mine, error)
            del mine, token  # which have the error, whose traceback has this frame
            raise
        LOADING.reset(token)
        return value

    async def _ride(self, mine: Flight, flight: Flight | None, found: Any) -> Any:
        """
        Wait for the flight that `_board` has named, or for one that takes its place.

        Returns:
            The value or `Failure` to answer with, or UNSET if the caller has to load ``mine``.
        """
        while True:
            if flight is mine and mine.company is not None:
                assert self._block is not None  # noqa: S101 - for the type checkers: it is in one
                self._depart(mine, self._block)
            if found is UNSET and flight is not None:
                if flight is mine and mine.company is None:
                    return UNSET
                await self._wait(flight)
                found = flight.result if flight.state in _OVER else UNSET
            if found is not UNSET or flight is None:
                return found
            if flight.state is CLOSED:
                msg = f"{self!r} was left while key={reprlib.repr(mine.key)} was loaded"
                return Failure(CacheClosedError(msg, name=self._name))
            # Its leader was cancelled: somebody has to lead, if nobody does yet.
            flight, found = self._board(mine, again=True)

    def _board(
        self, mine: Flight, *, anew: bool = False, again: bool = False
    ) -> tuple[Flight | None, Any]:
        """
        Decide what comes of a call.

        Args:
            mine: What is asked for.
            anew: Whether it is to be loaded even if there is a value.
            again: Whether the call was counted before.

        Returns:
            The flight to wait for, or that refreshes, ``mine`` if it begins now; and the value or
            `Failure` to answer with, or UNSET.
        """
        key = mine.key
        flights = self._flights
        homed = self._block is not None or self._refreshing or self._mute
        # A flight of this loop cannot come meanwhile: only tasks of this thread begin one.
        loop = loops.current_loop() if homed or flights.table else probable_loop()
        block = None
        found: Any = UNSET
        _lost = None  # dropped outside the lock
        try:
            with self._gate:
                moment = clock.read()
                if anew:
                    block = self._block_for(loop) if homed else None
                    flights.disown(key)
                else:
                    flight = flights.find(loop, key) if flights.table else None
                    entry = self._lookup(key)
                    if entry is not None and moment >= entry.expires:
                        entry = None
                    wanted = entry is None or self._is_due(entry, moment)
                    if wanted and homed:
                        block = self._block_for(loop)  # which may refuse, hence before it counts
                    if entry is not None:
                        self._use(entry, moment)
                        found = entry.value
                    if again:
                        self._hits -= entry is not None  # the call was counted as a miss
                    elif entry is None:
                        self._misses += 1
                    if flight is not None or not wanted:
                        return flight, found
                mine.outer = underway(mine.outer)
                _lost = flights.begin(mine, loop, moment)
                if block is not None:
                    block.take_in(mine, kept=found is not UNSET)
        except TypeError as error:
            raise unhashable(key, error) from error
        return mine, found

    def _is_due(self, entry: Entry, moment: float) -> bool:
        """Tell whether the value of an entry is to be renewed."""
        return type(entry) is Laden and moment >= entry.renew and type(entry.value) is not Failure

    def _block_for(self, loop: object) -> Block | None:
        """Return the block in which a load runs, None for the caller's task; or refuse."""
        self._check_audible()
        block = self._block
        if block is not None and block.loop is loop and not block.leaving:
            return block
        if self._refreshing:
            msg = (
                f"{self!r} refreshes in the background, and is not entered in this event loop. Use "
                f"'async with cache:' around what uses it, or leave out stale_while_revalidate and "
                f"refresh_ahead."
            )
            raise RuntimeError(msg)
        return None


def underway(flight: Flight | None) -> Flight | None:
    """Return ``flight`` or the first outside it that is not over: nobody waits for one that is."""
    while flight is not None and flight.state is not RUNNING:
        flight = flight.outer
    return flight


def course_of(cache: object, key: Hashable) -> Flight | None:
    """Return the load in whose course ``key`` is asked for; raise if it waits for that very key."""
    outer = flight = underway(LOADING.get())
    while flight is not None:
        if flight.cache is cache and flight.state is RUNNING and same(flight.key, key):
            del outer, flight  # as in _fetch
            msg = (
                f"the load of key={reprlib.repr(key)} in {cache!r} asked for that very key, and "
                f"would wait for itself. Have it compute the value by other means."
            )
            raise RuntimeError(msg)
        flight = flight.outer
    return outer


def same(one: Hashable, other: Hashable) -> bool:
    """Tell whether a dict takes two keys for one; not every pair of keys can be compared."""
    return one is other or (hash(one) == hash(other) and one == other)
