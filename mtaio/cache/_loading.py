"""
Who asks for a load, and what he is answered with.

Promise: one load for each key, however many ask; a caller that is cancelled takes nobody with it;
who asks for what he is himself loading is told so.
Why callers wait as they do: docs/en/design/caching.md.
"""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mtaio._internal import checks, clock, loops
from mtaio._internal.unset import UNSET, Unset
from mtaio.cache._course import FACTORY, Course
from mtaio.cache._entry import Entry, Failure, Laden
from mtaio.cache._flight import LOADING, Flight, State, probable_loop
from mtaio.cache._gate import WITHIN
from mtaio.cache._keys import unhashable
from mtaio.cache._policy import HOT
from mtaio.cache._storing import NO_TAGS
from mtaio.exceptions import CacheClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable

    from mtaio.cache._block import Block

__all__ = ["Loading"]

T = TypeVar("T")

_OVER = (State.LANDED, State.FAILED)


class Loading(Course[T]):
    """The operations of `TTLCache` that load."""

    __slots__ = ()

    async def get_or_set(
        self,
        key: Hashable,
        factory: Callable[[], Awaitable[T]],
        *,
        ttl: float | Unset = UNSET,
        tags: Iterable[Hashable] = (),
    ) -> T:
        """
        Return the value of ``key``; if there is none, load it, once for all who ask meanwhile.

        Not a checkpoint if there is a value. A load suspends as its factory does, and one in 64 is
        a checkpoint in any case. While a load of the key is in progress in this event loop, other
        callers wait for it. In an entered cache the load runs in the cache's task group: each
        caller may be cancelled, and the load is only when nobody waits any more. Else the first
        caller runs it: if that one is cancelled, another who waits begins it again.

        Args:
            key: Any object that can be hashed.
            factory: Called without arguments; what it returns is awaited.
            ttl: Seconds for which the value is kept, as for `set_nowait`.
            tags: Names under which `invalidate_tag` finds the value.

        Raises:
            Exception: What ``factory`` raised, to everybody who waited for that load. It is not
                kept, unless the cache has an ``error_ttl``.
            CacheClosedError: The cache was entered, and was left during the load.
            RuntimeError: The load was asked for by its own factory, directly or through other
                loads; or the cache has to be entered, for its options or its async listener.
            TypeError, ValueError: As `set_nowait`; or ``factory`` is not an async function.
        """
        try:
            entry = self._lookup(key)
        except TypeError as error:
            raise unhashable(key, error) from error
        if entry is not None and entry.fresh > clock.read():
            value: T = entry.value  # after fresh: see Entry
            if entry.score < HOT:
                entry.score += 1
            self._hits += 1
            return value
        if not callable(factory):
            checks.callable_("factory", factory, way_out=FACTORY)
        if ttl is UNSET and not tags:
            return await self._fetch(key, factory, self._default_ttl, NO_TAGS)
        return await self._fetch(key, factory, self._ttl_of(ttl), self._tags_of(tags))

    async def refresh(
        self,
        key: Hashable,
        factory: Callable[[], Awaitable[T]],
        *,
        ttl: float | Unset = UNSET,
        tags: Iterable[Hashable] = (),
    ) -> T:
        """
        Load the value of ``key`` anew, and return it.

        Until it is there, everybody else is served the old value, and if the load fails it stays.
        A load of that key which began earlier answers those who wait for it, and stores nothing;
        those who ask from now on share this one. Suspends, runs and is cancelled as the load of
        `get_or_set` is.

        Args:
            key: As for `get_or_set`.
            factory: As for `get_or_set`.
            ttl: As for `get_or_set`.
            tags: As for `get_or_set`.

        Raises:
            BaseException: As `get_or_set`.
        """
        checks.callable_("factory", factory, way_out=FACTORY)
        return await self._fetch(key, factory, self._ttl_of(ttl), self._tags_of(tags), anew=True)

    def _fetch(
        self,
        key: Hashable,
        factory: Callable[[], Awaitable[T]],
        ttl: float,
        tags: frozenset[Hashable],
        *,
        anew: bool = False,
    ) -> Coroutine[Any, Any, T]:
        """Begin a load or find who is to be waited for; return what brings the call to its end."""
        mine = Flight()
        mine.cache = self
        mine.key = key
        mine.factory = factory
        mine.ttl = ttl
        mine.tags = tags
        flight, found = self._board(mine, anew=anew)
        if flight is mine and mine.company is None:
            return self._lead(mine)
        return self._ride(mine, flight, found)

    async def _ride(self, mine: Flight, flight: Flight | None, found: Any) -> T:
        """Bring a call to its end, of which `_board` has decided how it begins."""
        while True:
            if flight is mine and mine.company is not None:
                assert self._block is not None  # noqa: S101 - for the type checkers: it is in one
                self._depart(mine, self._block)
            if found is UNSET and flight is not None:
                if flight is mine and mine.company is None:
                    return await self._lead(mine)
                await self._wait(flight)
                found = flight.result if flight.state in _OVER else UNSET
            if type(found) is Failure:
                error, trace = found.error, found.traceback
                del mine, flight, found  # which have the error, whose traceback has this frame
                try:
                    raise error.with_traceback(trace)
                finally:
                    del error, trace
            if found is not UNSET or flight is None:
                return cast("T", found)
            if flight.state is State.CLOSED:
                msg = f"{self!r} was left while key={reprlib.repr(mine.key)} was loaded"
                raise CacheClosedError(msg, name=self._name)
            # Its leader was cancelled: somebody has to lead, if nobody does yet.
            flight, found = self._board(mine, again=True)

    def _board(  # noqa: C901, PLR0912 - what each load does: calls would cost as much again
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
        outer = LOADING.get()
        if outer is not None:
            refuse_recursion(outer, self, key)
        block = None
        if self._block is not None or self._refreshing or self._mute:
            loop = loops.current_loop()
            block = self._block_for(loop)
        else:
            # A flight of this loop cannot come meanwhile: only tasks of this thread begin one.
            loop = loops.current_loop() if flights.table else probable_loop()
        gate = self._gate
        gate.acquire()
        if not gate.free:
            gate.release()
            raise RuntimeError(WITHIN)
        gate.free = False
        found: Any = UNSET
        _lost = None  # dropped outside the lock
        try:
            moment = clock.read()
            if anew:
                flights.disown(key)
            else:
                flight = flights.find(loop, key) if flights.table else None
                entry = self._lookup(key)
                due = False
                if entry is not None and moment < entry.expires:
                    found, due = self._serve(entry, moment)
                elif not again:
                    self._misses += 1
                if flight is not None or (found is not UNSET and not due):
                    return flight, found
            while outer is not None and outer.state is not State.RUNNING:
                outer = outer.outer  # nobody waits for what is over, and it would be kept alive
            mine.outer = outer
            _lost = flights.begin(mine, loop, moment)
            if block is not None:
                block.take_in(mine, kept=found is not UNSET)
        except TypeError as error:
            raise unhashable(key, error) from error
        finally:
            gate.free = True
            gate.release()
            if gate.later:
                gate.catch_up()
        return mine, found

    def _serve(self, entry: Entry, moment: float) -> tuple[Any, bool]:
        """Return the value or `Failure` to answer with, and whether a refresh is due."""
        self._use(entry, moment)
        value = entry.value
        due = type(entry) is Laden and moment >= entry.renew and type(value) is not Failure
        return value, due

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


def refuse_recursion(flight: Flight | None, cache: object, key: Hashable) -> None:
    """Raise if the load of ``key`` is asked for in the course of ``flight``, and would be that."""
    while flight is not None:
        if flight.cache is cache and flight.state is State.RUNNING and same(flight.key, key):
            msg = (
                f"the load of key={reprlib.repr(key)} in {cache!r} asked for that very key, and "
                f"would wait for itself. Have it compute the value by other means."
            )
            raise RuntimeError(msg)
        flight = flight.outer


def same(one: Hashable, other: Hashable) -> bool:
    """Tell whether a dict takes two keys for one; not every pair of keys can be compared."""
    return one is other or (hash(one) == hash(other) and one == other)
