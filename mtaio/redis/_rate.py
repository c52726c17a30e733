"""
How often work may start, in all processes together: a token bucket that a server keeps.

Promise: in any span of ``t`` seconds all processes together grant at most
``burst + rate * (t + slack) / per`` tokens, by the server's clock; within a process in the order of
asking. What one process reserves is bounded, so that those that are busy have about the same.
Cost: a call to the server for each `_AHEAD` of what a busy process is granted, so the fewer for
each token the higher the rate; one task in the store's block while tasks wait.
Why tokens are reserved by their times: docs/en/design/redis.md.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar, overload
from uuid import uuid4

import anyio

from mtaio._internal import checks, clock, loops
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.decorators import AsyncFunction, Decorator, Descriptor, decorate
from mtaio._internal.statistics import COUNTER, GAUGE
from mtaio.exceptions import RateLimitError, RateLimitTimeoutError, StoreError
from mtaio.redis._store import Script, check_key
from mtaio.resources import RateLimiter

if TYPE_CHECKING:
    from types import TracebackType

    from mtaio.redis._store import Store

__all__ = ["RESERVE", "RedisRateLimiter", "RedisRateLimiterStatistics"]

P = ParamSpec("P")
R = TypeVar("R")

_AHEAD: Final = 0.5
"""How far ahead tokens are reserved, as a part of ``slack``."""

_LOT: Final = 1000
"""The most tokens that are reserved by one call: more could not be handed out in time."""

_SLOW: Final = 3
"""After how many answers in a row that came too late to be of use the server counts as down."""

_PROBE: Final = (0.1, 2.0)
"""Seconds between two looks at a server that is down: the first, and the most."""

# KEYS: when the bucket is full again, in microseconds; the processes that asked lately.
# ARGV: microseconds per token, burst, tokens needed (0: none, only look), tokens of use, tokens
# held, how far ahead in microseconds any process reserves, how far ahead this call may, who asks.
# Returns: how many are granted; microseconds until the first of them is due (or, if none, the
# tokens needed), which is negative where it has been; the busy processes; how many tokens a process
# may hold.
RESERVE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local needed, most, held = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local ahead, within = tonumber(ARGV[6]), tonumber(ARGV[7])
local full = tonumber(redis.call('GET', KEYS[1]) or '0')
if full < now then full = now end
-- Nothing is reserved so far ahead: the server's clock has been set back, or the rate was lower
-- before. The bucket is as good as empty.
if full > now + (2 * burst + 2) * interval + 2 * ahead then
  full = now + burst * interval
  redis.call('SET', KEYS[1], string.format('%.3f', full))
end
local first = full + (1 - burst) * interval - now
if needed == 0 then return {0, string.format('%.3f', first), 1, 0} end
redis.call('ZADD', KEYS[2], now, ARGV[8])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 1000000)
redis.call('PEXPIRE', KEYS[2], 2000)
local busy = redis.call('ZCARD', KEYS[2])
local share = math.floor((ahead + math.max(0, -first)) / interval / busy)
local due = first + (needed - 1) * interval
if due > within then return {0, string.format('%.3f', due), busy, share} end
local taken = math.max(needed, math.min(most, share - held))
full = full + taken * interval
redis.call('SET', KEYS[1], string.format('%.3f', full), 'PX', math.ceil((full - now) / 1000) + 1000)
return {taken, string.format('%.3f', first), busy, share}
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisRateLimiterStatistics:
    """What a `RedisRateLimiter` has done in this process."""

    waiting: int = field(metadata=GAUGE)
    """Tasks waiting."""
    granted: int = field(metadata=COUNTER)
    """Requests granted so far, whatever their tokens."""
    granted_without_server: int = field(metadata=COUNTER)
    """Those among them that were granted while the server was down."""
    cancelled: int = field(metadata=COUNTER)
    """Requests cancelled while they waited."""
    rejected: int = field(metadata=COUNTER)
    """Requests refused so far: not at once, not within their timeout, or for want of a server."""
    reserved: int = field(metadata=GAUGE)
    """Tokens reserved by this process and not used yet."""
    lost: int = field(metadata=COUNTER)
    """Tokens reserved and not used in time."""
    calls: int = field(metadata=COUNTER)
    """Calls to the server."""
    failed_calls: int = field(metadata=COUNTER)
    """Those among them that failed."""
    members: int = field(metadata=GAUGE)
    """Processes that asked within a second, when last heard."""
    down: int = field(metadata=GAUGE)
    """1 while tokens are granted without the server, because it is down."""


class _Waiter:
    """A task in the queue, and the tokens it asks for."""

    # Invariant: as in RateLimiter, the task acts on what it finds when it looks.
    __slots__ = ("_woken", "error", "late", "may_take", "moment", "tokens")

    def __init__(self, tokens: int, moment: float) -> None:
        self.tokens = tokens
        self.moment = moment
        self.may_take = False
        self.error: Exception | None = None
        self.late: float | None = None
        self._woken = anyio.Event()

    def wake(self) -> None:
        self._woken.set()

    def rest(self) -> anyio.Event:
        if self._woken.is_set():
            self._woken = anyio.Event()
        return self._woken


class RedisRateLimiter:
    """
    Limits how often work may start in all processes together: a token bucket kept by a server.

    The bucket starts full. In any span of ``t`` seconds all processes together grant at most
    ``burst + rate * (t + slack) / per`` tokens. Time is the server's, so the processes' clocks need
    not agree. Tokens are reserved in lots for the tasks that wait, each with the time at which it
    is due; a task that is cancelled while it waits leaves the token to the next.

    Made anywhere, and used inside the block of its store. Every process passes the same key, rate
    and burst.

    Args:
        store: The server, entered before the first call.
        key: What is limited. Limiters of one key on one server share one bucket.
        rate: Tokens that become available every ``per`` seconds, more than 0 and finite.
        per: The seconds that ``rate`` is meant for.
        burst: Tokens that the full bucket holds, the most that can be acquired in one call, a whole
            number of 1 or more. Default: ``rate`` rounded down, or 1 if that is more.
        slack: Seconds by which a token may be granted later than it is due, before it is lost. It
            has to cover the way to the server and back, and by how much the event loop is late.
        on_failure: What to do while the server is down. ``"closed"`` raises `StoreError`;
            ``"open"`` grants everything at once; ``"local"`` grants by a bucket of this process,
            whose rate and burst are divided by the number of processes that were busy when the
            server was last heard.
        name: For messages and the monitor. Default: ``key``.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: ``rate``, ``per`` or ``slack`` is not more than 0 or infinite, ``burst`` < 1,
            ``key`` is empty, or ``on_failure`` is unknown.

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

    # Invariants:
    # - _queue holds the tasks that wait, of the loop _loop alone; _wanted is the sum of their
    #   tokens;
    # - _stock holds the tokens reserved and not used, each with the time from which it may be
    #   granted and the time from which it is lost, both in order;
    # - _ready counts the tasks, the first in the queue, that were woken to take what is there;
    # - only the first in the queue sleeps until a time; only the task _supply asks the server, and
    #   it is there while tasks wait;
    # - a waiter takes its tokens in its own task, in the step in which it leaves the queue.
    __slots__ = (
        "__weakref__",
        "_ahead",
        "_burst",
        "_calls",
        "_cancelled",
        "_down",
        "_failed_calls",
        "_granted",
        "_granted_without_server",
        "_identity",
        "_interval",
        "_key",
        "_keys",
        "_local",
        "_loop",
        "_lost",
        "_name",
        "_needed",
        "_on_failure",
        "_per",
        "_processes",
        "_queue",
        "_rate",
        "_ready",
        "_refused",
        "_rejected",
        "_share",
        "_slack",
        "_slow",
        "_stock",
        "_store",
        "_supplying",
        "_wanted",
    )

    def __init__(
        self,
        store: Store,
        key: str,
        rate: float,
        *,
        per: float = 1.0,
        burst: int | None = None,
        slack: float = 0.1,
        on_failure: Literal["closed", "open", "local"] = "closed",
        name: str | None = None,
    ) -> None:
        check_key(key)
        self._rate = _positive("rate", rate, "Pass the tokens that come back every per seconds.")
        self._per = _positive("per", per, "Pass the seconds that rate is meant for.")
        self._slack = _positive(
            "slack", slack, "Pass a few times what the server and the event loop take, such as 0.1."
        )
        self._burst = (
            max(1, math.floor(rate))
            if burst is None
            else checks.count("burst", burst, way_out="Pass the most tokens to grant at once.")
        )
        self._on_failure = checks.one_of("on_failure", on_failure, ("closed", "open", "local"))
        self._store = store
        self._key = key
        self._keys = [f"mtaio:rate:{{{key}}}", f"mtaio:rate:{{{key}}}:busy"]
        self._name = name
        self._interval = per / rate
        self._ahead = self._slack * _AHEAD
        self._identity = ""
        self._loop: object = None
        self._queue: OrderedDict[_Waiter, None] = OrderedDict()
        self._wanted = self._ready = 0
        self._stock: deque[tuple[float, float]] = deque()
        self._needed: anyio.Event | None = None
        self._refused: float = math.inf
        self._supplying = False
        self._share = 1
        self._processes = 1
        self._slow = 0
        self._down = False
        self._local: RateLimiter | None = None
        self._calls = self._failed_calls = 0
        self._granted = self._granted_without_server = 0
        self._cancelled = self._rejected = self._lost = 0

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name!r} {self._rate:g} per {self._per:g} s, "
            f"burst={self._burst} at {self._store.name}>"
        )

    @property
    def name(self) -> str:
        """The name given to the limiter, or its key."""
        return self._key if self._name is None else self._name

    @property
    def key(self) -> str:
        """What is limited."""
        return self._key

    @property
    def rate(self) -> float:
        """Tokens every `per` seconds, of all processes together."""
        return self._rate

    @property
    def per(self) -> float:
        """The seconds that `rate` is meant for."""
        return self._per

    @property
    def burst(self) -> int:
        """Tokens the full bucket holds."""
        return self._burst

    @property
    def slack(self) -> float:
        """Seconds by which a token may be granted later than it is due."""
        return self._slack

    async def acquire(self, tokens: int = 1, *, timeout: float | None = None) -> None:
        """
        Wait for ``tokens``, behind all tasks of this process that asked before, and take them.

        A checkpoint. Cancelled, it leaves what was reserved for it to the next; if no task waits,
        it is lost.

        Args:
            tokens: How many, a whole number from 1 to ``burst``.
            timeout: The most seconds to wait; None for no limit. Whether they suffice is known when
                the server has been asked and no task is ahead.

        Raises:
            RateLimitTimeoutError: The wait does not fit into ``timeout``. A builtin
                ``TimeoutError`` too; ``retry_after`` has the seconds needed, as far as is known.
            StoreError: The server is down, with ``on_failure="closed"``; after its timeout at most.
            TypeError: ``tokens`` is not an int, or ``timeout`` not a number.
            ValueError: ``tokens`` is less than 1 or more than ``burst``; ``timeout`` is negative or
                NaN.
            RuntimeError: The store is not entered, or tasks of another running event loop wait.
        """
        self._check(tokens)
        checks.timeout("timeout", timeout)
        deadline = math.inf if timeout is None else clock.now() + timeout
        if self._down:
            await self._grant_without_server(tokens, deadline)
            return
        waiter = self._join(tokens, deadline)
        try:
            await self._wait(waiter, timeout, deadline)
        except StoreError:
            if self._on_failure == "closed":
                self._rejected += 1
                raise
        except RateLimitTimeoutError:
            self._rejected += 1
            raise
        except BaseException:
            self._cancelled += 1
            raise
        else:
            self._granted += 1
            return
        finally:
            self._leave(waiter)
        await self._grant_without_server(tokens, deadline)

    async def try_acquire(self, tokens: int = 1) -> bool:
        """
        Take ``tokens`` if they are there and no task of this process waits.

        A checkpoint; it asks the server. Cancelled, it may have taken them.

        Args:
            tokens: How many, a whole number from 1 to ``burst``.

        Returns:
            Whether they were taken.

        Raises:
            StoreError: The server is down, with ``on_failure="closed"``.
            TypeError, ValueError, RuntimeError: As for `acquire`.
        """
        self._check(tokens)
        self._attach()
        if self._down:
            return await self._try_without_server(tokens)
        if self._queue:
            await checkpoint()
            self._rejected += 1
            return False
        if self._take(tokens):
            await checkpoint()
            self._granted += 1
            return True
        try:
            taken, _ = await self._ask(tokens, tokens, 0)
        except StoreError as error:
            self._fail(error)
            if self._on_failure == "closed":
                self._rejected += 1
                raise
            return await self._try_without_server(tokens)
        self._granted += bool(taken)
        self._rejected += not taken
        return bool(taken)

    async def __aenter__(self) -> None:
        """Acquire one token."""
        await self.acquire()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Do nothing: tokens come back by themselves. Not a checkpoint."""

    def statistics(self) -> RedisRateLimiterStatistics:
        """Return what the limiter has done in this process. Not a checkpoint; from any thread."""
        return RedisRateLimiterStatistics(
            waiting=len(self._queue),
            granted=self._granted,
            granted_without_server=self._granted_without_server,
            cancelled=self._cancelled,
            rejected=self._rejected,
            reserved=len(self._stock),
            lost=self._lost,
            calls=self._calls,
            failed_calls=self._failed_calls,
            members=self._processes,
            down=int(self._down),
        )

    # The queue

    def _check(self, tokens: int) -> None:
        checks.count("tokens", tokens, way_out="Pass how many to take, a whole number.")
        if tokens > self._burst:
            msg = (
                f"cannot acquire {_amount(tokens)} of {self!r}: the bucket never holds more than "
                f"burst={self._burst}. Raise burst, or acquire in smaller parts."
            )
            raise ValueError(msg)

    def _attach(self) -> None:
        """Make sure that what is held belongs to the running loop."""
        loop = loops.current_loop()
        if loop is self._loop:
            return
        if self._queue and not loops.is_over(self._loop):
            raise loops.two_loops_error(self)
        self._loop = loop
        self._identity = uuid4().hex  # not before: a fork would have it too
        self._queue.clear()
        self._wanted = self._ready = 0
        self._stock.clear()
        self._supplying = self._down = False

    def _join(self, tokens: int, deadline: float) -> _Waiter:
        self._attach()
        waiter = _Waiter(tokens, deadline)
        if not self._supplying:
            self._store.start(self._supply)
            self._supplying = True
        self._queue[waiter] = None
        self._wanted += tokens
        self._poke()
        return waiter

    async def _wait(self, waiter: _Waiter, timeout: float | None, deadline: float) -> None:
        """Take the tokens when they are there."""
        while waiter.error is None:
            now = clock.now()
            self._drop(now)
            first = next(iter(self._queue)) is waiter
            due = math.inf
            if (first or waiter.may_take) and len(self._stock) >= waiter.tokens:
                due = self._stock[waiter.tokens - 1][0]
                if due <= now:
                    for _ in range(waiter.tokens):
                        self._stock.popleft()
                    return
            self._unready(waiter)
            if timeout is not None:
                if deadline < due < math.inf:
                    waiter.late = due - now
                if waiter.late is not None or now >= deadline:
                    raise self._late(waiter, timeout, deadline)
            woken = waiter.rest()
            until = min(due, deadline)
            if until == math.inf:
                await woken.wait()
            else:
                with anyio.CancelScope(deadline=clock.loop_deadline(until)):
                    await woken.wait()
        raise waiter.error

    def _leave(self, waiter: _Waiter) -> None:
        """Take a task out of the queue, and wake those that can go on."""
        if self._queue.pop(waiter, waiter) is waiter:  # the server is down, or its loop is over
            return
        self._wanted -= waiter.tokens
        self._unready(waiter)
        self._wake(clock.now())
        self._poke()

    def _wake(self, now: float) -> None:
        """Wake the first in the queue, and all behind it whose tokens may be granted now."""
        if self._ready:
            return  # the last of them does it
        stock = iter(self._stock)
        for waiter in self._queue:
            last = 0.0
            for _ in range(waiter.tokens):
                last = next(stock, (math.inf, math.inf))[0]
            if last > now:
                break
            waiter.may_take = True
            self._ready += 1
            waiter.wake()
        if self._queue:
            next(iter(self._queue)).wake()

    def _unready(self, waiter: _Waiter) -> None:
        """Count a task no longer as one that is about to take its tokens."""
        if waiter.may_take:
            waiter.may_take = False
            self._ready -= 1

    def _drop(self, now: float) -> None:
        """Give up the tokens that can no longer be granted in time."""
        stock = self._stock
        if not stock or stock[0][1] >= now:
            return
        while stock and stock[0][1] < now:
            stock.popleft()
            self._lost += 1
        self._poke()

    def _take(self, tokens: int) -> bool:
        """Take tokens that are there, when no task waits."""
        now = clock.now()
        self._drop(now)
        if len(self._stock) < tokens or self._stock[tokens - 1][0] > now:
            return False
        for _ in range(tokens):
            self._stock.popleft()
        return True

    def _late(self, waiter: _Waiter, timeout: float, deadline: float) -> RateLimitTimeoutError:
        wait = self._wanted * self._interval if waiter.late is None else waiter.late
        return RateLimitTimeoutError(
            f"{self!r} cannot grant {_amount(waiter.tokens)} within {timeout!r} s, only in about "
            f"{wait:.6g} s.",
            retry_after=wait,
            timeout=timeout,
            deadline=clock.loop_deadline(deadline),
            name=self.name,
        )

    # The server

    def _lacking(self) -> int:
        """Return how many tokens have to be reserved now; 0 if there is time."""
        held = len(self._stock)
        lacking = next(iter(self._queue)).tokens - held
        if lacking > 0:
            return lacking
        return int(2 * held <= min(self._share, self._wanted - 1))

    def _poke(self) -> None:
        """Have the server asked again if that is of use: for fewer tokens than it refused."""
        if self._needed is not None and (not self._queue or 0 < self._lacking() < self._refused):
            self._needed.set()

    async def _supply(self) -> None:
        """Reserve tokens for the tasks that wait, while there are any."""
        try:
            while self._queue:
                self._drop(clock.now())
                lacking = self._lacking()
                if not lacking:
                    await self._until_needed(math.inf)
                    continue
                first = next(iter(self._queue))
                of_use = max(lacking, min(self._wanted, _LOT) - len(self._stock))
                try:
                    taken, wait = await self._ask(lacking, of_use, self._ahead)
                except StoreError as error:
                    self._fail(error)
                    continue
                if taken:
                    self._wake(clock.now())
                    continue
                if wait > first.moment - clock.now() and first.tokens > len(self._stock):
                    first.late = wait
                    first.wake()
                self._refused = lacking
                await self._until_needed(wait - self._ahead)
                self._refused = math.inf
        finally:
            self._supplying = False
            self._refused = math.inf
            self._needed = None
            self._give_up(RuntimeError(f"{self._store!r} was left while {self!r} was in use."))

    async def _until_needed(self, seconds: float) -> None:
        """Wait until something has changed, or until as many seconds have passed."""
        self._needed = needed = anyio.Event()
        with anyio.move_on_after(None if seconds == math.inf else seconds):
            await needed.wait()
        self._needed = None

    async def _ask(self, needed: int, of_use: int, within: float) -> tuple[int, float]:
        """Reserve tokens; return how many, and else the seconds until they are due."""
        self._calls += 1
        sent = clock.now()
        try:
            taken, first, self._processes, self._share = await self._store.script(
                RESERVE,
                self._keys,
                [
                    *(self._interval * 1e6, self._burst, needed, of_use, len(self._stock)),
                    *(self._ahead * 1e6, within * 1e6, self._identity),
                ],
            )
        except StoreError:
            self._failed_calls += 1
            raise
        received = clock.now()
        if received - sent < self._slack:
            self._slow = 0
        else:
            self._slow += 1
            if self._slow >= _SLOW:
                self._failed_calls += 1
                msg = (
                    f"{self._store.name} took {received - sent:.3g} s to answer, more than "
                    f"slack={self._slack!r} of {self!r}, {self._slow} times in a row."
                )
                raise StoreError(msg, server=self._store.name)
        due = float(first) / 1e6
        if received - sent >= self._slack:
            self._lost += taken
            return 0, due
        if within == 0:
            return taken, due
        for number in range(taken):
            after = max(0.0, due + number * self._interval)
            self._stock.append((received + after, sent + after + self._slack))
        return taken, due

    # Without the server

    def _fail(self, error: StoreError) -> None:
        """Do what is to be done while the server is down."""
        if self._on_failure != "closed" and not self._down:
            self._store.start(self._probe)
            self._down = True
            if self._on_failure == "local":
                self._local = RateLimiter(
                    self._rate / self._processes,
                    per=self._per,
                    burst=max(1, self._burst // self._processes),
                    name=self.name,
                )
        self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """End the wait of every task."""
        for waiter in self._queue:
            self._unready(waiter)
            waiter.error = error
            waiter.wake()
        self._queue.clear()
        self._wanted = 0

    async def _probe(self) -> None:
        """Wait until the server answers again."""
        pause, most = _PROBE
        try:
            while True:
                await anyio.sleep(pause)
                pause = min(2 * pause, most)
                try:
                    self._calls += 1
                    await self._store.script(
                        RESERVE,
                        self._keys,
                        [self._interval * 1e6, self._burst, 0, 0, 0, self._ahead * 1e6, 0.0, ""],
                    )
                except StoreError:
                    self._failed_calls += 1
                else:
                    break
        finally:
            self._down = False
            self._slow = 0

    async def _grant_without_server(self, tokens: int, deadline: float) -> None:
        """Grant what is granted while the server is down."""
        local = self._local
        if local is None:
            await checkpoint()
        while local is not None and tokens:
            part = min(tokens, int(local.burst))
            left = None if deadline == math.inf else max(0.0, deadline - clock.now())
            try:
                await local.acquire(part, timeout=left)
            except RateLimitTimeoutError:
                self._rejected += 1
                raise
            except BaseException:
                self._cancelled += 1
                raise
            tokens -= part
        self._granted += 1
        self._granted_without_server += 1

    async def _try_without_server(self, tokens: int) -> bool:
        """Take what can be taken at once while the server is down."""
        await checkpoint()
        if self._local is not None:
            try:
                self._local.acquire_nowait(min(tokens, self._local.burst))
            except RateLimitError:
                self._rejected += 1
                return False
        self._granted += 1
        self._granted_without_server += 1
        return True

    @overload
    def limit(self, fn: Descriptor, /) -> Descriptor: ...
    @overload
    def limit(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...
    @overload
    def limit(self, /, *, tokens: int = 1, timeout: float | None = None) -> Decorator: ...
    def limit(self, fn: Any = None, /, *, tokens: int = 1, timeout: float | None = None) -> Any:
        """
        Decorate an async function or method so that each call acquires first.

        Used as ``@limiter.limit`` or ``@limiter.limit(tokens=3)``; name, signature and types stay.

        Args:
            fn: The function, when used without parentheses.
            tokens: As for `acquire`.
            timeout: As for `acquire`.

        Raises:
            TypeError: What is decorated is not an async function.
            ValueError: ``tokens`` or ``timeout`` could never be granted.
        """
        self._check(tokens)
        checks.timeout("timeout", timeout)

        def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
            async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                await self.acquire(tokens, timeout=timeout)
                return await fn(*args, **kwargs)

            return limited

        decorator = decorate(around, name=f"{type(self).__name__}.limit")
        return decorator if fn is None else decorator(fn)


def _positive(name: str, value: object, way_out: str) -> float:
    accepted = checks.number(name, value, way_out=way_out)
    if not 0 < accepted < math.inf:
        msg = f"{name}={value!r} is not a number that a shared limit can have. {way_out}"
        raise ValueError(msg)
    return accepted


def _amount(tokens: int) -> str:
    """Return so many tokens in words; ``tokens=`` would be masked in logs, as a secret's name."""
    return "1 token" if tokens == 1 else f"{tokens} tokens"
