"""
The cache: values by key, each kept for some time, as many as there is room for.

Promise: an expired value is never returned, one load serves all callers that ask for its key, and
never more than ``max_size`` is held.
Cost: a hit takes about as long as a dict look-up and reading a clock; see benchmarks/cache.py.
The reasons for the policies, the expiry and the loads: docs/en/design/caching.md.
"""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, cast, final, overload

import mtaio
from mtaio._internal import checks, clock
from mtaio._internal.block import Blocks
from mtaio._internal.sentinel import UNSET, Unset
from mtaio.cache._config import (
    NO_TAGS,
    Config,
    check_hashable,
    check_loader,
    check_many,
    check_tags,
    check_ttl,
    lifetime,
    unhashable,
)
from mtaio.cache._fetching import NO_KEYWORDS, Fetcher
from mtaio.cache._loads import Loads
from mtaio.cache._lock import ChangeLock
from mtaio.cache._policy import HOT, EvictionPolicy
from mtaio.cache._store import RemovalCause, Store, unlink

if TYPE_CHECKING:
    import typing_extensions

    import mtaio.statistics
    from mtaio.cache._background import Background
    from mtaio.cache._config import Lifetime
    from mtaio.cache._entry import Entry
    from mtaio.cache._listeners import Notifier

    T = typing_extensions.TypeVar("T", default=Any)
else:  # typing's has no default before Python 3.13, and the other takes milliseconds to import
    T = TypeVar("T")

__all__ = ["TTLCache"]

D = TypeVar("D")
K = TypeVar("K", bound=Hashable)


@final
class TTLCache(Generic[T]):
    """
    A cache in memory whose values expire, and that loads a missing value once for all callers.

    It may be used without ``async with``. Inside ``async with``, it also removes expired entries in
    the background and runs loads in a task group of its own, so that cancelling one caller does not
    cancel a load that others wait for. Only then can it refresh values in the background
    (``stale_while_revalidate``, ``refresh_ahead``) and use an async ``on_removed``.

    It can be created at module level and used by one event loop after another, on either backend;
    values stay, and loads end with their event loop. Any thread may use it at any time, with or
    without an event loop. Each operation is atomic, and the value returned for a key was its value
    at some moment during the call. Loads are shared only within an event loop, and ``async with``
    belongs to one. On free-threaded builds, the counts of hits and misses may be too low.

    A finaliser, a signal handler or the ``__eq__`` of a key that runs in the middle of a change can
    read the cache, but gets a ``RuntimeError`` if it tries to change it. After a fork, the child
    process has the values, but neither the ``async with`` block nor the loads.

    Args:
        default_ttl: Seconds to keep a value that comes without its own ``ttl``; ``math.inf`` for
            values that do not expire, 0 to keep none.
        max_size: Maximum number of entries, at least 1, or their maximum total weight if there is a
            ``weigher``. None for no limit.
        policy: Which entry is evicted to make room. ``"s3fifo"`` (Yang et al., SOSP 2023): one that
            is new or was not used again; close to the best for most traffic. ``"lru"``: the least
            recently used; good if recent keys are asked for again. ``"lfu"``: the least frequently
            used; good if some keys are always popular. ``"fifo"``: the oldest.
        weigher: A function that is called with the key and the value before a value is stored, and
            returns its weight, 0 or more.
        idle_ttl: Seconds after which a value that is not read expires early; None for no such
            limit.
        jitter: Maximum fraction, from 0 to less than 1, by which times to live are shortened at
            random, so that values stored together do not expire together.
        stale_while_revalidate: Seconds for which ``get_or_set`` still serves an expired value while
            it loads a new one in the background, as in RFC 5861 for HTTP. If that load fails, the
            old value stays, and the next call after ``error_ttl`` tries again.
        stale_if_error: Seconds for which an expired value is served if the load of a new one fails,
            to the callers that wait for that load and to those that ask within ``error_ttl`` after
            it. `refresh` raises the error.
        refresh_ahead: Fraction of a value's time to live, between 0 and 1, after which
            ``get_or_set`` loads a new value in the background; None for never.
        error_ttl: Seconds for which the exception of a failed load is kept and raised to every
            caller; 0 to keep none. It takes the place of a value and has a weight of 1.
        on_removed: A function that is called with the key, the value and a `RemovalCause` for each
            value that leaves the cache, after the operation and outside the lock. It may be async
            in an entered cache; a single task then calls it in order, and while 10,000 calls are
            waiting, further removals are only counted as ``dropped``. Errors that it raises are
            logged to ``mtaio.cache``.
        name: Name shown in messages and metrics.

    Raises:
        TypeError: An argument has the wrong type, or must be passed by name.
        ValueError: A number is out of range or NaN, or there is no such policy.

    Example:
        Ten callers, one load:

        ```python
        import anyio

        from mtaio import TTLCache

        cache: TTLCache[str] = TTLCache(60, max_size=1000)


        async def fetch(user: int) -> str:
            print(f"loading user {user}")
            await anyio.sleep(0.1)
            return f"user {user}"


        async def show(user: int) -> None:
            print(await cache.get_or_set(user, lambda: fetch(user)))


        async def main() -> None:
            async with cache, anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(show, 7)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # A hit is read from the store without the lock; everything else is done under it, by the store
    # and the loads, and listeners are called afterwards. A call that has to load, or to wait
    # for a load, is the fetcher's.
    __slots__ = (
        "__weakref__",
        "_blocks",
        "_config",
        "_default_ttl",
        "_entries",
        "_fetcher",
        "_loads",
        "_lock",
        "_lookup",
        "_notifier",
        "_store",
    )

    def __init__(
        self,
        default_ttl: float = 300.0,
        *,
        max_size: float | None = None,
        policy: EvictionPolicy = "s3fifo",
        weigher: Callable[[Any, T], float] | None = None,
        idle_ttl: float | None = None,
        jitter: float = 0.0,
        stale_while_revalidate: float = 0.0,
        stale_if_error: float = 0.0,
        refresh_ahead: float | None = None,
        error_ttl: float = 0.0,
        on_removed: Callable[[Any, T, RemovalCause], Any] | None = None,
        name: str | None = None,
    ) -> None:
        self._config = Config(
            default_ttl=default_ttl,
            max_size=max_size,
            policy=policy,
            weigher=weigher,
            idle_ttl=idle_ttl,
            jitter=jitter,
            stale_while_revalidate=stale_while_revalidate,
            stale_if_error=stale_if_error,
            refresh_ahead=refresh_ahead,
            error_ttl=error_ttl,
            name=name,
        )
        self._default_ttl = float(self._config.default_ttl)  # added to floats, in less time
        self._lock = ChangeLock()
        self._notifier: Notifier | None = None
        if on_removed is not None:
            from mtaio.cache._listeners import notifier_of  # noqa: PLC0415 - few caches have one

            self._notifier = notifier_of(on_removed, self)
        self._store = Store(self._config, self._notifier)
        self._entries = self._store.entries
        self._lookup = self._store.lookup
        self._blocks: Blocks[Background] = Blocks()
        self._loads = Loads(self, self._config, self._store, self._lock, self._notifier)
        self._fetcher = Fetcher(self._loads)

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        return (
            f"<{type(self).__name__}{name} {self.policy} {len(self)} of "
            f"{self._config.max_size:g}, {self._default_ttl:g} s>"
        )

    def __reduce__(self) -> NoReturn:
        msg = (
            f"{self!r} cannot be copied or pickled: it has a lock, and expiry times that are valid "
            f"only in this process. Make another, and fill it from items()."
        )
        raise TypeError(msg)

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._config.name

    @property
    def default_ttl(self) -> float:
        """Seconds to keep a value that comes without its own ``ttl``."""
        return self._config.default_ttl

    @property
    def max_size(self) -> float | None:
        """Maximum number of entries, or their maximum total weight; None for no limit."""
        return None if self._config.max_size == math.inf else self._config.max_size

    @property
    def policy(self) -> EvictionPolicy:
        """Which entry is evicted to make room."""
        return self._config.policy

    # Entering.

    async def __aenter__(self) -> Self:
        """
        Enter the cache in this event loop.

        Not a checkpoint.

        Raises:
            RuntimeError: The cache is entered already.
        """
        self._blocks.vacate(self)
        self._forget_block()
        from mtaio.cache._background import Background  # noqa: PLC0415 - for entered caches alone

        block = Background(self._loads)
        await block.enter()
        self._blocks.current = block
        self._loads.run_in(block)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """
        Leave the cache; its values stay.

        A checkpoint. Loads in progress are cancelled, and callers that wait for them get a
        `CacheClosedError`. Unless the block ended with an error, an async ``on_removed`` is first
        called for every value that has left so far; later removals are counted as ``dropped``.

        Raises:
            RuntimeError: Another task entered the cache.
            StrayCancellationError: Other code cancelled a task of the cache natively, and with it
                the block. Apart from that, only what the body raised, and what loads raised that is
                not an ``Exception``.
        """
        block = self._blocks.leaving(exc)
        if block is None:
            return
        try:
            if not block.is_over():
                await block.leave(exc)
        finally:
            self._blocks.current = None
            self._forget_block()

    def _forget_block(self) -> None:
        """Forget the block, and its loads, which will not end if its loop is over."""
        block = self._loads.block
        self._loads.run_in(None)
        if self._notifier is not None:
            self._notifier.end_block()
        if block is not None and block.running:
            with self._lock:
                self._loads.give_up([*block.running])

    # Reading.

    @overload
    def get_nowait(self, key: Hashable) -> T | None: ...
    @overload
    def get_nowait(self, key: Hashable, default: D) -> T | D: ...
    def get_nowait(self, key: Hashable, default: Any = None) -> Any:
        """
        Return the value of ``key``, or ``default`` if there is none or it has expired.

        Args:
            key: The key.
            default: What to return if there is no value; a stored value may be None itself.

        Raises:
            TypeError: ``key`` is not hashable.
        """
        try:
            entry = self._lookup(key)
        except TypeError as error:
            raise unhashable(key, error) from error
        store = self._store
        if entry is None:
            store.misses += 1
            return default
        if store.tells() < entry.fresh:
            if entry.score < HOT:
                entry.score += 1
            store.hits += 1.0
            return entry.value  # after fresh: see Entry
        return self._read(key, default)

    @overload
    async def get(self, key: Hashable) -> T | None: ...
    @overload
    async def get(self, key: Hashable, default: D) -> T | D: ...
    async def get(self, key: Hashable, default: Any = None) -> Any:
        """
        Return the value of ``key``, or ``default`` if there is none or it has expired.

        The same as `get_nowait`. Not a checkpoint.

        Args:
            key: The key.
            default: What to return if there is no value; a stored value may be None itself.

        Raises:
            TypeError: ``key`` is not hashable.
        """
        # A KeyError costs a miss what a look-up with get() costs a hit.
        try:
            entry = self._entries[key]
        except (KeyError, TypeError):
            pass
        else:
            store = self._store
            if store.tells() < entry.fresh:
                if entry.score < HOT:
                    entry.score += 1
                store.hits += 1.0
                return entry.value  # after fresh: see Entry
        return self.get_nowait(key, default)

    def get_many_nowait(self, keys: Iterable[Hashable]) -> dict[Any, T]:
        """
        Return a dict of those keys that have a value.

        Args:
            keys: The keys.

        Raises:
            TypeError: A key is not hashable, or ``keys`` is a single key.
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
        Return a dict of those keys that have a value.

        The same as `get_many_nowait`. Not a checkpoint.
        """
        return self.get_many_nowait(keys)

    def contains_nowait(self, key: Hashable) -> bool:
        """
        Return whether ``key`` has a value that has not expired, as ``key in cache`` does.

        This does not count as a read. A value that is still being loaded is not in the cache; see
        `is_loading`.

        Args:
            key: The key.

        Raises:
            TypeError: ``key`` is not hashable.
        """
        check_hashable(key)
        return self._store.find(key, self._look()) is not None

    async def contains(self, key: Hashable) -> bool:
        """
        Return whether ``key`` has a value that has not expired.

        The same as `contains_nowait`. Not a checkpoint.
        """
        return self.contains_nowait(key)

    def __contains__(self, key: Hashable) -> bool:
        return self.contains_nowait(key)

    def is_loading(self, key: Hashable) -> bool:
        """
        Return whether a load of ``key`` is in progress, in any event loop or thread.

        The key may have a value that is being renewed. After the key was set or deleted, this is
        False: the load still answers its callers, but its value will not be stored. Not a
        checkpoint.

        Args:
            key: The key.

        Raises:
            TypeError: ``key`` is not hashable.
        """
        check_hashable(key)
        with self._lock.held:
            return self._loads.is_loading(key)

    def __len__(self) -> int:
        """Return the number of entries, including expired ones that have not been removed yet."""
        return len(self._store.entries)

    def __iter__(self) -> Iterator[Any]:
        """Return an iterator over the keys that have a value, in the order of insertion."""
        return iter([key for key, _ in self.items()])

    def items(self) -> list[tuple[Any, T]]:
        """
        Return a copy of the keys and their values, in the order of insertion.

        It is made under the lock and takes time in proportion to the number of entries. This does
        not count as a read of the keys. Not a checkpoint.
        """
        if self._lock.inside():
            return self._store.live_items(self._look())
        with self._lock:
            return self._store.live_items(self._store.now())

    def _look(self) -> float:
        """Return the current time for what does not count as a read; without the lock if it can."""
        store = self._store
        moment = store.tells()
        if moment < math.inf:
            return moment
        if self._lock.inside():
            return clock.now_by(store.timed_by)
        with self._lock:
            return store.now()

    def _read(self, key: Hashable, default: Any) -> Any:
        """Read a value where that takes the lock."""
        store, lock = self._store, self._lock
        if lock.inside():
            entry = store.find(key, self._look())  # without noting its use, which would be a change
            return default if entry is None else entry.value
        gone: Entry | None = None
        lock.acquire()
        lock.changing = True
        try:
            moment = store.now()
            entry = store.find(key, moment)
            if entry is not None:
                store.use(entry, moment)
                default = entry.value
            else:
                store.misses += 1
                gone = store.expire_key(key, moment)
        finally:
            lock.changing = False
            lock.release()
        if gone is not None:
            self._loads.deliver(gone)
        return default

    # Storing.

    def set_nowait(
        self,
        key: Hashable,
        value: T,
        ttl: float | Unset = UNSET,
        *,
        tags: Iterable[Hashable] = (),
    ) -> None:
        """
        Store ``value`` under ``key``, replacing the current value.

        A load of the key in progress still answers its callers, but stores nothing. If there is no
        room, other entries are evicted. A value that weighs more than ``max_size`` or has a ``ttl``
        of 0 is not stored, but the current value is removed all the same.

        Args:
            key: Any hashable object.
            value: Any object, including None.
            ttl: Seconds until the value expires; 0 to not keep it, ``math.inf`` to keep it
                indefinitely. If omitted, the cache's ``default_ttl``.
            tags: Names with which `invalidate_tag` finds the value. They replace those of the old
                value.

        Raises:
            TypeError: ``key`` or a tag is not hashable, or ``ttl`` or the weight is not a number.
            ValueError: ``ttl`` or the weight is negative or NaN.
            RuntimeError: ``on_removed`` is async and the cache is not entered; or a finaliser calls
                this in the middle of another change.
            BaseException: What the weigher raises. After any of these errors, nothing has changed.
        """
        store, lock = self._store, self._lock
        if store.plain and ttl is UNSET and not tags:
            lock.acquire()
            if lock.changing:
                lock.refuse()
            lock.changing = True
            try:
                if self._loads.table:
                    self._loads.forget(key)
                tells = clock.reader()
                moment = tells() if tells is store.timed_by else store.now()
                _gone = store.put(key, value, self._default_ttl, moment, 1, NO_TAGS)
            except TypeError as error:
                raise unhashable(key, error) from error
            finally:
                lock.changing = False
                lock.release()
            return
        seconds = store.spread(self._ttl_of(ttl))
        weight = store.weigh(key, value)
        names = check_tags(tags) if tags else NO_TAGS
        check_hashable(key)
        self._check_listener()
        with lock:
            self._loads.forget(key)
            _gone = store.put(key, value, seconds, store.now(), weight, names)
        self._loads.deliver(_gone)

    async def set(
        self,
        key: Hashable,
        value: T,
        ttl: float | Unset = UNSET,
        *,
        tags: Iterable[Hashable] = (),
    ) -> None:
        """
        Store ``value`` under ``key``, replacing the current value.

        The same as `set_nowait`. Not a checkpoint.
        """
        self.set_nowait(key, value, ttl, tags=tags)

    def set_many_nowait(
        self,
        values: Mapping[Any, T],
        ttl: float | Unset = UNSET,
        *,
        tags: Iterable[Hashable] = (),
    ) -> None:
        """
        Store several values in one atomic step.

        Args:
            values: A mapping of keys to values.
            ttl: For each value, as for `set_nowait`.
            tags: For each value, as for `set_nowait`.

        Raises:
            TypeError, ValueError, RuntimeError, BaseException: As for `set_nowait`, or ``values``
                is not a mapping; nothing has changed.
        """
        if not hasattr(cast("object", values), "items"):
            msg = f"values={values!r} is {checks.type_of(values)}, not a mapping. Pass a dict."
            raise TypeError(msg)
        store = self._store
        seconds = self._ttl_of(ttl)
        names = check_tags(tags) if tags else NO_TAGS
        self._check_listener()
        items: list[tuple[Any, T, float]] = []
        for key, value in values.items():
            check_hashable(key)  # not every mapping is a dict
            items.append((key, value, store.weigh(key, value)))
        gone: list[object] = []
        with self._lock:
            moment = store.now()
            for key, value, weight in items:
                self._loads.forget(key)
                gone.append(store.put(key, value, store.spread(seconds), moment, weight, names))
        self._loads.deliver(gone)

    async def set_many(
        self,
        values: Mapping[Any, T],
        ttl: float | Unset = UNSET,
        *,
        tags: Iterable[Hashable] = (),
    ) -> None:
        """
        Store several values in one atomic step.

        The same as `set_many_nowait`. Not a checkpoint.
        """
        self.set_many_nowait(values, ttl, tags=tags)

    def touch_nowait(self, key: Hashable, ttl: float | Unset = UNSET) -> bool:
        """
        Restart the time to live of ``key``, keeping its value.

        Args:
            key: The key.
            ttl: As for `set_nowait`.

        Returns:
            Whether the key has a value that had not expired.

        Raises:
            TypeError: ``key`` is not hashable, or ``ttl`` is not a number.
            ValueError: ``ttl`` is negative or NaN.
            RuntimeError: As for `set_nowait`.
        """
        seconds = self._store.spread(self._ttl_of(ttl))
        check_hashable(key)
        self._check_listener()
        gone = None
        with self._lock:
            moment = self._store.now()
            entry = self._store.find(key, moment)
            if entry is not None:
                gone = self._store.touch(entry, seconds, moment)
        self._loads.deliver(gone)
        return entry is not None

    async def touch(self, key: Hashable, ttl: float | Unset = UNSET) -> bool:
        """
        Restart the time to live of ``key``, and return whether it has a value.

        The same as `touch_nowait`. Not a checkpoint.
        """
        return self.touch_nowait(key, ttl)

    def increment_nowait(
        self: TTLCache[int], key: Hashable, by: int = 1, *, ttl: float | Unset = UNSET
    ) -> int:
        """
        Add ``by`` to the int stored under ``key``, in one atomic step; a missing one counts as 0.

        The value keeps its time to live and its tags, and counts as used. A load of the key in
        progress still answers its callers, but stores nothing.

        Args:
            key: Any hashable object.
            by: How much to add; negative to subtract.
            ttl: As for `set_nowait`, if there was no value.

        Returns:
            The new value.

        Raises:
            TypeError: ``key`` is not hashable, ``by`` is not an int, or ``ttl`` is not a number.
            ValueError: The current value is not an int; or as for `set_nowait`.
            RuntimeError, BaseException: As for `set_nowait`.
        """
        store = self._store
        checks.count("by", by, least=-sys.maxsize, way_out="Pass how much to add, as an int.")
        seconds = store.spread(self._ttl_of(ttl))
        check_hashable(key)
        self._check_listener()
        while True:  # until nobody has changed it meanwhile: no code of others runs under the lock
            entry = store.find(key, self._look())
            before: int = 0 if entry is None else entry.value
            if isinstance(before, bool) or not isinstance(cast("object", before), int):
                msg = f"key={reprlib.repr(key)} has the value {before!r}, not an int. Set it first."
                raise ValueError(msg)  # noqa: TRY004 - each argument has the right type
            value = before + by
            weight = store.weigh(key, value)
            with self._lock:
                moment = store.now()
                same = store.find(key, moment) is entry
                if same and entry is None:
                    self._loads.forget(key)
                    gone = store.put(key, value, seconds, moment, weight)
                elif same and entry is not None and entry.value is before:
                    self._loads.forget(key)
                    gone = store.revise(entry, value, weight, moment)
                else:
                    continue
            self._loads.deliver(gone)
            return value

    async def increment(
        self: TTLCache[int], key: Hashable, by: int = 1, *, ttl: float | Unset = UNSET
    ) -> int:
        """
        Add ``by`` to the int stored under ``key``, and return the new value.

        The same as `increment_nowait`. Not a checkpoint.
        """
        return self.increment_nowait(key, by, ttl=ttl)

    # Removing.

    def delete_nowait(self, key: Hashable) -> bool:
        """
        Remove ``key``, and return whether it had a value.

        A load of the key in progress still answers its callers, but stores nothing.

        Returns:
            Whether there was a value that had not expired.

        Raises:
            TypeError: ``key`` is not hashable.
            RuntimeError: As for `set_nowait`.
        """
        check_hashable(key)
        self._check_listener()
        with self._lock:
            self._loads.forget(key)
            entry = self._store.entries.get(key)
            gone, live = self._store.take(() if entry is None else (entry,))
        self._loads.deliver(gone)
        return live > 0

    async def delete(self, key: Hashable) -> bool:
        """
        Remove ``key``, and return whether it had a value.

        The same as `delete_nowait`. Not a checkpoint.
        """
        return self.delete_nowait(key)

    def delete_many_nowait(self, keys: Iterable[Hashable]) -> int:
        """
        Remove several keys, and return how many had a value.

        Args:
            keys: The keys.

        Returns:
            How many had a value that had not expired.

        Raises:
            TypeError: A key is not hashable, or ``keys`` is a single key; nothing has changed.
            RuntimeError: As for `set_nowait`.
        """
        check_many(keys)
        keys = [*keys]
        for key in keys:
            check_hashable(key)
        self._check_listener()
        with self._lock:
            for key in keys:
                self._loads.forget(key)
            found = map(self._store.entries.get, keys)
            # As a dict, because a key may be given twice.
            entries = dict.fromkeys(each for each in found if each is not None)
            gone, live = self._store.take(entries)
        self._loads.deliver(gone)
        return live

    async def delete_many(self, keys: Iterable[Hashable]) -> int:
        """
        Remove several keys, and return how many had a value.

        The same as `delete_many_nowait`. Not a checkpoint.
        """
        return self.delete_many_nowait(keys)

    def invalidate_tag_nowait(self, tag: Hashable) -> int:
        """
        Remove all values with ``tag``, and return how many there were.

        Loads in progress whose values would have the tag still answer their callers, but store
        nothing.

        Args:
            tag: A tag that was passed to `set`, `get_or_set` or `cached`.

        Returns:
            How many values that had not expired were removed.

        Raises:
            TypeError: ``tag`` is not hashable.
            RuntimeError: As for `set_nowait`.
        """
        check_tags((tag,))
        self._check_listener()
        with self._lock:
            self._loads.forget_tagged(tag)
            tagged = self._store.tagged(tag)
            for entry in tagged:
                self._loads.forget(entry.key)
            gone, live = self._store.take(tagged)
        self._loads.deliver(gone)
        return live

    async def invalidate_tag(self, tag: Hashable) -> int:
        """
        Remove all values with ``tag``, and return how many there were.

        The same as `invalidate_tag_nowait`. Not a checkpoint.
        """
        return self.invalidate_tag_nowait(tag)

    def clear_nowait(self) -> None:
        """
        Remove everything.

        Loads in progress still answer their callers, but store nothing. This takes time in
        proportion to the number of entries, most of it without the lock.

        Raises:
            RuntimeError: As for `set_nowait`.
        """
        self._check_listener()
        with self._lock:
            self._loads.forget_all()
            gone = self._store.take_all()
        unlink(gone)
        self._loads.deliver(gone)

    async def clear(self) -> None:
        """
        Remove everything.

        The same as `clear_nowait`. Not a checkpoint.
        """
        self.clear_nowait()

    def _ttl_of(self, ttl: float | Unset) -> float:
        return self._default_ttl if ttl is UNSET else check_ttl(ttl)

    def _check_listener(self) -> None:
        if self._notifier is not None:
            self._notifier.check()

    # Loading.

    async def get_or_set(
        self,
        key: Hashable,
        loader: Callable[[], Awaitable[T]],
        *,
        ttl: float | Callable[[T], float] | Unset = UNSET,
        keep: Callable[[T], bool] | None = None,
        tags: Iterable[Hashable] = (),
    ) -> T:
        """
        Return the value of ``key``; if there is none, load it once for all callers.

        While a load of the key is in progress in this event loop, other callers wait for it. In an
        entered cache, the load runs in the cache's task group, and is cancelled only if all of its
        callers are. Otherwise the first caller runs it; if that caller is cancelled, another one
        starts it again.

        Not a checkpoint if there is a value. A load suspends when its loader does, and every 64th
        is a checkpoint in any case.

        Args:
            key: Any hashable object.
            loader: An async function without arguments that returns the value.
            ttl: Seconds until the value expires, as for `set_nowait`; or a plain function that
                returns them for the loaded value.
            keep: A function that is called with the loaded value and returns whether to keep it. If
                not, callers still get it, and an old value is removed, as with a ``ttl`` of 0.
            tags: Names with which `invalidate_tag` finds the value.

        Raises:
            Exception: What ``loader`` raised, for each caller that waited for that load, unless
                there is an old value and the cache has ``stale_if_error``. It is kept only if the
                cache has an ``error_ttl``.
            CacheClosedError: The cache was entered, and was left during the load.
            RuntimeError: The loader waits for its own load, directly or through other loads; or the
                cache must be entered, because of its options or its async listener.
            TypeError, ValueError: As for `set_nowait`; or ``loader`` is not an async function.
        """
        try:
            entry = self._lookup(key)
        except TypeError as error:
            raise unhashable(key, error) from error
        store = self._store
        if entry is not None and store.tells() < entry.fresh:
            if entry.score < HOT:
                entry.score += 1
            store.hits += 1.0
            value: T = entry.value  # after fresh: see Entry
            return value
        if not callable(loader):
            check_loader(loader)
        lasts: Lifetime = self._default_ttl
        if ttl is not UNSET or keep is not None:
            lasts = lifetime(ttl, keep, self._default_ttl)
        names = check_tags(tags) if tags else NO_TAGS
        loaded: T = await self._fetcher.fetch(key, loader, (), NO_KEYWORDS, lasts, names, False)  # noqa: FBT003 - in less time
        return loaded

    async def get_or_set_many(
        self,
        keys: Iterable[K],
        loader: Callable[[list[K]], Awaitable[Mapping[K, T]]],
        *,
        ttl: float | Callable[[T], float] | Unset = UNSET,
        keep: Callable[[T], bool] | None = None,
        tags: Iterable[Hashable] = (),
    ) -> dict[K, T]:
        """
        Return the values of ``keys``; those that are missing are loaded together, each once.

        A single call of ``loader`` loads all keys that have no value and are not being loaded. Keys
        that another caller is loading, here or with `get_or_set`, are waited for; other callers
        likewise wait for keys that are loaded here, each only for its own. Checkpoints are as for
        `get_or_set`. In an entered cache, a load continues as long as any caller waits for any of
        its keys. Otherwise, if the caller that runs it is cancelled, each caller that waits loads
        its own keys again.

        Args:
            keys: The keys.
            loader: An async function that is called with the list of keys to load, and returns a
                mapping of keys to values. A key that it leaves out has no value: it is not in the
                result, nothing is stored for it, and an old value is removed. A `get_or_set` that
                waited for that key calls its own loader. Keys that were not asked for are ignored.
            ttl: As for `get_or_set`, for each value.
            keep: As for `get_or_set`, for each value.
            tags: As for `get_or_set`, for each value.

        Returns:
            A dict of the keys that have a value, in the order in which they were given.

        Raises:
            Exception: As for `get_or_set`, if the load of any of the keys fails. Values of other
                keys are kept.
            CacheClosedError, RuntimeError: As for `get_or_set`.
            TypeError, ValueError: As for `get_or_set`; or ``keys`` is a single key, or ``loader``
                does not return a mapping.
        """
        check_many(keys)
        check_loader(loader, several=True)
        lasts = lifetime(ttl, keep, self._default_ttl)
        names = check_tags(tags) if tags else NO_TAGS
        asked: dict[K, None] = {}
        for key in keys:
            check_hashable(key)
            asked[key] = None
        found: dict[K, T] = {}
        store = self._store
        for key in asked:
            entry = self._lookup(key)
            if entry is not None and store.tells() < entry.fresh:
                if entry.score < HOT:
                    entry.score += 1
                store.hits += 1.0
                found[key] = entry.value  # after fresh: see Entry
        missing = [key for key in asked if key not in found]
        if not missing:
            return found
        found |= await self._fetcher.fetch_many(missing, loader, lasts, names)
        return {key: found[key] for key in asked if key in found}

    async def refresh(
        self,
        key: Hashable,
        loader: Callable[[], Awaitable[T]],
        *,
        ttl: float | Callable[[T], float] | Unset = UNSET,
        keep: Callable[[T], bool] | None = None,
        tags: Iterable[Hashable] = (),
    ) -> T:
        """
        Load a new value of ``key`` and return it.

        Until the value is loaded, other callers get the old value, which is kept if the load fails.
        An earlier load of the key still answers its callers, but stores nothing; later callers
        share this load. Checkpoints and cancellation are as for a load by `get_or_set`.

        Args:
            key: As for `get_or_set`.
            loader: As for `get_or_set`.
            ttl: As for `get_or_set`.
            keep: As for `get_or_set`.
            tags: As for `get_or_set`.

        Raises:
            BaseException: As for `get_or_set`.
        """
        check_loader(loader)
        lasts = lifetime(ttl, keep, self._default_ttl)
        names = check_tags(tags) if tags else NO_TAGS
        fetch = self._fetcher.fetch
        loaded: T = await fetch(key, loader, (), NO_KEYWORDS, lasts, names, refresh=True)
        return loaded

    def record_durations(self) -> None:
        """
        Record a histogram of the loads from now on, as ``load_duration`` in the statistics.

        Loads that end with a value or an error are recorded. A monitor calls it for what it
        watches; repeated calls have no effect. Not a checkpoint. It can be called from any thread.
        """
        from mtaio._internal.histogram import Histogram  # noqa: PLC0415 - not all programs ask

        if self._loads.load_duration is None:
            self._loads.load_duration = Histogram()

    def statistics(self) -> mtaio.statistics.CacheStatistics:
        """
        Return a snapshot of the cache.

        Not a checkpoint. It can be called from any thread.
        """
        from mtaio._internal.statistics import snapshot  # noqa: PLC0415 - not all programs ask
        from mtaio.cache._statistics import CacheStatistics  # noqa: PLC0415 - takes 1 ms to make

        loads, store, lock = self._loads, self._store, self._lock
        if loads.abandoned and not lock.inside():
            with lock:
                loads.count_abandoned()
        with lock.held:
            reads = store.hits + store.misses
            return snapshot(
                CacheStatistics,
                store,
                loads,
                size=len(store.entries),
                max_size=self.max_size,
                hits=int(store.hits),
                hit_rate=store.hits / reads if reads else 0.0,
                loads=loads.started,
                load_seconds=loads.seconds,
                dropped=0 if self._notifier is None else self._notifier.dropped,
            )
