"""
What a cache does without waiting: every operation but those that load.

Promise: none of them is a checkpoint, none needs an event loop, and any thread may call any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from mtaio._internal import clock
from mtaio._internal.unset import UNSET, Unset
from mtaio.cache._listeners import RemovalCause
from mtaio.cache._policies import HOT
from mtaio.cache._store import Store, scatter, unhashable

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

__all__ = ["Memory"]

T = TypeVar("T")
D = TypeVar("D")


class Memory(Store, Generic[T]):
    """The operations of `TTLCache` that work on memory alone."""

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
            value = entry.value  # after fresh: see Entry
            if entry.score < HOT:
                entry.score += 1
            self._hits += 1
            return value
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
        try:
            entry = self._lookup(key)
        except TypeError as error:
            raise unhashable(key, error) from error
        if entry is not None and entry.fresh > clock.read():
            value = entry.value  # after fresh: see Entry
            if entry.score < HOT:
                entry.score += 1
            self._hits += 1
            return value
        return self.get_nowait(key, default)

    def _look(self, key: Hashable) -> Any:
        """Return the value of ``key`` if that takes no lock, else UNSET."""
        try:
            entry = self._lookup(key)
        except TypeError as error:
            raise unhashable(key, error) from error
        if entry is not None and entry.fresh > clock.read():
            value = entry.value  # after fresh: see Entry
            if entry.score < HOT:
                entry.score += 1
            self._hits += 1
            return value
        return UNSET

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
        if self._simple and ttl is UNSET and not tags:
            self._acquire()
            try:
                _gone = self._put(key, value, self._default_ttl)
            except TypeError as error:
                raise unhashable(key, error) from error
            finally:
                self._release()
            return
        seconds = self._ttl_of(ttl)
        weight = 1 if self._weigher is None else self._weigh(key, value)
        marks = self._tags_of(tags)
        if self._mute:
            self._check_audible()
        if self._jitter:
            seconds = self._spread(seconds)
        try:
            with self._lock:
                _gone = self._put(key, value, seconds, weight, marks)
        except TypeError as error:
            raise unhashable(key, error) from error
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
        return bool(self.delete_many_nowait((key,)))

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
        gone = None
        with self._lock:
            moment = clock.read()
            entry = self._find(key, moment)
            if entry is not None and seconds:
                self._touch(entry, seconds, moment)
            elif entry is not None:
                self._expirations += 1
                gone = self._remove(entry, RemovalCause.EXPIRED)
        self._deliver(gone)
        return entry is not None

    async def touch(self, key: Hashable, ttl: float | Unset = UNSET) -> bool:
        """
        Let the time of ``key`` begin anew, and return whether it has a value.

        Not a checkpoint. It is `touch_nowait`.
        """
        return self.touch_nowait(key, ttl)

    def clear_nowait(self) -> None:
        """
        Remove everything.

        Loads in progress answer those who wait for them, and store nothing. Takes time for each
        entry, most of it without the lock.

        Raises:
            RuntimeError: ``on_removed`` is async, and the cache is not entered.
        """
        self._check_audible()
        with self._lock:
            self._flights.disown_all()
            gone = self._take_all()
        scatter(gone)
        self._deliver(gone)

    async def clear(self) -> None:
        """
        Remove everything.

        Not a checkpoint. It is `clear_nowait`.
        """
        self.clear_nowait()

    def get_many_nowait(self, keys: Iterable[Hashable]) -> dict[Hashable, T]:
        """
        Return the keys that have a value, with their values.

        Args:
            keys: Which keys.

        Raises:
            TypeError: A key cannot be hashed.
        """
        found: dict[Hashable, T] = {}
        for key in keys:
            value = self.get_nowait(key, UNSET)
            if value is not UNSET:
                found[key] = value
        return found

    async def get_many(self, keys: Iterable[Hashable]) -> dict[Hashable, T]:
        """
        Return the keys that have a value, with their values.

        Not a checkpoint. It is `get_many_nowait`.
        """
        return self.get_many_nowait(keys)

    def set_many_nowait(
        self,
        values: Mapping[Any, T],
        ttl: float | Unset = UNSET,
        *,
        tags: Iterable[Hashable] = (),
    ) -> None:
        """
        Store many values at once: other threads see none of them, or all.

        Args:
            values: The keys and their values.
            ttl: For each, as for `set_nowait`.
            tags: For each, as for `set_nowait`.

        Raises:
            TypeError, ValueError, RuntimeError, BaseException: As `set_nowait`; nothing has
                changed.
        """
        seconds = self._ttl_of(ttl)
        marks = self._tags_of(tags)
        self._check_audible()
        items = [(key, value, self._weigh(key, value)) for key, value in values.items()]
        with self._lock:
            gone = [
                self._put(key, value, self._spread(seconds), weight, marks)
                for key, value, weight in items
            ]
        self._deliver(gone)

    async def set_many(
        self,
        values: Mapping[Any, T],
        ttl: float | Unset = UNSET,
        *,
        tags: Iterable[Hashable] = (),
    ) -> None:
        """
        Store many values at once.

        Not a checkpoint. It is `set_many_nowait`.
        """
        self.set_many_nowait(values, ttl, tags=tags)

    def delete_many_nowait(self, keys: Iterable[Hashable]) -> int:
        """
        Remove keys.

        Args:
            keys: Which keys.

        Returns:
            How many had a value whose time was not over.

        Raises:
            TypeError: A key cannot be hashed; nothing has changed.
            RuntimeError: ``on_removed`` is async, and the cache is not entered.
        """
        keys = [*keys]
        for key in keys:
            check_hashable(key)
        self._check_audible()
        with self._lock:
            gone, live = self._take(keys)
        self._deliver(gone)
        return live

    async def delete_many(self, keys: Iterable[Hashable]) -> int:
        """
        Remove keys, and return how many had a value.

        Not a checkpoint. It is `delete_many_nowait`.
        """
        return self.delete_many_nowait(keys)

    def invalidate_tag_nowait(self, tag: Hashable) -> int:
        """
        Remove everything that carries ``tag``.

        Loads in progress whose value would carry it answer those who wait, and store nothing.

        Args:
            tag: One that was given to `set`, `get_or_set` or `cached`.

        Returns:
            How many values were removed whose time was not over.

        Raises:
            TypeError: ``tag`` cannot be hashed.
            RuntimeError: ``on_removed`` is async, and the cache is not entered.
        """
        (tag,) = self._tags_of((tag,))
        self._check_audible()
        with self._lock:
            self._flights.disown_tagged(tag)
            gone, live = self._take(self._tags.keys(tag))
        self._deliver(gone)
        return live

    async def invalidate_tag(self, tag: Hashable) -> int:
        """
        Remove everything that carries ``tag``, and return how many values that were.

        Not a checkpoint. It is `invalidate_tag_nowait`.
        """
        return self.invalidate_tag_nowait(tag)

    def __contains__(self, key: Hashable) -> bool:
        """Tell whether ``key`` has a value whose time is not over; that is no use of it."""
        check_hashable(key)
        with self._lock:
            return self._find(key, clock.read()) is not None

    async def contains(self, key: Hashable) -> bool:
        """
        Tell whether ``key`` has a value whose time is not over.

        Not a checkpoint. It is ``key in cache``, and no use of the key.
        """
        return key in self

    def __len__(self) -> int:
        """Return how many entries are held, those included that expired a moment ago."""
        return len(self._entries)

    def __iter__(self) -> Iterator[Any]:
        """Return an iterator over the keys that have a value now, from the oldest."""
        return iter([key for key, _ in self.items()])

    def items(self) -> list[tuple[Any, T]]:
        """
        Return the keys that have a value now, each with it, from the oldest.

        A copy, made under the lock: it takes time for each entry. No use of the keys. Not a
        checkpoint.
        """
        with self._lock:
            moment = clock.read()
            return [
                (key, entry.value)
                for key, entry in self._entries.items()
                if self._is_live(entry, moment)
            ]


def check_hashable(key: Hashable) -> None:
    """Raise ``TypeError`` if ``key`` cannot be hashed."""
    try:
        hash(key)
    except TypeError as error:
        raise unhashable(key, error) from error
