"""
How often work may start: a token bucket, or a window, whose waiters are served in order.

Promise: in any span of ``t`` seconds at most ``burst + rate * (t + slack) / per`` tokens are
granted, or, by a window, at most its limit in any ``per`` seconds; in the order of the requests.
A task that gives up has taken nothing, and those behind move up.
Cost: a few floats of state, no background task, nothing to close; one timer while tasks wait, and
one for each that has a timeout.
Why tokens are never handed to a sleeping task: docs/en/design/rate-limiting.md.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    TypeVarTuple,
    final,
    overload,
)

import anyio

from mtaio._internal import checks, clock, deadlines
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.copies import uncopied
from mtaio._internal.decorators import AsyncFunction, Decorator, Descriptor
from mtaio._internal.durations import WaitTimes
from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.limiting import check_hold, closed_error, limit, run_in
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, SECONDS, snapshot
from mtaio._internal.wait_queue import WaitQueue
from mtaio.exceptions import LimitClosedError, LimitError, LimitTimeoutError, RateLimitError
from mtaio.resources._bucket import TICK, Bucket
from mtaio.resources._held import Held
from mtaio.resources._window import Window

if TYPE_CHECKING:
    from weakref import ReferenceType

    from mtaio._internal.backend import Waiter

__all__ = ["RateLimiter", "RateLimiterStatistics", "Tally", "Watcher"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# The fast paths handle only these; other numbers, and mistakes, take the slow one.
_ONE: Final = 1
_PLAIN: Final = frozenset({int, float})


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimiterStatistics:
    """The state and counts of a `RateLimiter`."""

    rate: float = field(metadata=LIMIT)
    """Tokens that become available every ``per`` seconds."""
    burst: float = field(metadata=LIMIT)
    """Tokens that the full bucket holds; of a window, its limit."""
    tokens: float = field(metadata=GAUGE)
    """Tokens in the bucket now; ``inf`` without a limit. Tasks that wait come first."""
    waiting: int = field(metadata=GAUGE)
    """Tasks waiting."""
    acquired: int = field(metadata=COUNTER)
    """Requests granted so far, with or without a wait, whatever their tokens."""
    rejected: int = field(metadata=COUNTER)
    """Requests refused: by ``acquire_nowait``, as ``burst`` was lowered while they waited, or as
    the limiter was closed."""
    timed_out: int = field(metadata=COUNTER)
    """Requests that could not be granted within their own timeout, or before their deadline."""
    cancelled: int = field(metadata=COUNTER)
    """Requests cancelled while they waited."""
    wait_seconds: float = field(metadata=COUNTER)
    """Total seconds that tasks waited for the tokens they got."""
    max_wait_seconds: float = field(metadata=GAUGE)
    """The longest of those waits, in seconds."""
    wait_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long each of those waits took; None before ``record_durations()``."""
    next_grant_seconds: float = field(metadata=GAUGE)
    """Estimated seconds until the first task that waits is served, or until a newcomer could have
    one token if none waits; ``inf`` while paused without the tokens for it."""
    held_seconds: float = field(metadata=GAUGE)
    """Seconds until a `RateLimiter.hold` ends; 0 if nothing is held."""


class Watcher(Protocol):
    """What takes from a limiter and does not wait in its queue: a quota."""

    def look_again(self) -> None:
        """Look at the limiter again: it has changed, or nobody waits for it any more."""


class Tally:
    """What is counted of requests that were not granted at once, of one limiter or of many."""

    __slots__ = (
        "cancelled",
        "rejected",
        "timed_out",
        "wait_times",
        "waiting",
    )

    def __init__(self) -> None:
        self.cancelled: int = 0
        self.rejected: int = 0
        self.timed_out: int = 0
        self.wait_times: Final = WaitTimes()
        self.waiting: int = 0

    def count_refusal(self, kind: type[BaseException]) -> None:
        """Count a request that ended with such an exception."""
        if kind is LimitTimeoutError:
            self.timed_out += 1
        elif kind is RateLimitError or kind is LimitClosedError:
            self.rejected += 1
        else:
            self.cancelled += 1


@uncopied
@final
class RateLimiter:
    """
    A limit on how often work starts: a token bucket with a fair queue.

    Use it as ``async with limiter:``, as a decorator, or with `run` or `acquire`. By default, work
    starts one at a time, ``per / rate`` seconds apart. With a ``burst``, that many may start at
    once, at first and after a pause. At most ``burst + rate * (t + slack) / per`` tokens are
    granted in any ``t`` seconds. The algorithm is the generic cell rate algorithm (GCRA). For a
    sliding window instead, see `window`.

    It can be created at module level and used by one event loop after another, on either backend,
    but only by one at a time. Other threads may change the limits and read the statistics.

    Args:
        rate: Number of tokens that become available every ``per`` seconds, 0 or more. 0 pauses: the
            tokens that are left may be taken, then all tasks wait for a new rate. ``math.inf``
            never waits.
        per: The period of ``rate`` in seconds.
        burst: Number of tokens in a full bucket, at least 1. It is the most that one call can
            acquire, except while ``rate`` is infinite.
        slack: How many seconds late a task may be served without lowering the rate: up to then, its
            tokens count from when they were due, but not from before it asked. With 0, at most
            ``burst + rate * t / per`` tokens are granted, as exactly as event loops fire their
            timers.
        name: Name shown in messages and metrics.

    Raises:
        TypeError: An argument is not a number.
        ValueError: ``rate`` < 0, ``burst`` < 1 or infinite, ``per`` <= 0 or infinite, ``slack`` < 0
            or infinite, or any is NaN.

    Example:
        At most five requests a second, two at once:

        ```python
        import anyio

        from mtaio import RateLimiter

        limiter = RateLimiter(5, burst=2)


        async def request(number: int) -> None:
            async with limiter:
                print(f"request {number}")


        async def main() -> None:
            async with anyio.create_task_group() as group:
                for number in range(6):
                    group.start_soon(request, number)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - _queue holds the tasks that wait, with the tokens that each asks for; _queued is the sum of
    #   these, and _first the first of the tasks, None if none waits;
    # - _queue is None until a task waits here, since there may be very many limiters, and again
    #   when the loop of its tasks is over: so one queue never holds tasks of two loops;
    # - only the first sleeps until a moment, hence FIFO and one timer;
    # - a task is woken to look again, and stays in its place; it acts on what it finds, never on
    #   having been woken, so that being woken once too often does no harm;
    # - no task takes tokens that would delay one that asked before;
    # - a waiter takes its tokens in its own task, in the step in which it leaves the queue;
    # - a call of acquire() that does not find _left > 0 yields before it takes; while tasks wait
    #   _left is not, so that none that finds it looks for them;
    # - once _closed, it stays so, and so does the bucket: empty, with a rate of 0, which no fast
    #   path takes from; who stores another looks at _closed in the statement before, and between
    #   the two nothing is called, so that no other thread closes it there;
    # - _granted_at_0 - _left requests have been granted: one small int to move for each of them.
    __slots__ = (
        "__weakref__",
        "_bucket",
        "_closed",
        "_first",
        "_granted_at_0",
        "_left",
        "_name",
        "_queue",
        "_queued",
        "_slack",
        "_tally",
        "_watchers",
    )

    def __init__(
        self,
        rate: float,
        *,
        per: float = 1.0,
        burst: float = 1,
        slack: float = 0.02,
        name: str | None = None,
    ) -> None:
        bucket = Bucket(rate, burst, per=per)
        way_out = "Pass seconds >= 0, a few times the lateness of the event loop."
        if checks.at_least("slack", slack, 0, way_out=way_out) == math.inf:
            msg = f"slack={slack!r} would lift the limit for every task that waits. {way_out}"
            raise ValueError(msg)
        self._start(bucket, slack, name, Tally())

    def _start(self, bucket: Bucket | Window, slack: float, name: str | None, tally: Tally) -> None:
        self._bucket: Bucket | Window | Held = bucket
        self._slack = slack
        self._name = name
        self._tally = tally
        self._left: int = FAST_CALLS - 1
        self._granted_at_0: int = FAST_CALLS - 1
        self._queue: WaitQueue[float] | None = None
        self._queued: float = 0
        self._first: Waiter | None = None
        self._closed = False
        self._watchers: tuple[ReferenceType[Watcher], ...] = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{self._limits()}>"

    def _limits(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"{name} {self._bucket}"

    @classmethod
    def window(cls, limit: int, *, per: float = 1.0, name: str | None = None) -> Self:
        """
        Return a limiter with a sliding window: at most ``limit`` tokens in any ``per`` seconds.

        Use it for services that count this way, as most do that say "100 requests per minute"; a
        bucket with a burst of 100 could let through twice as many in the minute after a pause. A
        token comes back ``per`` seconds after it was granted. There is no ``slack``: a task that is
        served late counts from when it was served. Tokens are whole, and estimated waits are lower
        bounds if queued requests ask for more than one token. The limiter stores ``limit`` times.

        Assigning to `rate` changes the limit; 0 pauses at once. `burst` equals the limit and cannot
        be assigned.

        Args:
            limit: Maximum number of tokens in any ``per`` seconds, at least 1.
            per: Length of the window in seconds, more than 0.
            name: Name shown in messages and metrics.

        Raises:
            TypeError: ``limit`` is not an int, or ``per`` is not a number.
            ValueError: ``limit`` < 1, or ``per`` <= 0, infinite or NaN.
        """
        window = Window(limit, per)
        limiter = cls(limit, per=per, slack=0, name=name)
        limiter._bucket = window
        return limiter

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def per(self) -> float:
        """The period of `rate` in seconds."""
        return self._bucket.per

    @property
    def slack(self) -> float:
        """How many seconds late a task may be served without lowering the rate."""
        return self._slack

    @property
    def rate(self) -> float:
        """Tokens every `per` seconds. Assigning to it calls `reconfigure`."""
        return self._bucket.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self.reconfigure(rate=rate)

    @property
    def burst(self) -> float:
        """Tokens in a full bucket. Assigning to it calls `reconfigure`."""
        return self._bucket.burst

    @burst.setter
    def burst(self, burst: float) -> None:
        self.reconfigure(burst=burst)

    def reconfigure(self, *, rate: float | None = None, burst: float | None = None) -> None:
        """
        Change the limits at run time, also for tasks that are waiting.

        The bucket keeps its tokens, up to its new size; a larger bucket fills at the new rate. A
        task that waits for more tokens than the new burst gets a `RateLimitError`; a task with a
        timeout still waits no longer than that. Not a checkpoint. It can be called from any thread;
        if another thread grants tokens at the same moment, they may not be counted.

        Args:
            rate: Number of tokens every `per` seconds; None to keep it.
            burst: Number of tokens in a full bucket; None to keep it.

        Raises:
            TypeError, ValueError: An argument is invalid, as for the class; nothing is changed.
        """
        self._forget_finished()
        bucket, moment = self._bucket_now()
        self._put(bucket.reshaped(rate, burst, moment))

    def hold(self, seconds: float) -> None:
        """
        Grant nothing for a while, as when a service has answered "429, retry later".

        The tokens in the bucket are discarded, since the service has just said that none are left.
        Those that come in meanwhile are available when the pause ends. (A window only pauses.) If
        there are several pauses, the one that ends last counts. Tasks that wait keep their order
        and are served afterwards, unless their ``timeout`` ends first; a later call whose
        ``timeout`` is too short is refused at once. `reset` ends the pause.

        Not a checkpoint. It can be called from any thread, like `reconfigure`.

        Args:
            seconds: Seconds to pause, such as the service's ``Retry-After``; 0 or more.

        Raises:
            TypeError: ``seconds`` is not a number.
            ValueError: ``seconds`` is negative, infinite or NaN.
        """
        check_hold(seconds, "limiter", " rate=0 pauses.")
        self._forget_finished()
        bucket, moment = self._bucket_now()
        until = moment + seconds
        if isinstance(bucket, Held):
            until = max(until, bucket.until)
        self._put(Held(bucket.emptied(moment), until))

    def reset(self) -> None:
        """
        Fill the bucket, as if nothing had been granted yet, such as when a service has restarted.

        This ends a pause by `hold`, and tasks that wait are served in their order. The limits, a
        rate of 0 and the counters stay as they are. Not a checkpoint. It can be called from any
        thread.
        """
        self._forget_finished()
        self._put(self._bucket.copy())

    def close(self) -> None:
        """
        Refuse everything from now on, to shut down the program or what the limiter guards.

        Tasks that wait, and all later calls, get a `mtaio.exceptions.LimitClosedError` at once. A
        closed limiter cannot be reopened; its `rate` stays 0. Repeated calls have no effect. Not a
        checkpoint. It can be called from any thread.
        """
        if self._closed:
            return
        self._closed = True
        self._forget_finished()
        bucket, moment = self._bucket_now()
        self._bucket = bucket.reshaped(0, None, moment).emptied(moment)
        self._look_again()

    async def acquire(self, tokens: float = 1, *, timeout: float | None = None) -> None:
        """
        Take tokens, after waiting for them behind the tasks that asked before.

        A checkpoint if it has to wait, and otherwise at least on every 64th call. If it is
        cancelled, it leaves the bucket as if it had never asked, and the tasks behind it move up.

        Args:
            tokens: Number of tokens, at most ``burst``; need not be whole. 0 returns at once.
            timeout: Maximum seconds to wait; None for no limit. Whether it suffices is decided when
                the call is made, assuming that no task ahead gives up. If the rate is then lowered,
                the wait ends when the time is up. The time left under mtaio's timeouts around the
                call (see `time_left`) counts likewise, except that a wait of unknown length, at a
                rate of 0, is begun.

        Raises:
            LimitTimeoutError: The wait would exceed ``timeout`` or the time left; raised at once if
                that is known at once, with the seconds needed in ``retry_after``. Also a builtin
                ``TimeoutError``.
            LimitClosedError: The limiter is closed, or was closed during the wait.
            RateLimitError: ``burst`` was lowered below ``tokens`` during the wait.
            TypeError: ``tokens`` or ``timeout`` is not a number.
            ValueError: ``tokens`` is negative, NaN, or more than ``burst``; ``timeout`` is negative
                or NaN.
            RuntimeError: Tasks of another running event loop are waiting.
        """
        left = self._left
        if left > 0 and timeout is None:
            # Bucket.due and take, without the calls: this is what most calls come to.
            bucket = self._bucket
            span = bucket.interval
            if tokens is not _ONE:
                if type(tokens) not in _PLAIN or not 0 < tokens <= bucket.most:
                    bucket.check(tokens)
                span *= tokens
            if (tells := clock.reader()) is bucket.timed_by:
                moment = tells()
                full_at = bucket.full_at
                if full_at <= moment:
                    bucket.full_at = moment + span
                    self._left = left - 1
                    return
                full_at += span
                if full_at <= moment + bucket.reach:
                    bucket.full_at = full_at
                    self._left = left - 1
                    return
        if self._first is not None and timeout is None and (waiter := self._fall_in(tokens)):
            # Those behind the first wait here: a coroutine of their own would cost as much as the
            # rest. They are woken when they are first, or when they ask for too much.
            asked = clock.catch_up(self._bucket)
            try:
                await waiter
            except BaseException as error:
                self._give_up(waiter, tokens, error)
                raise
            await self._serve(waiter, tokens, asked, clock.catch_up(self._bucket), None)
            return
        queue = self._queue
        quick = (
            left <= 0
            and timeout is None
            and tokens is _ONE
            and self._first is None
            and queue is not None
            and queue.runs_here()
            and deadlines.current.get() is None
        )
        rest = self._yield_first() if quick else self._request(tokens, timeout)
        if rest is not None:
            await rest

    def acquire_nowait(self, tokens: float = 1) -> None:
        """
        Take tokens if they are available and no task waits for them, or raise.

        Not a checkpoint.

        Args:
            tokens: Number of tokens, at most ``burst``; need not be whole.

        Raises:
            RateLimitError: They are not available; ``retry_after`` has the seconds until they are,
                after the tasks that wait.
            LimitClosedError: The limiter is closed.
            TypeError: ``tokens`` is not a number.
            ValueError: ``tokens`` is negative, NaN, or more than ``burst``.
        """
        # Bucket.due and take, without the calls, as in `acquire`.
        bucket = self._bucket
        span = bucket.interval
        if tokens is not _ONE:
            if type(tokens) not in _PLAIN or not 0 < tokens <= bucket.most:
                bucket.check(tokens)
            span *= tokens
        if self._first is None and (tells := clock.reader()) is bucket.timed_by:
            moment = tells()
            full_at = bucket.full_at
            if full_at <= moment:
                bucket.full_at = moment + span
                self._left -= 1
                return
            full_at += span
            if full_at <= moment + bucket.reach:
                bucket.full_at = full_at
                self._left -= 1
                return
        bucket.check(tokens)  # a window has more to ask, and no fast path
        if self._closed:
            self._tally.rejected += 1
            raise closed_error(self, self._name)
        self._forget_finished()
        moment = self._catch_up(bucket)
        wait = self._seconds_until(tokens, moment) if tokens else 0.0
        if wait:
            self._tally.rejected += 1
            msg = f"{self!r} cannot grant {_amount(tokens)} now, {_when(wait)}."
            raise RateLimitError(msg, retry_after=wait, name=self._name)
        bucket.take(tokens, moment)
        self._left -= 1

    def try_acquire(self, tokens: float = 1) -> bool:
        """
        Take tokens as `acquire_nowait` does, and return whether it did.

        Not a checkpoint.

        Raises:
            LimitClosedError: The limiter is closed.
            TypeError, ValueError: As for `acquire_nowait`.
        """
        try:
            self.acquire_nowait(tokens)
        except RateLimitError:
            return False
        return True

    if TYPE_CHECKING:  # to pyright only an ``async def`` begins a block

        async def __aenter__(self) -> None:
            """
            Acquire one token.

            A checkpoint if `acquire` is one.
            """

    else:

        def __aenter__(self) -> Coroutine[Any, Any, None]:
            """Acquire one token; a checkpoint where `acquire` is one."""
            return self.acquire()

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

        A checkpoint if `acquire` or the call is one. If it is cancelled while it waits, it has
        taken nothing and ``fn`` is not called.

        Args:
            fn: An async function; or, without arguments, an awaitable.
            *args: Positional arguments for ``fn``. For keyword arguments, use `functools.partial`.

        Raises:
            TypeError: ``fn`` did not return an awaitable.
            RuntimeError: Tasks of another running event loop are waiting.
        """
        return await run_in(self, fn, args)

    @overload
    def __call__(self, fn: Descriptor, /) -> Descriptor: ...
    @overload
    def __call__(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...
    @overload
    def __call__(self, /, *, tokens: float = 1, timeout: float | None = None) -> Decorator: ...
    def __call__(
        self, fn: Any = None, /, *, tokens: float = 1, timeout: float | None = None
    ) -> Any:
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
        self._bucket.check(tokens)
        checks.timeout("timeout", timeout)
        plain = tokens is _ONE and timeout is None  # then nothing is called in between
        return limit(
            fn,
            self.acquire if plain else lambda: self.acquire(tokens, timeout=timeout),
            name="RateLimiter",
        )

    def record_durations(self) -> None:
        """
        Record a histogram of the waits from now on, as ``wait_duration`` in the statistics.

        A monitor calls it for what it watches; repeated calls have no effect. Not a checkpoint. It
        can be called from any thread.
        """
        self._tally.wait_times.record()

    def statistics(self) -> RateLimiterStatistics:
        """
        Return a snapshot of the limiter.

        Not a checkpoint. It can be called from any thread.
        """
        bucket = self._bucket
        moment = clock.now_by(bucket.timed_by)  # it changes nothing: the limiter may be in use
        first, queue = self._first, self._queue
        if queue is None or first is None or queue.is_over():
            waiting, tokens = 0, 1.0
        else:
            waiting, tokens = len(queue), queue.waiters.get(first, 1)
        return snapshot(
            RateLimiterStatistics,
            self._tally,
            self._tally.wait_times,
            rate=bucket.rate,
            burst=bucket.burst,
            tokens=max(0.0, bucket.tokens(moment)),
            waiting=waiting,
            acquired=self._granted_at_0 - self._left,
            next_grant_seconds=bucket.due(tokens, moment) - moment,
            held_seconds=bucket.seconds(moment) if isinstance(bucket, Held) else 0.0,
        )

    def _bucket_now(self) -> tuple[Bucket | Window | Held, float]:
        """Return the bucket with the time of its clock, to put another in its place."""
        bucket = self._bucket
        if self._queue is None or self._queue.belongs_here():
            return bucket, clock.catch_up(bucket)
        # Its loop, in another thread, may be taking it over to its clock at this moment.
        return bucket, clock.now_by(bucket.timed_by)

    def _put(self, bucket: Bucket | Window | Held) -> None:
        """Put another bucket in the place of this one, unless that is closed."""
        if not self._closed:
            self._bucket = bucket
        self._look_again()

    def _catch_up(self, bucket: Bucket | Window | Held) -> float:
        """Return the time; a bucket whose hold is over is back in its place, for the fast paths."""
        moment = clock.catch_up(bucket)
        # Nothing is called between the last look and the change, so no other thread holds between.
        if type(bucket) is Held and not bucket.seconds(moment) and self._bucket is bucket:
            self._bucket = bucket.inner
        return moment

    def _request(self, tokens: float, timeout: float | None) -> Coroutine[Any, Any, None] | None:
        """Grant any number of tokens at once and return None, or return what is left to await."""
        bucket = self._bucket
        if tokens is not _ONE:
            bucket.check(tokens)
        if timeout is not None:
            checks.timeout("timeout", timeout)
        if self._closed:
            return self._refuse(closed_error(self, self._name))
        if self._first is not None:
            self._attach()
        moment = self._catch_up(bucket)
        wait = bucket.due(tokens + self._queued, moment) - moment if tokens else 0.0
        if wait > TICK and (error := self._too_long(tokens, wait, timeout, moment)):
            return self._refuse(error)
        if not tokens:
            return self._grant_none()
        if wait or self._first is not None:
            return self._wait(tokens, moment, timeout)
        if self._left <= 0:
            return self._wait(tokens, moment, timeout, there=True)
        bucket.take(tokens, moment)
        self._left -= 1
        return None

    async def _refuse(self, error: LimitError) -> None:
        self._tally.count_refusal(type(error))
        await self._yield_in_time()
        raise error

    async def _grant_none(self) -> None:
        await self._yield_in_time()
        self._granted_at_0 += 1

    async def _yield_in_time(self) -> None:
        """Count a call that takes no tokens, and let other tasks run if it is time to."""
        if self._left > 0:
            self._left, self._granted_at_0 = self._left - 1, self._granted_at_0 - 1
        else:
            await checkpoint()
            self._restart_count()

    def _restart_count(self) -> None:
        """Let the next calls return without yielding, after one that yielded, if none waits."""
        if self._first is None:
            self._granted_at_0 += FAST_CALLS - 1 - self._left
            self._left = FAST_CALLS - 1

    async def _wait(
        self, tokens: float, asked: float, timeout: float | None, *, there: bool = False
    ) -> None:
        """Join the queue, and take the tokens when they are there; yield if they are already."""
        waiter = self._join(tokens)
        moment = asked
        if there:
            try:
                await checkpoint()
            except BaseException as error:
                self._give_up(waiter, tokens, error)
                raise
            moment = clock.catch_up(self._bucket)
        await self._serve(waiter, tokens, asked, moment, timeout)

    async def _yield_first(self) -> None:
        """
        Yield, and take one token: `_wait` and `_serve` where nobody waits.

        One call in `FAST_CALLS` is this one, and with the place in the queue taken through those
        two it adds a sixth to what all of them cost. So what they call is written out here:

        1. Join the queue, which is empty. Its own place is free: it is used here alone, and from
           here to where this task leaves the queue there is somebody in it.
        2. Yield. Those who ask meanwhile find `_first`, and come after it.
        3. If nobody came, the token is there, and this task is not late: take it, leave the queue,
           which is empty again, and count. Otherwise `_serve` does what is to be done: there is a
           token to wait for, or somebody to wake, or the loop is late.
        """
        # 1.
        bucket, queue, tally = self._bucket, self._queue, self._tally
        assert queue is not None  # noqa: S101 - acquire() has looked
        tells = clock.reader()
        asked = tells() if tells is bucket.timed_by else clock.catch_up(bucket)
        self._first = place = queue.place
        queue.waiters[place] = self._queued = _ONE
        tally.waiting += 1
        # 2.
        try:
            await checkpoint()
        except BaseException as error:
            self._give_up(place, _ONE, error)
            raise
        # 3.
        bucket = self._bucket
        tells = clock.reader()
        moment = tells() if tells is bucket.timed_by else clock.catch_up(bucket)
        if len(queue.waiters) == 1 and asked <= moment <= asked + self._slack:
            full_at = bucket.full_at
            if full_at <= moment or full_at + bucket.interval <= moment + bucket.reach:
                bucket.full_at = max(full_at, asked) + bucket.interval
                queue.waiters.clear()
                self._first = None
                self._queued = 0
                self._granted_at_0 += FAST_CALLS - self._left
                self._left = FAST_CALLS - 1
                tally.waiting -= 1
                tally.wait_times.count(moment - asked)
                return
        await self._serve(place, _ONE, asked, moment, None)

    async def _serve(
        self, waiter: Waiter, tokens: float, asked: float, moment: float, timeout: float | None
    ) -> None:
        """Take the tokens of a task in the queue when they are there, and leave the queue."""
        deadline = math.inf if timeout is None else asked + timeout
        try:
            # When the tokens are due is looked at anew after each wait, since the limits may have
            # changed, and the task may have become first. Until then it has nothing to sleep for
            # but its deadline, and somebody wakes it.
            while (due := self._due(waiter, tokens, moment, timeout, deadline)) != moment:
                if due < math.inf or moment < deadline < math.inf:
                    moment = await self._sleep_until(min(due, deadline), waiter)
                else:
                    await waiter
                    moment = clock.catch_up(self._bucket)
            # A waiter that slept is late: it counts as served when it could have been.
            since = asked
            if not asked <= moment <= asked + self._slack:
                since = min(moment, max(asked, moment - self._slack))
            self._bucket.take(tokens, since)
        except BaseException as error:
            self._give_up(waiter, tokens, error)
            raise
        self._leave(waiter, tokens)
        self._granted_at_0 += 1
        self._restart_count()
        self._tally.wait_times.count(moment - asked)

    def _give_up(self, waiter: Waiter, tokens: float, error: BaseException) -> None:
        """Leave the queue, because the task was refused, or cancelled, or its loop is over."""
        self._tally.count_refusal(type(error))
        if type(error) is GeneratorExit:
            self._forget_finished()  # closed with its loop: there may be no task left to wake
        self._leave(waiter, tokens)

    async def _sleep_until(self, until: float, waiter: Waiter) -> float:
        """Sleep until a moment, or until woken before; return which moment it is then."""
        with anyio.CancelScope(deadline=clock.loop_deadline(until)) as scope:
            await waiter
        moment = clock.catch_up(self._bucket)
        # The timer is right even where the clock, by rounding, is not there yet.
        return max(moment, until) if scope.cancelled_caught else moment

    def _due(
        self,
        waiter: Waiter,
        tokens: float,
        moment: float,
        timeout: float | None,
        deadline: float,
    ) -> float:
        """Return when a task gets its tokens, ``inf`` until it is first; or raise: it gives up."""
        if self._closed:
            raise closed_error(self, self._name)
        most = self._bucket.most
        if tokens > most:
            msg = (
                f"{self!r} can no longer grant {_amount(tokens)}: {self._bucket.size} was lowered "
                f"to {most!r} during the wait. Acquire in smaller parts."
            )
            raise RateLimitError(msg, retry_after=math.inf, name=self._name)
        due = self._bucket.due(tokens, moment) if waiter is self._first else math.inf
        if timeout is not None and moment >= deadline and due != moment:
            wait = self._seconds_until(0, moment)
            # Whoever waits only for its turn, behind a task that yields, is not late.
            if waiter is self._first or wait > TICK:
                raise self._late(tokens, wait, timeout, deadline)
        return due

    def _seconds_until(self, tokens: float, moment: float) -> float:
        """Return in how many seconds ``tokens`` will be there, after what the queue asks for."""
        return self._bucket.due(tokens + self._queued, moment) - moment

    def _late(
        self, tokens: float, wait: float, timeout: float, deadline: float
    ) -> LimitTimeoutError:
        return LimitTimeoutError(
            f"{self!r} cannot grant {_amount(tokens)} within {timeout!r} s, {_when(wait)}.",
            retry_after=wait,
            timeout=timeout,
            deadline=clock.loop_deadline(deadline),
            name=self._name,
        )

    def _too_long(
        self, tokens: float, wait: float, timeout: float | None, moment: float
    ) -> LimitTimeoutError | None:
        """Return the error for a wait that its timeout, or a limit around the call, would end."""
        if timeout is not None and wait > timeout + TICK:
            return self._late(tokens, wait, timeout, moment + timeout)
        # A pause may be over in time, for all that is known; else the limit will end the wait.
        if wait == math.inf or deadlines.current.get() is None:
            return None
        due = deadlines.logical()
        # It also will if its moment is that in which the tokens would come.
        if moment + wait < due - TICK:
            return None
        left = max(due - moment, 0.0)
        return LimitTimeoutError(
            f"{self!r} cannot grant {_amount(tokens)} within the {left:.6g} s that are left here, "
            f"{_when(wait)}. That time limit is set by a timeout around the call.",
            retry_after=wait,
            timeout=left,
            deadline=clock.loop_deadline(due),
            name=self._name,
        )

    def _fall_in(self, tokens: float) -> Waiter | None:
        """
        Join the tasks that wait; return None where `_request` has to decide.

        That is, if nobody waits any more, or for no tokens, or if there is a deadline.
        """
        if self._closed or deadlines.current.get() is not None:
            return None
        bucket = self._bucket
        if tokens is not _ONE:
            bucket.check(tokens)
        self._attach()
        return None if self._first is None or not tokens else self._join(tokens)

    def _join(self, tokens: float) -> Waiter:
        """Put the running task at the end of the queue."""
        if self._first is None:
            queue = self._attach()
            self._left, self._granted_at_0 = 0, self._granted_at_0 - self._left
            self._first = waiter = queue.join(tokens)
        else:
            assert self._queue is not None  # noqa: S101 - the first waits in it
            waiter = self._queue.join(tokens)
        self._queued += tokens
        self._tally.waiting += 1
        return waiter

    def _leave(self, waiter: Waiter, tokens: float) -> None:
        """Take a task out of the queue, and wake the next if it was first."""
        queue = self._queue
        if queue is None or waiter not in (waiters := queue.waiters):
            return  # its loop was found to be over, and it was forgotten
        del waiters[waiter]  # nothing was handed over that would have to be passed on
        self._tally.waiting -= 1
        self._queued = self._queued - tokens if waiters else 0
        if waiter is self._first:
            self._first = first = next(iter(waiters), None)
            if first is not None:
                first.wake()
            else:
                self._tell_watchers()

    def _tell_watchers(self) -> None:
        for each in self._watchers:
            if (watcher := each()) is not None:
                watcher.look_again()

    def _look_again(self) -> None:
        """
        Wake those whom new limits concern: the first, and who asks for too much now.

        All of them, if there is nothing to get any more.
        """
        self._tell_watchers()
        self._forget_finished()
        queue = self._queue
        if queue is None or not queue.waiters:
            return
        if not queue.runs_here():
            # If that loop ends before it calls this, nobody is left to wake.
            queue.call_in_loop(self._look_again)
            return
        first, most = self._first, -1 if self._closed else self._bucket.most
        for waiter in [
            each for each, tokens in queue.waiters.items() if each is first or tokens > most
        ]:
            waiter.wake()

    def _attach(self) -> WaitQueue[float]:
        """
        Return the queue, made ready for a task of the running loop.

        Raises:
            RuntimeError: Tasks of another loop, which is not over, wait in it.
        """
        queue = self._queue
        if queue is None or not queue.runs_here():
            self._forget_finished()
            queue = self._queue
            if queue is None:
                queue = self._queue = WaitQueue()
            queue.attach(self)
        return queue

    def _forget_finished(self) -> None:
        """Forget the queue if the loop of the tasks in it is over."""
        queue = self._queue
        # Nothing is called between the look and the change, so no other thread runs between: tasks
        # of the next loop, which may be here by now, are not forgotten with those of the last.
        if queue is not None and queue.is_over() and self._queue is queue:
            self._queue = None
            self._queued = 0
            self._first = None
            self._tally.waiting -= len(queue)


def _amount(tokens: float) -> str:
    """Return so many tokens in words; ``tokens=`` would be masked in logs, as a secret's name."""
    return "1 token" if tokens == 1 else f"{tokens!r} tokens"


def _when(wait: float) -> str:
    """Return in words when tokens will be there; only a rate of 0 keeps them away for ever."""
    return "and not before its rate is above 0" if wait == math.inf else f"only in {wait:.6g} s"
