"""
How often work may start across all processes: a token bucket kept by a server.

Promise: in any span of ``t`` seconds all processes together grant at most
``burst + rate * (t + slack) / per`` tokens, by the server's clock; within a process in the order of
asking. What one process reserves is bounded, so busy processes get about the same.
Cost: while tasks wait, one task in the store's block and one call to the server for all tokens that
fall due within half of ``slack``: the higher the rate, the fewer calls for each token.
Why tokens are reserved by their times: docs/en/design/redis.md.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, ParamSpec, TypeVar, overload

import anyio

from mtaio._internal import checks, clock
from mtaio._internal.blocks import async_only
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.copies import uncopied
from mtaio._internal.decorators import AsyncFunction, Decorator, Descriptor, decorate
from mtaio._internal.statistics import COUNTER, GAUGE
from mtaio.exceptions import RateLimitError, RateLimitTimeoutError, StoreError
from mtaio.redis._arguments import between, check_key, check_store, positive
from mtaio.redis._backoff import Backoff
from mtaio.redis._bucket import SharedBucket
from mtaio.redis._member import Member
from mtaio.redis._outage import Outage
from mtaio.redis._stock import Stock
from mtaio.redis._store import own_error, store_left_error
from mtaio.redis._tries import Tries
from mtaio.redis._wakeup import Wakeup
from mtaio.resources import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from mtaio.redis._store import Store

__all__ = ["RedisRateLimiter", "RedisRateLimiterStatistics"]

P = ParamSpec("P")
R = TypeVar("R")
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

_PROBE: Final = (0.1, 2.0)
"""Seconds between two calls to a server that is down: at first, and at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisRateLimiterStatistics:
    """What a `RedisRateLimiter` has done in this process."""

    waiting: int = field(metadata=GAUGE)
    """Tasks waiting."""
    granted: int = field(metadata=COUNTER)
    """Requests granted so far, however many tokens they asked for."""
    granted_without_server: int = field(metadata=COUNTER)
    """Those of `granted` that were granted while the server was down."""
    cancelled: int = field(metadata=COUNTER)
    """Requests cancelled while they waited."""
    rejected: int = field(metadata=COUNTER)
    """Requests refused so far: no token at once, none within the timeout, or a server that is
    down."""
    reserved: int = field(metadata=GAUGE)
    """Tokens that this process has reserved and not granted yet."""
    lost: int = field(metadata=COUNTER)
    """Tokens reserved but not granted in time."""
    calls: int = field(metadata=COUNTER)
    """Calls to the server."""
    failed_calls: int = field(metadata=COUNTER)
    """Calls to the server that failed."""
    members: int = field(metadata=GAUGE)
    """Processes that asked for tokens within one second, by the server's last answer."""
    down: int = field(metadata=GAUGE)
    """1 while tokens are granted without the server, because it is down."""


class _Waiter:
    """
    A task in the queue.

    Attributes:
        tokens: How many it asks for.
        asked: When.
        deadline: When it gives up.
        may_take: Whether it was woken to take tokens that are due.
        late: Seconds until its tokens are due, once that is known to be after its deadline.
        error: What ends its wait.
        wakeup: Where it sleeps.
    """

    # Invariant: as in RateLimiter, the task acts on what it finds when it looks.
    __slots__ = ("asked", "deadline", "error", "late", "may_take", "tokens", "wakeup")

    def __init__(self, tokens: int, asked: float, deadline: float) -> None:
        self.tokens = tokens
        self.asked = asked
        self.deadline = deadline
        self.may_take = False
        self.late: float | None = None
        self.error: Exception | None = None
        self.wakeup = Wakeup()


@uncopied
@async_only
class RedisRateLimiter:
    """
    Limits how often work may start across all processes: a token bucket kept by a server.

    The bucket starts full. In any span of ``t`` seconds all processes together are granted at most
    ``burst + rate * (t + slack) / per`` tokens, by the server's clock; the processes' clocks need
    not agree. A process reserves tokens in batches for the tasks that wait, each token for the time
    at which it is due. A task that is cancelled while it waits leaves its tokens to the next.

    May be created anywhere; used inside the block of its store. Every process has to pass the same
    key, rate, burst and slack.

    Args:
        store: The server, entered before the first call.
        key: What is limited. Limiters with the same key, rate and burst on the same server share
            one bucket.
        rate: Tokens that become available every ``per`` seconds, more than 0 and finite.
        per: The seconds to which ``rate`` refers.
        burst: The capacity of the bucket, and the most tokens that one call can acquire: a whole
            number, at least 1. Default: ``rate`` rounded down, but at least 1.
        slack: How many seconds after it is due a token may still be granted; then it is lost. Has
            to cover the round trip to the server and the delays of the event loop.
        on_failure: What to do while the server is down. ``"closed"`` raises `StoreError`.
            ``"open"`` grants everything at once. ``"local"`` uses a bucket of this process alone,
            with the rate and burst divided by the number of processes that were busy when the
            server last answered; `try_acquire` of more than that burst is refused.
        name: The name in messages and in the monitor. Default: ``key``.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``rate`` or ``per`` is not greater than 0 or is infinite, they are more than
            1,000,000 tokens a second or so few that the bucket takes years to fill, ``slack`` is
            not between 0.001 and 3600, ``burst`` is less than 1, ``key`` is empty, or
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
    # - _queue holds the tasks that wait, all of one loop; _wanted is the sum of their tokens;
    # - _ready counts the tasks at the head of the queue that were woken to take tokens;
    # - _tries holds the tasks that ask once; they came before all that wait;
    # - only the first in the queue sleeps until a token is due; only the task _supply asks the
    #   server for tokens, one call at a time, and it runs while there are any tasks to ask for;
    # - a waiter takes its tokens in its own task, in the step in which it leaves the queue.
    __slots__ = (
        "__weakref__",
        "_ahead",
        "_bucket",
        "_burst",
        "_calls",
        "_cancelled",
        "_down",
        "_failed_calls",
        "_failure",
        "_granted",
        "_granted_without_server",
        "_heard",
        "_interval",
        "_key",
        "_local",
        "_member",
        "_name",
        "_on_failure",
        "_outage",
        "_pending",
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
        "_tries",
        "_wakeup",
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
        check_store(store)
        check_key(key)
        self._rate = positive("rate", rate, way_out="Pass the tokens that come back every per s.")
        self._per = positive("per", per, way_out="Pass the seconds to which rate refers.")
        way_out = "Pass several times what the server takes to answer, such as 0.1 seconds."
        self._slack = between("slack", slack, *_SLACK, way_out=way_out)
        self._burst = (
            max(1, math.floor(rate))
            if burst is None
            else checks.count("burst", burst, way_out="Pass the most tokens to grant at once.")
        )
        self._on_failure = checks.one_of("on_failure", on_failure, ("closed", "open", "local"))
        self._store = store
        self._key = key
        self._name = key if name is None else name
        self._interval = _interval(rate, per, self._burst)
        self._ahead = slack * _AHEAD
        self._bucket = SharedBucket(
            store, key, interval=self._interval, burst=self._burst, ahead=self._ahead
        )
        self._member = Member()
        self._stock = Stock()
        self._share = 1
        self._processes = 1
        self._calls = self._failed_calls = 0
        self._granted = self._granted_without_server = 0
        self._cancelled = self._rejected = 0
        self._begin()

    def _begin(self) -> None:
        """Have no task, no token and no news of the server."""
        self._queue: OrderedDict[_Waiter, None] = OrderedDict()
        self._wanted = self._ready = 0
        self._tries = Tries()
        self._stock.clear()
        self._supplying = False
        self._wakeup = Wakeup()
        self._refused: float = math.inf
        self._slow = 0
        self._pending = False
        self._heard = -math.inf
        self._failure: StoreError | None = None
        self._outage = Outage(self._on_failure)
        self._down = False
        self._local: RateLimiter | None = None

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name!r} {self._rate:g} per {self._per:g} s, "
            f"burst={self._burst} at {self._store.name}>"
        )

    @property
    def name(self) -> str:
        """The name given to the limiter, or its key."""
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
        """The seconds to which `rate` refers."""
        return self._per

    @property
    def burst(self) -> int:
        """The tokens in the full bucket."""
        return self._burst

    @property
    def slack(self) -> float:
        """How many seconds after it is due a token may still be granted."""
        return self._slack

    async def acquire(self, tokens: int = 1, *, timeout: float | None = None) -> None:
        """
        Wait for ``tokens``, behind every task of this process that asked earlier, and take them.

        A checkpoint. If it is cancelled, the tokens reserved for it go to the next task; if no task
        waits, they are lost.

        Args:
            tokens: How many: a whole number from 1 to ``burst``.
            timeout: The most seconds to wait; 0 to ask the server once, as `try_acquire` does; None
                for no limit. A task that is first in the queue is refused as soon as the server has
                said that the wait would be longer.

        Raises:
            RateLimitTimeoutError: The wait does not fit into ``timeout``. It is a builtin
                ``TimeoutError`` too; ``retry_after`` estimates the seconds needed. Its message says
                so if the server has not answered in that time.
            StoreError: The server is down, with ``on_failure="closed"``. Raised within the store's
                timeout; within ``timeout`` if the call before failed too.
            TypeError: ``tokens`` is not an int, or ``timeout`` is not a number.
            ValueError: ``tokens`` is less than 1 or more than ``burst``; ``timeout`` is negative or
                NaN.
            RuntimeError: The store is not entered, or tasks of another running event loop wait.
        """
        self._check(tokens)
        checks.timeout("timeout", timeout)
        now = clock.now()
        deadline = math.inf if timeout is None else now + timeout
        if timeout == 0:
            late = await self._take_at_once(tokens)
            if late is not None:
                msg = f"{self._refusal(tokens, timeout)}, only in about {late:.6g} s."
                raise self._timed_out(msg, timeout, deadline, late)
            return
        if self._down:
            await self._grant_without_server(tokens, deadline)
            return
        waiter = self._join(tokens, now, deadline)
        try:
            await self._wait(waiter, timeout)
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

        A checkpoint: it asks the server, by one call for all tasks that try at the same time. If it
        is cancelled, the tokens may be taken all the same.

        Args:
            tokens: How many: a whole number from 1 to ``burst``.

        Returns:
            Whether they were taken.

        Raises:
            StoreError: The server is down, with ``on_failure="closed"``.
            TypeError, ValueError, RuntimeError: As for `acquire`.
        """
        self._check(tokens)
        return await self._take_at_once(tokens) is None

    async def __aenter__(self) -> None:
        """Acquire one token."""
        await self.acquire()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Do nothing: tokens are not given back. Not a checkpoint."""

    def wrap(self, then: Callable[[C], Awaitable[Any]]) -> Callable[[C], Awaitable[Any]]:
        """
        Return an async function that acquires a token, and then calls ``then``.

        With it the limiter is a part of a `mtaio.resilience.Pipeline`.
        """

        async def run(call: C) -> Any:
            await self.acquire()
            return await then(call)

        return run

    def statistics(self) -> RedisRateLimiterStatistics:
        """Return what the limiter has done here. Not a checkpoint; any thread may call it."""
        return RedisRateLimiterStatistics(
            waiting=len(self._queue),
            granted=self._granted,
            granted_without_server=self._granted_without_server,
            cancelled=self._cancelled,
            rejected=self._rejected,
            reserved=len(self._stock),
            lost=self._stock.lost,
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
        """Forget what was held in another event loop."""
        if self._member.attach(self, busy=bool(self._queue or self._tries)):
            self._begin()

    def _join(self, tokens: int, asked: float, deadline: float) -> _Waiter:
        """Put the running task at the end of the queue, and have it supplied with tokens."""
        self._attach()
        waiter = _Waiter(tokens, asked, deadline)
        self._start()
        self._queue[waiter] = None
        self._wanted += tokens
        self._poke()
        return waiter

    async def _wait(self, waiter: _Waiter, timeout: float | None) -> None:
        """Take the tokens when they are due."""
        while waiter.error is None:
            now = clock.now()
            self._drop(now)
            due = math.inf
            if waiter.may_take or next(iter(self._queue)) is waiter:
                due = self._stock.due(waiter.tokens)
                if due <= now:
                    self._stock.take(waiter.tokens)
                    return
            self._unready(waiter)
            if timeout is not None:
                if waiter.deadline < due < math.inf:
                    waiter.late = due - now
                if waiter.late is not None or now >= waiter.deadline:
                    raise self._late(waiter, timeout)
            await waiter.wakeup.sleep(min(due, waiter.deadline))
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
        """Wake the first in the queue, and those behind it whose tokens may be granted now too."""
        if self._ready:
            return  # the last of these will do it
        tokens = 0
        for waiter in self._queue:
            tokens += waiter.tokens
            if self._stock.due(tokens) > now:
                break
            waiter.may_take = True
            self._ready += 1
            waiter.wakeup.wake()
        if self._queue:
            next(iter(self._queue)).wakeup.wake()

    def _unready(self, waiter: _Waiter) -> None:
        """Count a task no longer as one that is about to take its tokens."""
        if waiter.may_take:
            waiter.may_take = False
            self._ready -= 1

    def _drop(self, now: float) -> None:
        """Give up the tokens that can no longer be granted in time."""
        if self._stock.drop(now):
            self._poke()

    def _late(self, waiter: _Waiter, timeout: float) -> RateLimitTimeoutError | StoreError:
        """Return the error for a task whose tokens come too late, if they come at all."""
        what = self._refusal(waiter.tokens, timeout)
        wait = waiter.late
        if wait is None:
            if self._failure is not None:
                return own_error(self._failure, what)
            if self._pending and self._heard <= waiter.asked:
                msg = f"{what}: {self._store.name} has not answered yet."
                return self._timed_out(msg, timeout, waiter.deadline, self._store.timeout)
            wait = self._wanted * self._interval * self._processes
        total = clock.now() - waiter.asked + wait
        msg = f"{what}, only in about {total:.6g} s."
        return self._timed_out(msg, timeout, waiter.deadline, wait)

    def _refusal(self, tokens: int, timeout: float) -> str:
        return f"{self!r} cannot grant {_amount(tokens)} within {timeout!r} s"

    def _timed_out(
        self, message: str, timeout: float, deadline: float, wait: float
    ) -> RateLimitTimeoutError:
        return RateLimitTimeoutError(
            message,
            retry_after=wait,
            timeout=timeout,
            deadline=clock.loop_deadline(deadline),
            name=self.name,
        )

    # Those that ask once

    async def _take_at_once(self, tokens: int) -> float | None:
        """
        Take tokens if they are there.

        Returns:
            None if they were taken, else the seconds until they would be there.
        """
        self._attach()
        try:
            if not self._down:
                return self._counted(await self._ask_once(tokens))
        except StoreError:
            if self._on_failure == "closed":
                self._rejected += 1
                raise
        await checkpoint()
        late = self._take_without_server(tokens)
        self._granted_without_server += late is None
        return self._counted(late)

    def _counted(self, late: float | None) -> float | None:
        self._granted += late is None
        self._rejected += late is not None
        return late

    async def _ask_once(self, tokens: int) -> float | None:
        """Take tokens that are left over, or those that the server has now."""
        if self._queue:
            await checkpoint()
            return (self._wanted + tokens) * self._interval
        now = clock.now()
        self._drop(now)
        if not self._tries and self._stock.due(tokens) <= now:
            self._stock.take(tokens)
            await checkpoint()
            return None
        self._start()
        request = self._tries.add(tokens)
        self._wakeup.wake()
        try:
            await request.answered.wait()
        except BaseException:
            self._cancelled += 1
            self._tries.discard(request)
            raise
        if request.error is not None:
            raise request.error
        return request.wait

    async def _supply_tries(self) -> None:
        """Ask the server for those that ask once, and answer them."""
        tries = self._tries.alike()
        each = tries[0].tokens
        taken, due = await self._reserve(each, each * len(tries), within=0.0)
        if taken:
            due += (taken + each - 1) * self._interval
        elif due <= 0:  # they were there, and came too late
            due = each * self._interval
        self._stock.lost += each * self._tries.answer(tries, taken // each, due)

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
        if self._wakeup.asleep and (not self._queue or 0 < self._lacking() < self._refused):
            self._wakeup.wake()

    def _start(self) -> None:
        """Have the server asked."""
        if not self._supplying:
            self._store.start(self._supply)
            self._supplying = True

    async def _supply(self) -> None:
        """Ask the server for the tasks that ask once or wait, while there are any."""
        try:
            while self._tries or self._queue:
                try:
                    if self._tries:
                        await self._supply_tries()
                    else:
                        await self._supply_queue()
                except StoreError as error:
                    self._fail(error)
        finally:
            self._supplying = False
            self._refused = math.inf
            self._give_up(store_left_error(self._store, self))

    async def _supply_queue(self) -> None:
        """Reserve tokens for the tasks that wait, or sleep until there are some to be had."""
        self._drop(clock.now())
        lacking = self._lacking()
        if not lacking:
            await self._wakeup.sleep(math.inf)
            return
        first = next(iter(self._queue))
        of_use = max(lacking, min(self._wanted, _LOT) - len(self._stock))
        taken, wait = await self._reserve(lacking, of_use, within=self._ahead)
        now = clock.now()
        if taken:
            self._wake(now)
            return
        if wait > first.deadline - now and first.tokens > len(self._stock):
            first.late = wait
            first.wakeup.wake()
        self._refused = lacking
        await self._wakeup.sleep(now + wait - self._ahead)
        self._refused = math.inf

    async def _reserve(self, needed: int, of_use: int, *, within: float) -> tuple[int, float]:
        """
        Ask the server for tokens; those that are due later than now go to the stock.

        Returns:
            How many were reserved, and the seconds until the first, or all needed, are due.
        """
        self._calls += 1
        sent = clock.now()
        self._pending = True
        try:
            answer = await self._bucket.reserve(
                self._member.name, needed, of_use=of_use, held=len(self._stock), within=within
            )
        except StoreError:
            self._failed_calls += 1
            raise
        finally:
            self._pending = False
        self._processes, self._share = answer.processes, answer.share
        self._heard = received = clock.now()
        if received - sent >= self._slack:
            self._stock.lost += answer.tokens
            self._answered_late(received - sent)
            return 0, answer.due
        self._slow = 0
        self._failure = None
        if within:
            due = [max(0.0, answer.due + count * self._interval) for count in range(answer.tokens)]
            self._stock.add(due, received, sent + self._slack)
        return answer.tokens, answer.due

    def _answered_late(self, seconds: float) -> None:
        """Count an answer whose tokens came too late; raise an error if that is the rule."""
        self._slow += 1
        if self._slow >= _SLOW:
            self._failed_calls += 1
            msg = (
                f"{self._store.name} took {seconds:.3g} s to answer, more than "
                f"slack={self._slack!r} of {self!r}, {self._slow} times in a row. Raise slack."
            )
            raise StoreError(msg, server=self._store.name)

    # Without the server

    def _fail(self, error: StoreError) -> None:
        """Do what is to be done while the server is down."""
        if self._on_failure == "closed":
            self._failure = error
        else:
            self._store.start(self._probe)
            self._down = True
            self._outage.tell(self, error)
            if self._on_failure == "local":
                self._share_without_server()
        self._give_up(error)

    def _share_without_server(self) -> None:
        """Have a bucket of this process's own, with no more in it than was left in the last."""
        rate, burst = self._rate / self._processes, max(1, self._burst // self._processes)
        before = self._local
        if before is not None and (before.rate, before.burst) == (rate, burst):
            return
        self._local = RateLimiter(rate, per=self._per, burst=burst, name=self.name)
        if before is not None:  # what it had granted is not there again
            gone = burst - max(0.0, before.statistics().tokens)
            if gone > 0:
                self._local.acquire_nowait(gone)

    def _give_up(self, error: Exception) -> None:
        """End the wait of every task."""
        for waiter in self._queue:
            self._unready(waiter)
            waiter.error = own_error(error)
            waiter.wakeup.wake()
        self._queue.clear()
        self._wanted = 0
        for request in self._tries.refuse():
            request.error = own_error(error)
            request.answered.set()

    async def _probe(self) -> None:
        """Wait until the server answers again."""
        pauses = Backoff(*_PROBE)
        try:
            while True:
                await anyio.sleep(pauses.next())
                try:
                    self._calls += 1
                    await self._bucket.ping()
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

    def _take_without_server(self, tokens: int) -> float | None:
        """Take what can be taken at once while the server is down; as `_take_at_once`."""
        if self._local is not None:
            try:
                self._local.acquire_nowait(tokens)
            except RateLimitError as error:
                return error.retry_after
            except ValueError:  # more than its burst: only acquire() waits for all parts
                return tokens * self._local.per / self._local.rate
        return None

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

    __call__ = limit
    """``@limiter`` is ``@limiter.limit``."""


def _interval(rate: float, per: float, burst: int) -> float:
    """Return the seconds for one token, if the server can keep them."""
    interval = per / rate
    if interval < _FASTEST:
        msg = (
            f"rate={rate!r} per {per!r} s is more than a server can count, which is 1,000,000 "
            f"tokens a second. For no limit, do not acquire."
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
