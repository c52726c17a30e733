"""
A cache in two tiers: this process's memory, and a server that all processes share.

Promise: a key is loaded once for all processes. A value that was set or deleted anywhere, by
itself, with its tag or with all others, leaves the memory of every process that gets the message;
one that gets none keeps only what it loads without the server, for ``fallback_ttl``. A load that
began before a change is not stored after it.
Cost: a hit in memory is a hit of a `TTLCache`, one on the server is one script, also for many keys;
with tags two.
Why there are leases and no generations: docs/en/design/redis.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from inspect import isawaitable
from types import TracebackType
from typing import (
    Any,
    Final,
    Generic,
    Literal,
    NoReturn,
    ParamSpec,
    Protocol,
    Self,
    cast,
    final,
    overload,
)
from uuid import uuid4

import anyio

from mtaio import exceptions
from mtaio._internal import checks, clock
from mtaio._internal.block import Blocks, OwnedBlock
from mtaio._internal.callables import close_unstarted, is_async
from mtaio._internal.decorators import decorate
from mtaio._internal.durations import timed
from mtaio._internal.histogram import Histogram, HistogramStatistics
from mtaio._internal.sentinel import UNSET, Unset
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, SECONDS, snapshot
from mtaio._internal.typevars import TypeVar
from mtaio.cache import TTLCache
from mtaio.exceptions import StoreError
from mtaio.redis import _store as stores
from mtaio.redis._codec import JSON, Codec, check_codec, encoded
from mtaio.redis._far import (
    Breaker,
    Confirmations,
    FarTier,
    Found,
    Leased,
    Notice,
    Queries,
    Query,
    Renewals,
)
from mtaio.redis._outage import Outage
from mtaio.redis._store import Store

__all__ = ["TieredCache", "TieredCacheStatistics"]

T = TypeVar("T", default=Any)
D = TypeVar("D")
R = TypeVar("R")
P = ParamSpec("P")

_LOOK: Final = 1.0
"""Seconds after which a task that waits for another process's load looks again, unless woken."""

_POLL: Final = 0.1
"""The same while no messages arrive."""

_NO_TAGS: Final[frozenset[str]] = frozenset()
_LOADER: Final = "Pass an async function of no arguments, such as lambda: fetch(key)."
_KEY: Final = "Pass one, such as str(user_id)."
_KEYS: Final = "Pass a list of keys, even for one."
_TTL: Final = "Pass seconds >= 0: 0 to keep nothing, math.inf for no expiry."


@dataclass(frozen=True, slots=True, kw_only=True)
class TieredCacheStatistics:
    """What a `TieredCache` has done in this process."""

    near_size: int = field(metadata=GAUGE)
    """Values in this process's memory."""
    near_max_size: float | None = field(metadata=LIMIT)
    """The most values in memory; None for no limit."""
    near_hits: int = field(metadata=COUNTER)
    """Reads that found a value in memory; of several keys, each counts."""
    far_hits: int = field(metadata=COUNTER)
    """Reads that found a value on the server, also after waiting for another process's load."""
    misses: int = field(metadata=COUNTER)
    """Reads that found no value on the server, or could not reach it."""
    loads: int = field(metadata=COUNTER)
    """Loads started in this process."""
    loads_without_server: int = field(metadata=COUNTER)
    """Those of `loads` that were made without a lease, because the server was down."""
    load_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long each loader ran that ended since ``record_durations()``, however it did; None
    before."""
    waiting: int = field(metadata=GAUGE)
    """Keys for which this process waits until another one has loaded them."""
    outdated: int = field(metadata=COUNTER)
    """Loads that were not stored: the key was changed during the load, or the server was down."""
    changes_heard: int = field(metadata=COUNTER)
    """Messages about changes, this process's own included."""
    near_cleared: int = field(metadata=COUNTER)
    """How often the memory was cleared, because messages may have been missed."""
    undecodable: int = field(metadata=COUNTER)
    """Values on the server that could not be decoded, and were loaded again."""
    server_failures: int = field(metadata=COUNTER)
    """Calls to the server that failed."""
    listening: bool = field(metadata=GAUGE)
    """Whether the messages of other processes are heard."""


class TieredDecorator(Protocol[T]):
    """What `TieredCache.cached` returns."""

    def __call__(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        """Decorate ``fn``."""
        ...


class _Fetch(Generic[T]):
    """
    What one caller wants loaded; `TTLCache` runs it for all who want it at the same time.

    Attributes:
        seconds: For how long the value may stay in memory.
    """

    __slots__ = ("key", "loader", "seconds", "tags", "ttl")

    def __init__(
        self, key: str, loader: Callable[[], Awaitable[T]], ttl: float, tags: frozenset[str]
    ) -> None:
        self.key = key
        self.loader = loader
        self.ttl = ttl
        self.tags = tags
        self.seconds = 0.0

    def lasts(self, _: T) -> float:
        """Return for how long the value may stay in memory."""
        return self.seconds


@final
class TieredCache(Generic[T]):
    """
    A cache with two tiers: values on a server for all processes, and in memory for a shorter time.

    Use it inside ``async with store, cache:``, in one event loop at a time. However many tasks and
    processes ask for a missing key, one task loads it, with a lease on the server, and the others
    wait for its value. If that task is cancelled or its load fails, another one that waits starts
    to load at once; if its process is killed, after ``lease`` seconds.

    A change sends a message to all processes, which takes about a millisecond. Until it arrives,
    they may still return what they have in memory; with ``confirm``, the call waits until it has
    arrived. If messages may have been missed, the process clears its whole memory. A process that
    receives no messages notices within ``check_interval`` plus the store's timeout, and then asks
    the server for every read; what it has to load without the server, it keeps for
    ``fallback_ttl``.

    Args:
        store: The server.
        namespace: Prefix of the keys on the server. Caches with the same namespace share their
            values; use another one when the meaning of the values changes.
        default_ttl: Seconds for which the server keeps a value that comes without its own ``ttl``;
            ``math.inf`` for values that do not expire, 0 to keep none.
        codec: Converts values to bytes and back. Default: `JSON`.
        near_ttl: Maximum seconds to keep a value in memory; 0 to keep none there.
        near_max_size: Maximum number of values in memory; None for no limit.
        fallback_ttl: Maximum seconds to keep a value in memory that was loaded while the server was
            down; 0 to keep none.
        lease: Seconds without a sign of life after which another process may load a key. A load
            renews its lease, so this may be shorter than a load takes.
        on_failure: What reads do while the server is down. With ``"local"``, `get` finds only what
            is in memory, and `get_or_set` loads in this process. With ``"raise"``, they raise
            `StoreError`, as changes always do.
        check_interval: Seconds between two checks of the subscription.
        name: Name shown in messages and metrics. Default: the namespace.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``namespace`` is empty or contains ``{``, or a number is out of range.

    Example:
        ```python
        import anyio

        from mtaio.redis import RedisStore, TieredCache

        store = RedisStore("redis://127.0.0.1:6379/0")
        users = TieredCache[dict[str, str]](store, "users", default_ttl=600)


        async def load() -> dict[str, str]:
            return {"name": "Ada"}


        async def main() -> None:
            async with store, users:
                user = await users.get_or_set("7", load)
                print(user["name"])
                await users.delete("7")


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - the near tier is empty outside of the block, where no messages arrive;
    # - a value that is put into it was read within a Query, or by a load of its own, that was
    #   there before the server was asked: so a message that comes in between reaches it.
    __slots__ = (
        "__weakref__",
        "_blocks",
        "_breaker",
        "_changes_heard",
        "_check_interval",
        "_codec",
        "_confirmations",
        "_default_ttl",
        "_entered",
        "_fallback_ttl",
        "_far",
        "_far_hits",
        "_identity",
        "_listening",
        "_load_duration",
        "_loads",
        "_loads_without_server",
        "_misses",
        "_name",
        "_namespace",
        "_near",
        "_near_cleared",
        "_near_get",
        "_near_ttl",
        "_on_failure",
        "_outage",
        "_outdated",
        "_queries",
        "_renewals",
        "_server_failures",
        "_store",
        "_undecodable",
        "_waiting",
    )

    def __init__(
        self,
        store: Store,
        namespace: str,
        *,
        default_ttl: float = 300.0,
        codec: Codec[T] = JSON,
        near_ttl: float = 60.0,
        near_max_size: int | None = 10_000,
        fallback_ttl: float = 1.0,
        lease: float = 5.0,
        on_failure: Literal["local", "raise"] = "local",
        check_interval: float = 0.5,
        name: str | None = None,
    ) -> None:
        stores.check_store(store)
        way_out = "Pass a name that the processes share, such as 'users'."
        if "{" in stores.name("namespace", namespace, way_out=way_out):
            msg = f"namespace={namespace!r} contains a brace. {way_out}"
            raise ValueError(msg)
        check_codec(codec)
        if near_max_size is not None:
            checks.count("near_max_size", near_max_size, way_out="Pass how many values, or None.")
        self._default_ttl = checks.at_least("default_ttl", default_ttl, 0, way_out=_TTL)
        self._near_ttl = checks.at_least("near_ttl", near_ttl, 0, way_out=_TTL)
        self._fallback_ttl = checks.at_least("fallback_ttl", fallback_ttl, 0, way_out=_TTL)
        checks.positive("lease", lease, way_out="Pass the seconds of silence that end a load.")
        way_out = "Pass the seconds between two checks."
        self._check_interval = checks.positive("check_interval", check_interval, way_out=way_out)
        self._on_failure = checks.one_of("on_failure", on_failure, ("local", "raise"))
        self._outage = Outage(on_failure)
        self._name = namespace if name is None else name
        self._near: TTLCache[T] = TTLCache(near_ttl, max_size=near_max_size, name=self._name)
        self._near_get: Callable[[str, Unset], T | Unset] = self._near.get_nowait
        self._far = FarTier(store, namespace, lease)
        self._breaker = Breaker(store)
        self._renewals = Renewals(store, self._far, lease)
        self._confirmations = Confirmations()
        self._queries = Queries()
        self._store = store
        self._namespace = namespace
        self._codec = codec
        self._identity = uuid4().hex
        self._blocks: Blocks[OwnedBlock] = Blocks()
        self._entered: AsyncExitStack | None = None  # what the block has entered in its turn
        self._listening = False
        self._far_hits = self._misses = self._loads = self._loads_without_server = 0
        self._waiting = self._outdated = self._changes_heard = self._near_cleared = 0
        self._undecodable = self._server_failures = 0
        self._load_duration: Histogram | None = None

    def __repr__(self) -> str:
        ttl = f"{self._default_ttl:g} s"
        return f"<{type(self).__name__} {self.name!r} {ttl} at {self._store.name}>"

    def __reduce__(self) -> NoReturn:
        msg = (
            f"{self!r} cannot be copied or pickled: it listens for changes on a connection. Make "
            f"another with the same arguments."
        )
        raise TypeError(msg)

    @property
    def name(self) -> str:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def namespace(self) -> str:
        """Prefix of the keys on the server."""
        return self._namespace

    @property
    def default_ttl(self) -> float:
        """Seconds for which the server keeps a value that comes without its own ``ttl``."""
        return self._default_ttl

    # The block.

    async def __aenter__(self) -> Self:
        """
        Enter the cache and start to listen, without waiting for the server.

        A checkpoint only on some event loops.

        Raises:
            RuntimeError: The cache is entered already, or the store is not entered.
        """
        self._blocks.vacate(self)
        self._forget()
        entered = AsyncExitStack()
        listening = self._store.subscribe(
            [self._far.channel, self._far.reply_channel(self._identity)],
            *(self._on_message, self._on_subscribed, self._on_lost),
            check_interval=self._check_interval,
        )
        await entered.enter_async_context(listening)
        await entered.enter_async_context(self._near)
        self._blocks.current, self._entered = OwnedBlock(self), entered
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """
        Leave the cache. A checkpoint.

        Loads in progress are cancelled, callers that wait for them get a `CacheClosedError`, and
        the memory is cleared.

        Raises:
            RuntimeError: Another task entered the cache.
        """
        block = self._blocks.leaving(exc)
        if block is None:
            await self._near.__aexit__(exc_type, exc, tb)  # its block was abandoned with this one
            return
        try:
            if not block.is_over():
                await cast("AsyncExitStack", self._entered).__aexit__(exc_type, exc, tb)
        finally:
            self._blocks.current = None
            self._forget()

    def _forget(self) -> None:
        self._entered = None
        self._listening = False
        self._renewals.clear()
        self._breaker.reset()
        self._outage = Outage(self._on_failure)
        self._near.clear_nowait()

    # Reading.

    @overload
    async def get(self, key: str) -> T | None: ...
    @overload
    async def get(self, key: str, default: D) -> T | D: ...
    async def get(self, key: str, default: Any = None) -> Any:
        """
        Return the value of ``key``, or ``default`` if there is none or it has expired.

        It does not wait for a load. A checkpoint, unless the value is in memory.

        Args:
            key: The key.
            default: What to return if there is no value; a stored value may be None itself.

        Raises:
            StoreError: The server is down, with ``on_failure="raise"``.
            TypeError: ``key`` is not a str.
            RuntimeError: The cache is not entered.
        """
        value = self._near_get(key, UNSET)
        if value is not UNSET:
            return value
        self._check(key)
        return (await self._read((key,))).get(key, default)

    async def get_many(self, keys: Iterable[str]) -> dict[str, T]:
        """
        Return a dict of those keys that have a value, in the order in which they were given.

        It does not wait for loads. A checkpoint, unless all values are in memory; the others take
        one call to the server for each thousand, and on a cluster at least one for each slot.

        Args:
            keys: The keys.

        Raises:
            StoreError: The server is down, with ``on_failure="raise"``.
            TypeError: A key is not a str, or ``keys`` is a single key.
            RuntimeError: The cache is not entered.
        """
        asked = dict.fromkeys(self._check_many(keys))
        found: dict[str, T] = {}
        for key in asked:
            value = self._near_get(key, UNSET)
            if value is not UNSET:
                found[key] = value
        missing = [key for key in asked if key not in found]
        if not missing:
            return found
        found |= await self._read(missing)
        return {key: found[key] for key in asked if key in found}

    async def _read(self, keys: Collection[str]) -> dict[str, T]:
        """Return what the server has of keys that are not in memory, and put it there."""
        values: dict[str, T] = {}
        with Query(self._queries, keys) as query:
            start = clock.now()
            try:
                found = await self._breaker.call(self._far.read(keys))
            except StoreError as error:
                self._misses += len(keys)
                if self._on_failure == "raise":
                    raise
                self._outage.tell(self, error)
                return values
            for key, each in found.items():
                value = self._decode(key, each)
                if value is UNSET:
                    continue
                values[key] = value
                if key not in query.outdated:
                    self._keep_near(key, value, each, start)
        self._far_hits += len(values)
        self._misses += len(keys) - len(values)
        return values

    async def get_or_set(
        self,
        key: str,
        loader: Callable[[], Awaitable[T]],
        *,
        ttl: float | Unset = UNSET,
        tags: Iterable[str] = (),
    ) -> T:
        """
        Return the value of ``key``; if there is none, load it once for all processes.

        A checkpoint, unless the value is in memory. Cancelling a caller does not affect other
        callers of its process. If all of them are cancelled, so is the load, and another process
        that waits starts to load at once.

        Args:
            key: The key.
            loader: An async function without arguments that returns the value. All processes,
                including this one, get the value as it is after the codec has encoded and decoded
                it.
            ttl: Seconds until the loaded value expires. Default: the cache's.
            tags: Names with which `invalidate_tag` finds the loaded value. A load with tags takes
                one more call to the server.

        Raises:
            Exception: What ``loader`` or the codec raised, for each caller of this process that
                waited for that load. Errors are not kept; other processes load the key themselves.
            CacheClosedError: The cache was left during the load.
            StoreError: The server is down, with ``on_failure="raise"``.
            TypeError: ``key`` or a tag is not a str, ``loader`` is not an async function, or
                ``ttl`` is not a number.
            ValueError: ``ttl`` is negative or NaN.
            RuntimeError: The cache is not entered, or a loader asks for the key that it loads.
        """
        value = self._near_get(key, UNSET)
        if value is not UNSET:
            return value
        self._check(key)
        if not callable(loader):
            close_unstarted(loader)
            checks.callable_("loader", loader, way_out=_LOADER)
        names = _tags(tags) if tags else _NO_TAGS
        fetch = _Fetch(key, loader, self._seconds(ttl), names)
        load = partial(self._fetch, fetch)
        return await self._near.get_or_set(key, load, ttl=fetch.lasts, tags=names)

    def cached(
        self,
        key: Callable[..., str],
        *,
        ttl: float | Unset = UNSET,
        tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    ) -> TieredDecorator[T]:
        """
        Decorate an async function or method so that its results are cached.

        To forget a result, use ``await cache.delete(key)``.

        Args:
            key: A function that is called with the arguments of each call, including ``self``, and
                returns the key.
            ttl: As for `get_or_set`.
            tags: As for `get_or_set`, or a function that is called like ``key`` and returns them.

        Raises:
            TypeError: ``key`` is not callable, a tag is not a str, ``ttl`` is not a number, or what
                is decorated is not an async function.
            ValueError: ``ttl`` is negative or NaN.
        """
        way_out = (
            "Pass a plain function that takes the arguments of the decorated one and returns a str."
        )
        checks.callable_("key", key, way_out=way_out)
        if is_async(key):
            msg = f"key={key!r} is an async function, which returns no str. {way_out}"
            raise TypeError(msg)
        seconds = self._seconds(ttl)
        tags_of = tags if callable(tags) else None
        fixed = _NO_TAGS if callable(tags) else _tags(tags)

        def around(
            fn: Callable[P, Coroutine[Any, Any, T]], /
        ) -> Callable[P, Coroutine[Any, Any, T]]:
            async def call(*args: P.args, **kwargs: P.kwargs) -> T:
                load = partial(fn, *args, **kwargs)
                names = fixed if tags_of is None else tags_of(*args, **kwargs)
                return await self.get_or_set(key(*args, **kwargs), load, ttl=seconds, tags=names)

            return call

        decorator: Any = decorate(cast("Any", around), name="TieredCache.cached")
        found: TieredDecorator[T] = decorator
        return found

    # Changing.

    async def set(
        self,
        key: str,
        value: T,
        ttl: float | Unset = UNSET,
        *,
        tags: Iterable[str] = (),
        confirm: float | None = None,
    ) -> None:
        """
        Store ``value`` under ``key``, replacing the current value, and tell all processes.

        A checkpoint. If it is cancelled or raises `StoreError`, the change may or may not have been
        made. Loads of the key in progress still answer their callers, but store nothing.

        Args:
            key: The key.
            value: Anything that the codec can encode.
            ttl: Seconds until the value expires; 0 to not keep it, ``math.inf`` to keep it
                indefinitely. Default: the cache's.
            tags: Names with which `invalidate_tag` finds the value. They replace those of the old
                value, and take one more call to the server.
            confirm: As for `delete`.

        Raises:
            StoreError: The server is down.
            TimeoutError: As for `delete`.
            TypeError, ValueError, RuntimeError: As for `get_or_set`.
            Exception: What the codec raised; nothing has changed.
        """
        self._check(key)
        await self._set({key: encoded(self._codec, value)}, ttl, tags, confirm)

    async def set_many(
        self,
        values: Mapping[str, T],
        ttl: float | Unset = UNSET,
        *,
        tags: Iterable[str] = (),
        confirm: float | None = None,
    ) -> None:
        """
        Store several values with one call to the server, and tell all processes.

        A thousand values are stored in one atomic step. Each further thousand takes another call,
        and on a cluster each slot does. A checkpoint, like `set`; if it is cancelled or fails, any
        of the changes may have been made.

        Args:
            values: A mapping of keys to values.
            ttl: For each value, as for `set`.
            tags: For each value, as for `set`.
            confirm: As for `delete`.

        Raises:
            BaseException: As for `set`; or ``values`` is not a mapping.
        """
        if not hasattr(cast("object", values), "items"):
            msg = f"values={values!r} is {checks.type_of(values)}, not a mapping. Pass a dict."
            raise TypeError(msg)
        self._check_many(values)
        raw = {key: encoded(self._codec, value) for key, value in values.items()}
        await self._set(raw, ttl, tags, confirm)

    async def touch(self, key: str, ttl: float | Unset = UNSET) -> bool:
        """
        Restart the time to live of ``key``, keeping its value.

        Other processes are told if the value now expires sooner. A checkpoint; if it is cancelled
        or fails, the change may or may not have been made.

        Args:
            key: The key.
            ttl: As for `set`.

        Returns:
            Whether the server has a value.

        Raises:
            StoreError: The server is down.
            TypeError, ValueError, RuntimeError: As for `get_or_set`.
        """
        self._check(key)
        shorter = True

        def drop() -> None:
            if shorter:
                self._drop(key)

        async def touch() -> tuple[bool, int]:
            nonlocal shorter
            there, shorter = await self._far.touch(key, seconds)
            return there, 0

        seconds = self._seconds(ttl)
        return (await self._call(touch(), drop))[0]

    async def increment(
        self,
        key: str,
        by: int = 1,
        *,
        ttl: float | Unset = UNSET,
        confirm: float | None = None,
    ) -> int:
        """
        Add ``by`` to the int stored under ``key``, in one atomic step, and tell all processes.

        A missing value counts as 0. The value keeps its time to live and its tags. A checkpoint; if
        it is cancelled or fails, the change may or may not have been made, so if you repeat the
        call after a `StoreError`, ``by`` may be added twice.

        Args:
            key: The key.
            by: How much to add; negative to subtract.
            ttl: Seconds until the value expires, if there was none. Default: the cache's.
            confirm: As for `delete`.

        Returns:
            The new value.

        Raises:
            StoreError: The server is down.
            TimeoutError: As for `delete`.
            TypeError: ``by`` is not an int, or the codec does not write ints as digits, as JSON
                does; or as for `get_or_set`.
            ValueError: The current value is not an int, or the new one has more than 64 bits; or as
                for `get_or_set`.
            RuntimeError: The cache is not entered.
        """
        self._check(key)
        checks.count("by", by, least=-(2**63), way_out="Pass how much to add.")
        digits: Codec[Any] = self._codec
        if encoded(digits, by) != str(by).encode():
            msg = (
                f"{self!r} has codec={digits!r}, which does not write ints in digits, so the "
                f"server cannot count. Keep counters in a cache with the JSON codec."
            )
            raise TypeError(msg)
        seconds = self._seconds(ttl)
        made = await self._change(
            partial(self._drop, key),
            lambda writer: self._far.increment(key, by, seconds, writer),
            confirm,
            repr(key),
        )
        if isinstance(made, str):
            msg = (
                f"{self!r}: {key!r} cannot be incremented by {by}: {made}. Set it to an int, or "
                f"delete it."
            )
            raise ValueError(msg)  # noqa: TRY004 - made is the reason, not what is wrong
        return made

    async def delete(self, key: str, *, confirm: float | None = None) -> bool:
        """
        Remove ``key`` and tell all processes, such as when the source of its value has changed.

        A checkpoint; if it is cancelled or fails, the change may or may not have been made.

        Args:
            key: The key.
            confirm: Maximum seconds to wait until every process that listens has confirmed that it
                has dropped the old value; None to not wait. Not available on clusters, which do not
                say how many processes listen.

        Returns:
            Whether the server had a value.

        Raises:
            StoreError: The server is down. Other processes may keep what they have until it
                expires, so try again.
            TimeoutError: (`mtaio.exceptions.TimeoutError`) Not all processes have confirmed in
                time. The change has been made.
            TypeError: ``key`` is not a str, or ``confirm`` is not a number.
            ValueError: ``confirm`` is negative or NaN.
            RuntimeError: The cache is not entered.
        """
        self._check(key)
        return await self._delete((key,), confirm) > 0

    async def delete_many(self, keys: Iterable[str], *, confirm: float | None = None) -> int:
        """
        Remove several keys with one call to the server, and tell all processes.

        A checkpoint, like `set_many`.

        Args:
            keys: The keys.
            confirm: As for `delete`.

        Returns:
            How many of the keys the server had.

        Raises:
            BaseException: As for `delete`; or ``keys`` is a single key.
        """
        return await self._delete(dict.fromkeys(self._check_many(keys)), confirm)

    async def invalidate_tag(self, tag: str, *, confirm: float | None = None) -> None:
        """
        Invalidate all values with ``tag``, in all processes and on the server.

        This takes one call to the server, however many values there are. Their number is not known,
        since they are found only when they are read; those that nobody reads use the server's
        memory until they expire. Loads in progress whose values would have the tag still answer
        their callers, but store nothing. A checkpoint; if it is cancelled or fails, the change may
        or may not have been made.

        Args:
            tag: A tag that was passed to `set`, `get_or_set` or `cached`.
            confirm: As for `delete`.

        Raises:
            StoreError, TimeoutError, RuntimeError: As for `delete`.
            TypeError: ``tag`` is not a str, or ``confirm`` is not a number.
            ValueError: ``confirm`` is negative or NaN.
        """
        stores.sendable("tag", tag, way_out="Pass one, such as 'user:7'.")
        self._check_entered()
        await self._change(
            partial(self._drop_tag, tag),
            partial(self._far.invalidate, tag),
            confirm,
            f"the tag {tag!r}",
        )

    async def clear(self, *, confirm: float | None = None) -> None:
        """
        Remove everything in this namespace, in all processes and on the server.

        Loads in progress still answer their callers, but store nothing. The server goes twice
        through all of its keys, including those of others, in small steps that do not hold up other
        clients for long; a million keys take a few seconds. A checkpoint. If it is cancelled or
        fails, or the server is restarted meanwhile, some of the values may be left; call it again.

        Args:
            confirm: As for `delete`.

        Raises:
            StoreError, TimeoutError, RuntimeError: As for `delete`.
            TypeError: The store has no method ``scan``, or ``confirm`` is not a number.
            ValueError: ``confirm`` is negative or NaN.
        """
        self._check_entered()
        if not hasattr(self._store, "scan"):
            msg = (
                f"{self._store!r} has no method scan(pattern, cursor), by which clear() finds the "
                f"keys. Add it, or use another namespace."
            )
            raise TypeError(msg)
        await self._change(
            self._drop_values,
            self._far.clear,
            confirm,
            "the namespace",
        )

    async def _set(
        self,
        values: Mapping[str, bytes],
        ttl: float | Unset,
        tags: Iterable[str],
        confirm: float | None,
    ) -> None:
        seconds = self._seconds(ttl)
        names = _tags(tags) if tags else _NO_TAGS
        await self._change(
            partial(self._drop, *values),
            lambda writer: self._far.write(values, seconds, writer, names),
            confirm,
            _listed(values),
        )

    async def _delete(self, keys: Collection[str], confirm: float | None) -> int:
        return await self._change(
            partial(self._drop, *keys),
            partial(self._far.delete, keys),
            confirm,
            _listed(keys),
        )

    async def _change(
        self,
        drop: Callable[[], object],
        change: Callable[[tuple[str, str] | None], Coroutine[Any, Any, tuple[R, int]]],
        confirm: float | None,
        what: str,
    ) -> R:
        """
        Change something on the server, and wait for confirmations.

        Args:
            drop: Drops it from memory.
            change: Called with the writer and the token to be confirmed; returns what `_change`
                does, and how many processes receive the message.
            confirm: The most seconds to wait.
            what: What was changed, for the error.
        """
        checks.timeout("confirm", confirm)
        drop()
        if confirm is None:
            return (await self._call(change(None), drop))[0]
        token = uuid4().hex
        with self._confirmations.expect(token) as answers:
            answer, wanted = await self._call(change((self._identity, token)), drop)
            with anyio.move_on_after(confirm):
                await answers.wait(wanted)
                return answer
        msg = (
            f"{self!r}: only {answers.count} of {wanted} processes confirmed within {confirm:g} s "
            f"that {what} was changed. The others may still return its old value."
        )
        raise exceptions.TimeoutError(msg, timeout=confirm, name=self.name)

    async def _call(
        self, call: Coroutine[Any, Any, tuple[R, int]], drop: Callable[[], object]
    ) -> tuple[R, int]:
        """Make a change, even if other calls have just failed."""
        try:
            return await call
        except StoreError:
            self._server_failures += 1
            raise
        finally:
            drop()  # again: what was read since may be older

    def record_durations(self) -> None:
        """
        Record a histogram of this process's loads, as ``load_duration`` in the statistics.

        It covers the time of the loader, until it returns, fails or is cancelled, and not that of
        the server. A monitor calls it for what it watches; repeated calls have no effect. Not a
        checkpoint. It can be called from any thread.
        """
        if self._load_duration is None:
            self._load_duration = Histogram()

    def statistics(self) -> TieredCacheStatistics:
        """
        Return a snapshot of this process.

        Not a checkpoint. It can be called from any thread.
        """
        near = self._near.statistics()
        return snapshot(
            TieredCacheStatistics,
            self,
            near_size=near.size,
            near_max_size=near.max_size,
            near_hits=near.hits,
            server_failures=self._server_failures + self._breaker.server_failures,
        )

    # Messages.

    def _on_message(self, channel: str, message: bytes) -> None:
        if channel != self._far.channel:
            self._confirmations.note(message.decode(errors="replace"))
            return
        notice = Notice.parse(message)
        if notice.settled is not None:
            self._queries.settled(notice.settled)
            return
        self._changes_heard += 1
        self._drop(*notice.changed)
        if notice.tag is not None:
            self._drop_tag(notice.tag)
            for load in self._renewals.outdate(notice.tag):  # who asks now is not to wait for them
                stores.start(self._store, self._release, *load)
        if notice.cleared:
            self._drop_values()
        if notice.confirm is not None:
            stores.start(self._store, self._confirm, *notice.confirm)

    async def _confirm(self, writer: str, token: str) -> None:
        try:
            await self._far.confirm(writer, token)
        except StoreError:
            self._server_failures += 1

    def _on_subscribed(self) -> None:
        """Note that messages arrive from now on, and that some may have been missed."""
        self._listening = True
        self._breaker.retry()
        self._drop_all()

    def _on_lost(self) -> None:
        """Note that messages no longer arrive."""
        self._listening = False
        self._drop_all()

    # What is dropped is not put back by what is under way: `TTLCache` stores no load that began
    # before, and a query is marked.

    def _drop(self, *keys: str) -> None:
        for key in keys:
            self._near.delete_nowait(key)
            self._queries.changed(key)

    def _drop_tag(self, tag: str) -> None:
        self._near.invalidate_tag_nowait(tag)
        self._queries.tag_changed()

    def _drop_values(self) -> None:
        self._near.clear_nowait()
        self._queries.all_changed()

    def _drop_all(self) -> None:
        self._near_cleared += 1
        self._drop_values()

    # Loading.

    async def _fetch(self, fetch: _Fetch[T]) -> T:
        """Return the value from the server, or load it."""
        token = uuid4().hex
        with Query(self._queries, (fetch.key,)) as query:
            lease = None
            try:
                found, lease = await self._find(fetch, token, query)
            except StoreError as error:
                if self._on_failure == "raise":
                    self._misses += 1
                    raise
                self._outage.tell(self, error)
                found = UNSET
            if found is not UNSET:
                self._far_hits += 1
                there: T = found
                return there
            self._misses += 1
            if lease is not None:
                return await self._load_for_all(fetch, token, lease)
            self._loads_without_server += 1
            value, _ = await self._load(fetch)
            fetch.seconds = min(fetch.ttl, self._near_ttl, self._fallback_ttl)
            return value

    async def _find(self, fetch: _Fetch[T], token: str, query: Query) -> tuple[Any, Leased | None]:
        """Return the value, once there is one, or UNSET and the lease when this process has it."""
        discard = False
        while True:
            # 1. One script reads the value or takes the lease. The event comes first: a message
            #    that arrives during the call ends the wait after it.
            message, start = query.next_message(), clock.now()
            made = not self._breaker.is_open()
            try:
                answer = await self._breaker.call(
                    self._far.acquire(fetch.key, token, fetch.tags, fetch.ttl, discard=discard)
                )
            except anyio.get_cancelled_exc_class():
                await self._release(fetch.key, token)  # which the server may have given it
                raise
            except StoreError:
                if made:  # the server may have the call, and run it before this one
                    stores.start(self._store, self._release, fetch.key, token)
                raise
            # 2. A value is returned; one that cannot be decoded is dropped by the next call. With
            #    tags, which need not be those of the caller, it is put into memory here and not by
            #    the `TTLCache`, which knows only the caller's.
            if isinstance(answer, Found):
                value = self._decode(fetch.key, answer)
                if value is not UNSET:
                    if not answer.tags:
                        fetch.seconds = self._near_seconds(answer.seconds, start)
                    elif not query.outdated:
                        self._keep_near(fetch.key, value, answer, start)
                    return value, None
                discard = True
                continue
            # 3. Without a value there is the lease, or another process has it: then this one waits
            #    for the message that the key is settled or changed, but looks again in any case.
            if isinstance(answer, Leased):
                return UNSET, answer
            self._waiting += 1
            try:
                with anyio.move_on_after(min(answer, _LOOK if self._listening else _POLL)):
                    await message.wait()
            finally:
                self._waiting -= 1

    async def _load_for_all(self, fetch: _Fetch[T], token: str, lease: Leased) -> T:
        """Load a value whose lease this process has, and store it."""
        given_back = False  # `keep` gives it back; what ends before that has to
        try:
            with self._renewals.renewing(fetch.key, token, fetch.tags):
                value, raw = await self._load(fetch)
                start = clock.now()
                try:
                    kept = await self._breaker.call(
                        self._far.keep(fetch.key, token, raw, lease.tags, fetch.ttl)
                    )
                except StoreError as error:
                    self._outage.tell(self, error)
                    kept = False
                given_back = True
            if kept:
                fetch.seconds = self._near_seconds(fetch.ttl, start)
            else:
                self._outdated += 1
            return value
        finally:
            if not given_back:
                await self._release(fetch.key, token)

    async def _load(self, fetch: _Fetch[T]) -> tuple[T, bytes]:
        self._loads += 1
        loading = fetch.loader()
        if not isawaitable(loading):
            msg = (
                f"loader={fetch.loader!r} returned {loading!r}, which cannot be awaited. {_LOADER}"
            )
            raise TypeError(msg)
        durations = self._load_duration
        value = await (loading if durations is None else timed(durations, lambda: loading))
        raw = encoded(self._codec, value)
        return self._codec.decode(raw), raw

    async def _release(self, key: str, token: str) -> None:
        """Give a lease back, if it was taken."""
        with anyio.CancelScope(shield=True), suppress(StoreError):
            await self._far.release(key, token)

    # What they have in common.

    def _check(self, key: object) -> None:
        if not (isinstance(key, str) and key.isascii()):  # ASCII can always be sent
            stores.sendable("key", key, way_out=_KEY)
        self._check_entered()

    def _check_many(self, keys: Iterable[str]) -> list[str]:
        """Return the keys of an operation on several."""
        accepted = [
            stores.sendable("key", key, way_out=_KEY) for key in _several("keys", keys, _KEYS)
        ]
        self._check_entered()
        return accepted

    def _check_entered(self) -> None:
        block = self._blocks.current
        if block is None or not block.is_current():
            msg = (
                f"{self!r} is not entered in this event loop. Use it inside 'async with store, "
                f"cache:', in the event loop that entered it."
            )
            raise RuntimeError(msg)

    def _decode(self, key: str, found: Found) -> Any:
        """Return the value, or UNSET if the codec cannot decode it."""
        try:
            return self._codec.decode(found.value)
        except Exception:  # another program may write anything
            from logging import getLogger  # noqa: PLC0415 - most programs never come here

            self._undecodable += 1
            getLogger("mtaio.redis").warning(
                "%r cannot decode the value of %r, and loads it again. Use another namespace when "
                "the format changes.",
                self,
                key,
                exc_info=True,
            )
            return UNSET

    def _keep_near(self, key: str, value: T, found: Found, start: float) -> None:
        """Put into memory what was found on the server."""
        seconds = self._near_seconds(found.seconds, start)
        if seconds:
            self._near.set_nowait(key, value, seconds, tags=found.tags)

    def _near_seconds(self, left: float, start: float) -> float:
        """Return for how long to keep in memory what had ``left`` seconds to live at ``start``."""
        return (
            max(0.0, min(left - (clock.now() - start), self._near_ttl)) if self._listening else 0.0
        )

    def _seconds(self, ttl: float | Unset) -> float:
        return self._default_ttl if ttl is UNSET else checks.at_least("ttl", ttl, 0, way_out=_TTL)


def _several(argument: str, values: object, way_out: str) -> Iterable[object]:
    """Return ``values`` if they can be several; a str would silently be split up."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        msg = f"{argument}={values!r:.100} is {checks.type_of(values)}, not several. {way_out}"
        raise TypeError(msg)
    return cast("Iterable[object]", values)


def _tags(tags: object) -> frozenset[str]:
    way_out = 'Pass a set of str: tags={"user:7"}.'
    return frozenset(
        [stores.sendable("tag", tag, way_out=way_out) for tag in _several("tags", tags, way_out)]
    )


def _listed(keys: Collection[str]) -> str:
    """Return the keys of a change, for an error."""
    if len(keys) == 1:
        return repr(*keys)
    return f"one of {len(keys)} keys"
