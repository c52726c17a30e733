"""
What a cache does with one key, without waiting.

Promise: none of these operations is a checkpoint, none needs an event loop, and any thread may call
any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from mtaio._internal import clock
from mtaio._internal.sentinel import UNSET, Unset
from mtaio.cache._keys import check_hashable, unhashable
from mtaio.cache._listeners import RemovalCause
from mtaio.cache._policy import HOT
from mtaio.cache._storing import Storing

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from mtaio.cache._entry import Entry

__all__ = ["Single"]

T = TypeVar("T")
D = TypeVar("D")


class Single(Storing, Generic[T]):
    """The operations of `TTLCache` that work on one key, in memory alone."""

    __slots__ = ()

    @overload
    def get_nowait(self, key: Hashable) -> T | None: ...
    @overload
    def get_nowait(self, key: Hashable, default: D) -> T | D: ...
    def get_nowait(self, key: Hashable, default: Any = None) -> Any:
        """
        Return the value of ``key``, or ``default`` if there is none whose time is not over.

        Args:
            key: Which key.
            default: What to return instead; a value may be None itself.

        Raises:
            TypeError: ``key`` cannot be hashed.
        """
        try:
            entry = self._lookup(key)
        except TypeError as error:
            raise unhashable(key, error) from error
        if entry is None:
            self._misses += 1
            return default
        if entry.fresh > clock.read():
            if entry.score < HOT:
                entry.score += 1
            self._hits += 1.0
            return entry.value  # after fresh: see Entry
        return self._read(key, default)

    @overload
    async def get(self, key: Hashable) -> T | None: ...
    @overload
    async def get(self, key: Hashable, default: D) -> T | D: ...
    async def get(self, key: Hashable, default: Any = None) -> Any:
        """
        Return the value of ``key``, or ``default`` if there is none whose time is not over.

        Not a checkpoint. It is `get_nowait`.

        Args:
            key: Which key.
            default: What to return instead; a value may be None itself.

        Raises:
            TypeError: ``key`` cannot be hashed.
        """
        # A KeyError costs those who miss what a look-up with get() costs those who hit.
        try:
            entry = self._entries[key]
        except (KeyError, TypeError):
            pass
        else:
            if entry.fresh > clock.read():
                if entry.score < HOT:
                    entry.score += 1
                self._hits += 1.0
                return entry.value  # after fresh: see Entry
        return self.get_nowait(key, default)

    def _look(self, key: Hashable) -> Any:
        """Return the value of ``key`` if that takes no lock, else UNSET."""
        try:
            entry = self._lookup(key)
        except TypeError:
            return UNSET  # who asks for the load is told
        if entry is not None and entry.fresh > clock.read():
            if entry.score < HOT:
                entry.score += 1
            self._hits += 1.0
            return entry.value  # after fresh: see Entry
        return UNSET

    def _read(self, key: Hashable, default: Any) -> Any:
        """Do what a read does that cannot do without the lock."""
        moment = clock.read()
        gate = self._gate
        if gate.within():
            entry = self._find(key, moment)  # a change is being made: this must not be another
            return default if entry is None else entry.value
        gone: Entry | None = None
        gate.acquire()
        gate.free = False
        try:
            entry = self._find(key, moment)
            if entry is not None:
                self._use(entry, moment)
                default = entry.value
            else:
                self._misses += 1
                gone = self._expire_key(key, moment)
        finally:
            gate.free = True
            gate.release()
            if gate.later:
                gate.catch_up()
        if gone is not None:
            self._deliver(gone)
        return default

    def set_nowait(
        self,
        key: Hashable,
        value: T,
        ttl: float | Unset = UNSET,
        *,
        tags: Iterable[Hashable] = (),
    ) -> None:
        """
        Store ``value`` under ``key``, in the place of what is there.

        A load of that key which is in progress answers those who wait for it, and stores nothing.
        If there is no room, others are given up. A value that weighs more than ``max_size`` and one
        whose ``ttl`` is 0 are not kept; what was there goes all the same.

        Args:
            key: Any object that can be hashed.
            value: Any object, None included.
            ttl: Seconds until it expires; 0 is "has expired", ``math.inf`` never. Omitted: the
                cache's ``default_ttl``.
            tags: Names under which `invalidate_tag` finds it. They replace those it had.

        Raises:
            TypeError: ``key`` or a tag cannot be hashed, or ``ttl`` or the weight is no number.
            ValueError: ``ttl`` or the weight is negative or NaN.
            RuntimeError: ``on_removed`` is async, and the cache is not entered.
            BaseException: What the weigher raises. Then, and with all of these, nothing has
                changed.
        """
        gate = self._gate
        if self._simple and gate.free and ttl is UNSET and not tags:
            gate.acquire()
            gate.free = False
            try:
                _gone = self._put(key, value, self._default_ttl, clock.read())
            except TypeError as error:
                raise unhashable(key, error) from error
            finally:
                gate.free = True
                gate.release()
                if gate.later:
                    gate.catch_up()
            return
        seconds = self._ttl_of(ttl)
        weight = 1 if self._weigher is None else self._weigh(key, value)
        marks = self._tags_of(tags)
        check_hashable(key)
        if self._mute:
            self._check_audible()
        if gate.postpone(self.set_nowait, key, value, ttl, tags=marks):
            return
        if self._jitter:
            seconds = self._spread(seconds)
        with gate:
            _gone = self._put(key, value, seconds, clock.read(), weight, marks)
        self._deliver(_gone)

    async def set(
        self,
        key: Hashable,
        value: T,
        ttl: float | Unset = UNSET,
        *,
        tags: Iterable[Hashable] = (),
    ) -> None:
        """
        Store ``value`` under ``key``, in the place of what is there.

        Not a checkpoint. It is `set_nowait`.
        """
        self.set_nowait(key, value, ttl, tags=tags)

    def delete_nowait(self, key: Hashable) -> bool:
        """
        Remove ``key``.

        A load of that key which is in progress answers those who wait for it, and stores nothing.

        Returns:
            Whether it had a value whose time was not over.

        Raises:
            TypeError: ``key`` cannot be hashed.
            RuntimeError: ``on_removed`` is async, and the cache is not entered.
        """
        check_hashable(key)
        self._check_audible()
        if self._gate.postpone(self.delete_nowait, key):
            return key in self
        with self._gate:
            self._flights.disown(key)
            entry = self._entries.get(key)
            gone, live = self._take(() if entry is None else (entry,))
        self._deliver(gone)
        return live > 0

    async def delete(self, key: Hashable) -> bool:
        """
        Remove ``key``, and return whether it had a value.

        Not a checkpoint. It is `delete_nowait`.
        """
        return self.delete_nowait(key)

    def touch_nowait(self, key: Hashable, ttl: float | Unset = UNSET) -> bool:
        """
        Let the time of ``key`` begin anew, without a new value.

        Args:
            key: Which key.
            ttl: As for `set_nowait`.

        Returns:
            Whether it has a value whose time was not over.

        Raises:
            TypeError: ``key`` cannot be hashed, or ``ttl`` is no number.
            ValueError: ``ttl`` is negative or NaN.
            RuntimeError: ``on_removed`` is async, and the cache is not entered.
        """
        seconds = self._spread(self._ttl_of(ttl))
        check_hashable(key)
        self._check_audible()
        if self._gate.postpone(self.touch_nowait, key, ttl):
            return key in self
        gone = None
        with self._gate:
            moment = clock.read()
            entry = self._find(key, moment)
            if entry is not None and seconds:
                self._touch(entry, seconds, moment)
            elif entry is not None:
                gone = self._remove(entry, RemovalCause.EXPIRED)
        self._deliver(gone)
        return entry is not None

    async def touch(self, key: Hashable, ttl: float | Unset = UNSET) -> bool:
        """
        Let the time of ``key`` begin anew, and return whether it has a value.

        Not a checkpoint. It is `touch_nowait`.
        """
        return self.touch_nowait(key, ttl)

    def __contains__(self, key: Hashable) -> bool:
        """Tell whether ``key`` has a value whose time is not over; that is no use of it."""
        check_hashable(key)
        return self._find(key, clock.read()) is not None

    async def contains(self, key: Hashable) -> bool:
        """
        Tell whether ``key`` has a value whose time is not over.

        Not a checkpoint. It is ``key in cache``, and no use of the key.
        """
        return key in self
