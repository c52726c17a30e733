"""
The operations that load.

Promise: one load for each key, however many ask; a caller that is cancelled takes nobody with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from mtaio._internal import clock
from mtaio._internal.sentinel import UNSET, Unset
from mtaio.cache._boarding import NOTHING, Boarding
from mtaio.cache._course import check_factory
from mtaio.cache._keys import unhashable
from mtaio.cache._policy import HOT
from mtaio.cache._storing import NO_TAGS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterable

__all__ = ["Loading"]

T = TypeVar("T")


class Loading(Boarding[T]):
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
            if entry.score < HOT:
                entry.score += 1
            self._hits += 1.0
            value: T = entry.value  # after fresh: see Entry
            return value
        if not callable(factory):
            check_factory(factory)
        if ttl is UNSET and not tags:
            return await self._fetch(key, factory, (), NOTHING, self._default_ttl, NO_TAGS)
        seconds, names = self._ttl_of(ttl), self._tags_of(tags)
        return await self._fetch(key, factory, (), NOTHING, seconds, names)

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
        check_factory(factory)
        seconds, names = self._ttl_of(ttl), self._tags_of(tags)
        return await self._fetch(key, factory, (), NOTHING, seconds, names, anew=True)
