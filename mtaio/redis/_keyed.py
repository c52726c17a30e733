"""
How often work may start for each of many keys across all processes.

Promise: every key has a limit of its own, kept by the server, so that no task waits because of
another key; never more than ``max_keys`` are held here. The server forgets a key when its bucket is
full again, and forgetting one here grants nothing, because all that counts is there.
Cost: one look-up on top of the limiter's, and a few kilobytes for each key held. An outage is one
for all keys: one task looks whether the server is back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, TypeVar, TypeVarTuple, final

import anyio

from mtaio._internal import checks
from mtaio._internal.callables import close_unstarted
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.copies import uncopied
from mtaio._internal.decorators import Decorator, call, check_call
from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.limiting import limit_by
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, SECONDS, snapshot
from mtaio._internal.wait_queue import WaitQueue
from mtaio.exceptions import RateLimitError, StoreError
from mtaio.redis._bucket import Reserved
from mtaio.redis._outage import Backoff, Outage
from mtaio.redis._rate import PROBE, RedisRateLimiter, Tally
from mtaio.redis._store import Store
from mtaio.redis._store import name as check_name

__all__ = ["RedisKeyedRateLimiter", "RedisKeyedRateLimiterStatistics"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
C = TypeVar("C")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisKeyedRateLimiterStatistics:
    """What a `RedisKeyedRateLimiter` has done in this process, all keys together."""

    rate: float = field(metadata=LIMIT)
    """Tokens of each key every ``per`` seconds, for all processes together."""
    burst: int = field(metadata=LIMIT)
    """The tokens in a full bucket; of a window, its limit."""
    keys: int = field(metadata=GAUGE)
    """Keys held now."""
    max_keys: int = field(metadata=LIMIT)
    """The most keys that may be held."""
    rejected_keys: int = field(metadata=COUNTER)
    """Requests refused because ``max_keys`` were held and all were in use."""
    waiting: int = field(metadata=GAUGE)
    """Tasks waiting, for tokens or for an answer."""
    acquired: int = field(metadata=COUNTER)
    """Requests granted so far, however many tokens they asked for."""
    acquired_without_server: int = field(metadata=COUNTER)
    """Those of `acquired` that were granted while the server was down."""
    rejected: int = field(metadata=COUNTER)
    """Requests refused: by ``try_acquire``, or because the server was down."""
    timed_out: int = field(metadata=COUNTER)
    """Requests that did not fit into their own timeout, among them those that
    `mtaio.asgi.RateLimitMiddleware` answers with 429."""
    cancelled: int = field(metadata=COUNTER)
    """Requests cancelled while they waited."""
    wait_seconds: float = field(metadata=COUNTER)
    """Seconds that requests waited until they were granted, in total."""
    max_wait_seconds: float = field(metadata=GAUGE)
    """Seconds of the longest of those waits."""
    wait_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long each of those waits took; None before ``record_durations()``."""
    server_calls: int = field(metadata=COUNTER)
    """Calls to the server."""
    server_failures: int = field(metadata=COUNTER)
    """Calls to the server that failed."""
    down: bool = field(metadata=GAUGE)
    """Whether tokens are granted without the server, because it is down."""


class _Outage:
    """
    An outage, for all keys of one event loop.

    Attributes:
        down: Whether there is one.
        processes: The most processes that have used a key at the same time, as far as is known.
    """

    __slots__ = ("_back", "down", "log", "processes")

    def __init__(self, on_failure: str) -> None:
        self.down = False
        self.processes = 1
        self.log = Outage(on_failure)
        self._back: anyio.Event | None = None

    async def wait_until_back(self, look: Callable[[], Awaitable[object]]) -> None:
        """Wait until the server answers again; the first that waits has a look now and then."""
        if self._back is not None:
            await self._back.wait()
            return
        self._back = back = anyio.Event()
        pauses = Backoff(*PROBE)
        try:
            while self.down:
                await anyio.sleep(pauses.next())
                with suppress(StoreError):
                    await look()
                    self.down = False
        finally:  # cancelled, as the others are, when the block of the store ends
            self.down = False
            self._back = None
        back.set()


class _KeyLimiter(RedisRateLimiter):  # type: ignore[misc] # final for users
    """
    The limiter of one key, which counts with the others, and knows of an outage what they know.

    Attributes:
        own: The key.
        users: Tasks that are in a call of it.
    """

    __slots__ = ("_all", "_outage", "own", "users")

    own: str
    users: int

    def belong(self, to: object, own: str, tally: Tally, outage: _Outage) -> None:
        """Belong to that limiter."""
        self._all, self.own, self._tally, self._outage = to, own, tally, outage
        self.users = 0

    def __repr__(self) -> str:
        return f"{self._all!r:.200} key={self.own!r:.100}" if self.own else repr(self._all)

    @property
    def calls(self) -> tuple[int, int]:
        """How many calls of the server were made, and how many of them failed."""
        return self._server.server_calls, self._server.server_failures

    @property
    def is_down(self) -> bool:
        """Whether it grants tokens without the server, in a task that waits for the end of that."""
        return self._down

    @property
    def text(self) -> str:
        """Its limits, and its server."""
        return f"{self._limits()} at {self._store.name}"

    def _attach(self) -> None:
        super()._attach()
        if self._outage.down and not self._down:
            self._server.start(self._supply)
            self._go_down()

    async def _reserve(self, needed: int, of_use: int, *, within: float) -> Reserved:
        answer = await super()._reserve(needed, of_use, within=within)
        self._outage.processes = max(self._outage.processes, answer.processes)
        return answer

    def _log(self, error: StoreError) -> None:
        self._outage.down = True
        self._outage.log.tell(self._all, error)

    def _go_down(self) -> None:
        self._processes = self._outage.processes
        super()._go_down()

    async def _wait_until_back(self) -> None:
        await self._outage.wait_until_back(self._look)
        self._down = False


@final
@uncopied
class RedisKeyedRateLimiter:
    """
    A rate limit for each key across processes, such as for users, hosts or API tokens.

    Each key has a bucket like that of a `RedisRateLimiter` on the server, which forgets the bucket
    when it is full again. A process holds what it needs for its own tasks, for at most ``max_keys``
    keys; the least recently used key makes room for a new one. If all of them are in use by calls,
    or were during an outage with ``on_failure="local"``, the new key is refused.

    It can be created anywhere, and is used inside the block of its store. Every process must pass
    the same key, rate, burst and slack.

    Args:
        store: The server, entered before the first call.
        key: What is limited: the first part of the name of each bucket on the server.
        rate: As for `RedisRateLimiter`, for each key.
        per: The period of ``rate`` in seconds.
        burst: Capacity of each bucket, as for `RedisRateLimiter`.
        slack: As for `RedisRateLimiter`.
        on_failure: As for `RedisRateLimiter`. Once a call has failed, no key waits for the server.
        max_keys: Maximum number of keys to hold in this process, at least 1.
        name: Name shown in messages and metrics. Default: ``key``.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``max_keys`` is less than 1, or another argument is invalid as for
            `RedisRateLimiter`.

    Example:
        ```python
        import anyio

        from mtaio.redis import RedisKeyedRateLimiter, RedisStore

        store = RedisStore("redis://127.0.0.1:6379/0")
        limiter = RedisKeyedRateLimiter(store, "greetings", 2, burst=2)


        @limiter(key=lambda user: user)
        async def greet(user: str) -> None:
            print(f"hello {user}")


        async def main() -> None:
            async with store, anyio.create_task_group() as group:
                for user in ("ada", "ada", "ada", "bob"):
                    group.start_soon(greet, user)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    kind: ClassVar[Literal["limiter"]] = "limiter"
    needs_key: ClassVar[bool] = True

    # Invariants:
    # - _limiters are the keys held, all of the event loop that _queue knows; nobody waits there;
    # - _idle are those with no user, in the order of their last use;
    # - one that was used in an outage is not forgotten before its end: its task waits for that, and
    #   its own bucket counts.
    __slots__ = (
        "__weakref__",
        "_down",
        "_idle",
        "_key",
        "_limiters",
        "_max_keys",
        "_model",
        "_new",
        "_on_failure",
        "_queue",
        "_rejected_keys",
        "_server_calls",
        "_server_failures",
        "_tally",
        "_waiting",
    )

    def __init__(
        self,
        store: Store,
        key: str,
        rate: float,
        *,
        per: float = 1.0,
        burst: int = 1,
        slack: float = 0.1,
        on_failure: Literal["raise", "allow", "local"] = "raise",
        max_keys: int = 10_000,
        name: str | None = None,
    ) -> None:
        options: dict[str, Any] = {"per": per, "burst": burst, "slack": slack}
        options |= {"on_failure": on_failure, "name": name or key}
        self._start(key, lambda own: _KeyLimiter(store, own, rate, **options), on_failure, max_keys)

    @classmethod
    def window(
        cls,
        store: Store,
        key: str,
        limit: int,
        *,
        per: float = 1.0,
        slack: float = 0.1,
        on_failure: Literal["raise", "allow", "local"] = "raise",
        max_keys: int = 10_000,
        name: str | None = None,
    ) -> Self:
        """
        Return a limiter with a sliding window for each key; see `RedisRateLimiter.window`.

        Args:
            store: As for the class.
            key: As for the class.
            limit: Maximum number of tokens for a key in any ``per`` seconds, at least 1.
            per: Length of the window in seconds.
            slack: As for the class.
            on_failure: As for the class.
            max_keys: As for the class.
            name: As for the class.

        Raises:
            TypeError, ValueError: As for the class and for `RedisRateLimiter.window`.
        """
        options: dict[str, Any] = {"per": per, "slack": slack}
        options |= {"on_failure": on_failure, "name": name or key}
        make: Any = _KeyLimiter.window
        limiter = cls.__new__(cls)
        limiter._start(  # noqa: SLF001 - in place of __init__
            key, lambda own: make(store, own, limit, **options), on_failure, max_keys
        )
        return limiter

    def _start(
        self, key: str, new: Callable[[str], _KeyLimiter], on_failure: str, max_keys: int
    ) -> None:
        self._key = key
        self._new = new
        self._model = new(key)  # never used; and it refuses what is wrong
        self._on_failure = on_failure
        way_out = "Pass how many keys may be held at the same time, at least 1."
        self._max_keys = checks.count("max_keys", max_keys, way_out=way_out)
        self._queue: WaitQueue[None] = WaitQueue()
        self._tally = Tally()
        self._waiting = self._rejected_keys = 0
        self._server_calls = self._server_failures = 0
        self._begin()
        self._model.belong(self, "", self._tally, self._down)

    def _begin(self) -> None:
        """Hold no key, and know nothing of an outage: both belong to an event loop."""
        self._limiters: dict[str, _KeyLimiter] = {}
        self._idle: OrderedDict[str, _KeyLimiter] = OrderedDict()
        self._down = _Outage(self._on_failure)

    def __repr__(self) -> str:
        keys = f"{len(self._limiters)} keys"
        return f"<{type(self).__name__} {self.name!r} {self._model.text}, {keys}>"

    @property
    def name(self) -> str:
        """Name shown in messages and metrics."""
        return self._model.name

    @property
    def key(self) -> str:
        """What is limited."""
        return self._key

    @property
    def rate(self) -> float:
        """Tokens for each key every `per` seconds, for all processes together."""
        return self._model.rate

    @property
    def per(self) -> float:
        """The period of `rate` in seconds."""
        return self._model.per

    @property
    def burst(self) -> int:
        """Tokens in a full bucket; for a window, its limit."""
        return self._model.burst

    @property
    def slack(self) -> float:
        """Maximum seconds by which a token may be granted late to a task that waits."""
        return self._model.slack

    @property
    def max_keys(self) -> int:
        """Maximum number of keys to hold in this process."""
        return self._max_keys

    async def acquire(self, key: str, tokens: int = 1, *, timeout: float | None = None) -> None:
        """
        Take tokens of ``key``, after waiting behind the tasks of this process that asked before.

        A checkpoint. Cancellation is as for `RedisRateLimiter.acquire`.

        Args:
            key: The key, a str that all processes share.
            tokens: Number of tokens, a whole number from 1 to ``burst``.
            timeout: Maximum seconds to wait; 0 to ask the server once; None for no limit. See
                `RedisRateLimiter.acquire`.

        Raises:
            RateLimitError: The key is new, and ``max_keys`` keys are in use.
            LimitTimeoutError, StoreError, RuntimeError: As for `RedisRateLimiter.acquire`.
            TypeError: ``key`` is not a str, or as for `RedisRateLimiter.acquire`.
            ValueError: ``key`` is empty, or as for `RedisRateLimiter.acquire`.
        """
        limiter = await self._enter(key)
        try:
            await limiter.acquire(tokens, timeout=timeout)
        finally:
            self._leave(limiter)

    async def try_acquire(self, key: str, tokens: int = 1) -> bool:
        """
        Take tokens of ``key`` if they are available and no task of this process waits for it.

        A checkpoint: it asks the server. If it is cancelled, the tokens may still be taken.

        Args:
            key: The key, a str that all processes share.
            tokens: Number of tokens, a whole number from 1 to ``burst``.

        Returns:
            Whether they were taken; False also if the key is new and ``max_keys`` keys are in use.

        Raises:
            StoreError: The server is down, with ``on_failure="raise"``.
            TypeError, ValueError, RuntimeError: As for `acquire`.
        """
        try:
            limiter = await self._enter(key)
        except RateLimitError:
            return False
        try:
            return await limiter.try_acquire(tokens)
        finally:
            self._leave(limiter)

    async def run(
        self, fn: Callable[[*Ts], Awaitable[T]] | Awaitable[T], /, *args: *Ts, key: str
    ) -> T:
        """
        Call ``fn(*args)`` after acquiring one token of ``key``, and return its result.

        A checkpoint. If it is cancelled while it waits, ``fn`` is not called.

        Args:
            fn: An async function; or, without arguments, an awaitable.
            *args: Positional arguments for ``fn``. For keyword arguments, use `functools.partial`.
            key: The key, a str that all processes share.

        Raises:
            RateLimitError, StoreError, RuntimeError: As for `acquire`.
            TypeError: ``fn`` did not return an awaitable. Or ``key`` is not a str.
        """
        try:
            check_call(fn, args)
            await self.acquire(key)
            return await call(fn, args)
        finally:
            close_unstarted(fn)

    def __call__(
        self, /, *, key: Callable[..., str], tokens: int = 1, timeout: float | None = None
    ) -> Decorator:
        """
        Decorate an async function or method so that each call acquires tokens first.

        ``@limiter(key=lambda user: user.id)``. The function keeps its name, signature and types.

        Args:
            key: A function that is called with the arguments of each call, including ``self``, and
                returns the key.
            tokens: As for `acquire`.
            timeout: As for `acquire`.

        Raises:
            TypeError: ``key`` is not callable, or what is decorated is not an async function.
            ValueError: ``tokens`` or ``timeout`` could never be granted.
        """
        way_out = (
            "Pass a plain function that takes the arguments of the decorated one and returns the "
            "key."
        )
        checks.callable_("key", key, way_out=way_out)
        self._model(tokens=tokens, timeout=timeout)  # refuses what it would

        def acquire(key: Any) -> Coroutine[Any, Any, None]:
            return self.acquire(key, tokens, timeout=timeout)

        return limit_by(key, acquire, name=type(self).__name__)

    def wrap(self, then: Callable[[C], Awaitable[Any]]) -> Callable[[C], Awaitable[Any]]:
        """
        Return an async function that acquires a token of the call's key, then calls ``then``.

        This makes the limiter a part of a `mtaio.resilience.Pipeline`, whose calls need a key.
        """

        async def run(call: C) -> Any:
            key: Any = getattr(call, "key", None)
            await self.acquire(key)
            return await then(call)

        return run

    def record_durations(self) -> None:
        """
        Record a histogram of the waits from now on, as ``wait_duration`` in the statistics.

        A monitor calls it for what it watches; repeated calls have no effect. Not a checkpoint. It
        can be called from any thread.
        """
        self._tally.wait_times.record()

    def statistics(self) -> RedisKeyedRateLimiterStatistics:
        """
        Return a snapshot of this process.

        Not a checkpoint. It can be called from any thread.
        """
        calls, failures = self._server_calls, self._server_failures
        for limiter in [*self._limiters.values()]:
            more, failed = limiter.calls
            calls += more
            failures += failed
        return snapshot(
            RedisKeyedRateLimiterStatistics,
            self,
            self._tally,
            self._tally.wait_times,
            rate=self.rate,
            burst=self.burst,
            keys=len(self._limiters),
            server_calls=calls,
            server_failures=failures,
            down=self._down.down,
        )

    async def _enter(self, key: str) -> _KeyLimiter:
        """
        Return the limiter of ``key``, which stays until `_leave`.

        Raises:
            RateLimitError: The key is new, and there is no room for it.
        """
        if not self._queue.runs_here():
            self._queue.attach(self, busy=self._waiting > 0)
            for limiter in self._limiters.values():
                self._count_calls(limiter)
            self._waiting = 0
            self._begin()
        found = self._limiters.get(key) or self._admit(key)
        if found is None:
            await checkpoint()
            raise self._no_room(key)
        limiter = found
        limiter.users += 1
        self._idle.pop(limiter.own, None)
        self._waiting += 1
        return limiter

    def _leave(self, limiter: _KeyLimiter) -> None:
        """Let the limiter make room for another, if no task uses it any more."""
        limiter.users -= 1
        if self._limiters.get(limiter.own) is not limiter:  # now those of another loop are held
            return
        self._waiting -= 1
        if not limiter.users:
            self._idle[limiter.own] = limiter

    def _admit(self, key: str) -> _KeyLimiter | None:
        """Return a limiter for a key that has none; None if there is no room for it."""
        check_name("key", key, way_out="Pass a str that all processes share, such as a user's id.")
        if len(self._limiters) >= self._max_keys:
            oldest = next(iter(self._idle.values()), None)
            if oldest is None or oldest.is_down:
                if self._down.down and self._on_failure == "allow":
                    return next(iter(self._limiters.values()))  # any of them grants everything now
                return None
            self._count_calls(oldest)
            del self._limiters[oldest.own], self._idle[oldest.own]
        admitted = self._limiters[key] = self._new(f"{self._key}:{key}")
        admitted.belong(self, key, self._tally, self._down)
        return admitted

    def _count_calls(self, limiter: _KeyLimiter) -> None:
        calls, failures = limiter.calls
        self._server_calls += calls
        self._server_failures += failures

    def _no_room(self, key: str) -> RateLimitError:
        self._rejected_keys += 1
        msg = (
            f"{self!r} has no room for key={key!r:.100}: max_keys={self._max_keys!r} are in use, "
            f"or were while the server is down. Raise max_keys, or try again later."
        )
        return RateLimitError(msg, name=self.name)
