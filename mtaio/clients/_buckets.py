"""
Limits that only the server knows: which requests share one, how much of it is left, until when.

Promise: by what the server has said, no request is sent that it would refuse; requests to one route
go first come, first served; a task that is cancelled while it waits leaves nothing behind, and
nothing is kept without bound.
Cost: half a kilobyte for each bucket that is held; while tasks wait for one, one of them sleeps.

How a bucket counts. The server says of a window how much remains and when it resets. Between a
request and its response others are in flight, and each may or may not have been counted in what a
response says. So a request is sent while ``in flight < remaining``, where *remaining* is the least
that was said of this window: a request in flight that was counted already is subtracted twice until
it is answered, and never not at all.

Which window a response speaks of is seen from its reset. The server said "in s seconds" some time
between sending and arrival, so the window ends between ``sent + s`` and ``arrived + s``. Two such
spans of one window overlap; if the new one lies later, there is a new window; if earlier, it is a
late response and says nothing new. If they overlap, and the window may be over by now, it is taken
for both: the less that remains counts until the later end. After that the window is over and the
whole limit is there again, minus what is in flight.
"""

from __future__ import annotations

import math
import reprlib
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

import anyio

from mtaio._internal import checks, clock, deadlines
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.copies import uncopied
from mtaio._internal.durations import WaitTimes
from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.rates import Rate
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, SECONDS, snapshot
from mtaio._internal.wait_queue import WaitQueue
from mtaio.clients._headers import RateLimitHeaders, ResponseHeaders, ServiceLimit
from mtaio.exceptions import LimitTimeoutError, RateLimitError

if TYPE_CHECKING:
    from mtaio._internal.backend import Waiter

__all__ = ["BucketSlot", "Route", "ServerBuckets", "ServerBucketsStatistics"]

_TICK: Final = 1e-6
"""Seconds by which a sum of moments may be off."""


_WEIGHED: Final = "tokens"
"""How limits are called of which requests cost more than one: they are for a `Quota`."""


class Route(NamedTuple):
    """
    The route of a request, for servers that count it separately for some resources.

    Discord gives routes of one kind the same bucket, but counts it separately for each channel,
    guild and webhook. For these, a route is the path without the ids, and the id that counts:

    ```python
    Route("GET /channels/{id}/messages", major="81384788765712384")
    ```

    Attributes:
        path: What the requests have in common.
        major: The resource for which the server counts separately.
    """

    path: Hashable
    major: Hashable = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBucketsStatistics:
    """The state of a `ServerBuckets`, and what it has done so far."""

    buckets: int = field(metadata=GAUGE)
    """Buckets held, those of routes whose bucket is not known yet included."""
    max_buckets: int = field(metadata=LIMIT)
    """The most that may be held."""
    forgotten: int = field(metadata=COUNTER)
    """Buckets forgotten, because they were idle and others needed the room."""
    in_flight: int = field(metadata=GAUGE)
    """Requests allowed and not answered."""
    waiting: int = field(metadata=GAUGE)
    """Tasks waiting."""
    acquired: int = field(metadata=COUNTER)
    """Requests allowed."""
    rejected: int = field(metadata=COUNTER)
    """Requests not allowed, because there was no room for their bucket."""
    timed_out: int = field(metadata=COUNTER)
    """Requests refused, because the caller's timeout would have ended the wait."""
    cancelled: int = field(metadata=COUNTER)
    """Requests cancelled while they waited."""
    refused: int = field(metadata=COUNTER)
    """Requests that the server refused."""
    wait_seconds: float = field(metadata=COUNTER)
    """Seconds that requests waited until they were allowed, in total."""
    max_wait_seconds: float = field(metadata=GAUGE)
    """Seconds of the longest of those waits."""
    wait_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long each of those waits took; None before ``record_durations()``."""


_Key: TypeAlias = tuple[str | None, Hashable, Hashable]
"""Of a bucket: its name, a path if it has none, and the resource for which the server counts."""


class _Window:
    """
    What the server has said of one limit of a bucket.

    Attributes:
        limit: What it allows in a window, if it says.
        remaining: The least that was said to remain of this window.
        begin: The earliest moment at which the window may end.
        end: The latest.
    """

    __slots__ = ("begin", "end", "limit", "remaining")

    @property
    def least(self) -> float:
        """What remains at least: one may find out how things stand if nothing else will."""
        return 1.0 if self.end == math.inf else 0.0

    def __init__(self) -> None:
        self.limit: float | None = None
        self.remaining = math.inf
        self.begin = -math.inf
        self.end = -math.inf

    def tell(self, said: ServiceLimit, remaining: float, sent: float, arrived: float) -> None:
        """Take over what a response says."""
        if said.reset is None:
            # When there will be more is not known: one at a time may find out.
            self.limit, self.remaining = said.limit, max(1.0, remaining)
            self.begin, self.end = -math.inf, math.inf
            return
        # Whole seconds may have been rounded up.
        begin = sent + said.reset - (1.0 if said.reset.is_integer() else 0.0)
        end = arrived + said.reset
        if end < self.begin and sent < self.end:
            return  # of the window before
        if begin > self.end or sent >= self.end or self.end == math.inf:
            self.remaining, self.begin, self.end = remaining, begin, end
        else:
            self.remaining = min(self.remaining, remaining)
            if arrived <= self.begin:  # this window cannot be over
                self.begin, self.end = max(self.begin, begin), min(self.end, end)
            else:
                self.begin, self.end = min(self.begin, begin), max(self.end, end)
        if said.limit is not None:
            self.limit = said.limit

    def allows_from(self, in_flight: int, moment: float, unknown: float) -> float:
        """Return when one more may be sent: ``inf`` if one in flight has to be answered first."""
        if moment < self.end - _TICK:
            return moment if in_flight < math.floor(self.remaining) else self.end
        whole = unknown if self.limit is None else max(1.0, math.floor(self.limit))
        return moment if in_flight < whole else math.inf


class _Bucket:
    """
    The requests that share limits.

    Attributes:
        key: Under which it is held.
        windows: What the server said of each limit, by its name.
        held_until: Until then the server does not want any.
        side_by_side: How many may be in flight where it has said nothing: it rises after a refusal.
        refused: Whether it refused, and did not say how much it allows.
        in_flight: What was allowed and is not answered.
        waiters: The tasks that wait, in their order.
    """

    __slots__ = (
        "held_until",
        "in_flight",
        "key",
        "refused",
        "side_by_side",
        "waiters",
        "windows",
    )

    def __init__(self, key: _Key, unknown: float) -> None:
        self.key: _Key = key
        self.windows: dict[str, _Window] = {}
        self.held_until: float = -math.inf
        self.side_by_side: float = unknown
        self.refused: bool = False
        self.in_flight: set[BucketSlot] = set()
        self.waiters: OrderedDict[Waiter, BucketSlot] = OrderedDict()

    def allows_from(self, moment: float, unknown: float) -> float:
        """Return when one more may be sent: ``inf`` if one in flight has to be answered first."""
        if moment < self.held_until - _TICK:
            return self.held_until
        if not self.windows:
            return moment if len(self.in_flight) < self.side_by_side else math.inf
        in_flight = len(self.in_flight)
        return max(each.allows_from(in_flight, moment, unknown) for each in self.windows.values())

    def is_idle(self, moment: float) -> bool:
        """Return whether a new bucket would allow no more."""
        return (
            not self.in_flight
            and not self.waiters
            and self.held_until <= moment
            and all(each.end <= moment or each.end == math.inf for each in self.windows.values())
        )

    def move(self, seconds: float) -> None:
        self.held_until += seconds
        for window in self.windows.values():
            window.begin += seconds
            window.end += seconds


@uncopied
@final
class ServerBuckets:
    """
    Keeps to limits that only the server knows and reports in the headers of its responses.

    For each route, it sends as many requests as the server said remain, then waits for the reset.
    Routes that the server counts together, by naming the same bucket (Discord's
    ``X-RateLimit-Bucket``), wait together once it has said so. After a refusal, the bucket is
    paused for as long as the server asks, or all buckets if the refusal was global.

    While nothing is known about a route, one request at a time is sent, until a response says more;
    if the server reports no limits, the route is then not limited. After a refusal without figures,
    requests are sent one at a time, then two, and so on. For limits in tokens, use a `Quota`.

    Pass it to a `LimitedTransport` or a `LimitedMiddleware` as ``limiter=``, or use `take`. It can
    be created anywhere and used by one event loop after another.

    Args:
        overall: A limit for all requests together that the server does not report, such as
            Discord's 50 per second. Each request takes a token from it when its bucket allows it.
        unknown: Maximum number of requests in flight on a route about which nothing is known;
            ``math.inf`` for no limit.
        max_buckets: Maximum number of routes and buckets to hold, at least 1. Idle ones make room
            for new ones; if none is idle, a request to a new route is refused.
        longest: Maximum seconds to wait, whatever the server says.
        name: Name shown in messages and metrics.

    Raises:
        TypeError, ValueError: An argument is invalid; the message says what to pass instead.

    Example:
        ```python
        import httpx

        from mtaio import RateLimiter
        from mtaio.clients import LimitedTransport, ServerBuckets

        buckets = ServerBuckets(overall=RateLimiter(50, burst=50))
        transport = LimitedTransport(
            limiter=buckets, key=lambda request: request.url.path
        )
        client = httpx.AsyncClient(transport=transport)
        ```
    """

    # Invariants:
    # - a bucket is in _buckets under its key, and in_flight holds the slots that are
    #   allowed in it; each of its waiters is one of _queue's, and no other bucket's;
    # - the first waiter of a bucket sleeps until the bucket may allow it, and looks again whenever
    #   it is woken; who leaves the bucket's queue as its first, or gives something back, wakes it;
    # - _nameless has for each path its buckets in _buckets that have no name;
    # - _known has for each path the bucket that the server named last, as far as there was room;
    # - _turn counts the event loops: what was allowed in one that is over is given back by nobody.
    __slots__ = (
        "__weakref__",
        "_acquired",
        "_buckets",
        "_cancelled",
        "_forgotten",
        "_held_until",
        "_in_flight",
        "_known",
        "_longest",
        "_max_buckets",
        "_name",
        "_nameless",
        "_overall",
        "_queue",
        "_refused",
        "_rejected",
        "_timed_out",
        "_turn",
        "_unknown",
        "_wait_times",
        "timed_by",
    )

    def __init__(
        self,
        *,
        overall: Rate | None = None,
        unknown: float = 1,
        max_buckets: int = 10_000,
        longest: float = 86_400.0,
        name: str | None = None,
    ) -> None:
        given: Any = overall
        if given is not None and not isinstance(given, Rate):
            msg = f"overall={overall!r} is {checks.type_of(overall)}, not a rate limiter"
            raise checks.refusal(TypeError, msg, "Pass RateLimiter(50, burst=50), or None.")
        self._overall = overall
        way_out = "Pass how many requests to try at once, at least 1, or math.inf."
        self._unknown = checks.at_least("unknown", unknown, 1, way_out=way_out)
        way_out = "Pass how many routes may be held, at least 1."
        self._max_buckets = checks.count("max_buckets", max_buckets, way_out=way_out)
        self._longest = checks.at_least("longest", longest, 0, way_out="Pass seconds >= 0.")
        self._name = name
        self._buckets: OrderedDict[_Key, _Bucket] = OrderedDict()
        self._nameless: dict[Hashable, dict[_Bucket, None]] = {}
        self._known: OrderedDict[Hashable, str] = OrderedDict()
        self._queue = WaitQueue[None]()
        self._held_until = -math.inf
        self.timed_by: clock.Tells = clock.REAL
        self._turn = 0
        self._in_flight = 0
        self._acquired = 0
        self._rejected = 0
        self._timed_out = 0
        self._cancelled = 0
        self._refused = 0
        self._forgotten = 0
        self._wait_times = WaitTimes()

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return (
            f"<ServerBuckets{name}: {len(self._buckets)} buckets, {self._in_flight} in flight, "
            f"{len(self._queue)} waiting>"
        )

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._name

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        self._held_until += seconds
        for bucket in self._buckets.values():
            bucket.move(seconds)

    def take(self, route: Hashable) -> BucketSlot:
        """
        Return a block that is entered when the server would accept another request to ``route``.

        Inside the block, pass the response to `BucketSlot.observe`. If the block is left without
        that, because there was no response, the request is assumed to have been counted by the
        server.

        Entering the block is a checkpoint. If it is cancelled while it waits, nothing is changed.
        It raises `mtaio.exceptions.LimitTimeoutError` at once if one of mtaio's timeouts around it
        would end the wait, and `mtaio.exceptions.RateLimitError` if there is no room for the route.

        ```python
        async with buckets.take("GET /users") as taken:
            response = await client.get("/users")
            taken.observe(response.headers, refused=response.status_code == 429)
        ```

        Args:
            route: What the server counts together, as far as is known: a `Route` or any hashable
                value.

        Raises:
            TypeError: ``route`` is not hashable.
        """
        try:
            hash(route)
        except TypeError as error:
            msg = f"route={reprlib.repr(route)} cannot be hashed: {error}"
            way_out = "Pass what can be the key of a dict, such as a str or a Route."
            raise checks.refusal(TypeError, msg, way_out) from error
        return BucketSlot(self, route)

    def hold(self, seconds: float) -> None:
        """
        Allow no requests for a while. If there are several pauses, the longest counts.

        Not a checkpoint.

        Args:
            seconds: Seconds to pause, from now.

        Raises:
            TypeError, ValueError: ``seconds`` is not a number of at least 0.
        """
        checks.at_least("seconds", seconds, 0, way_out="Pass seconds >= 0.")
        self._held_until = max(self._held_until, clock.catch_up(self) + seconds)

    def record_durations(self) -> None:
        """
        Record a histogram of the waits from now on, as ``wait_duration`` in the statistics.

        A monitor calls it for what it watches; repeated calls have no effect. Not a checkpoint. It
        can be called from any thread.
        """
        self._wait_times.record()

    def statistics(self) -> ServerBucketsStatistics:
        """
        Return a snapshot of the buckets.

        Not a checkpoint. It can be called from any thread.
        """
        return snapshot(
            ServerBucketsStatistics,
            self,
            self._wait_times,
            buckets=len(self._buckets),
            waiting=len(self._queue),
        )

    async def _enter(self, taken: BucketSlot) -> None:
        """
        Allow one request: see `take`.

        1. Let other tasks run; whoever is cancelled here has left no trace.
        2. Join the bucket's queue if the bucket does not allow it now, and sleep until it does, or
           until woken to look again. The bucket may become another one meanwhile.
        3. Count as in flight, leave the queue, and wake the next, whom the bucket may allow, too.
        4. Take a token of the overall limit. A hold may have begun by then: wait for its end.
        """
        await checkpoint()
        if self._queue.attach(self, busy=self._in_flight > 0):
            self._forget_loop()
        asked = moment = clock.catch_up(self)
        taken.bucket = bucket = self._bucket_of(taken.route, moment)
        if bucket.waiters or self._allowed_from(bucket, moment) > moment:
            await self._wait(taken)
        self._allow(taken)
        try:
            if self._overall is not None:
                await self._overall.acquire()
            moment = clock.catch_up(self)
            while (held := max(self._held_until, taken.bucket.held_until)) > moment + _TICK:
                await anyio.sleep_until(clock.loop_deadline(held))
                moment = max(held, clock.catch_up(self))
        except BaseException:
            self._cancelled += 1
            self._acquired -= 1
            self._give_back(taken)
            raise
        taken.sent = clock.catch_up(self)
        self._wait_times.count(taken.sent - asked)

    async def _wait(self, taken: BucketSlot) -> None:
        """Wait in the queue until the bucket allows a request, and leave it."""
        waiter = self._queue.join(None)
        taken.bucket.waiters[waiter] = taken
        try:
            while True:
                moment = clock.catch_up(self)
                due = self._allowed_from(taken.bucket, moment)
                if moment < due < math.inf:
                    self._check_deadline(taken, due, moment)
                if next(iter(taken.bucket.waiters)) is not waiter:
                    due = math.inf
                elif due <= moment:
                    break
                if due == math.inf:
                    await waiter
                    continue
                with anyio.CancelScope(deadline=clock.loop_deadline(due)):
                    await waiter
        except BaseException as error:
            if isinstance(error, LimitTimeoutError):
                self._timed_out += 1
            else:
                self._cancelled += 1
            self._leave(taken, waiter)
            raise
        self._leave(taken, waiter)

    def _check_deadline(self, taken: BucketSlot, due: float, moment: float) -> None:
        """Raise if a limit around the call would end the wait."""
        deadline = deadlines.logical()
        if due < deadline - _TICK:
            return
        left = max(deadline - moment, 0.0)
        msg = (
            f"{self!r} cannot allow route={reprlib.repr(taken.route)} within the {left:.6g} s that "
            f"are left here, only in {due - moment:.6g} s. That time limit is set by a timeout "
            f"around the call."
        )
        raise LimitTimeoutError(
            msg,
            retry_after=due - moment,
            timeout=left,
            deadline=clock.loop_deadline(deadline),
            name=self._name,
        )

    def _leave(self, taken: BucketSlot, waiter: Waiter) -> None:
        """Leave the queue, and let the next look; if the loop was over, it has been forgotten."""
        self._queue.leave(waiter)
        bucket = taken.bucket
        was_first = next(iter(bucket.waiters), None) is waiter
        bucket.waiters.pop(waiter, None)
        if was_first:
            _wake_first(bucket)

    def _allow(self, taken: BucketSlot) -> None:
        taken.turn = self._turn
        taken.allowed = True
        taken.bucket.in_flight.add(taken)
        self._in_flight += 1
        self._acquired += 1

    def _give_back(self, taken: BucketSlot, *, counted: bool = False) -> None:
        """
        Count a request as answered, and let the first that waits look again.

        Args:
            taken: The request.
            counted: Whether the server may have counted it, and has not said how much remains.
        """
        if not taken.allowed or taken.turn != self._turn:
            return
        taken.allowed = False
        if counted:
            for window in taken.bucket.windows.values():
                window.remaining = max(window.least, window.remaining - 1)
        taken.bucket.in_flight.discard(taken)
        self._in_flight -= 1
        _wake_first(taken.bucket)

    def _allowed_from(self, bucket: _Bucket, moment: float) -> float:
        """Return when one more may be sent: ``inf`` if one in flight has to be answered first."""
        if moment < self._held_until - _TICK:
            return self._held_until
        return bucket.allows_from(moment, self._unknown)

    def _observe(
        self, taken: BucketSlot, said: RateLimitHeaders, *, refused: bool, pause: float
    ) -> None:
        """Take over what a response says."""
        if not taken.allowed or taken.turn != self._turn:
            return
        moment = clock.catch_up(self)
        if said.bucket is not None:
            self._name_bucket(taken, said.bucket, moment)
        bucket = taken.bucket
        if not (refused and (said.is_global or said.scope == "shared")):
            for name, limit in said.limits.items():
                if limit.remaining is not None and not name.endswith(_WEIGHED):
                    window = bucket.windows.get(name)
                    if window is None:
                        window = bucket.windows[name] = _Window()
                    window.tell(limit, limit.remaining, taken.sent, moment)
        if refused:
            self._refuse(bucket, said, moment, pause)
        elif bucket.refused:
            bucket.side_by_side += 1
        else:
            bucket.side_by_side = math.inf
        if bucket.windows:
            bucket.refused = False
        _wake_first(bucket)

    def _refuse(self, bucket: _Bucket, said: RateLimitHeaders, moment: float, pause: float) -> None:
        """Hold what the server refused for as long as it asks."""
        self._refused += 1
        until = moment + min(max(said.wait or 0.0, pause), self._longest)
        if said.is_global:
            self._held_until = max(self._held_until, until)
            return
        bucket.held_until = max(bucket.held_until, until)
        bucket.refused, bucket.side_by_side = True, 1

    def _bucket_of(self, route: Hashable, moment: float) -> _Bucket:
        """
        Return the bucket of a route, which is added if it is not held.

        Raises:
            RateLimitError: There is no room for it.
        """
        path, major = _parts(route)
        named = self._known.get(path)
        if named is None:
            return self._held((None, path, major), moment)
        self._known.move_to_end(path)
        return self._held((named, None, major), moment)

    def _held(self, key: _Key, moment: float) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is not None:
            self._buckets.move_to_end(key)
            return bucket
        if len(self._buckets) >= self._max_buckets:
            idle = next((each for each in self._buckets.values() if each.is_idle(moment)), None)
            if idle is None:
                self._rejected += 1
                msg = (
                    f"{self!r} has no room for another bucket: max_buckets={self._max_buckets!r} "
                    f"are held and none is idle. Raise max_buckets, or try again later."
                )
                raise RateLimitError(msg, name=self._name)
            self._remove(idle)
            self._forgotten += 1
        bucket = self._buckets[key] = _Bucket(key, self._unknown)
        if key[0] is None:
            self._nameless.setdefault(key[1], {})[bucket] = None
        return bucket

    def _remove(self, bucket: _Bucket) -> None:
        del self._buckets[bucket.key]
        named, path, _ = bucket.key
        if named is None:
            same = self._nameless[path]
            del same[bucket]
            if not same:
                del self._nameless[path]

    def _name_bucket(self, taken: BucketSlot, named: str, moment: float) -> None:
        """
        Note which bucket the server counts a route in.

        The buckets of all routes with the same path get that name.
        """
        path, major = _parts(taken.route)
        self._known[path] = named
        self._known.move_to_end(path)
        if len(self._known) > self._max_buckets:
            self._known.popitem(last=False)
        for bucket in [*self._nameless.get(path, ())]:
            self._move(bucket, (named, None, bucket.key[2]))
        key = (named, None, major)
        if taken.bucket.key != key:
            # The server has changed its mind; others in flight will say so themselves.
            with suppress(RateLimitError):
                after, before = self._held(key, moment), taken.bucket
                before.in_flight.discard(taken)
                after.in_flight.add(taken)
                taken.bucket = after
                _wake_first(before)

    def _move(self, bucket: _Bucket, key: _Key) -> None:
        """
        Hold a bucket under another key.

        If there is a bucket, who waits for the other goes to the end of its queue, and those in
        flight are counted there, too.
        """
        self._remove(bucket)
        after = self._buckets.setdefault(key, bucket)
        if after is bucket:
            bucket.key = key
            return
        after.held_until = max(after.held_until, bucket.held_until)
        after.in_flight |= bucket.in_flight
        after.waiters.update(bucket.waiters)
        for other in (*bucket.in_flight, *bucket.waiters.values()):
            other.bucket = after
        _wake_first(after)

    def _forget_loop(self) -> None:
        """Forget what waits and is in flight: the event loop is over."""
        self._turn += 1
        self._in_flight = 0
        for bucket in self._buckets.values():
            bucket.in_flight.clear()
            bucket.waiters.clear()


def _parts(route: Hashable) -> tuple[Hashable, Hashable]:
    """Return the path and the major resource of a route."""
    return route if isinstance(route, Route) else (route, None)


def _wake_first(bucket: _Bucket) -> None:
    """Let the first that waits for a bucket look again."""
    first = next(iter(bucket.waiters), None)
    if first is not None:
        first.wake()


@final
class BucketSlot:
    """
    A block for one request, entered when the server would accept it; see `ServerBuckets.take`.

    It can be entered only once.
    """

    # Invariant: while allowed, and while turn is that of the buckets, it is in its bucket's
    # in_flight.
    __slots__ = ("_buckets", "_entered", "allowed", "bucket", "is_told", "route", "sent", "turn")

    def __init__(self, buckets: ServerBuckets, route: Hashable) -> None:
        self._buckets = buckets
        self._entered = False
        self.route: Final = route
        self.bucket: _Bucket
        self.allowed: bool = False
        self.is_told: bool = False
        self.sent: float = 0.0
        self.turn: int = -1

    def observe(
        self,
        headers: ResponseHeaders | RateLimitHeaders,
        *,
        refused: bool = False,
        pause: float = 0.0,
    ) -> RateLimitHeaders:
        """
        Adjust the bucket to what a response says.

        It has no effect outside the block.

        Not a checkpoint.

        Args:
            headers: The response's headers, as for `RateLimitHeaders.parse`, or what that returned.
            refused: Whether the server refused the request, with status 429.
            pause: Minimum seconds to wait after a refusal, whatever the headers say.

        Returns:
            The parsed headers.

        Raises:
            TypeError, ValueError: An argument is invalid; the message says what to pass instead.
        """
        checks.flag("refused", refused)
        checks.at_least("pause", pause, 0, way_out="Pass seconds >= 0.")
        said = headers
        if not isinstance(said, RateLimitHeaders):
            said = RateLimitHeaders.parse(said)
        self.is_told = True
        self._buckets._observe(self, said, refused=refused, pause=pause)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
        return said

    async def __aenter__(self) -> BucketSlot:
        """Wait until the server would accept the request. A checkpoint."""
        if self._entered:
            msg = f"{self!r} was entered before. Call take() for each request."
            raise RuntimeError(msg)
        self._entered = True
        await self._buckets._enter(self)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Count the request as answered.

        Not a checkpoint.
        """
        self._buckets._give_back(self, counted=not self.is_told)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module

    def __repr__(self) -> str:
        return f"<BucketSlot of {self._buckets!r} for route={reprlib.repr(self.route)}>"
