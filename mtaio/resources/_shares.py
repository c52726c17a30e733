"""
The limits of a quota together, and the queue of the tasks that wait for all of them.

Promise and cost: see `_quota`, whose objects hold one of these.

The tasks wait in one queue, as in that of a `RateLimiter`. The first sleeps until the last of its
limits has what it needs, and takes from all of them in the step in which it leaves. In this time
nobody is kept from a shared limiter on account of another limit. But others may take from it at
that very moment, again and again. So a task that woke in time and found too little joins the queues
of all shared limiters: in one step, so that two quotas which share two limiters never wait for each
other. There it is served in its turn, as any task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import anyio

from mtaio._internal import checks, clock, deadlines
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.limiting import closed_error
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, PARTS, SECONDS, snapshot
from mtaio._internal.wait_queue import WaitQueue
from mtaio.exceptions import LimitError, LimitTimeoutError, RateLimitError
from mtaio.resources._bucket import TICK
from mtaio.resources._pace import Pace, Sums
from mtaio.resources._rate import Tally
from mtaio.resources._share import Share
from mtaio.resources._taken import Grant

if TYPE_CHECKING:
    from mtaio._internal.backend import Waiter

__all__ = ["QuotaLimitStatistics", "QuotaStatistics", "Shares"]

_Costs: TypeAlias = tuple[float, ...]
"""What a request takes of each limit, in their order."""


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
    wait_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long each of those waits took; None before ``record_durations()``."""
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


class Shares:
    """
    The limits of a quota.

    Args:
        shares: Each of them.
        name: That of the quota.

    Attributes:
        all: Each of them.
        ones: The cost of a request that costs one of each.
        name: That of the quota.
        timed_by: The clock of the moments in here.
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
        "_given",
        "_in_flight",
        "_left",
        "_number",
        "_pace",
        "_paced",
        "_queue",
        "_queued",
        "_refused",
        "_tally",
        "_until",
        "_waited",
        "all",
        "name",
        "ones",
        "timed_by",
    )

    def __init__(self, shares: Sequence[Share], name: str | None) -> None:
        self.all: tuple[Share, ...] = tuple(shares)
        self.ones: _Costs = (1,) * len(shares)
        self.name: str | None = name
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
        shortest = min([share.limiter.per for share in shares if share.own], default=0.0)
        self._paced = tuple(
            [share for share in shares if share.own and share.limiter.per == shortest]
        )
        self._pace = Pace(shortest)
        self.timed_by: clock.Tells = clock.REAL
        clock.catch_up(self)
        self._given: tuple[Share, ...] = tuple([share for share in shares if not share.own])
        for share in self._given:
            share.watched_by(self)

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        return f"<Quota{name} of {', '.join(map(str, self.all))}>"

    # ---- what requests do ----

    def checked(self, cost: Mapping[str, float]) -> _Costs:
        """Return the cost for each limit if it can be granted at some time, or raise."""
        costs = self.costs(cost, default=self.ones)
        self.check(costs)
        return costs

    def take_nowait(self, costs: _Costs) -> None:
        """Take what is there if that delays no task that waits, or raise."""
        if self._is_closed():
            self._tally.rejected += 1
            raise closed_error(self, self.name)
        self._forget_finished()
        moment = clock.catch_up(self)
        due, is_free = self._due_behind(costs, moment)
        if due == moment and is_free:
            self._take(costs, moment, moment)
            return
        self._tally.rejected += 1
        wait = due - moment
        msg = f"{self!r} cannot grant {self.describe(costs)} now, {_when(wait)}."
        raise RateLimitError(msg, retry_after=wait, name=self.name)

    async def grant(self, costs: _Costs, timeout: float | None) -> Grant:
        """Wait for tokens of each limit, and take them."""
        if self._is_closed():
            await self._refuse(closed_error(self, self.name))
        self._attach()
        moment = clock.catch_up(self)
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
        for share, cost in zip(self.all, costs, strict=True):
            share.in_flight += sign * cost

    def correct(self, grant: Grant, before: _Costs, after: _Costs) -> None:
        """Count a grant as so much of each limit, and no longer as so much."""
        self._do(partial(self._correct, grant, before, after))

    def _correct(self, grant: Grant, before: _Costs, after: _Costs) -> None:
        moment = clock.catch_up(self)
        self._number += 1
        for share, taken, used in zip(self.all, before, after, strict=True):
            if taken != used:
                share.settle(taken, used, grant, self._number, moment)
                if not share.own:
                    share.look_again()
        self.look_again()

    def costs(self, cost: Mapping[str, float], *, default: _Costs) -> _Costs:
        """Return the cost for each limit, in their order; raise for a name that is none."""
        self.check_names(cost)
        way_out = "Pass how much of the limit, 0 or more."
        for name, value in cost.items():
            if checks.at_least(name, value, 0, way_out=way_out) == math.inf:
                msg = f"{name}={value!r} is more than there can be. {way_out}"
                raise ValueError(msg)
        return tuple(
            [
                share.rounded(cost[share.name]) if share.name in cost else default[number]
                for number, share in enumerate(self.all)
            ]
        )

    def describe(self, costs: _Costs) -> str:
        """Return a cost in words; ``tokens=`` would be masked in logs, as a secret's name."""
        pairs = zip(self.all, costs, strict=True)
        return " and ".join(f"{cost!r} {share.name}" for share, cost in pairs)

    # ---- what the server says ----

    def hold(self, seconds: float) -> None:
        """Grant nothing for so long."""
        self._do(partial(self._hold, seconds))

    def _hold(self, seconds: float) -> None:
        moment = clock.catch_up(self)
        self._until = max(self._until, moment + seconds)
        self._refused += 1
        self._learn(moment, seconds)
        self._number += 1
        for share in self.all:
            # What a request costs would be there sooner or later in an empty bucket. If that is
            # later than the server asks to wait, another limit is what was used up: a pause of a
            # second must not cost all that is left of the day.
            cost = share.acquired / self._acquired if self._acquired else 1.0
            if share in self._paced or (share.own and share.takes(cost) <= seconds):
                share.hold(seconds, self._number, moment)
        self.look_again()

    def close(self) -> None:
        """Let nothing in any more."""
        self._closed = True
        self.look_again()

    def observe(
        self,
        limits: Mapping[str, float],
        remaining: Mapping[str, float],
        reset: Mapping[str, float],
    ) -> None:
        """Follow what the server says, which has been checked."""
        self._do(partial(self._observe, limits, remaining, reset))

    def _observe(
        self,
        limits: Mapping[str, float],
        remaining: Mapping[str, float],
        reset: Mapping[str, float],
    ) -> None:
        moment = clock.catch_up(self)
        self._number += 1
        for share in self.all:
            left = remaining.get(share.name)
            if share.name in limits and share.is_told(limits[share.name]):
                pace = self._pace.share if share in self._paced else 1.0
                share.pace(pace, self._number, moment, remaining=left)
            if left is not None:
                share.observe(left, reset.get(share.name), self._number, moment)
            if not share.own:
                share.look_again()
        self.look_again()

    def _learn(self, moment: float, seconds: float) -> None:
        """
        Learn from a refusal how much the server allows in truth.

        That is put down to the limits of the shortest period, whichever it is that the server has
        lowered: only of these does the time between two refusals see all there is to see.
        """
        if not self._paced:
            return
        before = self._pace.share
        self._pace.refused(
            Sums(
                moment=moment,
                granted=self._acquired,
                refused=self._refused,
                waited=self._waited,
                used=[share.used for share in self._paced],
            ),
            [share.said / share.limiter.per for share in self._paced],
            seconds,
        )
        if self._pace.share != before:
            self._follow_pace(moment)

    def _follow_pace(self, moment: float) -> None:
        """Let each limit that is paced be that share of what the server says."""
        self._number += 1
        for number, share in enumerate(self.all):
            if share in self._paced:
                most = max([costs[number] for costs in self._queue.waiters.values()], default=0)
                share.pace(self._pace.share, self._number, moment, most=most)

    def record_durations(self) -> None:
        """Keep a histogram of the waits from now on."""
        self._tally.wait_times.record()

    def statistics(self) -> QuotaStatistics:
        """Return the state and counts so far. Not a checkpoint; from any thread."""
        first, queue = self._first, self._queue
        waits = first is not None and not queue.is_over()
        costs = queue.waiters.get(first, self.ones) if waits and first else self.ones
        held = self._until - clock.now_by(self.timed_by)
        held = held if held > TICK else 0.0
        waits_for = [
            share.seconds_until(cost) for share, cost in zip(self.all, costs, strict=True) if cost
        ]
        return snapshot(
            QuotaStatistics,
            self._tally,
            self._tally.wait_times,
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
                for share in self.all
            },
        )

    # ---- how it is done ----

    def _is_closed(self) -> bool:
        """Return whether it, or one of its limiters, grants nothing any more."""
        return self._closed or (bool(self._given) and any(share.is_closed for share in self._given))

    async def _refuse(self, error: LimitError) -> NoReturn:
        """Count a refusal, let other tasks run if it is time to, and raise."""
        self._tally.count_refusal(type(error))
        self._left -= 1
        if self._left <= 0:
            await checkpoint()
            self._left = FAST_CALLS - 1 if self._first is None else 0
        raise error

    def check_names(self, names: Mapping[str, object]) -> None:
        """Raise for a name that is none of a limit."""
        known = [share.name for share in self.all]
        for name in names:
            if name not in known:
                msg = f"{self!r} has no limit {name!r}. Pass one of {', '.join(known)}."
                raise TypeError(msg)

    def check(self, costs: _Costs) -> None:
        """Raise unless so much can be granted at some time."""
        for share, cost in zip(self.all, costs, strict=True):
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
        # zip() would cost more than what is asked for.
        for number, share in enumerate(self.all):
            if cost := costs[number]:
                later = share.due(cost + self._queued[number], moment, self.timed_by)
                due = max(due, later)
                is_free = is_free and (share.own or not share.is_contended)
        return due, is_free

    def _take(self, costs: _Costs, moment: float, asked: float) -> Grant:
        """Take what is due of each limit, in this step."""
        if moment >= self._pace.rises_at:
            self._pace.rise(moment)
            self._follow_pace(moment)
        self._number += 1
        self._acquired += 1
        for number, share in enumerate(self.all):
            if cost := costs[number]:
                # A task that slept is late: it counts as served when it could have been.
                since = min(moment, max(moment - share.slack, asked)) if share.slack else moment
                share.take(cost, self._number, moment, since)
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
                    all_due, is_free = self._due_for_all(moment)
                    # Whoever waits only for its turn, behind a task that yields, is not late.
                    if waiter is self._first or not is_free or all_due - moment > TICK:
                        raise self._late(costs, all_due - moment, timeout, deadline)  # noqa: TRY301 - counted below
                    moment = await self._sleep_until(due, waiter)
                else:
                    moment = await self._sleep_until(min(due, deadline), waiter)
            grant = self._take(costs, moment, max(asked, min(turn, moment)))
        except BaseException as error:
            self._give_up(waiter, costs, error, entered=entered)
            raise
        self._leave(waiter, costs, entered=entered)
        if self._first is None:
            self._left = FAST_CALLS - 1
        self._waited += moment - asked
        self._tally.wait_times.count(moment - asked)
        return grant

    def _due(
        self, waiter: Waiter, costs: _Costs, moment: float, *, entered: bool
    ) -> tuple[float, bool]:
        """Return when a task gets what it asks for, inf if it is not first; or raise: it cannot."""
        if self._is_closed():
            raise closed_error(self, self.name)
        for share, cost in zip(self.all, costs, strict=True):
            if cost > share.most:
                msg = (
                    f"{self!r} can no longer grant {cost!r} {share.name}: the limit was lowered "
                    f"to {share.most!r} during the wait. Ask for less in smaller parts."
                )
                raise RateLimitError(msg, retry_after=math.inf, name=self.name)
        if waiter is not self._first:
            return math.inf, False
        due = self._until if self._until - moment > TICK else moment
        is_free = True
        for share, cost in zip(self.all, costs, strict=True):
            if not cost:
                continue
            if entered:
                due = max(due, share.due_first(waiter, cost, moment))
            else:
                due = max(due, share.due(cost, moment, self.timed_by))
                is_free = is_free and not share.is_contended
        return due, is_free

    def _due_for_all(self, moment: float) -> tuple[float, bool]:
        """Return when all that wait have what they ask for, and whether nobody is before them."""
        due = self._until if self._until - moment > TICK else moment
        is_free = True
        for number, share in enumerate(self.all):
            if queued := self._queued[number]:
                due = max(due, share.due(queued, moment, self.timed_by))
                is_free = is_free and (share.own or not share.is_contended)
        return due, is_free

    def _is_outrun(self, costs: _Costs, moment: float) -> bool:
        """Return whether there are shared limiters that others use now."""
        return any(
            cost
            and not share.own
            and (share.is_contended or share.due(cost, moment, self.timed_by) > moment)
            for share, cost in zip(self.all, costs, strict=True)
        )

    def _enter(self, waiter: Waiter, costs: _Costs) -> None:
        """Join the queues of all shared limiters, in one step."""
        for share, cost in zip(self.all, costs, strict=True):
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
            name=self.name,
        )

    def _too_long(
        self, costs: _Costs, due: float, timeout: float | None, moment: float
    ) -> LimitTimeoutError | None:
        """Return the error for a wait that its timeout, or a limit around the call, would end."""
        wait = due - moment
        if timeout is not None and wait > timeout + TICK:
            return self._late(costs, wait, timeout, moment + timeout)
        # A pause may be over in time, for all that is known; else the limit will end the wait.
        if wait == math.inf or deadlines.current.get() is None:
            return None
        ends = deadlines.logical()
        # It also will if its moment is that in which all would be there.
        if due < ends - TICK:
            return None
        left = max(ends - moment, 0.0)
        return LimitTimeoutError(
            f"{self!r} cannot grant {self.describe(costs)} within the {left:.6g} s that are left "
            f"here, {_when(wait)}. That time limit is set by a timeout around the call.",
            retry_after=wait,
            timeout=left,
            deadline=clock.loop_deadline(ends),
            name=self.name,
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
            for share, cost in zip(self.all, costs, strict=True):
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
        mosts = [-1 if self._is_closed() else share.most for share in self.all]
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
        for share in self._given:
            share.attach()

    def _forget_finished(self) -> None:
        """Forget the tasks in the queue if their loop is over."""
        queue = self._queue
        if queue.is_over():
            self._tally.waiting -= len(queue)
            queue.forget()
            self._queued = [0.0] * len(self.all)
            self._first = None

    def count_in(self, tally: Tally) -> None:
        """Count the requests of this quota together with those of others."""
        self._tally = tally

    def idle_from(self, moment: float) -> float:
        """Return when it could be as good as new, with nobody in it, seen from ``moment``, now."""
        self._forget_finished()
        clock.catch_up(self)
        idle_from = max(self._until, *[share.idle_from(moment) for share in self.all])
        if self._first is not None or self._in_flight:
            return max(idle_from, math.nextafter(moment + TICK, math.inf))
        return idle_from

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        self._until += seconds
        self._pace.move(seconds)
        for share in self.all:
            share.move(seconds)


def _when(wait: float) -> str:
    """Return in words when it will be there; only a pause keeps it away for ever."""
    if wait == math.inf:
        return "and not before each of its rates is above 0"
    return f"only in {wait:.6g} s"
