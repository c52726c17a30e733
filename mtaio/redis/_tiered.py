"""
A cache in two tiers: values in this process's memory, before those that all processes share.

Promise: a key is loaded once for all processes; a value that was set or deleted anywhere leaves the
memory of every process that hears of it, and one that cannot hear keeps nothing but what it loads
without the server, for ``deaf_ttl``; a load that began before a change is not stored after it.
Cost: a hit in memory is a hit of a `TTLCache`, one on the server is one script.
Why there are leases and no generations: docs/en/design/redis.md.
"""

from __future__ import annotations

import math
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)
from uuid import uuid4

import anyio

from mtaio import exceptions
from mtaio._internal import checks, clock, loops
from mtaio._internal.sentinel import UNSET, Unset
from mtaio._internal.statistics import COUNTER, GAUGE, LIMIT
from mtaio.cache import TTLCache
from mtaio.exceptions import StoreError
from mtaio.redis._asking import Asker, Asking
from mtaio.redis._codec import JSON, Codec
from mtaio.redis._far import CHANGED, CONFIRM, TOKEN, FarTier, Found

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType
    from typing import Self

    from mtaio.redis._store import Store

__all__ = ["TieredCache", "TieredCacheStatistics"]

T = TypeVar("T")
D = TypeVar("D")
P = ParamSpec("P")

_LOOK: Final = 1.0
"""Seconds after which a task that waits for another process's load looks again, unless woken."""

_DEAF_LOOK: Final = 0.1
"""The same while no messages are heard."""

_PAUSES: Final = (0.1, 2.0)
"""Seconds for which a server that failed is left alone: the first time, and at most."""

_TTL: Final = "Pass seconds >= 0: 0 for not at all, math.inf for no end."


@dataclass(frozen=True, slots=True, kw_only=True)
class TieredCacheStatistics:
    """What a `TieredCache` has done in this process."""

    near_size: int = field(metadata=GAUGE)
    """Values in this process's memory."""
    near_max_size: float | None = field(metadata=LIMIT)
    """The most of them; None for no limit."""
    near_hits: int = field(metadata=COUNTER)
    """Reads that found a value in this process's memory."""
    far_hits: int = field(metadata=COUNTER)
    """Reads that found one on the server, also after waiting for another process's load."""
    misses: int = field(metadata=COUNTER)
    """Reads that found none on the server, or could not ask it."""
    loads: int = field(metadata=COUNTER)
    """Loads started in this process."""
    loads_without_server: int = field(metadata=COUNTER)
    """Those among them that no other process knew of, because the server was down."""
    waiting: int = field(metadata=GAUGE)
    """Keys for which this process waits until another one has loaded."""
    outdated: int = field(metadata=COUNTER)
    """Loads that were not stored: the key was changed meanwhile, or the server was not reached."""
    changes_heard: int = field(metadata=COUNTER)
    """Messages that a key was changed, this process's own included."""
    near_cleared: int = field(metadata=COUNTER)
    """How often the memory was cleared, because messages may have been missed."""
    undecodable: int = field(metadata=COUNTER)
    """Values on the server that could not be decoded, and counted as none."""
    failed_calls: int = field(metadata=COUNTER)
    """Calls to the server that failed."""
    listening: int = field(metadata=GAUGE)
    """1 while the messages of other processes are heard."""


class _Decorator(Protocol[T]):
    """What `TieredCache.cached` returns."""

    def __call__(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        """Decorate ``fn``."""
        ...


class _Fetch(Generic[T]):
    """What one caller wants loaded; `TTLCache` runs it for all who ask meanwhile."""

    __slots__ = ("_cache", "key", "loader", "seconds", "ttl")

    def __init__(
        self, cache: TieredCache[T], key: str, loader: Callable[[], Awaitable[T]], ttl: float
    ) -> None:
        self._cache = cache
        self.key = key
        self.loader = loader
        self.ttl = ttl
        self.seconds = 0.0
        """For how long the value may stay in memory."""

    async def run(self) -> T:
        """Find the value, or load it."""
        return await self._cache._fetch(self)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module

    def lasts(self, _: T) -> float:
        """Return for how long it may stay in memory."""
        return self.seconds


class _Answers:
    """Those who have confirmed a change."""

    __slots__ = ("_more", "count")

    def __init__(self) -> None:
        self.count = 0
        self._more = anyio.Event()

    def hear(self) -> None:
        """Count one."""
        self.count += 1
        self._more.set()
        self._more = anyio.Event()

    async def wait(self, count: int) -> None:
        """Wait for so many."""
        while self.count < count:
            await self._more.wait()


class TieredCache(Generic[T]):
    """
    Keeps values on a server for all processes, and for some time in this one's memory.

    Used inside ``async with store, cache:``, by one event loop at a time. A key is loaded by one
    task of one process, however many ask: it has a lease on the server, and the others wait for
    its value. If it is cancelled, or its load fails, another that waits loads at once; if its
    process is killed, after ``lease``.

    `set` and `delete` are told to all processes by a message, which takes about a millisecond;
    until it has come they may still return what they have in memory; ``confirm`` waits until it
    has. Where messages may have been missed, all of the memory is cleared. A process that hears
    nothing notices that within ``watch`` and the store's timeout, and from then on asks the server
    each time; what it has to load without the server it keeps for ``deaf_ttl``.

    Args:
        store: The server.
        namespace: What the keys on the server begin with: caches of one namespace share values.
            Use another when what the values mean has changed.
        ttl: Seconds for which a value is kept on the server if none are given with it; ``math.inf``
            for values that never expire, 0 for not at all.
        codec: How values become bytes. Default: `JSON`.
        near_ttl: The most seconds for which a value is kept in memory; 0 for not at all.
        near_size: The most values in memory; None for no limit.
        deaf_ttl: The most seconds for which a value is kept in memory that was loaded without the
            server, because it is down; 0 for not at all.
        lease: Seconds after which a load is taken for dead that is not heard of any more. One in
            progress renews its lease, so this may be less than a load takes.
        on_failure: What reads do when the server is down. ``"local"``: `get` finds nothing more
            than is in memory, and `get_or_set` loads in this process. ``"closed"``: they raise the
            error. `set` and `delete` always raise it.
        watch: Seconds between two looks at the subscription.
        name: For messages and the monitor. Default: the namespace.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: ``namespace`` is empty or has a ``{``, or a number is out of range.

    Example:
        ```python
        import anyio

        from mtaio.redis import RedisStore, TieredCache

        store = RedisStore("redis://127.0.0.1:6379/0")
        users = TieredCache[dict[str, str]](store, "users", ttl=600)


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
    # - the near tier is empty outside of the block, where nothing is heard;
    # - what is put into it was asked for by an Asker, or by a load of its own, that has been there
    #   since before the server was asked: a message that comes meanwhile reaches it;
    # - _leases has the keys that this process loads, by their tokens, and _renewing says whether
    #   the task that renews them has been started.
    __slots__ = (
        "__weakref__",
        "_asking",
        "_block",
        "_changes_heard",
        "_codec",
        "_confirming",
        "_deaf_ttl",
        "_failed_calls",
        "_far",
        "_far_hits",
        "_heard",
        "_identity",
        "_lease",
        "_leases",
        "_loads",
        "_loads_without_server",
        "_loop",
        "_misses",
        "_name",
        "_namespace",
        "_near",
        "_near_cleared",
        "_near_get",
        "_near_ttl",
        "_on_failure",
        "_outdated",
        "_pause",
        "_renewing",
        "_retry_at",
        "_store",
        "_ttl",
        "_undecodable",
        "_waiting",
        "_watch",
    )

    def __init__(
        self,
        store: Store,
        namespace: str,
        *,
        ttl: float = 300.0,
        codec: Codec[T] = JSON,
        near_ttl: float = 60.0,
        near_size: int | None = 10_000,
        deaf_ttl: float = 1.0,
        lease: float = 5.0,
        on_failure: Literal["local", "closed"] = "local",
        watch: float = 0.5,
        name: str | None = None,
    ) -> None:
        if not namespace or "{" in namespace:
            msg = (
                f"namespace={namespace!r} cannot begin a key: it is empty, or has a brace. Pass a "
                f"name that the processes share, such as 'users'."
            )
            raise ValueError(msg)
        self._ttl = checks.at_least("ttl", ttl, 0, way_out=_TTL)
        self._near_ttl = checks.at_least("near_ttl", near_ttl, 0, way_out=_TTL)
        self._deaf_ttl = checks.at_least("deaf_ttl", deaf_ttl, 0, way_out=_TTL)
        self._lease = _positive("lease", lease)
        self._watch = _positive("watch", watch)
        self._on_failure = checks.one_of("on_failure", on_failure, ("local", "closed"))
        self._near: TTLCache[T] = TTLCache(near_ttl, near_size, name=name or namespace)
        self._near_get: Callable[[str, Any], Any] = self._near.get_nowait
        self._far = FarTier(store, namespace, lease)
        self._store = store
        self._namespace = namespace
        self._codec = codec
        self._name = name
        self._asking = Asking()
        self._identity = uuid4().hex
        self._confirming: dict[str, _Answers] = {}
        self._leases: dict[str, str] = {}
        self._renewing = False
        self._block: AsyncExitStack | None = None
        self._loop: object = None
        self._heard = False
        self._pause, self._retry_at = _PAUSES[0], -math.inf
        self._far_hits = self._misses = self._loads = self._loads_without_server = 0
        self._waiting = self._outdated = self._changes_heard = self._near_cleared = 0
        self._undecodable = self._failed_calls = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self._ttl:g} s at {self._store.name}>"

    @property
    def name(self) -> str:
        """The name given to the cache, or its namespace."""
        return self._namespace if self._name is None else self._name

    @property
    def namespace(self) -> str:
        """What its keys begin with."""
        return self._namespace

    @property
    def default_ttl(self) -> float:
        """Seconds for which a value is kept on the server if none are given with it."""
        return self._ttl

    # The block.

    async def __aenter__(self) -> Self:
        """
        Enter the cache, and begin to listen. A checkpoint only on some loops.

        It does not wait for the server.

        Raises:
            RuntimeError: It is entered already, or the store is not.
        """
        if self._block is not None and not loops.is_over(self._loop):
            msg = f"{self!r} is entered already. Enter it once, around all that uses it."
            raise RuntimeError(msg)
        self._forget()
        block = AsyncExitStack()
        listening = self._store.subscribe(
            [self._far.channel, self._far.reply_channel(self._identity)],
            *(self._hear, self._begin, self._lose),
            watch=self._watch,
        )
        await block.enter_async_context(listening)
        await block.enter_async_context(self._near)
        self._block, self._loop = block, loops.current_loop()
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
            RuntimeError: Another task entered it.
        """
        block = self._block
        if block is None or loops.is_over(self._loop):
            self._forget()
            return
        try:
            await block.__aexit__(exc_type, exc, tb)
        finally:
            self._forget()

    def _forget(self) -> None:
        self._block = None
        self._heard = self._renewing = False
        self._leases.clear()
        self._pause, self._retry_at = _PAUSES[0], -math.inf
        self._near.clear_nowait()

    # Reading.

    @overload
    async def get(self, key: str) -> T | None: ...
    @overload
    async def get(self, key: str, default: D) -> T | D: ...
    async def get(self, key: str, default: Any = None) -> Any:
        """
        Return the value of ``key``, or ``default`` if there is none.

        Not a checkpoint if it is in memory, else one. It does not wait for a load.

        Args:
            key: Which key.
            default: What to return instead; a value may be None itself.

        Raises:
            StoreError: The server is down, with ``on_failure="closed"``.
            TypeError: ``key`` is not a str.
            RuntimeError: The cache is not entered.
        """
        value = self._near_get(key, UNSET)
        if value is not UNSET:
            return value
        self._check(key)
        with Asker(self._asking, key) as asker:
            start = clock.now()
            try:
                found = await self._ask(self._far.read(key))
            except StoreError:
                self._misses += 1
                if self._on_failure == "closed":
                    raise
                return default
            if found is not None:
                value = self._decode(key, found)
            if found is None or value is UNSET:
                self._misses += 1
                return default
            self._far_hits += 1
            seconds = self._near_seconds(found.seconds, start)
            if seconds and not asker.stale:
                self._near.set_nowait(key, value, seconds)
            return value

    async def get_or_set(
        self, key: str, loader: Callable[[], Awaitable[T]], *, ttl: float | Unset = UNSET
    ) -> T:
        """
        Return the value of ``key``; if there is none, load it, once for all processes.

        Not a checkpoint if it is in memory, else one. Cancelled, a caller does not harm the others
        of its process; the load is cancelled when the last of them has left, and another process
        that waits loads at once.

        Args:
            key: Which key.
            loader: Called without arguments; what it returns is awaited. The value comes back as
                the codec decodes it, in this process as in the others.
            ttl: Seconds for which the value is kept, from when it has been loaded. Default: the
                cache's.

        Raises:
            Exception: What ``loader`` or the codec raised, to each caller of this process that
                waited for that load; other processes load themselves. It is not kept.
            CacheClosedError: The cache was left during the load.
            StoreError: The server is down, with ``on_failure="closed"``.
            TypeError: ``key`` is not a str, ``loader`` is not an async function, or ``ttl`` not a
                number.
            ValueError: ``ttl`` is negative or NaN.
            RuntimeError: The cache is not entered; or the load was asked for by its own loader.
        """
        value = self._near_get(key, UNSET)
        if value is not UNSET:
            found: T = value
            return found
        self._check(key)
        fetch = _Fetch(self, key, loader, self._seconds(ttl))
        return await self._near.get_or_set(key, fetch.run, ttl=fetch.lasts)

    def cached(self, key: Callable[..., str], *, ttl: float | Unset = UNSET) -> _Decorator[T]:
        """
        Return a decorator for an async function or method, whose results are kept.

        Args:
            key: Called with the arguments of each call, ``self`` included; returns the key of its
                result. To forget that: ``await cache.delete(key)``.
            ttl: As for `get_or_set`.

        Raises:
            TypeError: ``key`` cannot be called, or ``ttl`` is not a number.
            ValueError: ``ttl`` is negative or NaN.
        """
        way_out = "Pass a function that takes what the decorated one takes and returns a str."
        checks.callable_("key", key, way_out=way_out)
        seconds = self._seconds(ttl)

        def decorate(
            fn: Callable[P, Coroutine[Any, Any, T]], /
        ) -> Callable[P, Coroutine[Any, Any, T]]:
            @wraps(fn)
            async def call(*args: P.args, **kwargs: P.kwargs) -> T:
                load = partial(fn, *args, **kwargs)
                return await self.get_or_set(key(*args, **kwargs), load, ttl=seconds)

            return call

        return decorate

    # Changing.

    async def set(
        self, key: str, value: T, ttl: float | Unset = UNSET, *, confirm: float | None = None
    ) -> None:
        """
        Store ``value`` under ``key``, in place of what is there, and tell all processes.

        A checkpoint. Cancelled, or ended by a `StoreError`, it may have been done or not. Loads of
        that key which are in progress answer those who wait for them, and store nothing.

        Args:
            key: Which key.
            value: What the codec can encode.
            ttl: Seconds until it expires; 0 is "has expired", ``math.inf`` never. Omitted: the
                cache's.
            confirm: As for `delete`.

        Raises:
            StoreError: The server is down.
            TimeoutError: As for `delete`.
            TypeError, ValueError, RuntimeError: As for `get_or_set`.
            Exception: What the codec raises; nothing has changed then.
        """
        self._check(key)
        await self._write(key, self._codec.encode(value), self._seconds(ttl), confirm)

    async def delete(self, key: str, *, confirm: float | None = None) -> bool:
        """
        Remove ``key``, and tell all processes: what to do when the source has changed.

        A checkpoint; as `set`.

        Args:
            key: Which key.
            confirm: The most seconds to wait until every process that listens has confirmed that
                it has the old value no longer; None not to wait for that. Not for clusters, which
                do not say how many listen.

        Returns:
            Whether the server had a value.

        Raises:
            StoreError: The server is down: other processes may keep what they have until it
                expires. Try again.
            TimeoutError: (`mtaio.exceptions.TimeoutError`) Not all have confirmed in time. The
                change has been made.
            TypeError: ``key`` is not a str, or ``confirm`` not a number.
            ValueError: ``confirm`` is negative or NaN.
            RuntimeError: The cache is not entered.
        """
        self._check(key)
        return await self._write(key, b"", 0, confirm)

    async def _write(self, key: str, value: bytes | str, ttl: float, confirm: float | None) -> bool:
        checks.timeout("confirm", confirm)
        self._drop(key)
        if confirm is None:
            return (await self._write_far(key, value, ttl, None))[0]
        token = uuid4().hex
        self._confirming[token] = answers = _Answers()
        try:
            there, wanted = await self._write_far(key, value, ttl, self._identity + token)
            with anyio.move_on_after(confirm):
                await answers.wait(wanted)
                return there
        finally:
            del self._confirming[token]
        msg = (
            f"{self!r}: {answers.count} of {wanted} that listen have confirmed within "
            f"{confirm:g} s that {key!r} was changed. The others may have its old value for a time."
        )
        raise exceptions.TimeoutError(msg, timeout=confirm, name=self.name)

    async def _write_far(
        self, key: str, value: bytes | str, ttl: float, confirm: str | None
    ) -> tuple[bool, int]:
        try:
            return await self._far.write(key, value, ttl, confirm)
        except StoreError:
            self._failed_calls += 1
            raise
        finally:
            self._drop(key)  # what was read since, and may be older

    def statistics(self) -> TieredCacheStatistics:
        """Return what the cache has done in this process. Not a checkpoint; any thread may ask."""
        near = self._near.statistics()
        return TieredCacheStatistics(
            near_size=near.size,
            near_max_size=near.max_size,
            near_hits=near.hits,
            far_hits=self._far_hits,
            misses=self._misses,
            loads=self._loads,
            loads_without_server=self._loads_without_server,
            waiting=self._waiting,
            outdated=self._outdated,
            changes_heard=self._changes_heard,
            near_cleared=self._near_cleared,
            undecodable=self._undecodable,
            failed_calls=self._failed_calls,
            listening=int(self._heard),
        )

    # Messages.

    def _hear(self, channel: str, message: bytes) -> None:
        if channel != self._far.channel:
            answers = self._confirming.get(message.decode(errors="replace"))
            if answers is not None:
                answers.hear()
            return
        kind, key = message[:1], message[1:].decode(errors="replace")
        if kind == CHANGED:
            self._changes_heard += 1
            self._drop(key)
        elif kind == CONFIRM:
            self._changes_heard += 1
            self._drop(key[2 * TOKEN :])
            self._store.start(self._confirm, key[:TOKEN], key[TOKEN : 2 * TOKEN])
        else:
            self._asking.settled(key)

    async def _confirm(self, writer: str, token: str) -> None:
        try:
            await self._far.confirm(writer, token)
        except StoreError:
            self._failed_calls += 1

    def _begin(self) -> None:
        """Messages are heard from now on, and some may have been missed."""
        self._heard = True
        self._retry_at = -math.inf
        self._drop_all()

    def _lose(self) -> None:
        """Nothing is heard any longer."""
        self._heard = False
        self._drop_all()

    def _drop(self, key: str) -> None:
        self._near.delete_nowait(key)  # and what is being loaded is not kept
        self._asking.changed(key)

    def _drop_all(self) -> None:
        self._near_cleared += 1
        self._near.clear_nowait()
        self._asking.all_changed()

    # Loading.

    async def _fetch(self, fetch: _Fetch[T]) -> T:
        """Return the value from the server, or load it."""
        token = uuid4().hex
        with Asker(self._asking, fetch.key) as asker:
            leased = True
            try:
                found = await self._find(fetch, token, asker)
            except StoreError:
                if self._on_failure == "closed":
                    self._misses += 1
                    raise
                found, leased = UNSET, False
            if found is not UNSET:
                self._far_hits += 1
                there: T = found
                return there
            self._misses += 1
            if leased:
                return await self._load_for_all(fetch, token)
            self._loads_without_server += 1
            value, _ = await self._load(fetch)
            fetch.seconds = min(fetch.ttl, self._near_ttl, self._deaf_ttl)
            return value

    async def _find(self, fetch: _Fetch[T], token: str, asker: Asker) -> Any:
        """Return the value, once there is one, or UNSET when this process has the lease."""
        discard = False
        while True:
            woken, start = asker.rest(), clock.now()
            asked = start >= self._retry_at
            try:
                answer = await self._ask(self._far.acquire(fetch.key, token, discard=discard))
            except anyio.get_cancelled_exc_class():
                await self._release(fetch.key, token)
                raise
            except StoreError:
                if asked:  # it may be done yet, in the order of the calls
                    self._store.start(self._release, fetch.key, token)
                raise
            if isinstance(answer, Found):
                value = self._decode(fetch.key, answer)
                if value is not UNSET:
                    fetch.seconds = self._near_seconds(answer.seconds, start)
                    return value
                discard = True
                continue
            if not answer:
                return UNSET
            self._waiting += 1
            try:
                with anyio.move_on_after(min(answer, _LOOK if self._heard else _DEAF_LOOK)):
                    await woken.wait()
            finally:
                self._waiting -= 1

    async def _load_for_all(self, fetch: _Fetch[T], token: str) -> T:
        """Load a value whose lease this process has, and store it."""
        key = fetch.key
        self._leases[token] = key
        given_back = False
        try:
            self._renew_leases()
            value, encoded = await self._load(fetch)
            start = clock.now()
            try:
                kept = await self._ask(self._far.keep(key, token, encoded, fetch.ttl))
            except StoreError:
                kept = False
            given_back = True
            if kept:
                fetch.seconds = self._near_seconds(fetch.ttl, start)
            else:
                self._outdated += 1
            return value
        finally:
            self._leases.pop(token, None)
            if not given_back:
                await self._release(key, token)

    async def _load(self, fetch: _Fetch[T]) -> tuple[T, bytes | str]:
        self._loads += 1
        encoded = self._codec.encode(await fetch.loader())
        raw = encoded.encode() if isinstance(encoded, str) else encoded
        return self._codec.decode(raw), raw

    async def _release(self, key: str, token: str) -> None:
        """Give a lease back that may have been taken."""
        with anyio.CancelScope(shield=True), suppress(StoreError):
            await self._far.release(key, token)

    def _renew_leases(self) -> None:
        if not self._renewing:
            self._renewing = True
            self._store.start(self._renew)

    async def _renew(self) -> None:
        """Renew the leases while there are any."""
        try:
            while self._leases:
                await anyio.sleep(self._lease / 3)
                for token, key in [*self._leases.items()]:
                    with suppress(StoreError):
                        await self._far.renew(key, token)
        finally:
            self._renewing = False

    # What they have in common.

    def _check(self, key: object) -> None:
        if not isinstance(key, str):
            msg = (
                f"key={key!r} is {checks.type_of(key)}, not a str. Pass one, such as str(user_id)."
            )
            raise TypeError(msg)
        if self._block is None or not loops.is_current(self._loop):
            msg = (
                f"{self!r} is not entered in this event loop. Use it inside 'async with store, "
                f"cache:', in the event loop that entered it."
            )
            raise RuntimeError(msg)

    async def _ask(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Await a call to the server, unless it failed a moment ago."""
        now = clock.now()
        if now < self._retry_at:
            call.close()
            msg = f"{self._store.name} failed, and is asked again in {self._retry_at - now:.1f} s."
            raise StoreError(msg, server=self._store.name)
        if self._pause > _PAUSES[0]:  # it failed: one call finds out
            self._retry_at = now + self._store.timeout
        try:
            answer = await call
        except StoreError:
            self._failed_calls += 1
            self._retry_at = clock.now() + self._pause
            self._pause = min(2 * self._pause, _PAUSES[1])
            raise
        self._pause, self._retry_at = _PAUSES[0], -math.inf
        return answer

    def _decode(self, key: str, found: Found) -> Any:
        """Return the value; UNSET if it is none."""
        try:
            return self._codec.decode(found.value)
        except Exception:  # what another program wrote is no value here
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

    def _near_seconds(self, left: float, start: float) -> float:
        """Return for how long to keep in memory what had so long to live at the server."""
        return max(0.0, min(left - (clock.now() - start), self._near_ttl)) if self._heard else 0.0

    def _seconds(self, ttl: float | Unset) -> float:
        return self._ttl if ttl is UNSET else checks.at_least("ttl", ttl, 0, way_out=_TTL)


def _positive(name: str, value: float) -> float:
    way_out = "Pass seconds > 0."
    if not 0 < checks.number(name, value, way_out=way_out) < math.inf:
        msg = f"{name}={value!r} is not a time. {way_out}"
        raise ValueError(msg)
    return value
