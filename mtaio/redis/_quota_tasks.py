"""
The tasks of a process that wait for a `RedisQuota`, and the one that calls the server for them.

Promise: only that task grants anything, and it hands over what was granted, so that a task can be
cancelled at any moment: what it was granted then goes back. Corrections, holds and observations are
reported with the next call, which is made at once.
Cost: one call at a time, for all tasks that wait and all that is to be reported.
What the server does with it: mtaio/redis/_levels.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio

from mtaio._internal import checks, clock
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, PARTS, SECONDS, snapshot
from mtaio._internal.wait_queue import WaitQueue
from mtaio.exceptions import LimitTimeoutError, RateLimitError, StoreError
from mtaio.redis._levels import Answer, Correction, LimitSpec, Report, SharedLevels
from mtaio.redis._outage import Backoff
from mtaio.redis._rate import PROBE, Tally
from mtaio.redis._server_task import ServerTask, sleep
from mtaio.redis._store import (
    Store,
    check_key,
    check_store,
    own_error,
    sendable,
    start,
    store_left_error,
)
from mtaio.resources import Quota, RateLimiter
from mtaio.statistics import QuotaLimitStatistics

if TYPE_CHECKING:
    from mtaio._internal.backend import Waiter

__all__ = ["QuotaTasks", "RedisQuotaStatistics"]

_Costs: TypeAlias = tuple[float, ...]

_LOOK: Final = 1.0
"""Seconds after which a process that waits calls again: others may have given something back."""

_LOT: Final = 64
"""The most requests in one call."""

_CORRECTIONS: Final = 256
"""The most corrections in one call."""

_RESERVED: Final = ("key", "timeout", "used")
"""What `RedisQuota.take` and its relatives have as arguments of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisQuotaStatistics:
    """What a `RedisQuota` has done in this process, and how it was at the server's last answer."""

    waiting: int = field(metadata=GAUGE)
    """Tasks waiting."""
    in_flight: int = field(metadata=GAUGE)
    """Blocks of this process that have not been left."""
    acquired: int = field(metadata=COUNTER)
    """Requests granted so far, whatever they took."""
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
    held_seconds: float = field(metadata=GAUGE)
    """Seconds until a `RedisQuota.hold` ends, in whatever process; 0 if nothing is held."""
    server_calls: int = field(metadata=COUNTER)
    """Calls to the server."""
    server_failures: int = field(metadata=COUNTER)
    """Calls to the server that failed."""
    members: int = field(metadata=GAUGE)
    """Processes that called the server within ten seconds, by its last answer."""
    down: bool = field(metadata=GAUGE)
    """Whether requests are granted without the server, because it is down."""
    limits: Mapping[str, QuotaLimitStatistics] = field(metadata=PARTS)
    """Each limit, by its name; its tokens are those of all processes at the last answer."""


class Grant:
    """
    What a request was granted: what a `mtaio.resources.Taken` keeps of it.

    Args:
        number: The number of the server's call that granted it; 0 without the server.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class _Request:
    """
    What a task in the queue waits for, and what it was woken with.

    Attributes:
        costs: What it takes of each limit.
        asked: When.
        deadline: When it gives up.
        once: Whether the server's next answer ends its wait.
        grant: What it was granted.
        late: Seconds until it would be granted, if that is too late.
        error: What ended its wait.
    """

    __slots__ = ("asked", "costs", "deadline", "error", "grant", "late", "once")

    def __init__(self, costs: _Costs, asked: float, deadline: float, *, once: bool) -> None:
        self.costs = costs
        self.asked = asked
        self.deadline = deadline
        self.once = once
        self.grant: Grant | None = None
        self.late: float | None = None
        self.error: Exception | None = None


class _Count:
    """What this process has taken of one limit."""

    __slots__ = ("acquired", "in_flight", "used")

    def __init__(self) -> None:
        self.acquired: float = 0
        self.in_flight: float = 0
        self.used: float = 0


class QuotaTasks:
    """
    Several limits of one key, in one process: see `RedisQuota` for the arguments.

    Args:
        store: The server.
        key: What is limited.
        per: The seconds that the numbers are meant for.
        start: The share of each bucket that is there at first.
        on_failure: What to do while the server is down.
        name: The name in messages.
        limits: The limits by their names.
    """

    # Invariants:
    # - _queue holds the tasks that wait, all of one loop; one is woken with what it was granted,
    #   with its error, or, if it asked once, without either, and with that it has left;
    # - only the task _serve grants anything, and while not _down it alone calls the server, one
    #   call at a time; while _down the task _look_out does that;
    # - _first is the task whose request was refused by the last answer, _ready when it may be
    #   granted, and _due when to call for it; while another is first in the queue, or there is
    #   _news, the server is called;
    # - _in_line says that the server may have this process in its line;
    # - _corrections, _hold_until, _limit and _remaining are what it has not been told.
    __slots__ = (
        "__weakref__",
        "_alone",
        "_corrections",
        "_counts",
        "_down",
        "_due",
        "_first",
        "_held_until",
        "_hold_until",
        "_in_flight",
        "_in_line",
        "_key",
        "_levels",
        "_limit",
        "_limits",
        "_name",
        "_news",
        "_numbers",
        "_on_failure",
        "_ones",
        "_owed",
        "_processes",
        "_queue",
        "_ready",
        "_remaining",
        "_server",
        "_shared",
        "_store",
        "_tally",
    )

    def __init__(
        self,
        store: Store,
        key: str,
        *,
        per: float,
        start: float,
        on_failure: str,
        name: str | None,
        limits: Mapping[str, object],
    ) -> None:
        check_store(store)
        check_key(key)
        way_out = "Name each limit, as in RedisQuota(store, key, requests=120, tokens=40_000)."
        if not limits:
            msg = f"a RedisQuota without limits limits nothing. {way_out}"
            raise TypeError(msg)
        for each in _RESERVED:
            if each in limits:
                msg = (
                    f"a limit cannot be called {each!r}, which is an argument of part(). {way_out}"
                )
                raise TypeError(msg)
        way_out = "Pass the share of each limit that is available at first, from 0 to 1."
        checks.between("start", start, 0, 1, way_out=way_out)
        self._on_failure = checks.one_of("on_failure", on_failure, ("raise", "allow", "local"))
        self._limits = [_limit(each, value, per) for each, value in limits.items()]
        self._store = store
        self._key = key
        self._name = key if name is None else name
        self._shared = SharedLevels(store, key, self._limits, start=start, patience=2 * _LOOK)
        self._ones: _Costs = (1,) * len(limits)
        self._numbers: _Costs = tuple([limit.tokens for limit in self._limits])
        self._levels: _Costs = tuple([limit.tokens * start for limit in self._limits])
        self._counts = [_Count() for _ in limits]
        self._queue: WaitQueue[_Request] = WaitQueue()
        self._server = ServerTask(store, self._queue, self._on_failure)
        self._tally = Tally()
        self._in_flight = 0
        self._processes = 1
        self._held_until = -math.inf
        self._hold_until = -math.inf
        self._limit: dict[str, float] = {}
        self._remaining: dict[str, float] = {}
        self._corrections: list[Correction] = []
        self._owed: list[float] = [0.0] * len(limits)
        self._begin()

    def _begin(self) -> None:
        """Have no task, and no news of the server: they belong to an event loop."""
        self._first: Waiter | None = None
        self._due = self._ready = -math.inf
        self._news = self._in_line = self._down = False
        self._alone: Quota | None = None

    def __repr__(self) -> str:
        limits = ", ".join([f"{each.name} {each.tokens:g}/{each.per:g} s" for each in self._limits])
        return f"<RedisQuota {self._name!r} of {limits} at {self._store.name}>"

    @property
    def name(self) -> str:
        """The name given to the quota, or its key."""
        return self._name

    @property
    def key(self) -> str:
        """What is limited."""
        return self._key

    @property
    def store(self) -> Store:
        """The server."""
        return self._store

    @property
    def rate(self) -> float:
        """How many requests a second the slowest limit allows that cost one of each."""
        pairs = zip(self._numbers, self._limits, strict=True)
        return min(number / limit.per for number, limit in pairs)

    def record_durations(self) -> None:
        """Keep a histogram of the waits from now on."""
        self._tally.wait_times.record()

    def statistics(self) -> RedisQuotaStatistics:
        """Return what the quota has done here. Not a checkpoint; any thread may call it."""
        return snapshot(
            RedisQuotaStatistics,
            self,
            self._server,
            self._tally,
            self._tally.wait_times,
            waiting=len(self._queue),
            held_seconds=max(0.0, max(self._held_until, self._hold_until) - clock.now()),
            members=self._processes,
            limits={
                limit.name: QuotaLimitStatistics(
                    rate=number,
                    burst=max(1, number),
                    tokens=level,
                    in_flight=count.in_flight,
                    acquired=count.acquired,
                    used=count.used,
                )
                for limit, number, level, count in zip(
                    self._limits, self._numbers, self._levels, self._counts, strict=True
                )
            },
        )

    # ---- for the blocks: see `Takes` of mtaio/resources/_taken.py ----

    async def try_grant(self, costs: _Costs | None) -> bool:
        """Take so much, one of each if None, if it is there and nobody waits."""
        request = await self._wait(costs or self._ones, 0)
        self._tally.rejected += request.grant is None
        return request.grant is not None

    async def grant(self, costs: _Costs, timeout: float | None) -> Grant:
        """Wait for tokens of each limit, and take them."""
        request = await self._wait(costs, timeout)
        if request.grant is None:
            self._tally.timed_out += 1
            raise self._late(request, 0.0 if timeout is None else timeout)
        return request.grant

    def note_in_flight(self, costs: _Costs, sign: int) -> None:
        """Count what a block holds that begins (1) or ends (-1)."""
        self._in_flight += sign
        for count, cost in zip(self._counts, costs, strict=True):
            count.in_flight += sign * cost

    def correct(self, grant: Grant, before: _Costs, after: _Costs) -> None:
        """Count a grant as so much of each limit, and no longer as so much."""
        unused = tuple([one - two for one, two in zip(before, after, strict=True)])
        self._queue.call_there(partial(self._correct, grant, unused))

    def _correct(self, grant: Grant, unused: _Costs) -> None:
        for count, tokens in zip(self._counts, unused, strict=True):
            count.used -= tokens
        self._give_back(grant, unused)

    def costs(self, cost: Mapping[str, float], *, default: _Costs) -> _Costs:
        """Return the cost for each limit, in their order; raise for a name that is none."""
        self.check_names(cost)
        way_out = "Pass how much of the limit, 0 or more."
        for name, value in cost.items():
            if checks.at_least(name, value, 0, way_out=way_out) == math.inf:
                msg = f"{name}={value!r} is more than there can be. {way_out}"
                raise ValueError(msg)
        pairs = zip(self._limits, default, strict=True)
        return tuple([cost.get(limit.name, other) for limit, other in pairs])

    def describe(self, costs: _Costs) -> str:
        """Return a cost in words; ``tokens=`` would be masked in logs, as a secret's name."""
        pairs = zip(self._limits, costs, strict=True)
        return " and ".join(f"{cost!r} {limit.name}" for limit, cost in pairs)

    # ---- what the service says ----

    def hold(self, seconds: float) -> None:
        """Grant nothing for so long."""
        self._queue.call_there(partial(self._hold, seconds))

    def observe(self, limit: dict[str, float], remaining: dict[str, float]) -> None:
        """Follow what the service says."""
        self._queue.call_there(partial(self._observe, limit, remaining))

    def _hold(self, seconds: float) -> None:
        self._hold_until = max(self._hold_until, clock.now() + seconds)
        if self._alone is not None:
            self._alone.hold(seconds)
        self._tell()

    def _observe(self, limit: dict[str, float], remaining: dict[str, float]) -> None:
        self._limit |= limit
        self._remaining |= remaining
        if self._alone is not None:
            self._alone.observe(remaining=remaining)
        self._tell()

    # ---- the queue ----

    def check_names(self, names: Mapping[str, object]) -> None:
        known = [limit.name for limit in self._limits]
        for name in names:
            if name not in known:
                msg = f"{self!r} has no limit {name!r}. Pass one of {', '.join(known)}."
                raise TypeError(msg)

    def checked(self, cost: Mapping[str, float]) -> _Costs:
        """Return the cost for each limit if it can be granted at some time, or raise."""
        costs = self.costs(cost, default=self._ones)
        error = self._never(costs)
        if error:
            raise ValueError(error)
        return costs

    def _never(self, costs: _Costs) -> str:
        """Return why so much is never granted; "" if it may be."""
        for limit, number, cost in zip(self._limits, self._numbers, costs, strict=True):
            if cost > max(1, number):
                return (
                    f"cannot take {cost!r} {limit.name} of {self!r}: it never has more than "
                    f"{max(1, number)!r} at once. Raise the limit, or ask for less in smaller "
                    f"parts."
                )
        return ""

    async def _wait(self, costs: _Costs, timeout: float | None) -> _Request:
        """Wait in the queue; return the request with its grant, or, if it is too late, without."""
        if self._server.attach(self):
            self._begin()
        now = clock.now()
        deadline = math.inf if timeout is None else now + timeout
        request = _Request(costs, now, deadline, once=timeout == 0)
        self._server.start(self._serve)
        if request.once and self._first in self._queue.waiters:
            request.late = max(0.0, self._ready - now)  # others wait, and come first
            await checkpoint()
            return request
        waiter = self._queue.join(request)
        if request.once or self._down or len(self._queue) == 1:
            self._tell()
        try:
            await sleep(waiter, math.inf if request.once else deadline)
        except BaseException:
            self._tally.cancelled += 1
            self._leave(waiter)
            if request.grant is not None:
                self._give_back(request.grant, costs)
            raise
        if request.error is not None:
            self._tally.rejected += 1
            raise request.error
        if request.grant is None:
            self._leave(waiter)
        else:
            self._count(request)
        return request

    def _count(self, request: _Request) -> None:
        tally = self._tally
        tally.acquired += 1
        tally.acquired_without_server += not (request.grant and request.grant.number)
        tally.wait_times.count(clock.now() - request.asked)
        for count, cost in zip(self._counts, request.costs, strict=True):
            count.acquired += cost
            count.used += cost

    def _leave(self, waiter: Waiter) -> None:
        """Take a task out of the queue, and have the next one asked for if it was first."""
        was_first = next(iter(self._queue.waiters), None) is waiter
        self._queue.leave(waiter)
        if was_first and self._queue.runs_here():
            self._tell()

    def _give_back(self, grant: Grant, unused: _Costs) -> None:
        """Give back what was granted, unless that was without the server."""
        if grant.number:
            self._corrections.append(Correction(grant.number, unused))
            self._tell()

    def _late(self, request: _Request, timeout: float) -> LimitTimeoutError:
        """
        Return the error for a request whose tokens come too late.

        Raises:
            StoreError: The server is down, and that is why.
        """
        what = f"{self!r} cannot grant {self.describe(request.costs)} within {timeout!r} s"
        wait, msg = request.late, ""
        if wait is None:
            wait = max(0.0, self._ready - clock.now())
            msg = "" if self._down else self._server.explain(what, request.asked)
        return LimitTimeoutError(
            msg or f"{what}, only in about {clock.now() - request.asked + wait:.6g} s.",
            retry_after=wait,
            timeout=timeout,
            deadline=clock.loop_deadline(request.deadline),
            name=self._name,
        )

    # ---- the server ----

    def _tell(self) -> None:
        """Have the server called: there is something to report, or to ask for."""
        self._news = True
        self._server.wake()

    async def _serve(self) -> None:
        """Call the server, or do without it, whenever that is of use."""
        process = self._server.process
        try:
            while True:
                while not self._news and self._next_call() > clock.now():
                    await self._server.sleep(self._next_call())
                if self._down:
                    self._grant_alone()
                else:
                    await self._exchange()
        finally:
            # Else it is thrown away with its loop, and no tracer sees where it goes.
            if self._server.is_current(process):  # pragma: no branch - as said
                await self._say_goodbye()

    def _next_call(self) -> float:
        """Return when the server is to be called for those that wait, if there is no news."""
        first = next(iter(self._queue.waiters), None)
        if first is None:
            return math.inf
        return self._due if first is self._first else -math.inf

    async def _exchange(self) -> None:
        """
        Call the server once, and act on its answer.

        While the call is under way, tasks join the queue, are cancelled, and settle. What they
        change sets ``_news`` again, for the next call.
        """
        # 1. What is reported, and who is asked for. The server may come to know of these even if no
        #    answer arrives: then they leave its line with the next call, or after some seconds.
        self._news = False
        asks = [*self._queue.waiters.items()][:_LOT]
        self._in_line = bool(asks)
        report, hold = self._report([request.costs for _, request in asks])
        # 2. The call.
        try:
            answer = await self._server.call(self._shared.exchange(self._server.process, report))
        except StoreError as error:
            self._fail(error)
            return
        # 3. What was reported is not reported again; and what the server says of the limits.
        self._forget(report, hold)
        now = clock.now()
        self._follow(answer, now)
        # 4. The first requests are granted, and the others that asked once are refused.
        granted = asks[: answer.granted]
        for waiter, request in granted:
            grant = Grant(answer.number)
            if waiter not in self._queue.waiters:  # it was cancelled during the call
                self._give_back(grant, request.costs)
                continue
            request.grant = grant
            if not self._queue.wake(waiter):
                request.grant = None
                self._give_back(grant, request.costs)
        for waiter, request in asks[answer.granted :]:
            late = now + answer.wait > request.deadline and waiter is asks[answer.granted][0]
            if waiter in self._queue.waiters and (request.once or late):
                request.late = answer.wait
                self._queue.wake(waiter)
        # 5. When to call next: for the one that was refused. If that has left, or if all were
        #    granted, whoever is first now is another, and the server is called at once.
        self._in_line = len(granted) < len(asks)
        self._first = asks[answer.granted][0] if self._in_line else None
        self._ready = now + answer.wait
        self._due = min(self._ready, now + _LOOK)
        if self._in_line and not self._queue.waiters:
            self._news = True  # out of the line

    def _report(self, requests: list[_Costs]) -> tuple[Report, float]:
        """Return what is reported to the server next, and until when it is to hold everything."""
        hold, now = self._hold_until, clock.now()
        corrections = self._corrections[:_CORRECTIONS]
        report = Report(
            max(0.0, hold - now) if hold > -math.inf else None,
            dict(self._limit),
            dict(self._remaining),
            corrections,
            requests,
        )
        return report, hold

    def _forget(self, report: Report, hold: float) -> None:
        """Forget what the server has been told."""
        if self._hold_until == hold:
            self._hold_until = -math.inf
        self._limit = _without(self._limit, report.limit)
        self._remaining = _without(self._remaining, report.remaining)
        del self._corrections[: len(report.corrections)]
        if self._corrections:
            self._news = True

    def _follow(self, answer: Answer, now: float) -> None:
        """Note how the limits are at the server."""
        self._processes = answer.processes
        self._held_until = now + answer.held
        self._levels = answer.levels
        if answer.limits != self._numbers:
            self._numbers = answer.limits
            for waiter, request in [*self._queue.waiters.items()]:
                never = self._never(request.costs)
                if never:
                    request.error = RateLimitError(never, retry_after=math.inf, name=self._name)
                    self._queue.wake(waiter)

    # ---- without the server ----

    def _fail(self, error: StoreError) -> None:
        """Do what is to be done while the server is down."""
        # What was to come back counts as used: the server may have been told.
        self._corrections = [
            Correction(each.number, tuple([min(0.0, tokens) for tokens in each.unused]))
            for each in self._corrections
            if min(each.unused) < 0
        ][-_CORRECTIONS:]
        self._remaining.clear()  # that will be over
        self._first = None
        if self._on_failure == "raise":
            self._server.failure = error
            for waiter, request in [*self._queue.waiters.items()]:
                request.error = own_error(error)
                self._queue.wake(waiter)
            return
        self._server.log(self, error)
        self._down = self._news = True
        if self._on_failure == "local":
            self._alone = self._share_of_this_process()
        start(self._store, self._look_out)

    def _share_of_this_process(self) -> Quota:
        """Return a quota of this process alone, with its part of what was there."""
        limits: dict[str, Any] = {}
        for limit, number, level in zip(self._limits, self._numbers, self._levels, strict=True):
            burst = max(1, number)
            own = RateLimiter(number / self._processes, per=limit.per, burst=burst, slack=0)
            gone = burst - max(0.0, level) / self._processes
            if gone > 0:
                own.acquire_nowait(gone)
            limits[limit.name] = own
        quota = Quota(**limits)
        held = max(self._held_until, self._hold_until) - clock.now()
        if held > 0:
            quota.hold(held)
        return quota

    def _grant_alone(self) -> None:
        """Grant what the quota of this process alone has, to the first in the queue."""
        self._news = False
        waiters = self._queue.waiters
        while waiters:
            waiter, request = next(iter(waiters.items()))
            if self._alone is not None:
                pairs = zip(self._limits, request.costs, strict=True)
                try:
                    self._alone.acquire_nowait(**{limit.name: cost for limit, cost in pairs})
                except RateLimitError as error:
                    self._first, self._due = waiter, clock.now() + error.retry_after
                    self._ready = self._due
                    if request.once or self._due > request.deadline:
                        request.late = error.retry_after
                        self._queue.wake(waiter)
                        continue
                    return
            request.grant = Grant(0)
            if self._queue.wake(waiter) and self._alone is not None:
                for number, cost in enumerate(request.costs):
                    self._owed[number] += cost

    async def _look_out(self) -> None:
        """Wait until the server answers again; a call of it takes what was granted without it."""
        process = self._server.process
        pauses = Backoff(*PROBE)
        try:
            while self._down:
                await anyio.sleep(pauses.next())
                with suppress(StoreError):
                    owed = tuple([-tokens for tokens in self._owed])
                    report = Report(None, {}, {}, [Correction(0, owed)], [])
                    answer = await self._server.call(
                        self._shared.exchange(self._server.process, report)
                    )
                    self._owed = [one + two for one, two in zip(self._owed, owed, strict=True)]
                    self._down = False
                    self._alone = self._first = None
                    self._follow(answer, clock.now())
                    self._tell()
        finally:
            # Else it is thrown away with its loop, and no tracer sees where it goes.
            if self._server.is_current(process):  # pragma: no branch - as said
                self._down = False

    async def _say_goodbye(self) -> None:
        """Leave the line, and report what was not reported, because the store's block ends."""
        self._server.ended()
        for waiter, request in [*self._queue.waiters.items()]:
            request.error = store_left_error(self._store, self)
            self._queue.wake(waiter)
        unsaid = self._corrections or self._limit or self._remaining or self._in_line
        if unsaid or self._hold_until > -math.inf:
            report, hold = self._report([])
            with (
                anyio.move_on_after(min(1.0, self._store.timeout), shield=True),
                suppress(StoreError),
            ):
                await self._shared.exchange(self._server.process, report)
                self._forget(report, hold)
        self._begin()


def _without(news: dict[str, float], told: Mapping[str, float]) -> dict[str, float]:
    """Return the news that was not told."""
    return {name: value for name, value in news.items() if told.get(name) != value}


def _limit(name: str, limit: object, per: float) -> LimitSpec:
    """Return one of the limits, or refuse it."""
    way_out = "Pass a number, or a pair of a number and its seconds."
    sendable("the name of a limit", name, way_out="Pass an identifier.")
    tokens: Any = limit
    if isinstance(limit, tuple):
        if len(tokens) != 2:  # noqa: PLR2004 - a pair
            msg = f"{name}={limit!r} is not a pair. {way_out}"
            raise ValueError(msg)
        tokens, per = tokens
    return LimitSpec(
        name,
        checks.positive(name, tokens, way_out=way_out),
        checks.positive("per", per, way_out="Pass the seconds that the numbers are meant for."),
    )
