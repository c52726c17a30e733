"""
Several limits that a request takes together: so many requests and so many tokens a minute.

Promise: a request gets all that it needs in one step, or nothing; first come, first served. A task
that is cancelled or gives up has taken nothing. No limit is exceeded, also if its limiter is shared
with tasks that use it directly; then neither they nor the quota's tasks starve, though no order is
promised between the two.
Cost: that of a rate limiter for each limit; one queue, and one timer for the first that waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, ParamSpec, TypeVar, cast, final, overload
from weakref import WeakValueDictionary

from mtaio._internal import checks
from mtaio._internal.copies import uncopied
from mtaio._internal.decorators import AsyncFunction, Decorator, Descriptor
from mtaio._internal.limiting import check_hold, limit_through
from mtaio._internal.rates import Rate
from mtaio.exceptions import RateLimitError
from mtaio.resources._quota_part import Cost, QuotaPart, Used
from mtaio.resources._rate import RateLimiter
from mtaio.resources._share import Share
from mtaio.resources._shares import QuotaStatistics, Shares
from mtaio.resources._taken import Taken

__all__ = ["Quota", "check_limits", "limits_of"]

P = ParamSpec("P")
R = TypeVar("R")

_RESERVED: Final = ("key", "timeout", "used")
"""What `Quota.take` and its relatives have as arguments of their own."""


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
        start: The share of each bucket that is there at first, from 0 to 1: 0 for a program that
            is restarted, and may have used all just before. A limiter that is given stays as it is.
        window: Whether a number is a sliding window, of which never more is granted in any ``per``
            seconds, and not a bucket, which refills evenly and holds as much when full.
        name: For messages and the monitor.
        **limits: Each a number, for every ``per`` seconds; a pair of a number and its own seconds;
            or a `RateLimiter`, which may be shared: with other quotas, and with tasks that use it.

    Raises:
        TypeError: There is no limit, one has a name that `take` needs, or something is not a
            number.
        ValueError: A number is not greater than 0, ``start`` is not from 0 to 1, or a limiter is
            given twice.

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

    # Invariant: its state is in _limits, which the blocks hold too.
    __slots__ = ("__weakref__", "_limits")

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
        given = [each for each in limits.values() if isinstance(each, RateLimiter)]
        if len({*map(id, given)}) < len(given):
            msg = (
                f"{limits!r} has one limiter twice, of which each request would take two tokens. "
                f"Leave one out."
            )
            raise ValueError(msg)
        shares = [_share(each, limit, per, window=window) for each, limit in limits.items()]
        for share in shares:
            if share.own and start != 1:
                share.start(start)
        self._limits = Shares(shares, name)

    @staticmethod
    def together(rates: Sequence[float | Rate]) -> Quota:
        """
        Return a quota of which each request takes one token of each limiter: ``rate=[...]``.

        The same limiters in the same order give the same quota as long as somebody has it: calls
        that name them wait in one queue.

        Args:
            rates: Numbers, for every second, or objects of `RateLimiter`.

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
        for number, each in enumerate(rates):
            name = f"rate_{number + 1}"
            if isinstance(each, RateLimiter):
                if any(each is share.limiter for share in shares):
                    msg = f"rate={rates!r} has one limiter twice. Leave one out."
                    raise ValueError(msg)
                shares.append(Share(name, each, own=False))
            else:
                rate = checks.positive(f"rate[{number}]", each, way_out=way_out)
                shares.append(Share(name, RateLimiter(rate), own=True))
        quota = Quota.__new__(Quota)
        quota._limits = Shares(shares, None)  # noqa: SLF001 - its own class
        if not any(share.own for share in shares):
            _together[key] = quota
        return quota

    def __repr__(self) -> str:
        return repr(self._limits)

    @property
    def name(self) -> str | None:
        """The name given to the quota."""
        return self._limits.name

    @property
    def rate(self) -> float:
        """How many requests a second the slowest limit allows that cost one of each."""
        return min(share.limiter.rate / share.limiter.per for share in self._limits.all)

    @property
    def limits(self) -> tuple[str, ...]:
        """The names of the limits, in their order."""
        return tuple(share.name for share in self._limits.all)

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
        return Taken(self._limits, self._limits.checked(cost), timeout)

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
        limits = self._limits
        await limits.grant(limits.checked(cost) if cost else limits.ones, timeout)

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
        self._limits.take_nowait(self._limits.checked(cost))

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
                been reached; returns what it used of some limits, by their names, as a mapping, or
                None if the service has not said. None in its place settles nothing.
            **cost: For each limit a number, or a function that gets the arguments of a call and
                returns a number; what is not named costs 1.

        Raises:
            TypeError: No limit has such a name, or a value is neither a number nor a function.
            ValueError: A number could never be granted.
        """
        checks.timeout("timeout", timeout)
        if used is not None:
            checks.callable_("used", used, way_out="Pass a function of a call's result.")
        self._limits.check_names(cost)
        self._limits.checked({each: value for each, value in cost.items() if not callable(value)})
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
        return limit_through(fn, part.call, name="Quota")

    # ---- what the server says ----

    def hold(self, seconds: float) -> None:
        """
        Grant nothing for so long: for a server that has answered "429, retry later".

        What is there of the quota's own buckets counts as gone, but not of a limit of a long
        period for which the server would have asked to wait longer: the day's, after a pause of a
        second. Limiters that were given are left alone. Otherwise as `RateLimiter.hold`.

        If the server refuses again and again after short waits, it allows less than it says, and
        what it has granted between two refusals is how much. Then the quota goes by that, and tries
        a twentieth more in each period: `QuotaStatistics.pace`.

        Not a checkpoint; from any thread.

        Args:
            seconds: How long, such as the server's ``Retry-After``; 0 or more.

        Raises:
            TypeError: ``seconds`` is not a number.
            ValueError: ``seconds`` is negative, infinite or NaN.
        """
        self._limits.hold(check_hold(seconds, "quota"))

    def close(self) -> None:
        """
        Let nothing in any more: for the shutdown of a program, or of what the quota is for.

        Tasks that wait, and every later call, get a `mtaio.exceptions.LimitClosedError` at once. It
        cannot be opened again; limiters that were given are left alone. Not a checkpoint; from any
        thread.
        """
        self._limits.close()

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
        self._limits.observe(limits, left, resets)

    def _named(self, argument: str, values: Mapping[str, float] | None) -> Mapping[str, float]:
        """Return a mapping by the names of limits, or raise."""
        if not values:
            return {}
        self._limits.check_names(values)
        way_out = "Pass what the server says."
        for name, value in values.items():
            checks.at_least(f"{argument}[{name!r}]", value, 0, way_out=way_out)
        return dict(values)

    def record_durations(self) -> None:
        """
        Keep a histogram of the waits from now on, ``wait_duration`` in the statistics.

        A monitor calls it for what it watches. Not a checkpoint; from any thread. Calling it again
        changes nothing.
        """
        self._limits.record_durations()

    def statistics(self) -> QuotaStatistics:
        """Return the state and counts so far. Not a checkpoint; from any thread."""
        return self._limits.statistics()


def limits_of(quota: Quota) -> Shares:
    """Return the limits of a quota, for a `KeyedQuota`."""
    return quota._limits  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module


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
"""What `Quota.together` has made of limiters alone, by their ids: a quota holds its limiters."""
