"""
How often work may start across all processes: a token bucket, or a window, kept by a server.

Promise: in any span of ``t`` seconds all processes together grant at most
``burst + rate * (t + slack) / per`` tokens, or, by a window, at most its limit in any ``per``
seconds, by the server's clock; within a process in the order of joining. What one process reserves
is bounded, so those in which enough tasks wait get about as much.
Cost: while tasks wait, one task in the store's block and one call to the server for all tokens that
fall due within half of ``slack``: the higher the rate, the fewer calls for each token.
Why tokens are reserved by their times: docs/en/design/redis.md.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    TypeVarTuple,
    final,
    overload,
)

import anyio

from mtaio._internal import checks, clock, deadlines
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.copies import uncopied
from mtaio._internal.decorators import AsyncFunction, Decorator, Descriptor
from mtaio._internal.durations import WaitTimes
from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.limiting import limit, run_in
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, SECONDS, snapshot
from mtaio._internal.wait_queue import WaitQueue
from mtaio.exceptions import LimitTimeoutError, RateLimitError, StoreError
from mtaio.redis._bucket import Reserved, SharedBucket, SharedWindow, Stock
from mtaio.redis._outage import Backoff
from mtaio.redis._server_task import ServerTask, sleep
from mtaio.redis._store import Store, check_key, check_store, own_error, store_left_error
from mtaio.resources import RateLimiter

if TYPE_CHECKING:
    from mtaio._internal.backend import Waiter

__all__ = ["PROBE", "RedisRateLimiter", "RedisRateLimiterStatistics", "Tally"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
C = TypeVar("C")

_AHEAD: Final = 0.5
"""The part of ``slack`` by which tokens are reserved before they are due."""

_LOT: Final = 1000
"""The most tokens that one call reserves: more could not be granted in time."""

_SLOW: Final = 3
"""The server counts as down after so many answers in a row that came too late to be of use."""

_SLACK: Final = (0.001, 3600.0)
"""Seconds of ``slack``, least and most: no answer comes sooner, and none is of use later."""

_FASTEST: Final = 1e-6
"""The fewest seconds for one token: the server counts in microseconds."""

_FULL: Final = 1e8
"""The most seconds after which an empty bucket is full: the server keeps that as whole numbers."""

_BUCKET: Final = ("burst", "bucket never holds")
"""What a bucket calls its size, in messages, and what it never does."""

_LENGTH: Final = (0.001, _FULL)
"""Seconds of a window, least and most."""

PROBE: Final = (0.1, 2.0)
"""Seconds between two calls to a server that is down: at first, and at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisRateLimiterStatistics:
    """What a `RedisRateLimiter` has done in this process."""

    rate: float = field(metadata=LIMIT)
    """Tokens every ``per`` seconds, for all processes together."""
    burst: int = field(metadata=LIMIT)
    """The tokens in the full bucket."""
    waiting: int = field(metadata=GAUGE)
    """Tasks waiting."""
    acquired: int = field(metadata=COUNTER)
    """Requests granted so far, however many tokens they asked for."""
    acquired_without_server: int = field(metadata=COUNTER)
    """Those of `acquired` that were granted while the server was down."""
    rejected: int = field(metadata=COUNTER)
    """Requests refused: by ``try_acquire``, or because the server was down."""
    timed_out: int = field(metadata=COUNTER)
    """Requests that did not fit into their own timeout."""
    cancelled: int = field(metadata=COUNTER)
    """Requests cancelled while they waited."""
    wait_seconds: float = field(metadata=COUNTER)
    """Seconds that requests waited until they were granted, in total."""
    max_wait_seconds: float = field(metadata=GAUGE)
    """Seconds of the longest of those waits."""
    wait_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long each of those waits took; None before ``record_durations()``."""
    reserved: int = field(metadata=GAUGE)
    """Tokens that this process has reserved and not granted yet."""
    lost: int = field(metadata=COUNTER)
    """Tokens reserved but not granted in time."""
    server_calls: int = field(metadata=COUNTER)
    """Calls to the server."""
    server_failures: int = field(metadata=COUNTER)
    """Calls to the server that failed."""
    members: int = field(metadata=GAUGE)
    """Processes that asked for tokens within one second, by the server's last answer."""
    down: bool = field(metadata=GAUGE)
    """Whether tokens are granted without the server, because it is down."""


class Tally:
    """What is counted of requests, of one limiter or of many."""

    __slots__ = (
        "acquired",
        "acquired_without_server",
        "cancelled",
        "rejected",
        "timed_out",
        "wait_times",
    )

    def __init__(self) -> None:
        self.acquired: int = 0
        self.acquired_without_server: int = 0
        self.cancelled: int = 0
        self.rejected: int = 0
        self.timed_out: int = 0
        self.wait_times: Final = WaitTimes()


class _Request:
    """
    What a task in the queue waits for.

    Attributes:
        tokens: How many it asks for.
        lacks: How many of them it has not been granted: without the server they come in parts.
        asked: When.
        deadline: When it gives up.
        may_take: Whether it was woken to take tokens that are due.
        without_server: Whether it was granted without the server.
        late: Seconds until its tokens are due, once that is known to be after its deadline.
        error: What ends its wait.
    """

    __slots__ = (
        "asked",
        "deadline",
        "error",
        "lacks",
        "late",
        "may_take",
        "tokens",
        "without_server",
    )

    def __init__(self, tokens: int, asked: float, deadline: float) -> None:
        self.tokens = tokens
        self.lacks = tokens
        self.asked = asked
        self.deadline = deadline
        self.may_take = False
        self.without_server = False
        self.late: float | None = None
        self.error: Exception | None = None


class _Try:
    """
    What a task gets that does not wait: the tokens that are there now, or none.

    Attributes:
        tokens: How many it asks for.
        asked: When.
        wait: None if they were taken, else the seconds until they would be there.
        without_server: Whether it was answered without the server.
        error: Why nothing is known.
    """

    __slots__ = ("asked", "error", "tokens", "wait", "without_server")

    def __init__(self, tokens: int, asked: float) -> None:
        self.tokens = tokens
        self.asked = asked
        self.wait: float | None = None
        self.without_server = False
        self.error: Exception | None = None


@final
@uncopied
class RedisRateLimiter:
    """
    A limit on how often work starts across processes: a token bucket kept by a server.

    The bucket starts full. In any ``t`` seconds, all processes together are granted at most ``burst
    + rate * (t + slack) / per`` tokens by the server's clock; the clocks of the processes need not
    agree. A process reserves tokens in batches for its waiting tasks, each token for the time at
    which it is due. The tokens of a task that is cancelled go to the next one. A request that does
    not wait is granted what was available when the server was asked, and counts from then.

    It can be created anywhere, and is used inside the block of its store. Every process must pass
    the same key, rate, burst and slack.

    Args:
        store: The server, entered before the first call.
        key: What is limited. Limiters with the same key, rate and burst on the same server share a
            bucket.
        rate: Number of tokens that become available every ``per`` seconds, more than 0;
            ``math.inf`` for no limit, in which case the server is not asked.
        per: The period of ``rate`` in seconds.
        burst: Capacity of the bucket and the most tokens that one call can acquire, a whole number
            of at least 1. With 1, tokens are granted one at a time, evenly spaced.
        slack: Maximum seconds by which a token may be granted late to a task that waits; after
            that, it is lost. It must cover the round trip to the server and the delays of the event
            loop.
        on_failure: What to do while the server is down. ``"raise"`` raises `StoreError`.
            ``"allow"`` grants everything at once. ``"local"`` uses a bucket of this process alone,
            with the rate and burst divided by the number of processes that were busy when the
            server last answered; `try_acquire` of more than that burst is refused. Tasks that still
            wait when the server is back keep their places and get its tokens.
        name: Name shown in messages and metrics. Default: ``key``.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``rate`` or ``per`` is not greater than 0; ``per`` is infinite; they amount to
            more than 1,000,000 tokens per second, or to so few that the bucket takes years to fill;
            ``slack`` is not between 0.001 and 3600; ``burst`` is less than 1; ``key`` is empty; or
            ``on_failure`` is unknown.

    Example:
        ```python
        import anyio

        from mtaio.redis import RedisRateLimiter, RedisStore

        store = RedisStore("redis://127.0.0.1:6379/0")
        limiter = RedisRateLimiter(store, "geocoder", 50, burst=10)


        async def main() -> None:
            async with store:
                for number in range(20):
                    async with limiter:
                        print(f"request {number}")


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    kind: ClassVar[Literal["limiter"]] = "limiter"

    # Invariants:
    # - _queue holds the tasks that wait, all of one loop; _wanted is the sum of what they lack;
    # - _ready counts the tasks at the head of the queue that were woken to take tokens;
    # - _tries holds the tasks that do not wait for tokens, but for one answer, of the same loop;
    #   they came before all that wait;
    # - a task in _queue is woken to look again, and stays there until it has found what it needs;
    #   one in _tries is woken when it has its answer, and with that it has left;
    # - only the first in the queue sleeps until a token is due; only the task _supply calls the
    #   server, one call at a time, and it runs while there are tasks in the two queues, or _down;
    # - while _down, tokens are granted without the server, but to the same queue: the order stays,
    #   and those who still wait when the server is back get its tokens, and no others;
    # - a waiter takes its tokens in its own task, in the step in which it leaves the queue.
    __slots__ = (
        "__weakref__",
        "_ahead",
        "_bucket",
        "_burst",
        "_down",
        "_interval",
        "_key",
        "_local",
        "_name",
        "_on_failure",
        "_per",
        "_processes",
        "_queue",
        "_rate",
        "_ready",
        "_refused",
        "_server",
        "_share",
        "_slack",
        "_slow",
        "_stock",
        "_store",
        "_tally",
        "_tries",
        "_wanted",
        "_window",
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
        name: str | None = None,
    ) -> None:
        check_store(store)
        check_key(key)
        way_out = "Pass the tokens that come back every `per` seconds, or math.inf for no limit."
        self._rate = rate if rate == math.inf else checks.positive("rate", rate, way_out=way_out)
        self._per = checks.positive("per", per, way_out="Pass the seconds to which rate refers.")
        way_out = "Pass several times what the server takes to answer, such as 0.1 seconds."
        self._slack = checks.between("slack", slack, *_SLACK, way_out=way_out)
        self._burst = checks.count("burst", burst, way_out="Pass the most tokens to grant at once.")
        self._on_failure = checks.one_of("on_failure", on_failure, ("raise", "allow", "local"))
        self._store = store
        self._key = key
        self._name = key if name is None else name
        self._interval = _interval(rate, per, self._burst)
        self._ahead = slack * _AHEAD
        self._window = False
        self._bucket: SharedBucket | SharedWindow = SharedBucket(
            store, key, interval=self._interval, burst=self._burst, ahead=self._ahead
        )
        self._queue: WaitQueue[_Request] = WaitQueue()
        self._tries: WaitQueue[_Try] = WaitQueue()
        self._server = ServerTask(store, self._queue, self._on_failure)
        self._stock = Stock()
        self._share = self._processes = 1  # the next loop begins with the last answer to this one
        self._tally = Tally()
        self._begin()

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
        name: str | None = None,
    ) -> Self:
        """
        Return a limiter with a sliding window: at most ``limit`` tokens in any ``per`` seconds.

        Use it for services that count this way, as most do that say "100 requests per minute". The
        limit holds for all processes together, by the server's clock. A token for a task that waits
        counts at the last moment at which it may be granted, so it comes back ``per + slack``
        seconds after it was due; for a short window, pass a short slack. A token taken by
        `try_acquire` counts when the server was asked. Both times are rounded up to a thousandth of
        the window.

        `rate` and `burst` equal the limit. A process may get most of an empty window, since it is
        granted at once.

        Args:
            store: As for the class.
            key: As for the class; limiters with the same key, limit and length share a window.
            limit: Maximum number of tokens in any ``per`` seconds, at least 1.
            per: Length of the window in seconds.
            slack: As for the class.
            on_failure: As for the class. With ``"local"``, this process has a window of its own,
                with the limit divided by the number of processes, but at least 1.
            name: As for the class.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: ``limit`` is less than 1, ``per`` is not between 0.001 and 100,000,000, or
                another argument is invalid as for the class.
        """
        way_out = "Pass the tokens that may be granted in any `per` seconds, at least 1."
        checks.count("limit", limit, way_out=way_out)
        checks.between("per", per, *_LENGTH, way_out="Pass the length of the window in seconds.")
        limiter = cls(
            store,
            key,
            limit,
            per=per,
            burst=limit,
            slack=slack,
            on_failure=on_failure,
            name=name,
        )
        limiter._window = True
        limiter._bucket = SharedWindow(
            store, key, limit=limit, per=per, ahead=limiter._ahead, slack=slack
        )
        return limiter

    def _begin(self) -> None:
        """
        Have no task, no token and no news of the server: all of that belongs to an event loop.

        Those that waited in the loop before are forgotten by the two queues.
        """
        self._wanted = self._ready = 0
        self._stock.clear()
        self._refused: float = math.inf
        self._slow = 0
        self._down = False
        self._local: RateLimiter | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self._limits()} at {self._store.name}>"

    def _limits(self) -> str:
        if self._window:
            return f"window {self._burst} per {self._per:g} s"
        return f"{self._rate:g} per {self._per:g} s, burst={self._burst}"

    @property
    def name(self) -> str:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def key(self) -> str:
        """What is limited."""
        return self._key

    @property
    def rate(self) -> float:
        """Tokens every `per` seconds, for all processes together."""
        return self._rate

    @property
    def per(self) -> float:
        """The period of `rate` in seconds."""
        return self._per

    @property
    def burst(self) -> int:
        """Tokens in a full bucket."""
        return self._burst

    @property
    def slack(self) -> float:
        """Maximum seconds by which a token may be granted late to a task that waits."""
        return self._slack

    async def acquire(self, tokens: int = 1, *, timeout: float | None = None) -> None:
        """
        Take tokens, after waiting for them behind the tasks of this process that asked before.

        A checkpoint. If it is cancelled, the tokens reserved for it go to the next task; if no task
        waits, they are lost.

        Args:
            tokens: Number of tokens, a whole number from 1 to ``burst``.
            timeout: Maximum seconds to wait; 0 to ask the server once, as `try_acquire` does; None
                for no limit. The first task in the queue is refused as soon as the server has said
                that it would have to wait longer. The time left under mtaio's timeouts around the
                call (see `mtaio.resources.time_left`) counts likewise.

        Raises:
            LimitTimeoutError: The wait would exceed ``timeout``; ``retry_after`` estimates the
                seconds needed. Also a builtin ``TimeoutError``. The message says if the server did
                not answer in that time.
            StoreError: The server is down, with ``on_failure="raise"``. Raised within the store's
                timeout; within ``timeout`` if the previous call failed too.
            TypeError: ``tokens`` is not an int, or ``timeout`` is not a number.
            ValueError: ``tokens`` is less than 1 or more than ``burst``; ``timeout`` is negative or
                NaN.
            RuntimeError: The store is not entered, or tasks of another running event loop are
                waiting.
        """
        self._check(tokens)
        checks.timeout("timeout", timeout)
        now = clock.now()
        deadline = math.inf if timeout is None else now + timeout
        if timeout == 0 or not self._interval:
            late = await self._take_at_once(tokens)
            if late is not None:
                self._tally.timed_out += 1
                msg = f"{self._refusal(tokens, 0)}, only in about {late:.6g} s."
                raise self._timeout_error(msg, 0, deadline, late)
            return
        # A limit of mtaio's around the call would end the wait.
        if deadlines.current.get() is not None and now < (ends := deadlines.logical()) < deadline:
            timeout, deadline = ends - now, ends
        request = _Request(tokens, now, deadline)
        waiter = self._join(request)
        try:
            await self._wait(waiter, request, timeout)
        except LimitTimeoutError:
            self._tally.timed_out += 1
            raise
        except Exception:  # the server is down, or its store was left
            self._tally.rejected += 1
            raise
        except BaseException:
            self._tally.cancelled += 1
            raise
        finally:
            self._leave(waiter, request)
        self._count(request)

    async def try_acquire(self, tokens: int = 1) -> bool:
        """
        Take tokens if they are available and no task of this process waits.

        A checkpoint: it asks the server, with one call for all tasks that try at the same time. If
        it is cancelled, the tokens may still be taken.

        Args:
            tokens: Number of tokens, a whole number from 1 to ``burst``.

        Returns:
            Whether they were taken.

        Raises:
            StoreError: The server is down, with ``on_failure="raise"``.
            TypeError, ValueError, RuntimeError: As for `acquire`.
        """
        self._check(tokens)
        late = await self._take_at_once(tokens)
        self._tally.rejected += late is not None
        return late is None

    async def __aenter__(self) -> None:
        """Acquire one token."""
        await self.acquire()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Do nothing, since tokens are not given back.

        Not a checkpoint.
        """

    async def run(self, fn: Callable[[*Ts], Awaitable[T]] | Awaitable[T], /, *args: *Ts) -> T:
        """
        Call ``fn(*args)`` after acquiring one token, and return its result.

        A checkpoint. If it is cancelled while it waits, ``fn`` is not called.

        Args:
            fn: An async function; or, without arguments, an awaitable.
            *args: Positional arguments for ``fn``. For keyword arguments, use `functools.partial`.

        Raises:
            StoreError, RuntimeError: As for `acquire`.
            TypeError: ``fn`` did not return an awaitable.
        """
        return await run_in(self, fn, args)

    @overload
    def __call__(self, fn: Descriptor, /) -> Descriptor: ...
    @overload
    def __call__(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...
    @overload
    def __call__(self, /, *, tokens: int = 1, timeout: float | None = None) -> Decorator: ...
    def __call__(self, fn: Any = None, /, *, tokens: int = 1, timeout: float | None = None) -> Any:
        """
        Decorate an async function or method so that each call acquires tokens first.

        Use it as ``@limiter`` or ``@limiter(tokens=3)``. The function keeps its name, signature and
        types.

        Args:
            fn: The function, if the decorator is used without parentheses.
            tokens: As for `acquire`.
            timeout: As for `acquire`.

        Raises:
            TypeError: What is decorated is not an async function.
            ValueError: ``tokens`` or ``timeout`` could never be granted.
        """
        self._check(tokens)
        checks.timeout("timeout", timeout)

        return limit(fn, lambda: self.acquire(tokens, timeout=timeout), name=type(self).__name__)

    def wrap(self, then: Callable[[C], Awaitable[Any]]) -> Callable[[C], Awaitable[Any]]:
        """
        Return an async function that acquires a token, then calls ``then``.

        This makes the limiter a part of a `mtaio.resilience.Pipeline`.
        """

        async def run(call: C) -> Any:
            await self.acquire()
            return await then(call)

        return run

    def record_durations(self) -> None:
        """
        Record a histogram of the waits from now on, as ``wait_duration`` in the statistics.

        A monitor calls it for what it watches; repeated calls have no effect. Not a checkpoint. It
        can be called from any thread.
        """
        self._tally.wait_times.record()

    def statistics(self) -> RedisRateLimiterStatistics:
        """
        Return a snapshot of this process.

        Not a checkpoint. It can be called from any thread.
        """
        return snapshot(
            RedisRateLimiterStatistics,
            self,
            self._server,
            self._stock,
            self._tally,
            self._tally.wait_times,
            waiting=len(self._queue),
            reserved=len(self._stock),
            members=self._processes,
        )

    def _count(self, request: _Request | _Try) -> None:
        """Count a request that was granted."""
        tally = self._tally
        tally.acquired += 1
        tally.acquired_without_server += request.without_server
        tally.wait_times.count(clock.now() - request.asked)

    # The queue

    def _check(self, tokens: int) -> None:
        checks.count("tokens", tokens, way_out="Pass how many to take, a whole number.")
        if tokens > self._burst:
            most, never = ("limit", "window never has room for") if self._window else _BUCKET
            msg = (
                f"cannot acquire {_amount(tokens)} of {self!r}: the {never} more than "
                f"{most}={self._burst}. Raise {most}, or acquire in smaller parts."
            )
            raise ValueError(msg)

    def _attach(self) -> None:
        """Forget what was held in another event loop."""
        if self._server.attach(self):
            self._tries.attach(self)
            self._begin()

    def _join(self, request: _Request) -> Waiter:
        """Put the running task at the end of the queue, and have it supplied with tokens."""
        self._attach()
        self._server.start(self._supply)
        waiter = self._queue.join(request)
        self._wanted += request.tokens
        self._wake_supply()
        return waiter

    async def _wait(self, waiter: Waiter, request: _Request, timeout: float | None) -> None:
        """
        Take the tokens when they are due.

        Nothing is handed over to it: a task that is woken looks for itself, and takes its tokens
        in the step in which it returns. So a task that is cancelled at any moment holds none.
        """
        if self._is_first(waiter) and (self._down or len(self._stock)):
            await checkpoint()  # there may be no other
        while request.error is None:
            now = clock.now()
            self._drop(now)
            # Only the first in the queue, and those that were woken behind it, may take any.
            due = math.inf
            if request.may_take or self._is_first(waiter):
                due = self._take(request, now)
                if due <= now:
                    return
            # What it was woken for is not there (any more), or not yet. It gives up as soon as it
            # is known that its tokens come after its deadline, not only then.
            self._unready(request)
            if timeout is not None:
                if request.late is None and request.deadline < due < math.inf:
                    request.late = due - now
                if request.late is not None or now >= request.deadline:
                    raise self._late(request, timeout)
            await sleep(waiter, min(due, request.deadline))
        raise request.error

    def _is_first(self, waiter: Waiter) -> bool:
        return next(iter(self._queue.waiters)) is waiter

    def _take(self, request: _Request, now: float) -> float:
        """Take the tokens of a task if they may be granted now; return when they may be."""
        if self._down:
            return now + self._take_alone(request, now)
        due = self._stock.due(request.lacks)
        if due <= now:
            self._stock.take(request.lacks)
        return due

    def _leave(self, waiter: Waiter, request: _Request) -> None:
        """Take a task out of the queue, and wake those that can go on."""
        if waiter not in self._queue.waiters:  # the server is down, or its loop is over
            return
        self._queue.leave(waiter)
        self._wanted -= request.lacks
        self._unready(request)
        if self._queue.runs_here():  # else its coroutine was thrown away with its loop
            self._wake(clock.now())
            self._wake_supply()

    def _wake(self, now: float) -> None:
        """Wake the first in the queue, and those behind it whose tokens may be granted now too."""
        if self._ready:
            return  # the last of these will do it
        tokens = 0
        for waiter, request in self._queue.waiters.items():
            tokens += request.lacks
            if self._due(tokens) > now:
                break
            request.may_take = True
            self._ready += 1
            waiter.wake()
        if self._queue.waiters:
            next(iter(self._queue.waiters)).wake()

    def _due(self, tokens: int) -> float:
        """Return when the first so many tokens may be granted, as far as that is known."""
        if self._down:  # only the first in the queue looks into the local bucket
            return -math.inf if self._local is None else math.inf
        return self._stock.due(tokens)

    def _unready(self, request: _Request) -> None:
        """Count a task no longer as one that is about to take its tokens."""
        if request.may_take:
            request.may_take = False
            self._ready -= 1

    def _drop(self, now: float) -> None:
        """Give up the tokens that can no longer be granted in time."""
        if self._stock.drop(now):
            self._wake_supply()

    def _late(self, request: _Request, timeout: float) -> LimitTimeoutError:
        """
        Return the error for a task whose tokens come too late, if they come at all.

        Raises:
            StoreError: The server is down, and that is why.
        """
        what = self._refusal(request.tokens, timeout)
        wait = request.late
        if wait is None:
            msg = "" if self._down else self._server.explain(what, request.asked)
            if msg:
                return self._timeout_error(msg, timeout, request.deadline, self._store.timeout)
            wait = self._wanted * self._interval * self._processes
        total = clock.now() - request.asked + wait
        msg = f"{what}, only in about {total:.6g} s."
        return self._timeout_error(msg, timeout, request.deadline, wait)

    def _refusal(self, tokens: int, timeout: float) -> str:
        return f"{self!r} cannot grant {_amount(tokens)} within {timeout!r} s"

    def _timeout_error(
        self, message: str, timeout: float, deadline: float, wait: float
    ) -> LimitTimeoutError:
        return LimitTimeoutError(
            message,
            retry_after=wait,
            timeout=timeout,
            deadline=clock.loop_deadline(deadline),
            name=self.name,
        )

    # Those that do not wait for tokens

    async def _take_at_once(self, tokens: int) -> float | None:
        """
        Take tokens if they are there.

        Returns:
            None if they were taken, else the seconds until they would be there.
        """
        request = _Try(tokens, clock.now())
        if not self._interval:  # there is no limit
            await checkpoint()
            self._count(request)
            return None
        self._attach()
        waiter = None
        if not self._answer_at_once(request):
            self._server.start(self._supply)
            waiter = self._tries.join(request)
            self._server.wake()
        try:
            await (checkpoint() if waiter is None else waiter)
        except BaseException:
            self._tally.cancelled += 1
            if waiter is not None:
                self._tries.leave(waiter)  # tokens that it was granted are lost
            raise
        if request.error is not None:
            self._tally.rejected += 1
            raise request.error
        if request.wait is None:
            self._count(request)
        return request.wait

    def _answer_at_once(self, request: _Try) -> bool:
        """Answer a task that does not wait if that can be done without the server."""
        if self._down:
            self._answer_alone(request, ahead=self._wanted)
        elif self._queue.waiters:
            request.wait = (self._wanted + request.tokens) * self._interval
        else:
            return self._take_left_over(request.tokens)
        return True

    def _take_left_over(self, tokens: int) -> bool:
        """Take tokens reserved for tasks that gave up; return whether they were there."""
        now = clock.now()
        self._drop(now)
        if self._tries.waiters or self._stock.due(tokens) > now:
            return False
        self._stock.take(tokens)
        return True

    async def _supply_tries(self) -> None:
        """Answer the first that does not wait, and all that want as many, by one call."""
        each = next(iter(self._tries.waiters.values())).tokens
        tries = [
            (waiter, request)
            for waiter, request in self._tries.waiters.items()
            if request.tokens == each
        ]
        answer = await self._reserve(each, each * len(tries), within=0.0)
        # They are granted however late the answer is handled: the server has taken them when they
        # were there, and lets nobody else have them.
        granted, wait = answer.tokens // each, answer.next
        for waiter, request in tries:
            if waiter in self._tries.waiters:  # else cancelled during the call
                request.wait = None if granted else wait
                granted -= self._tries.wake(waiter) and granted > 0
        self._stock.lost += each * granted  # for those that are gone

    # The server

    def _lacking(self) -> int:
        """Return how many tokens have to be reserved now; 0 if there is time."""
        held = len(self._stock)
        lacking = next(iter(self._queue.waiters.values())).lacks - held
        if lacking > 0:
            return lacking
        return int(2 * held <= min(self._share, self._wanted - 1))

    def _wake_supply(self) -> None:
        """Have the server called again if that is of use: for fewer tokens than it refused."""
        if not self._queue.waiters or 0 < self._lacking() < self._refused:
            self._server.wake()

    async def _supply(self) -> None:
        """Call the server for the tasks of both queues, while there are any."""
        process = self._server.process
        try:
            while self._down or self._tries.waiters or self._queue.waiters:
                try:
                    if self._down:
                        await self._wait_until_back()
                    elif self._tries.waiters:
                        await self._supply_tries()
                    else:
                        await self._supply_queue()
                except StoreError as error:
                    self._fail(error)
        finally:
            # Else it is thrown away with its loop, and no tracer sees where it goes.
            if self._server.is_current(process):  # pragma: no branch - as said
                self._server.ended()
                self._down = False
                self._refused = math.inf
                if self._queue.waiters or self._tries.waiters:
                    self._give_up(store_left_error(self._store, self))

    async def _supply_queue(self) -> None:
        """Reserve tokens for the tasks that wait, or sleep until there are some to be had."""
        # Enough is reserved for those that wait: `_wake_supply` says when it no longer is.
        self._drop(clock.now())
        lacking = self._lacking()
        if not lacking:
            await self._server.sleep(math.inf)
            return
        # As many as the first needs, and as many more as are of use and due soon.
        first, request = next(iter(self._queue.waiters.items()))
        of_use = max(lacking, min(self._wanted, _LOT) - len(self._stock))
        sent = clock.now()
        answer = await self._reserve(lacking, of_use, within=self._ahead)
        now, wait = clock.now(), answer.due[0] if answer.due else answer.next
        # A token is granted no later than ``slack`` after it was due at the server, which was after
        # the call was sent: with an answer that took as long, it comes too late.
        if now - sent >= self._slack:
            self._stock.lost += answer.tokens
            self._answered_late(now - sent)
        elif answer.tokens:
            due = [max(0.0, after) for after in answer.due]
            self._stock.add(due, now, sent + self._slack)
            self._wake(now)
            return
        # None is due soon. The first is refused now if its own come after its deadline; the call is
        # made again when they are near, or when fewer are needed, because the first has left.
        if wait > request.deadline - now and request.lacks > len(self._stock):
            request.late = wait
            first.wake()
        if not self._queue.waiters or 0 < self._lacking() < lacking:
            return  # that one has left during the call, and the next needs fewer
        self._refused = lacking
        await self._server.sleep(now + wait - self._ahead)
        self._refused = math.inf

    async def _reserve(self, needed: int, of_use: int, *, within: float) -> Reserved:
        """Reserve tokens at the server."""
        sent = clock.now()
        answer = await self._server.call(
            self._bucket.reserve(
                self._server.process, needed, of_use=of_use, held=len(self._stock), within=within
            )
        )
        self._processes, self._share = answer.processes, answer.share
        if clock.now() - sent < self._slack:
            self._slow = 0
        return answer

    def _answered_late(self, seconds: float) -> None:
        """Count an answer whose tokens came too late; raise an error if that is the rule."""
        self._slow += 1
        if self._slow >= _SLOW:
            self._server.server_failures += 1
            msg = (
                f"{self._store.name} took {seconds:.3g} s to answer, more than "
                f"slack={self._slack!r} of {self!r}, {self._slow} times in a row. Raise slack."
            )
            raise StoreError(msg, server=self._store.name)

    # Without the server

    def _fail(self, error: StoreError) -> None:
        """Do what is to be done while the server is down."""
        if self._on_failure == "raise":
            self._server.failure = error
            self._give_up(error)
            return
        self._log(error)
        self._go_down()
        for waiter, request in [*self._tries.waiters.items()]:
            self._answer_alone(request, ahead=0)
            self._tries.wake(waiter)
        for waiting in self._queue.waiters.values():
            self._unready(waiting)
        self._wake(clock.now())

    def _log(self, error: StoreError) -> None:
        self._server.log(self, error)

    def _go_down(self) -> None:
        """Grant tokens without the server from here on."""
        self._down = True
        self._slow = 0
        if self._on_failure == "local":
            self._share_without_server()

    def _share_without_server(self) -> None:
        """Have a bucket of this process's own, with no more in it than was left in the last."""
        rate, burst = self._rate / self._processes, max(1, self._burst // self._processes)
        if self._window:
            rate = burst
        before = self._local
        if before is not None and (before.rate, before.burst) == (rate, burst):
            return
        if self._window:
            self._local = RateLimiter.window(burst, per=self._per, name=self.name)
        else:
            self._local = RateLimiter(rate, per=self._per, burst=burst, name=self.name)
        if before is not None:  # what it had granted is not there again
            gone = burst - max(0.0, before.statistics().tokens)
            if gone > 0:
                self._local.acquire_nowait(gone)

    def _give_up(self, error: Exception) -> None:
        """End the wait of every task."""
        self._wanted = 0
        for waiter, request in [*self._queue.waiters.items()]:
            self._unready(request)
            request.error = own_error(error)
            self._queue.wake(waiter)
        for waiter, attempt in [*self._tries.waiters.items()]:
            attempt.error = own_error(error)
            self._tries.wake(waiter)

    async def _wait_until_back(self) -> None:
        """Wait until the server answers again."""
        pauses = Backoff(*PROBE)
        while self._down:
            await anyio.sleep(pauses.next())
            with suppress(StoreError):
                await self._look()
                self._down = False

    async def _look(self) -> None:
        """Find out whether the server answers, and takes what is written. Reserves nothing."""
        await self._server.call(self._bucket.reserve("", 0, of_use=0, held=0, within=0.0))

    def _take_alone(self, request: _Request, now: float) -> float:
        """
        Take what the first in the queue lacks, while the server is down.

        Returns:
            0 if it has all, else the seconds until it can have more.
        """
        local = self._local
        while local is not None and request.lacks:
            part = min(request.lacks, int(local.burst))
            try:
                local.acquire_nowait(part)
            except RateLimitError as error:
                wait = error.retry_after + (request.lacks - part) * local.per / local.rate
                if now + wait > request.deadline:
                    request.late = wait
                return error.retry_after
            request.lacks -= part
            self._wanted -= part
        request.without_server = True
        return 0.0

    def _answer_alone(self, request: _Try, *, ahead: int) -> None:
        """Answer a task that does not wait while the server is down; some wait for ``ahead``."""
        request.without_server = True
        local = self._local
        wait = None
        if local is not None:
            if ahead or request.tokens > local.burst:  # only acquire() takes them in parts
                wait = (ahead + request.tokens) * local.per / local.rate
            else:
                try:
                    local.acquire_nowait(request.tokens)
                except RateLimitError as error:
                    wait = error.retry_after
        request.wait = wait


def _interval(rate: float, per: float, burst: int) -> float:
    """Return the seconds for one token, if the server can keep them; 0 without a limit."""
    if rate == math.inf:
        return 0.0
    interval = per / rate
    if interval < _FASTEST:
        msg = (
            f"rate={rate!r} per {per!r} s is more than a server can count, which is 1,000,000 "
            f"tokens a second. For no limit, pass math.inf."
        )
        raise ValueError(msg)
    if burst > _FULL / interval:
        msg = (
            f"rate={rate!r} per {per!r} s is too slow for burst={burst!r}: the bucket would take "
            f"more than {_FULL:.0f} s to fill. Raise rate, or lower burst."
        )
        raise ValueError(msg)
    return interval


def _amount(tokens: int) -> str:
    """Return so many tokens in words; ``tokens=`` would be masked in logs, as a secret's name."""
    return "1 token" if tokens == 1 else f"{tokens} tokens"
