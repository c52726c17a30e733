"""
How often work may start for each of many keys: users, hosts, API tokens.

Promise: every key has a limiter of its own, so that no task waits because of another key; never
more than ``max_keys`` are held, and forgetting a key never lets work start more often.
Cost: one look-up on top of the limiter's; half a kilobyte for each key held; no background task.

Each limiter has an entry in a heap with the moment from which it is idle: full, with no task
waiting. Grants only move that moment on, so an entry is corrected when it comes to the top; until
then it is too early, which does no harm. A list in the order of use, as in a cache, would not show
which keys are idle: a key used last for one token is full again before a key used first for ten.
"""

from __future__ import annotations

import heapq
import math
import reprlib
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, Final, Self, TypeVar, TypeVarTuple, final

from mtaio._internal import checks, clock
from mtaio._internal.callables import close_unstarted
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.copies import uncopied
from mtaio._internal.decorators import Decorator, call, check_call
from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.limiting import check_key, limit_by
from mtaio._internal.sentinel import UNSET
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, SECONDS, snapshot
from mtaio.exceptions import RateLimitError
from mtaio.resources._bucket import TICK
from mtaio.resources._rate import RateLimiter, Tally

__all__ = ["KeyStatistics", "KeyedRateLimiter", "KeyedRateLimiterStatistics"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_SWEEP: Final = 16
"""Entries looked at in one go, so that forgetting many keys never stops the event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedRateLimiterStatistics:
    """The state and counts of a `KeyedRateLimiter`, all keys together."""

    rate: float = field(metadata=LIMIT)
    """Tokens that become available to each key every ``per`` seconds."""
    burst: float = field(metadata=LIMIT)
    """Tokens that a full bucket holds."""
    keys: int = field(metadata=GAUGE)
    """Keys held now."""
    max_keys: int | None = field(metadata=LIMIT)
    """The most keys that may be held; None for no limit."""
    forgotten: int = field(metadata=COUNTER)
    """Keys forgotten so far, because they were idle."""
    rejected_keys: int = field(metadata=COUNTER)
    """Requests refused so far because ``max_keys`` were held and none could be forgotten."""
    waiting: int = field(metadata=GAUGE)
    """Tasks waiting."""
    acquired: int = field(metadata=COUNTER)
    """Requests granted so far, with or without a wait, whatever their tokens."""
    rejected: int = field(metadata=COUNTER)
    """Requests of `acquire_nowait` and `try_acquire` whose key did not have the tokens, and others
    whose key can no longer have them."""
    timed_out: int = field(metadata=COUNTER)
    """Requests that could not be granted within their own timeout, or before their deadline, among
    them those that `mtaio.asgi.RateLimitMiddleware` answers with 429."""
    cancelled: int = field(metadata=COUNTER)
    """Requests cancelled while they waited."""
    wait_seconds: float = field(metadata=COUNTER)
    """Total seconds that tasks waited for the tokens they got."""
    max_wait_seconds: float = field(metadata=GAUGE)
    """The longest of those waits, in seconds."""
    wait_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long each of those waits took; None before ``record_durations()``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatistics:
    """The state of one key of a `KeyedRateLimiter`."""

    tokens: float = field(metadata=GAUGE)
    """Tokens in the bucket now; ``inf`` without a limit. Tasks that wait come first."""
    waiting: int = field(metadata=GAUGE)
    """Tasks waiting."""
    next_grant_seconds: float = field(metadata=GAUGE)
    """Estimated seconds until the first task that waits is served, or until a newcomer could have
    one token if none waits; ``inf`` while paused without the tokens for it."""
    held_seconds: float = field(metadata=GAUGE)
    """Seconds until a `KeyedRateLimiter.hold` ends; 0 if nothing is held."""


class _KeyLimiter(RateLimiter):  # type: ignore[misc] # final for users
    """
    The limiter of one key, which counts together with those of the other keys.

    Args:
        key: The key.
        like: A limiter with the same limits.
        tally: Where to count.
    """

    __slots__ = ("key",)

    def __init__(self, key: Hashable, like: RateLimiter, tally: Tally) -> None:
        self._start(like._bucket.copy(), like._slack, like._name, tally)  # noqa: SLF001 - as this
        self.key = key

    def __repr__(self) -> str:
        key = "" if self.key is UNSET else f" key={reprlib.repr(self.key)}"
        return f"<KeyedRateLimiter{self._limits()}{key}>"

    def yield_next(self) -> None:
        """Let the next call of `acquire` yield, however it ends."""
        self._left, self._granted_at_0 = 0, self._granted_at_0 - self._left

    def idle_from(self, moment: float) -> float:
        """Return when the bucket could be full with no task waiting, seen from ``moment``, now."""
        bucket = self._bucket
        clock.catch_up(bucket)
        self._forget_finished()
        idle_from = bucket.idle_from(moment)
        if self._first is not None:
            return max(idle_from, math.nextafter(moment + TICK, math.inf))
        return idle_from


class _Idle:
    """When each limiter will be idle, or earlier: a heap of such moments."""

    __slots__ = ("heap", "timed_by")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, _KeyLimiter]] = []
        self.timed_by: clock.Tells = clock.REAL

    def move(self, seconds: float) -> None:  # noqa: ARG002 - the limiters know it more exactly
        """Go over to another clock: see `clock.Timed`."""
        self.reorder(clock.now())

    def reorder(self, moment: float) -> None:
        """Correct every entry, since limiters may become idle earlier than expected."""
        self.heap = [(limiter.idle_from(moment), n, limiter) for _, n, limiter in self.heap]
        heapq.heapify(self.heap)

    def put_first(self, limiters: set[_KeyLimiter]) -> None:
        """Enter limiters as idle already, which may be too early."""
        self.heap = [(-math.inf if each in limiters else at, n, each) for at, n, each in self.heap]
        heapq.heapify(self.heap)


@uncopied
@final
class KeyedRateLimiter:
    """
    A rate limit for each key: every user, host or tenant has a `RateLimiter` of its own.

    Keys are independent: a task that waits for one key does not delay others. A key is idle when
    its bucket is full and no task waits for it. After ``idle_ttl`` seconds an idle key is
    forgotten, which grants nothing, since a new key would be in the same state; other keys are
    kept. When ``max_keys`` keys are held, the key that has been idle longest is forgotten to make
    room for a new one; if none is idle, the new key is refused.

    It can be created at module level and used by one event loop after another, on either backend.

    Args:
        rate: Number of tokens that become available for each key every ``per`` seconds; 0 pauses
            all keys, ``math.inf`` never waits.
        per: The period of ``rate`` in seconds.
        burst: Number of tokens in a full bucket, at least 1.
        max_keys: Maximum number of keys to hold, at least 1; None for no limit.
        idle_ttl: Seconds to keep an idle key; ``inf`` to keep it until it has to make room.
        slack: As for `RateLimiter`.
        name: Name shown in messages and metrics.

    Raises:
        TypeError: An argument is not a number, or ``max_keys`` is not an int.
        ValueError: ``max_keys`` < 1, ``idle_ttl`` < 0, or a limit is invalid as for `RateLimiter`.

    Example:
        Each user may ask twice a second, whatever the others do:

        ```python
        import anyio

        from mtaio import KeyedRateLimiter

        limiter = KeyedRateLimiter(2, max_keys=1000)


        @limiter(key=lambda user: user)
        async def greet(user: str) -> None:
            print(f"hello {user}")


        async def main() -> None:
            async with anyio.create_task_group() as group:
                for user in ("ada", "ada", "bob"):
                    group.start_soon(greet, user)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - each limiter in _limiters has one entry in _idle, and no other limiter has;
    # - an entry says when its limiter will be idle, or an earlier moment, never a later one: so if
    #   the first entry is right and lies in the future, no limiter is idle;
    # - who adds or removes a limiter, or changes _idle, holds _lock;
    # - _model has the limits of every key and is never used, hence as good as new; once it is
    #   closed it is, so to say, the limiter of all keys, and no key is held;
    # - _acquired and _tally count for all keys, also those that were forgotten;
    # - at least one call in FAST_CALLS sets _yield_due; the call that may yield takes it back.
    __slots__ = (
        "__weakref__",
        "_acquired",
        "_admitted",
        "_calls",
        "_closed",
        "_forgotten",
        "_idle",
        "_idle_ttl",
        "_limiters",
        "_lock",
        "_max_keys",
        "_model",
        "_rejected_keys",
        "_tally",
        "_yield_due",
    )

    def __init__(
        self,
        rate: float,
        *,
        per: float = 1.0,
        burst: float = 1,
        max_keys: int | None = 10_000,
        idle_ttl: float = 60.0,
        slack: float = 0.02,
        name: str | None = None,
    ) -> None:
        like = RateLimiter(rate, burst=burst, per=per, slack=slack, name=name)
        self._start(like, max_keys, idle_ttl)

    def _start(self, like: RateLimiter, max_keys: int | None, idle_ttl: float) -> None:
        if max_keys is not None:
            way_out = "Pass how many keys may be held at the same time, or None for no limit."
            checks.count("max_keys", max_keys, way_out=way_out)
        self._max_keys = max_keys
        way_out = "Pass seconds >= 0, or math.inf to forget only when room is needed."
        checks.at_least("idle_ttl", idle_ttl, 0, way_out=way_out)
        self._idle_ttl = idle_ttl
        self._tally = Tally()
        self._model = _KeyLimiter(UNSET, like, self._tally)
        self._limiters: dict[Hashable, _KeyLimiter] = {}
        self._idle = _Idle()
        self._lock = RLock()  # a key's __eq__ may come back here
        self._admitted = 0
        self._calls = 0
        self._forgotten = 0
        self._acquired = 0
        self._rejected_keys = 0
        self._yield_due = False
        self._closed = False

    @classmethod
    def window(
        cls,
        limit: int,
        *,
        per: float = 1.0,
        max_keys: int | None = 10_000,
        idle_ttl: float = 60.0,
        name: str | None = None,
    ) -> Self:
        """
        Return a limiter with a sliding window for each key, as `RateLimiter.window` does for one.

        Each key gets at most ``limit`` tokens in any ``per`` seconds. A key is idle when its last
        grant is ``per`` seconds old. The limiter stores up to ``limit`` times for each key.

        Args:
            limit: Maximum number of tokens for a key in any ``per`` seconds, at least 1.
            per: Length of the window in seconds, more than 0.
            max_keys: Maximum number of keys to hold, at least 1; None for no limit.
            idle_ttl: Seconds to keep an idle key; ``inf`` to keep it until it has to make room.
            name: Name shown in messages and metrics.

        Raises:
            TypeError: ``limit`` or ``max_keys`` is not an int, or another argument is not a number.
            ValueError: ``limit`` or ``max_keys`` < 1, ``idle_ttl`` < 0, or ``per`` <= 0, infinite
                or NaN.
        """
        limiter = cls.__new__(cls)
        like = RateLimiter.window(limit, per=per, name=name)
        limiter._start(like, max_keys, idle_ttl)  # noqa: SLF001 - its own class
        return limiter

    def __repr__(self) -> str:
        model = repr(self._model).removesuffix(">")
        return f"{model} keys={len(self._limiters)}>"

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._model.name

    @property
    def per(self) -> float:
        """The period of `rate` in seconds."""
        return self._model.per

    @property
    def slack(self) -> float:
        """How many seconds late a task may be served without lowering the rate."""
        return self._model.slack

    @property
    def rate(self) -> float:
        """Tokens for each key every `per` seconds. Assigning to it calls `reconfigure`."""
        return self._model.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self.reconfigure(rate=rate)

    @property
    def burst(self) -> float:
        """Tokens in a full bucket. Assigning to it calls `reconfigure`."""
        return self._model.burst

    @burst.setter
    def burst(self, burst: float) -> None:
        self.reconfigure(burst=burst)

    def reconfigure(self, *, rate: float | None = None, burst: float | None = None) -> None:
        """
        Change the limits of all keys at run time, as `RateLimiter.reconfigure` does for one.

        It takes time in proportion to the number of keys held. Not a checkpoint. It can be called
        from any thread.

        Args:
            rate: Number of tokens for each key every `per` seconds; None to keep it.
            burst: Number of tokens in a full bucket; None to keep it.

        Raises:
            TypeError, ValueError: An argument is invalid, as for the class; nothing is changed.
        """
        with self._lock:
            self._model.reconfigure(rate=rate, burst=burst)
            for limiter in self._limiters.values():
                limiter.reconfigure(rate=rate, burst=burst)
            self._idle.reorder(clock.catch_up(self._idle))

    def hold(self, key: Hashable, seconds: float) -> None:
        """
        Grant nothing to ``key`` for a while, as `RateLimiter.hold` does for one limiter.

        Other keys are not affected. A key that is not held yet is added, and is not forgotten
        before its pause ends; `reset` ends it. Not a checkpoint. It can be called from any thread.

        Args:
            key: The key.
            seconds: Seconds to pause, such as the service's ``Retry-After``; 0 or more.

        Raises:
            RateLimitError: The key is new and refused, as by `acquire`.
            TypeError: ``key`` is not hashable, or ``seconds`` is not a number.
            ValueError: ``seconds`` is negative, infinite or NaN.
        """
        check_key(key)
        with self._lock:
            limiter = self._limiters.get(key) or self._admit(key)
            limiter.hold(seconds)

    def reset(self, key: Hashable = UNSET) -> None:
        """
        Fill the bucket of one key or of all keys, as `RateLimiter.reset` does.

        For example, for a user who has just authenticated. It has no effect on a key that is not
        held. It takes time in proportion to the number of keys held. Not a checkpoint. It can be
        called from any thread.

        Args:
            key: The key; if omitted, all keys.

        Raises:
            TypeError: ``key`` is not hashable.
        """
        with self._lock:
            if key is UNSET:
                limiters = list(self._limiters.values())
            else:
                check_key(key)
                limiter = self._limiters.get(key)
                limiters = [] if limiter is None else [limiter]
            for limiter in limiters:
                limiter.reset()
            self._idle.put_first(set(limiters))

    def close(self) -> None:
        """
        Refuse everything from now on, for all keys, as `RateLimiter.close` does.

        Tasks that wait, and all later calls, get a `mtaio.exceptions.LimitClosedError` at once. A
        closed limiter cannot be reopened, and holds no keys. Not a checkpoint. It can be called
        from any thread.
        """
        with self._lock:
            self._closed = True
            self._model.close()
            limiters = list(self._limiters.values())
            self._limiters.clear()
            self._idle.heap.clear()
        for limiter in limiters:
            limiter.close()

    async def acquire(
        self, key: Hashable, tokens: float = 1, *, timeout: float | None = None
    ) -> None:
        """
        Take tokens of ``key``, after waiting for them behind the tasks that asked for it before.

        A checkpoint if it has to wait, and otherwise at least on every 64th call. If it is
        cancelled, it leaves the bucket as if it had never asked.

        Args:
            key: The key; compared like the keys of a dict.
            tokens: Number of tokens, at most ``burst``; need not be whole. 0 returns at once.
            timeout: Maximum seconds to wait; None for no limit. See `RateLimiter.acquire`.

        Raises:
            LimitTimeoutError: The wait would exceed ``timeout``, or the time left under mtaio's
                timeouts around the call.
            LimitClosedError: The limiter is closed, or was closed during the wait.
            RateLimitError: The key is new, ``max_keys`` keys are held and none is idle; raised at
                once, with the seconds until one may be in ``retry_after``. Or ``burst`` was lowered
                below ``tokens`` during the wait.
            TypeError: ``key`` is not hashable, or ``tokens`` or ``timeout`` is not a number.
            ValueError: ``tokens`` is negative, NaN, or more than ``burst``; ``timeout`` is negative
                or NaN.
            RuntimeError: Tasks of another running event loop are waiting for this key.
        """
        try:
            limiter = self._limiter(key)
        except RateLimitError:
            if self._yield_due:
                self._yield_due = False
                await checkpoint()
            raise
        if self._yield_due:
            self._yield_due = False
            limiter.yield_next()
        await limiter.acquire(tokens, timeout=timeout)
        self._acquired += 1

    def acquire_nowait(self, key: Hashable, tokens: float = 1) -> None:
        """
        Take tokens of ``key`` if they are available and no task waits for them, or raise.

        Not a checkpoint.

        Args:
            key: The key; compared like the keys of a dict.
            tokens: Number of tokens, at most ``burst``; need not be whole.

        Raises:
            RateLimitError: They are not available; ``retry_after`` has the seconds until they are.
                Or the key is new and refused, as by `acquire`.
            LimitClosedError: The limiter is closed.
            TypeError: ``key`` is not hashable, or ``tokens`` is not a number.
            ValueError: ``tokens`` is negative, NaN, or more than ``burst``.
        """
        self._limiter(key).acquire_nowait(tokens)
        self._acquired += 1

    def try_acquire(self, key: Hashable, tokens: float = 1) -> bool:
        """
        Take tokens of ``key`` as `acquire_nowait` does, and return whether it did.

        Not a checkpoint.

        Raises:
            LimitClosedError: The limiter is closed.
            TypeError, ValueError: As for `acquire_nowait`.
        """
        try:
            self.acquire_nowait(key, tokens)
        except RateLimitError:
            return False
        return True

    async def run(
        self,
        fn: Callable[[*Ts], Awaitable[T]] | Awaitable[T],
        /,
        *args: *Ts,
        key: Hashable,
    ) -> T:
        """
        Call ``fn(*args)`` after acquiring one token of ``key``, and return its result.

        A checkpoint if `acquire` or the call is one. If it is cancelled while it waits, it has
        taken nothing and ``fn`` is not called.

        Args:
            fn: An async function; or, without arguments, an awaitable.
            *args: Positional arguments for ``fn``. For keyword arguments, use `functools.partial`.
            key: The key; compared like the keys of a dict.

        Raises:
            RateLimitError: The key is new and refused, as by `acquire`.
            TypeError: ``fn`` did not return an awaitable. Or ``key`` is not hashable.
            RuntimeError: Tasks of another running event loop are waiting for this key.
        """
        try:
            check_call(fn, args)
            await self.acquire(key)
            return await call(fn, args)
        finally:
            close_unstarted(fn)

    def __call__(
        self, /, *, key: Callable[..., Hashable], tokens: float = 1, timeout: float | None = None
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

        def acquire(key: Hashable) -> Coroutine[Any, Any, None]:
            return self.acquire(key, tokens, timeout=timeout)

        return limit_by(key, acquire, name="KeyedRateLimiter")

    def record_durations(self) -> None:
        """
        Record a histogram of the waits from now on, as ``wait_duration`` in the statistics.

        A monitor calls it for what it watches; repeated calls have no effect. Not a checkpoint. It
        can be called from any thread.
        """
        self._tally.wait_times.record()

    def statistics(self) -> KeyedRateLimiterStatistics:
        """
        Return a snapshot of all keys together.

        Not a checkpoint. It can be called from any thread.
        """
        model = self._model
        return snapshot(
            KeyedRateLimiterStatistics,
            self,
            self._tally,
            self._tally.wait_times,
            rate=model.rate,
            burst=model.burst,
            keys=len(self._limiters),
        )

    def statistics_for(self, key: Hashable) -> KeyStatistics:
        """
        Return a snapshot of one key; for a key that is not held, that of a new key.

        It does not count as a use of the key, which is neither added nor kept longer. Not a
        checkpoint. It can be called from any thread.

        Args:
            key: The key.

        Raises:
            TypeError: ``key`` is not hashable.
        """
        check_key(key)
        return snapshot(KeyStatistics, self._limiters.get(key, self._model).statistics())

    def _limiter(self, key: Hashable) -> _KeyLimiter:
        """
        Return the limiter of ``key``, which is added if it is not held.

        Use it before doing anything else here, or it might be forgotten in between.

        Raises:
            RateLimitError: The key is new, and there is no room for it.
            TypeError: ``key`` cannot be hashed.
        """
        self._calls += 1
        if self._calls >= FAST_CALLS:
            self._calls = 0
            self._yield_due = True
            with self._lock:
                self._sweep(clock.catch_up(self._idle))
        try:
            return self._limiters.get(key) or self._admit(key)
        except TypeError:
            check_key(key)
            raise  # of the key's own __eq__

    def _admit(self, key: Hashable) -> _KeyLimiter:
        with self._lock:
            if self._closed:
                return self._model  # which refuses all that comes
            moment = clock.catch_up(self._idle)
            self._sweep(moment)
            if self._max_keys is not None and len(self._limiters) >= self._max_keys:
                self._make_room(key, moment)
            limiter = _KeyLimiter(key, self._model, self._tally)
            self._limiters[key] = limiter
            self._admitted += 1
            heapq.heappush(self._idle.heap, (moment, self._admitted, limiter))
            return limiter

    def _sweep(self, moment: float) -> None:
        """Forget some of the keys that have been idle for long enough."""
        heap = self._idle.heap
        for _ in range(_SWEEP):
            if not heap or heap[0][0] + self._idle_ttl > moment + TICK:
                return
            if self._first_is_right(moment):
                self._forget_first()

    def _make_room(self, key: Hashable, moment: float) -> None:
        """Forget the key that has been idle longest, or raise if there is none."""
        while not self._first_is_right(moment):
            pass
        wait = self._idle.heap[0][0] - moment
        if wait <= TICK:
            self._forget_first()
            return
        self._rejected_keys += 1
        way_out = f"the first may be in {wait:.6g} s. Raise max_keys, or try again then."
        if wait == math.inf:
            way_out = "none will be while the rate is 0. Raise max_keys, or the rate."
        msg = (
            f"{self!r} has no room for key={reprlib.repr(key)}: max_keys={self._max_keys!r} are "
            f"held and none is idle; {way_out}"
        )
        raise RateLimitError(msg, retry_after=wait, name=self.name)

    def _first_is_right(self, moment: float) -> bool:
        """Return whether the first entry says when its limiter is idle; if not, put it right."""
        entered, number, limiter = self._idle.heap[0]
        idle_from = limiter.idle_from(moment)
        if idle_from <= entered:
            return True
        heapq.heapreplace(self._idle.heap, (idle_from, number, limiter))
        return False

    def _forget_first(self) -> None:
        _, _, limiter = heapq.heappop(self._idle.heap)
        del self._limiters[limiter.key]
        self._forgotten += 1
