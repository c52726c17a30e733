"""
What a cache does with many keys at once, without waiting.

Promise: as for one key; and nobody else's change comes between those of one call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from mtaio._internal import clock
from mtaio._internal.sentinel import UNSET, Unset
from mtaio.cache._keys import check_hashable, check_many
from mtaio.cache._leaving import scatter
from mtaio.cache._single import Single

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

__all__ = ["Batch"]

T = TypeVar("T")


class Batch(Single[T]):
    """The operations of `TTLCache` that work on many keys, in memory alone."""

    __slots__ = ()

    def clear_nowait(self) -> None:
        """
        Remove everything.

        Loads in progress answer those who wait for them, and store nothing. Takes time for each
        entry, most of it without the lock.

        Raises:
            RuntimeError: ``on_removed`` is async, and the cache is not entered.
        """
        self._check_audible()
        if self._gate.postpone(self.clear_nowait):
            return
        with self._gate:
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

    def get_many_nowait(self, keys: Iterable[Hashable]) -> dict[Any, T]:
        """
        Return the keys that have a value, with their values.

        Args:
            keys: Which keys.

        Raises:
            TypeError: A key cannot be hashed, or ``keys`` is one key.
        """
        check_many(keys)
        found: dict[Any, T] = {}
        for key in keys:
            value = self.get_nowait(key, UNSET)
            if value is not UNSET:
                found[key] = value
        return found

    async def get_many(self, keys: Iterable[Hashable]) -> dict[Any, T]:
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
        Store many values, with no change of others in between.

        Args:
            values: The keys and their values.
            ttl: For each, as for `set_nowait`.
            tags: For each, as for `set_nowait`.

        Raises:
            TypeError, ValueError, RuntimeError, BaseException: As `set_nowait`, or ``values`` is
                no mapping; nothing has changed.
        """
        if not hasattr(cast("object", values), "items"):
            msg = f"values={values!r} is a {type(values).__name__}, not a mapping. Pass a dict."
            raise TypeError(msg)
        seconds = self._ttl_of(ttl)
        marks = self._tags_of(tags)
        self._check_audible()
        items: list[tuple[Any, T, float]] = []
        for key, value in values.items():
            check_hashable(key)  # not every mapping is a dict
            items.append((key, value, self._weigh(key, value)))
        if self._gate.postpone(self.set_many_nowait, dict(values), ttl, tags=marks):
            return
        with self._gate:
            moment = clock.read()
            gone = [
                self._put(key, value, self._spread(seconds), moment, weight, marks)
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
            TypeError: A key cannot be hashed, or ``keys`` is one key; nothing has changed.
            RuntimeError: ``on_removed`` is async, and the cache is not entered.
        """
        check_many(keys)
        keys = [*keys]
        for key in keys:
            check_hashable(key)
        self._check_audible()
        if self._gate.postpone(self.delete_many_nowait, keys):
            return sum(key in self for key in keys)
        with self._gate:
            for key in keys:
                self._flights.disown(key)
            found = map(self._entries.get, keys)
            # As a dict, because a key may be given twice.
            gone, live = self._take(dict.fromkeys(each for each in found if each is not None))
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
        if self._gate.postpone(self.invalidate_tag_nowait, tag):
            moment = clock.read()
            return sum(self._is_live(entry, moment) for entry in self._tags.entries(tag))
        with self._gate:
            self._flights.disown_tagged(tag)
            tagged = self._tags.entries(tag)
            for entry in tagged:
                self._flights.disown(entry.key)
            gone, live = self._take(tagged)
        self._deliver(gone)
        return live

    async def invalidate_tag(self, tag: Hashable) -> int:
        """
        Remove everything that carries ``tag``, and return how many values that were.

        Not a checkpoint. It is `invalidate_tag_nowait`.
        """
        return self.invalidate_tag_nowait(tag)

    def __len__(self) -> int:
        """Return how many entries are held, those included that expired and are still there."""
        return len(self._entries)

    def __iter__(self) -> Iterator[Any]:
        """Return an iterator over the keys that have a value now, in the order they came in."""
        return iter([key for key, _ in self.items()])

    def items(self) -> list[tuple[Any, T]]:
        """
        Return the keys that have a value now, each with it, in the order they came in.

        A copy, made under the lock: it takes time for each entry. No use of the keys. Not a
        checkpoint.
        """
        if self._gate.within():
            return self._live()
        with self._gate:
            return self._live()

    def _live(self) -> list[tuple[Any, T]]:
        moment = clock.read()
        return [
            (key, entry.value)
            for key, entry in self._entries.items()
            if self._is_live(entry, moment)
        ]
