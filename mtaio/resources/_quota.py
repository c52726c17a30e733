"""
Several limits that a request takes together: so many requests and so many tokens a minute.

Promise: a request gets all that it needs in one step, or nothing; first come, first served. A task
that is cancelled or gives up has taken nothing. No limit is exceeded, also if its limiter is shared
with tasks that use it directly; then neither they nor the quota's tasks starve, though no order is
promised between the two.
Cost: that of a rate limiter for each limit; one queue, and one timer for the first that waits.

The tasks wait in the quota's own queue, as in that of a `RateLimiter`. The first sleeps until the
last of its limits has what it needs, and takes from all of them in the step in which it leaves. In
this time nobody is kept from a shared limiter on account of another limit. But others may take from
it at that very moment, again and again. So a task that woke in time and found too little joins the
queues of all shared limiters: in one step, so that two quotas which share two limiters never wait
for each other. There it is served in its turn, as any task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, ParamSpec, TypeVar, cast, final, overload
from weakref import WeakValueDictionary

import anyio

from mtaio._internal import checks, clock, deadlines
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.copies import uncopied
from mtaio._internal.decorators import AsyncFunction, Decorator, Descriptor, decorate
from mtaio._internal.limiting import closed_error
from mtaio._internal.statistics import COUNTER, GAUGE, LIMIT, PARTS, snapshot
from mtaio._internal.wait_queue import WaitQueue
from mtaio.exceptions import LimitError, LimitTimeoutError, RateLimitError
from mtaio.resources._bucket import TICK
from mtaio.resources._pace import Pace, Sums
from mtaio.resources._quota_part import Cost, QuotaPart, Used
from mtaio.resources._rate import RateLimiter, Tally
from mtaio.resources._share import Share
from mtaio.resources._taken import Grant, Taken

if TYPE_CHECKING:
    from mtaio._internal.backend import Waiter

__all__ = ["Quota", "QuotaLimitStatistics", "QuotaStatistics", "check_limits", "together"]

P = ParamSpec("P")
R = TypeVar("R")

_Costs = tuple[float, ...]

_RESERVED: Final = ("key", "timeout", "used")
"""What `Quota.take` and its relatives have as arguments of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaLimitStatistics:
    """One limit of a `Quota`."""

    rate: float = field(metadata=LIMIT)
    """Tokens that become available every ``per`` seconds."""
    burst: float = field(metadata=LIMIT)
    """Tokens that the full bucket holds; of a window, its limit."""
    tokens: float = field(metadata=GAUGE)
    """Tokens there now; less than 0 is a debt, of requests that used more than they took."""
    in_flight: float = field(metadata=GAUGE)
    """What blocks hold that have not been left."""
    acquired: float = field(metadata=COUNTER)
    """Tokens granted so far, as they were asked for."""
    used: float = field(metadata=GAUGE)
    """The same as corrected by what was settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaStatistics:
    """The state and counts of a `Quota`."""

    waiting: int = field(metadata=GAUGE)
    """Tasks waiting."""
    in_flight: int = field(metadata=GAUGE)
    """Blocks that have not been left."""
    acquired: int = field(metadata=COUNTER)
    """Requests granted so far, with or without a wait, whatever they took."""
    rejected: int = field(metadata=COUNTER)
    """Requests refused: by ``acquire_nowait``, as a limit was lowered while they waited, or as the
    quota was closed."""
    timed_out: int = field(metadata=COUNTER)
    """Requests that could not be granted within their own timeout, or before their deadline."""
    cancelled: int = field(metadata=COUNTER)
    """Requests cancelled while they waited."""
    wait_seconds: float = field(metadata=COUNTER)
    """Total seconds that tasks waited for what they got."""
    max_wait_seconds: float = field(metadata=GAUGE)
    """The longest of those waits, in seconds."""
    next_grant_seconds: float = field(metadata=GAUGE)
    """Estimated seconds until the first task that waits is served, or until a newcomer could have
    one of each if none waits; ``inf`` while a limit is paused."""
    held_seconds: float = field(metadata=GAUGE)
    """Seconds until a `Quota.hold` ends; 0 if nothing is held."""
    pace: float = field(metadata=GAUGE)
    """The share of its limits that the server seems to allow in truth, from its refusals: see
    `Quota.hold`."""
    limits: Mapping[str, QuotaLimitStatistics] = field(metadata=PARTS)
    """Each limit, by its name."""


@uncopied
@final
class Quota:
    """
    Several limits that requests take together, as APIs have: requests and tokens a minute.

    A request waits until there is enough of each limit, first come, first served, and takes all in
    one step. What it takes is an estimate, which `Taken.settle` corrects; what the server says of
    its limits corrects the rest: `observe` and `hold`.

    May be made anywhere, also at module level, and used by one event loop after another, on either
    backend, by one at a time. It is a rate limiter wherever one is taken, as ``rate=`` or in a
    `mtaio.resilience.Pipeline`: then each call costs one of each limit, unless it is a `part`.

    Args:
        per: The seconds that the numbers are meant for.
        start: The share of each bucket that is there at first, from 0 to 1: 0 for a service that
            restarts, and may have used all just before. A limiter that is given stays as it is.
        window: Whether a number is a sliding window, of which never more is granted in any ``per``
            seconds, and not a bucket, which refills evenly and holds as much when full.
        name: For messages and the monitor.
        **limits: Each a number, for every ``per`` seconds; a pair of a number and its own seconds;
            or a `RateLimiter`, which may be shared: with other quotas, and with tasks that use it.

    Raises:
        TypeError: There is no limit, one has a name that `take` needs, or something is not a
            number.
        ValueError: A number is not greater than 0, or ``start`` is not from 0 to 1.

    Example:
        ```python
        import anyio

        from mtaio.resources import Quota

        quota = Quota(requests=120, tokens=40_000, per=60)


        async def ask(prompt: str) -> None:
            async with quota.take(tokens=len(prompt) + 500) as taken:
                print(f"sends {prompt}")
                taken.settle(tokens=len(prompt) + 20)


        async def main() -> None:
            async with anyio.create_task_group() as group:
                for prompt in ("one", "two"):
                    group.start_soon(ask, prompt)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - _queue holds the tasks that wait, with what each asks for; _queued are the sums of these,
    #   and _first is the first of the tasks, None if none waits;
    # - a task is woken to look again, and stays in its place: see `RateLimiter`;
    # - nothing is granted while another task has asked before, or tasks wait for a limiter itself
    #   that asked for its tokens before;
    # - each take and each correction has a number, in their order;
    # - _until and what the shares remember are moments of timed_by.
    __slots__ = (
        "__weakref__",
        "_acquired",
        "_closed",
        "_first",
        "_in_flight",
        "_left",
        "_name",
        "_number",
        "_ones",
        "_pace",
        "_queue",
        "_queued",
        "_refused",
        "_shares",
        "_tally",
        "_until",
        "_waited",
        "timed_by",
    )

    def __init__(
        self,
        *,
        per: float = 1.0,
        start: float = 1.0,
        window: bool = False,
        name: str | None = None,
        **limits: float | tuple[float, float] | RateLimiter,
    ) -> None:
        if not limits:
            msg = (
                "a Quota without limits limits nothing. Name each limit, as in "
                "Quota(requests=120, tokens=40_000, per=60)."
            )
            raise TypeError(msg)
        for each in _RESERVED:
            if each in limits:
                msg = f"no limit can be called {each!r}, as an argument of part() is. Rename it."
                raise TypeError(msg)
        way_out = "Pass the share of each limit that is there at first, from 0 to 1."
        if checks.at_least("start", start, 0, way_out=way_out) > 1:
            msg = f"start={start!r} is more than 1. {way_out}"
            raise ValueError(msg)
        checks.flag("window", window)
        shares = [_share(each, limit, per, window=window) for each, limit in limits.items()]
        for share in shares:
            if share.own and start != 1:
                share.start(start)
        self._start(shares, name)

    def _start(self, shares: Sequence[Share], name: str | None) -> None:
        self._shares: tuple[Share, ...] = tuple(shares)
        self._ones: _Costs = (1,) * len(shares)
        self._name = name
        self._tally = Tally()
        self._acquired = 0
        self._waited = 0.0
        self._closed = False
        self._in_flight = 0
        self._left = FAST_CALLS - 1
        self._number = 0
        self._until = -math.inf
        self._queue: WaitQueue[_Costs] = WaitQueue()
        self._queued: list[float] = [0.0] * len(shares)
        self._first: Waiter | None = None
        self._refused = 0
        self._pace = Pace(max([share.limiter.per for share in shares if share.own], default=0.0))
        self.timed_by: clock.Tells = clock.REAL
        clock.catch_up(self)
        for share in self._shares:
            if not share.own:
                share.watched_by(self)

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<Quota{name} of {', '.join(map(str, self._shares))}>"

    @property
    def name(self) -> str | None:
        """The name given to the quota."""
        return self._name

    @property
    def rate(self) -> float:
        """How many requests a second the slowest limit allows that cost one of each."""
        return min(share.limiter.rate / share.limiter.per for share in self._shares)

    @property
    def limits(self) -> tuple[str, ...]:
        """The names of the limits, in their order."""
        return tuple(share.name for share in self._shares)

    # ---- what requests do ----

    def take(self, *, timeout: float | None = None, **cost: float) -> Taken:
        """
        Return a block that begins when a request has what it needs: ``async with``.

        Args:
            timeout: The most seconds to wait, as for `acquire`; None for no limit.
            **cost: What is taken of each limit; what is not named costs 1.

        Raises:
            TypeError, ValueError: As `acquire`.
        """
        checks.timeout("timeout", timeout)
        return Taken(self, self._checked(cost), timeout)

    async def acquire(self, *, timeout: float | None = None, **cost: float) -> None:
        """
        Wait until there is enough of each limit, behind all that asked before, and take it.

        Returns at once if it is there and no task waits, but at least one call in 64 is a
        checkpoint. Cancelled, it has taken nothing, and those behind move up.

        Args:
            timeout: The most seconds to wait; None for no limit. Whether they suffice is decided by
                the call, from what is asked for ahead. If a limit is lowered or held after that,
                the wait ends when the time is up. The time that mtaio's timeouts around the call
                leave it counts likewise.
            **cost: What is taken of each limit, 0 or more and at most what it holds when full; what
                is not named costs 1.

        Raises:
            LimitTimeoutError: The wait would exceed ``timeout``, or the time that is left; raised
                at once if that is known at once. ``retry_after`` has the seconds needed.
            LimitClosedError: The quota, or one of its limiters, is closed, or was during the wait.
            RateLimitError: A limit was lowered below the cost during the wait.
            TypeError: No limit has such a name, or a value is not a number.
            ValueError: A value is negative, NaN, or more than the limit ever holds; a window takes
                whole numbers alone.
            RuntimeError: Tasks of another running event loop are waiting.
        """
        if timeout is not None:
            checks.timeout("timeout", timeout)
        await self.grant(self._checked(cost) if cost else self._ones, timeout)

    def acquire_nowait(self, **cost: float) -> None:
        """
        Take what there is enough of if that delays no task that waits, or raise. Not a checkpoint.

        Args:
            **cost: As for `acquire`.

        Raises:
            RateLimitError: It is not there; ``retry_after`` has the seconds until it is.
            LimitClosedError: The quota, or one of its limiters, is closed.
            TypeError, ValueError: As `acquire`.
        """
        costs = self._checked(cost)
        if self._is_closed():
            self._tally.rejected += 1
            raise closed_error(self, self._name)
        self._forget_finished()
        moment = clock.catch_up(self)
        due, is_free = self._due_behind(costs, moment)
        if due == moment and is_free:
            self._take(costs, moment, moment)
            return
        self._tally.rejected += 1
        wait = due - moment
        msg = f"{self!r} cannot grant {self.describe(costs)} now, {_when(wait)}."
        raise RateLimitError(msg, retry_after=wait, name=self._name)

    def try_acquire(self, **cost: float) -> bool:
        """
        Take what there is enough of if that delays no task that waits; return whether it was there.

        Not a checkpoint.

        Raises:
            LimitClosedError: The quota, or one of its limiters, is closed.
            TypeError, ValueError: As `acquire_nowait`.
        """
        try:
            self.acquire_nowait(**cost)
        except RateLimitError:
            return False
        return True

    def part(
        self, *, timeout: float | None = None, used: Used | None = None, **cost: Cost
    ) -> QuotaPart:
        """
        Return a part of a `mtaio.resilience.Pipeline` whose calls cost what their arguments say.

        What ``used`` returns is settled when the call has returned. A call that fails keeps what it
        has taken: see `Taken`.

        Args:
            timeout: The most seconds that a call waits, as for `acquire`.
            used: Called with the result of each call, of a stream with its last item when that has
                been reached; returns what it used of some limits, by their names, as a mapping;
                None to settle nothing.
            **cost: For each limit a number, or a function that gets the arguments of a call and
                returns a number; what is not named costs 1.

        Raises:
            TypeError: No limit has such a name, or a value is neither a number nor a function.
            ValueError: A number could never be granted.
        """
        checks.timeout("timeout", timeout)
        if used is not None:
            checks.callable_("used", used, way_out="Pass a function of a call's result.")
        self._checked({each: value for each, value in cost.items() if not callable(value)})
        self.costs(dict.fromkeys(cost, 1), default=self._ones)
        return QuotaPart(self, cost, used, timeout)

    @overload
    def __call__(self, fn: Descriptor, /) -> Descriptor: ...
    @overload
    def __call__(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...
    @overload
    def __call__(
        self, /, *, timeout: float | None = None, used: Used | None = None, **cost: Cost
    ) -> Decorator: ...
    def __call__(
        self,
        fn: Any = None,
        /,
        *,
        timeout: float | None = None,
        used: Used | None = None,
        **cost: Cost,
    ) -> Any:
        """
        Decorate an async function or method so that each call takes what it costs first.

        ``@quota`` costs one of each limit, ``@quota(tokens=estimate)`` what a function of the
        call's arguments returns, ``self`` included.

        Args:
            fn: The function, when used without parentheses.
            timeout: As for `part`.
            used: As for `part`.
            **cost: As for `part`.

        Raises:
            TypeError: What is decorated is not an async function, or as `part`.
            ValueError: As `part`.
        """
        part = self.part(timeout=timeout, used=used, **cost)

        def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
            async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                result: R = await part.call(partial(fn, *args, **kwargs), args, kwargs)
                return result

            return limited

        decorator = decorate(around, name="Quota")
        return decorator if fn is None else decorator(fn)

    # ---- what the server says ----

    def hold(self, seconds: float) -> None:
        """
        Grant nothing for so long: for a server that has answered "429, retry later".

        What is there of the quota's own buckets counts as gone; limiters that were given are left
        alone. If the server refuses again and again, it allows less than it says, and what it has
        granted between two refusals is how much. Then the quota goes by that, and tries a twentieth
        more in each period (`QuotaStatistics.pace`). Otherwise as `RateLimiter.hold`. Not a
        checkpoint; from any thread.

        Args:
            seconds: How long, such as the server's ``Retry-After``; 0 or more.

        Raises:
            TypeError: ``seconds`` is not a number.
            ValueError: ``seconds`` is negative, infinite or NaN.
        """
        way_out = "Pass for how many seconds nothing is to be granted."
        if checks.at_least("seconds", seconds, 0, way_out=way_out) == math.inf:
            msg = f"seconds={seconds!r} would hold the quota for ever. {way_out}"
            raise ValueError(msg)
        self._do(partial(self._hold, seconds))

    def _hold(self, seconds: float) -> None:
        moment = clock.catch_up(self)
        self._until = max(self._until, moment + seconds)
        self._refused += 1
        self._learn(moment)
        self._number += 1
        for share in self._shares:
            if share.own:
                share.hold(seconds, self._number, moment)
        self.look_again()

    def close(self) -> None:
        """
        Let nothing in any more: for the shutdown of a program, or of what the quota is for.

        Tasks that wait, and every later call, get a `mtaio.exceptions.LimitClosedError` at once. It
        cannot be opened again; limiters that were given are left alone. Not a checkpoint; from any
        thread.
        """
        self._closed = True
        self.look_again()

    def observe(
        self,
        *,
        limit: Mapping[str, float] | None = None,
        remaining: Mapping[str, float] | None = None,
        reset: Mapping[str, float] | None = None,
    ) -> None:
        """
        Follow what the server says of its limits, as in the headers of an answer.

        Each is a mapping by the names of limits, of which some may be missing. Not a checkpoint;
        from any thread: in another than the event loop's it happens soon.

        Args:
            limit: What the server allows in the limit's ``per`` seconds. Another number than before
                changes rate and size of the bucket; what is in use stays so. Requests that wait for
                more than that are refused.
            remaining: What it has left. Less than there is here counts. More does not, since the
                server may not know what is in flight; except if a window of the server, of which
                ``reset`` has told the end, is over, and a new one has begun.
            reset: The seconds until the server's window ends, or its bucket is full.

        Raises:
            TypeError: No limit has such a name, or a value is not a number.
            ValueError: A value is negative or NaN, or a limit is 0 or infinite.
        """
        limits = self._named("limit", limit)
        for name, value in limits.items():
            checks.positive(f"limit[{name!r}]", value, way_out="Pass what the server allows.")
        left, resets = self._named("remaining", remaining), self._named("reset", reset)
        self._do(partial(self._observe, limits, left, resets))

    def _named(self, argument: str, values: Mapping[str, float] | None) -> Mapping[str, float]:
        """Return a mapping by the names of limits, or raise."""
        if not values:
            return {}
        self._check_names(values)
        way_out = "Pass what the server says."
        for name, value in values.items():
            checks.at_least(f"{argument}[{name!r}]", value, 0, way_out=way_out)
        return dict(values)

    def _observe(
        self,
        limits: Mapping[str, float],
        remaining: Mapping[str, float],
        reset: Mapping[str, float],
    ) -> None:
        moment = clock.catch_up(self)
        self._number += 1
        for share in self._shares:
            left = remaining.get(share.name)
            if share.name in limits and share.is_told(limits[share.name]):
                share.pace(self._pace.share, self._number, moment, remaining=left)
            if left is not None:
                share.observe(left, reset.get(share.name), self._number, moment)
            if not share.own:
                share.look_again()
        self.look_again()

    def _learn(self, moment: float) -> None:
        """Learn from a refusal how much the server allows in truth."""
        own = [share for share in self._shares if share.own]
        if not own:
            return
        before = self._pace.share
        self._pace.refused(
            Sums(
                moment=moment,
                granted=self._acquired,
                refused=self._refused,
                waited=self._waited,
                used=[share.used for share in own],
            ),
            [share.said / share.limiter.per for share in own],
        )
        if self._pace.share != before:
            self._follow_pace(moment)

    def _follow_pace(self, moment: float) -> None:
        """Let each own limit be that share of what the server says."""
        self._number += 1
        for number, share in enumerate(self._shares):
            if share.own:
                most = max([costs[number] for costs in self._queue.waiters.values()], default=0)
                share.pace(self._pace.share, self._number, moment, most=most)

    def statistics(self) -> QuotaStatistics:
        """Return the state and counts so far. Not a checkpoint; from any thread."""
        first, queue = self._first, self._queue
        waits = first is not None and not queue.is_over()
        costs = queue.waiters.get(first, self._ones) if waits and first else self._ones
        held = self._until - clock.now_by(self.timed_by)
        held = held if held > TICK else 0.0
        waits_for = [
            share.seconds_until(cost)
            for share, cost in zip(self._shares, costs, strict=True)
            if cost
        ]
        return snapshot(
            QuotaStatistics,
            self,
            self._tally,
            waiting=len(queue) if waits else 0,
            in_flight=self._in_flight,
            acquired=self._acquired,
            next_grant_seconds=max([held, *waits_for]),
            held_seconds=held,
            pace=self._pace.share,
            limits={
                share.name: QuotaLimitStatistics(
                    rate=share.limiter.rate,
                    burst=share.limiter.burst,
                    tokens=share.level(),
                    in_flight=share.in_flight,
                    acquired=share.acquired,
                    used=share.used,
                )
                for share in self._shares
            },
        )

    # ---- for the blocks: see `Takes` ----

    async def grant(self, costs: _Costs, timeout: float | None) -> Grant:
        """Wait for tokens of each limit, and take them."""
        if self._is_closed():
            await self._refuse(closed_error(self, self._name))
        self._attach()
        moment = clock.catch_up(self)
        self._check(costs)
        due, is_free = self._due_behind(costs, moment)
        if due != moment and (error := self._too_long(costs, due, timeout, moment)):
            await self._refuse(error)
        if due != moment or not is_free:
            return await self._wait(costs, moment, timeout)
        if self._left <= 0:
            return await self._wait(costs, moment, timeout, there=True)
        self._left -= 1
        return self._take(costs, moment, moment)

    def note_in_flight(self, costs: _Costs, sign: int) -> None:
        """Count what a block holds that begins (1) or ends (-1)."""
        self._in_flight += sign
        for share, cost in zip(self._shares, costs, strict=True):
            share.in_flight += sign * cost

    def correct(self, grant: Grant, before: _Costs, after: _Costs) -> None:
        """Count a grant as so much of each limit, and no longer as so much."""
        self._do(partial(self._correct, grant, before, after))

    def _correct(self, grant: Grant, before: _Costs, after: _Costs) -> None:
        moment = clock.catch_up(self)
        at = grant.moment if grant.timed_by is self.timed_by else None
        self._number += 1
        for share, taken, used in zip(self._shares, before, after, strict=True):
            if taken != used:
                number = self._number
                share.settle(taken, used, after=grant.number, number=number, at=at, moment=moment)
                if not share.own:
                    share.look_again()
        self.look_again()

    def costs(self, cost: Mapping[str, float], *, default: _Costs) -> _Costs:
        """Return the cost for each limit, in their order; raise for a name that is none."""
        self._check_names(cost)
        way_out = "Pass how much of the limit, 0 or more."
        for name, value in cost.items():
            if checks.at_least(name, value, 0, way_out=way_out) == math.inf:
                msg = f"{name}={value!r} is more than there can be. {way_out}"
                raise ValueError(msg)
        return tuple(
            [
                share.rounded(cost[share.name]) if share.name in cost else default[number]
                for number, share in enumerate(self._shares)
            ]
        )

    def describe(self, costs: _Costs) -> str:
        """Return a cost in words; ``tokens=`` would be masked in logs, as a secret's name."""
        pairs = zip(self._shares, costs, strict=True)
        return " and ".join(f"{cost!r} {share.name}" for share, cost in pairs)

    # ---- how it is done ----

    def _is_closed(self) -> bool:
        """Return whether it, or one of its limiters, grants nothing any more."""
        return self._closed or any(share.is_closed for share in self._shares)

    async def _refuse(self, error: LimitError) -> NoReturn:
        """Count a refusal, let other tasks run if it is time to, and raise."""
        self._tally.count_refusal(type(error))
        self._left -= 1
        if self._left <= 0:
            await checkpoint()
            self._left = FAST_CALLS - 1 if self._first is None else 0
        raise error

    def _check_names(self, names: Mapping[str, object]) -> None:
        known = [share.name for share in self._shares]
        for name in names:
            if name not in known:
                msg = f"{self!r} has no limit {name!r}. Pass one of {', '.join(known)}."
                raise TypeError(msg)

    def _checked(self, cost: Mapping[str, float]) -> _Costs:
        """Return the cost for each limit if it can be granted at some time, or raise."""
        costs = self.costs(cost, default=self._ones)
        self._check(costs)
        return costs

    def _check(self, costs: _Costs) -> None:
        for share, cost in zip(self._shares, costs, strict=True):
            if cost > share.most and not share.has_room_for(cost):
                msg = (
                    f"cannot take {cost!r} {share.name} of {self!r}: it never has more than "
                    f"{share.most!r} at once. Raise the limit, or ask for less in smaller parts."
                )
                raise ValueError(msg)

    def _due_behind(self, costs: _Costs, moment: float) -> tuple[float, bool]:
        """
        Return when a newcomer gets so much, behind all that wait, and whether nobody is before it.

        Tasks that wait for a limiter itself are before it too.
        """
        due = self._until if self._until - moment > TICK else moment
        is_free = self._first is None
        for share, cost, queued in zip(self._shares, costs, self._queued, strict=True):
            if cost:
                due = max(due, share.due(cost + queued, moment))
                is_free = is_free and not share.is_contended
        return due, is_free

    def _take(self, costs: _Costs, moment: float, asked: float) -> Grant:
        """Take what is due of each limit, in this step."""
        if moment >= self._pace.rises_at:
            self._pace.rise(moment)
            self._follow_pace(moment)
        self._number += 1
        self._acquired += 1
        for share, cost in zip(self._shares, costs, strict=True):
            if cost:
                # A task that slept is late: it counts as served when it could have been.
                since = moment if not share.slack else max(moment - share.slack, asked)
                share.take(cost, self._number, moment, min(since, moment))
        return Grant(self._number, moment, self.timed_by)

    async def _wait(
        self, costs: _Costs, asked: float, timeout: float | None, *, there: bool = False
    ) -> Grant:
        """
        Join the queue, take what is due when it is this task's turn, and leave; see `RateLimiter`.

        1. Until the task is first, and while it is early, it sleeps: until its turn, the moment at
           which the last limit has what it needs, or its own deadline. What has changed wakes it.
        2. If all is there and nobody waits for a limiter itself, it takes all, in this step.
        3. Otherwise others were faster, or will be: from here on it waits in the queues of the
           shared limiters too, and takes all when it is first in each.
        """
        waiter = self._join(costs)
        deadline = math.inf if timeout is None else asked + timeout
        moment, turn, entered = asked, math.inf, False
        try:
            if there:
                await checkpoint()
                moment = clock.catch_up(self)
            while True:
                due, is_free = self._due(waiter, costs, moment, entered=entered)
                if due == moment and is_free:
                    break
                if not entered and min(due, turn) <= moment and self._is_outrun(costs, moment):
                    entered = True
                    self._enter(waiter, costs)
                    continue
                turn = due
                if timeout is not None and moment >= deadline:
                    wait = self._due_behind((0,) * len(costs), moment)[0] - moment
                    raise self._late(costs, wait, timeout, deadline)  # noqa: TRY301 - counted below
                moment = await self._sleep_until(min(due, deadline), waiter)
            grant = self._take(costs, moment, max(asked, min(turn, moment)))
        except BaseException as error:
            self._give_up(waiter, costs, error, entered=entered)
            raise
        self._leave(waiter, costs, entered=entered)
        if self._first is None:
            self._left = FAST_CALLS - 1
        self._waited += moment - asked
        self._tally.count_wait(moment - asked)
        return grant

    def _due(
        self, waiter: Waiter, costs: _Costs, moment: float, *, entered: bool
    ) -> tuple[float, bool]:
        """Return when a task gets what it asks for, inf if it is not first; or raise: it cannot."""
        if self._is_closed():
            raise closed_error(self, self._name)
        for share, cost in zip(self._shares, costs, strict=True):
            if cost > share.most:
                msg = (
                    f"{self!r} can no longer grant {cost!r} {share.name}: the limit was lowered "
                    f"to {share.most!r} during the wait. Ask for less in smaller parts."
                )
                raise RateLimitError(msg, retry_after=math.inf, name=self._name)
        if waiter is not self._first:
            return math.inf, False
        due = self._until if self._until - moment > TICK else moment
        is_free = True
        for share, cost in zip(self._shares, costs, strict=True):
            if not cost:
                continue
            if entered:
                due = max(due, share.due_first(waiter, cost, moment))
            else:
                due = max(due, share.due(cost, moment))
                is_free = is_free and not share.is_contended
        return due, is_free

    def _is_outrun(self, costs: _Costs, moment: float) -> bool:
        """Return whether there are shared limiters that others use now."""
        return any(
            cost and not share.own and (share.is_contended or share.due(cost, moment) > moment)
            for share, cost in zip(self._shares, costs, strict=True)
        )

    def _enter(self, waiter: Waiter, costs: _Costs) -> None:
        """Join the queues of all shared limiters, in one step."""
        for share, cost in zip(self._shares, costs, strict=True):
            if cost and not share.own:
                share.enter(waiter, cost)

    async def _sleep_until(self, until: float, waiter: Waiter) -> float:
        """Sleep until a moment, or until woken before; return which moment it is then."""
        if until == math.inf:
            await waiter
            return clock.catch_up(self)
        with anyio.CancelScope(deadline=clock.loop_deadline(until)) as scope:
            await waiter
        moment = clock.catch_up(self)
        # The timer is right even where the clock, by rounding, is not there yet.
        return max(moment, until) if scope.cancelled_caught else moment

    def _late(
        self, costs: _Costs, wait: float, timeout: float, deadline: float
    ) -> LimitTimeoutError:
        return LimitTimeoutError(
            f"{self!r} cannot grant {self.describe(costs)} within {timeout!r} s, {_when(wait)}.",
            retry_after=wait,
            timeout=timeout,
            deadline=clock.loop_deadline(deadline),
            name=self._name,
        )

    def _too_long(
        self, costs: _Costs, due: float, timeout: float | None, moment: float
    ) -> LimitTimeoutError | None:
        """Return the error for a wait that its timeout, or a limit around the call, would end."""
        wait, ends = due - moment, deadlines.logical()
        if timeout is not None and wait > timeout + TICK:
            return self._late(costs, wait, timeout, moment + timeout)
        # A pause may be over in time, for all that is known; else the limit will end the wait.
        if wait == math.inf or due <= ends + TICK:
            return None
        left = max(ends - moment, 0.0)
        return LimitTimeoutError(
            f"{self!r} cannot grant {self.describe(costs)} within the {left:.6g} s that are left "
            f"here, {_when(wait)}. The limit is that of a timeout around the call.",
            retry_after=wait,
            timeout=left,
            deadline=clock.loop_deadline(ends),
            name=self._name,
        )

    def _give_up(
        self, waiter: Waiter, costs: _Costs, error: BaseException, *, entered: bool
    ) -> None:
        """Leave the queue, because the task was refused, or cancelled, or its loop is over."""
        self._tally.count_refusal(type(error))
        over = isinstance(error, GeneratorExit)
        if over:
            self._forget_finished()  # closed with its loop: there may be no task left to wake
        self._leave(waiter, costs, entered=entered, over=over)

    def _join(self, costs: _Costs) -> Waiter:
        """Put the running task at the end of the queue."""
        waiter = self._queue.join(costs)
        if self._first is None:
            self._first = waiter
            self._left = 0
        self._queued = [queued + cost for queued, cost in zip(self._queued, costs, strict=True)]
        self._tally.waiting += 1
        return waiter

    def _leave(self, waiter: Waiter, costs: _Costs, *, entered: bool, over: bool = False) -> None:
        """Take a task out of the queues, and wake the next if it was first."""
        if entered:
            for share, cost in zip(self._shares, costs, strict=True):
                if cost and not share.own:
                    share.leave(waiter, cost, over=over)
        waiters = self._queue.waiters
        if waiter not in waiters:
            return  # its loop was found to be over, and it was forgotten
        del waiters[waiter]  # nothing was handed over that would have to be passed on
        self._tally.waiting -= 1
        left = zip(self._queued, costs, strict=True)
        self._queued = [queued - cost if waiters else 0.0 for queued, cost in left]
        if waiter is self._first:
            self._first = first = next(iter(waiters), None)
            if first is not None:
                first.wake()

    def look_again(self) -> None:
        """Wake those whom a change concerns: the first, and who asks for too much now."""
        self._forget_finished()
        queue = self._queue
        if not queue.waiters:
            return
        if not queue.runs_here():
            # If that loop ends before it calls this, nobody is left to wake.
            queue.call_in_loop(self.look_again)
            return
        mosts = [-1 if self._is_closed() else share.most for share in self._shares]
        for waiter in [
            each
            for each, costs in queue.waiters.items()
            if each is self._first
            or any(cost > most for cost, most in zip(costs, mosts, strict=True))
        ]:
            waiter.wake()

    def _do(self, change: Callable[[], None]) -> None:
        """Make a change where tasks use the quota: here, or else soon, in their loop."""
        queue = self._queue
        if queue.belongs_here() or not queue.call_in_loop(change):
            change()

    def _attach(self) -> None:
        """Make the queues ready for a task of the running loop; raise if another uses them."""
        queue = self._queue
        if not queue.runs_here():
            self._forget_finished()
            queue.attach(self)
        for share in self._shares:
            share.attach()

    def _forget_finished(self) -> None:
        """Forget the tasks in the queue if their loop is over."""
        queue = self._queue
        if queue.is_over():
            self._tally.waiting -= len(queue)
            queue.forget()
            self._queued = [0.0] * len(self._shares)
            self._first = None

    def count_in(self, tally: Tally) -> None:
        """Count the requests of this quota together with those of others."""
        self._tally = tally

    def idle_from(self, moment: float) -> float:
        """Return when it could be as good as new, with nobody in it, seen from ``moment``, now."""
        self._forget_finished()
        clock.catch_up(self)
        idle_from = max(self._until, *[share.idle_from(moment) for share in self._shares])
        if self._first is not None or self._in_flight:
            return max(idle_from, math.nextafter(moment + TICK, math.inf))
        return idle_from

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        self._until += seconds
        self._pace.move(seconds)
        for share in self._shares:
            share.move(seconds)


def check_limits(limits: Mapping[str, object]) -> None:
    """Refuse limiters as the limits of a `KeyedQuota`."""
    for name, limit in limits.items():
        if isinstance(limit, RateLimiter):
            msg = (
                f"{name}={limit!r} would be shared by all keys. Pass a number, or a pair of a "
                f"number and its seconds, and take of the limiter beside."
            )
            raise TypeError(msg)


def _share(name: str, limit: object, per: float, *, window: bool) -> Share:
    """Return what a quota makes of one of its limits."""
    if isinstance(limit, RateLimiter):
        return Share(name, limit, own=False)
    way_out = "Pass a number, a pair of a number and its seconds, or a RateLimiter."
    if isinstance(limit, tuple):
        pair = cast("Any", limit)
        if len(pair) != 2:  # noqa: PLR2004 - a pair
            msg = f"{name}={limit!r} is not a pair. {way_out}"
            raise ValueError(msg)
        limit, per = pair
    number = checks.positive(name, limit, way_out=way_out)
    if window:
        return Share(name, RateLimiter.window(cast("int", number), per=per, name=name), own=True)
    bucket = RateLimiter(number, per=per, burst=max(1, number), slack=0, name=name)
    return Share(name, bucket, own=True)


_together: Final[WeakValueDictionary[tuple[int, ...], Quota]] = WeakValueDictionary()
"""What `together` has made of limiters alone, by their ids: a quota holds its limiters."""


def together(rates: Sequence[object]) -> Quota:
    """
    Return what ``rate=[...]`` means: a token of each, taken together.

    Calls that name the same limiters, in the same order, wait in one queue.

    Raises:
        TypeError: One of them is neither a number nor a `RateLimiter`.
        ValueError: There are none, one is twice in it, or a number is not greater than 0.
    """
    key = tuple(map(id, rates))
    if (known := _together.get(key)) is not None:
        return known
    way_out = "Pass numbers, for every second, or objects of mtaio.RateLimiter."
    if not rates:
        msg = f"rate={rates!r} limits nothing. {way_out}"
        raise ValueError(msg)
    shares: list[Share] = []
    for number, each in enumerate(rates, 1):
        if isinstance(each, RateLimiter):
            if any(each is share.limiter for share in shares):
                msg = f"rate={rates!r} has one limiter twice. Leave one out."
                raise ValueError(msg)
            shares.append(Share(f"rate_{number}", each, own=False))
        else:
            rate = checks.positive(f"rate[{number - 1}]", each, way_out=way_out)
            shares.append(Share(f"rate_{number}", RateLimiter(rate), own=True))
    quota = Quota.__new__(Quota)
    quota._start(shares, None)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
    if not any(share.own for share in shares):
        _together[key] = quota
    return quota


def _when(wait: float) -> str:
    """Return in words when it will be there; only a pause keeps it away for ever."""
    if wait == math.inf:
        return "and not before each of its rates is above 0"
    return f"only in {wait:.6g} s"
