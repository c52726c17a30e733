# pyright: reportPrivateUsage=false
# ruff: noqa: SLF001 - this is what a quota does inside of its limiters
"""
One limit of a quota: a rate limiter, and what the quota has taken of it.

Promise: what is given back is never more than the bucket would hold if less had been taken in the
first place, so that no span of time sees more than the limit, counted by what was used.
Cost: two comparisons for each take; the moments of the last few hundred at most.

Why not all of it is given back: a bucket of ten that lost ten at noon is full again ten seconds
later, whether they were used or not. Tokens that come back after that would be there twice. What
may come back is the least that the bucket lacked at any moment since they were taken; so that is
noted before each take. After a lack of 3, one of 5 is forgotten when a lack of 2 follows: those who
ask later want the least *since* their take, so the list ascends, and is searched by bisection.
"""

from __future__ import annotations

import math
import weakref
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final

from mtaio._internal import clock
from mtaio.resources._held import Held
from mtaio.resources._window import Window

if TYPE_CHECKING:
    from mtaio._internal.backend import Waiter
    from mtaio.resources._bucket import Bucket
    from mtaio.resources._rate import RateLimiter, Watcher
    from mtaio.resources._taken import Grant

__all__ = ["Share"]

_MORE: Final = 16
"""So many corrections of one take are told apart."""

_NOTED: Final = 256
"""So many moments are noted; then those that hardly differ become one."""


class Share:
    """
    A limiter in a quota.

    Args:
        name: What the quota calls it.
        limiter: The limiter.
        own: Whether nobody but the quota knows it.

    Attributes:
        in_flight: What blocks hold that have not been left yet.
        acquired: All tokens that were granted, by the first estimate.
        used: The same as corrected by what was used.
        said: What the limit is by what the server says, or by what was given.
        resets_at: When the server said that its window ends; None if it did not.
    """

    # Invariants:
    # - _rooms[i] is the least that the bucket lacked at any moment from the note before to that of
    #   the number _numbers[i], or less; both ascend;
    # - _bucket is the bucket that was seen last, and _full_at its moment then.
    __slots__ = (
        "_bucket",
        "_depth",
        "_full_at",
        "_numbers",
        "_pace",
        "_rooms",
        "acquired",
        "in_flight",
        "limiter",
        "name",
        "own",
        "resets_at",
        "said",
        "slack",
        "used",
    )

    def __init__(self, name: str, limiter: RateLimiter, *, own: bool) -> None:
        self.name = name
        self.limiter = limiter
        self.own = own
        self.slack: float = limiter.slack
        self.in_flight: float = 0
        self.acquired: float = 0
        self.used: float = 0
        self.resets_at: float | None = None
        self.said: float = limiter.rate
        self._pace = 1.0
        self._depth = limiter.burst / limiter.rate if 0 < limiter.rate < math.inf else 1.0
        self._numbers: list[int] = []
        self._rooms: list[float] = []
        self._see(self._inner())

    def __str__(self) -> str:
        return f"{self.name} {self.limiter._bucket}"

    def start(self, share: float) -> None:
        """Let only this share of the bucket be there at first."""
        bucket = self._inner()
        bucket.correct(-(1 - share) * bucket.most, clock.catch_up(bucket))
        self._see(bucket)

    def watched_by(self, quota: Watcher) -> None:
        """Tell ``quota`` when the limiter has changed, or nobody waits for it any more."""
        alive = [each for each in self.limiter._watchers if each() is not None]
        self.limiter._watchers = (*alive, weakref.ref(quota))

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        self._full_at += seconds
        if self.resets_at is not None:
            self.resets_at += seconds

    # ---- what is asked ----

    @property
    def most(self) -> float:
        """The most tokens that can be taken at once."""
        return self.limiter._bucket.most

    def rounded(self, tokens: float) -> float:
        """Return so many tokens as the limiter counts them: a window counts whole ones."""
        return math.ceil(tokens) if isinstance(self._inner(), Window) else tokens

    @property
    def is_closed(self) -> bool:
        """Whether the limiter grants nothing any more."""
        return self.limiter._closed

    def idle_from(self, moment: float) -> float:
        """Return when the limiter, left alone, is as good as new; seen from ``moment``, now."""
        bucket = self.limiter._bucket
        clock.catch_up(bucket)
        return bucket.idle_from(moment)

    @property
    def is_contended(self) -> bool:
        """Whether tasks wait for the limiter itself."""
        return self.limiter._first is not None

    def attach(self) -> None:
        """Forget the tasks of a loop that is over; raise if those of another loop wait."""
        if self.limiter._first is not None:
            self.limiter._attach()

    def due(self, tokens: float, moment: float, timed_by: clock.Tells) -> float:
        """Return when ``tokens`` will be there by that clock, after those that tasks wait for."""
        limiter = self.limiter
        bucket = limiter._bucket
        if bucket.timed_by is not timed_by or type(bucket) is Held:
            limiter._catch_up(bucket)
        return bucket.due(tokens + limiter._queued, moment)

    def due_first(self, waiter: Waiter, tokens: float, moment: float) -> float:
        """Return when a task that waits for the limiter itself gets them; inf if not the first."""
        if not self.own and self.limiter._first is not waiter:
            return math.inf
        clock.catch_up(self.limiter._bucket)
        return self.limiter._bucket.due(tokens, moment)

    def seconds_until(self, tokens: float) -> float:
        """Return in how many seconds ``tokens`` will be there. From any thread."""
        bucket = self.limiter._bucket
        moment = clock.now_by(bucket.timed_by)
        return bucket.due(tokens, moment) - moment

    def level(self) -> float:
        """Return how many tokens there are, less than 0 for a debt. From any thread."""
        bucket = self._inner()
        return bucket.tokens(clock.now_by(bucket.timed_by))

    # ---- what is taken ----

    def take(self, tokens: float, number: int, moment: float, since: float) -> None:
        """Take tokens that are due, as if at ``since``."""
        self._note(number, moment)
        limiter = self.limiter
        limiter._bucket.take(tokens, since)
        self._full_at = self._bucket.full_at
        limiter._left -= 1
        self.acquired += tokens
        self.used += tokens

    def settle(self, taken: float, used: float, grant: Grant, number: int, moment: float) -> None:
        """
        Give back what was not used, or take what was used beside.

        What was taken beside before comes back first, as of the moment when it was.

        Args:
            taken: What was taken at first, or settled last.
            used: What was used.
            grant: The take.
            number: That of this change.
            moment: Now.
        """
        bucket, unused = self._inner(), taken - used
        clock.catch_up(bucket)
        self._note(number, moment)
        self.used -= unused
        more = grant.more.setdefault(self.name, [])
        if unused < 0:
            more.append((number, moment, -unused))
            if len(more) > _MORE:
                earlier, later = more[-2:]
                more[-2:] = [(earlier[0], earlier[1], earlier[2] + later[2])]
            bucket.correct(unused, moment)
        while unused > 0:
            after, at, most = more.pop() if more else (grant.number, grant.moment, math.inf)
            back = min(unused, most)
            unused -= back
            if back < most < math.inf:
                more.append((after, at, most - back))
            if not isinstance(bucket, Window):
                bucket.correct(self._give_back(back, after), moment)
            elif grant.timed_by is bucket.timed_by:  # else the moment is not known
                bucket.correct(back, at)
        self._see(bucket)

    def is_told(self, limit: float) -> bool:
        """Note what the server says that the limit is; return whether it is another than before."""
        before, self.said = self.said, limit
        return limit != before

    def has_room_for(self, cost: float) -> bool:
        """Return whether a window that was lowered to keep the pace was made as large again."""
        if not self.own or cost > self.said or not isinstance(self._inner(), Window):
            return False
        self.limiter.reconfigure(rate=math.ceil(cost))
        return True

    def pace(
        self,
        share: float,
        number: int,
        moment: float,
        *,
        most: float = 0,
        remaining: float | None = None,
    ) -> None:
        """
        Go over to a share of what the server says; what was taken before stays taken.

        A bucket keeps the size that the server says it has: it fills more slowly. If what the
        server says has changed, what stays taken may be too much: a server that always had the new
        limit has got tokens back sooner or later than the bucket here. If it says how many are
        left, they are there but for those in flight.

        Args:
            share: The share.
            number: That of this change.
            moment: Now.
            most: The most that a task waits for, which a window has to have room for.
            remaining: How many are left by what the server says.
        """
        limiter, bucket = self.limiter, self._inner()
        self._pace = share
        clock.catch_up(bucket)
        if not bucket.rate:
            return  # a pause stays
        if isinstance(bucket, Window):
            limiter.reconfigure(rate=max(1, int(self.said * share), math.ceil(most)))
            return
        self._note(number, moment)
        before = bucket.tokens(moment)
        lack = bucket.most - before
        limiter.reconfigure(rate=self.said * share, burst=max(1, self._depth * self.said))
        bucket = self._inner()
        level = bucket.most - lack
        if remaining is not None:
            level = max(level, min(before, remaining - self.in_flight))
        bucket.correct(level - bucket.tokens(moment), moment)
        self._see(bucket)

    def takes(self, cost: float) -> float:
        """Return in how many seconds so much would flow into the bucket; 0 for a window."""
        return cost * self._inner().interval

    def hold(self, seconds: float, number: int, moment: float) -> None:
        """Grant nothing for so long; the server, which says so, has counted debts in."""
        self._note(number, moment)
        bucket = self._inner()
        clock.catch_up(bucket)
        debt = -bucket.tokens(moment)
        if debt > 0 and not isinstance(bucket, Window):
            bucket.correct(debt, moment)
        self.limiter.hold(seconds)
        self._see(self._inner())

    def observe(self, remaining: float, reset: float | None, number: int, moment: float) -> None:
        """
        Believe the server that no more than ``remaining`` are left.

        More than there are here mean nothing, since it may not know yet what is in flight: unless
        it has begun a new window since it last said when that would be.
        """
        bucket = self._inner()
        clock.catch_up(bucket)
        level, at, before = bucket.tokens(moment), moment, self.resets_at
        begun = False
        if reset is not None:
            self.resets_at = moment + reset
            jitter = min(1.0, bucket.per / 2)  # many round to seconds
            begun = before is not None and before <= moment and self.resets_at > before + jitter
            at = min(moment, moment + reset - bucket.per)
        if begun:
            level = max(level, min(remaining, bucket.most, self.said * self._pace) - self.in_flight)
            if isinstance(bucket, Window):
                self._replace(bucket.copy())
        elif level < 0:  # a debt that the server does not know of is none
            level = max(level, min(0, remaining - self.in_flight))
        level = min(level, remaining)
        bucket = self._inner()
        self._note(number, moment)
        change = level - bucket.tokens(moment)
        if change:
            bucket.correct(change, at if isinstance(bucket, Window) else moment)
        self._see(bucket)

    def _replace(self, new: Bucket | Window) -> None:
        """Put another bucket into the place of what there is, also in a hold."""
        bucket = self.limiter._bucket
        if isinstance(bucket, Held):
            bucket.inner = new
        else:
            self.limiter._bucket = new

    def _inner(self) -> Bucket | Window:
        """Return the bucket, also while it is held."""
        bucket = self.limiter._bucket
        return bucket.inner if isinstance(bucket, Held) else bucket

    def _see(self, bucket: Bucket | Window) -> None:
        """Remember how the bucket is now, to find out what others do with it."""
        self._bucket = bucket
        self._full_at = bucket.full_at

    def _note(self, number: int, moment: float) -> None:
        """Note how much the bucket has lacked since the last note, before it changes."""
        bucket = self.limiter._bucket
        if bucket is not self._bucket:
            bucket = self._inner()
        if bucket is not self._bucket:
            room = 0.0  # emptied, reset or filled by others: nothing comes back from before
            self._bucket = bucket
        elif bucket.interval:  # what others took since can only be more
            room = (self._full_at - moment) / bucket.interval if self._full_at > moment else 0.0
        else:
            room = math.inf
        numbers, rooms = self._numbers, self._rooms
        while rooms and rooms[-1] >= room:
            rooms.pop()
            numbers.pop()
        rooms.append(room)
        numbers.append(number)
        if len(rooms) > _NOTED:
            self._thin_out(min(rooms[-1], bucket.most) / (_NOTED / 2))

    def _thin_out(self, step: float) -> None:
        """Note alike what differs by less than a step, by the lesser and the later number."""
        numbers, rooms = self._numbers, self._rooms
        self._numbers, self._rooms = [], []
        for number, room in zip(numbers, rooms, strict=True):
            if self._rooms and room - self._rooms[-1] < step:
                self._numbers[-1] = number
            else:
                self._numbers.append(number)
                self._rooms.append(room)

    def _give_back(self, unused: float, after: int) -> float:
        """
        Return how much of it may come back of the take of the number ``after``.

        Had it not been taken, the bucket would have lacked so much less ever since: so from the
        least that is noted on, the notes are put right for those who give back later.
        """
        numbers, rooms = self._numbers, self._rooms
        first = bisect_right(numbers, after)
        unused = min(unused, rooms[first])
        rooms[first:] = [room - unused for room in rooms[first:]]
        lesser = bisect_left(rooms, rooms[first], 0, first)
        del rooms[lesser:first], numbers[lesser:first]
        return unused

    # ---- how its own queue is used ----

    def enter(self, waiter: Waiter, tokens: float) -> None:
        """Wait for the limiter itself, behind all who do."""
        limiter = self.limiter
        if limiter._first is None:
            queue = limiter._attach()
            limiter._left, limiter._granted_at_0 = 0, limiter._granted_at_0 - limiter._left
            limiter._first = waiter
        else:
            queue = limiter._attach()
        queue.waiters[waiter] = tokens
        limiter._queued += tokens
        limiter._tally.waiting += 1

    def leave(self, waiter: Waiter, tokens: float, *, over: bool) -> None:
        """Leave the limiter's queue; ``over`` says that the loop is."""
        if over:
            self.limiter._forget_finished()
        self.limiter._leave(waiter, tokens)

    def look_again(self) -> None:
        """Wake those who wait for the limiter, after a change."""
        self.limiter._look_again()
