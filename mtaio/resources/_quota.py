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
    Several rate limits taken together, such as an API's requests and tokens per minute.

    A request waits until there is enough of each limit, first come, first served, and takes from
    all of them in one step. What it takes is an estimate: `Taken.settle` corrects it afterwards,
    and `observe` and `hold` adjust the limits to what the server says.

    A quota is also a rate limiter: pass it as ``rate=`` or to a `mtaio.resilience.Pipeline`, and
    each call costs one of each limit; for other costs, use `part`. It can be created at module
    level and used by one event loop after another, on either backend, but only by one at a time.

    Args:
        per: The period of the limits in seconds.
        start: The share of each bucket that is available at first, from 0 to 1. Use 0 for a program
            that may have used its limits just before a restart. Limiters that are passed stay as
            they are.
        window: Whether a number is a sliding window, which grants at most that many tokens in any
            ``per`` seconds, instead of a bucket that refills evenly and holds that many when full.
        name: Name shown in messages and metrics.
        **limits: Each a number, for every ``per`` seconds; a pair of a number and a period of its
            own in seconds; or a `RateLimiter`, which other quotas and tasks may share.

    Raises:
        TypeError: There are no limits, a limit has a name that `take` uses for itself, or a value
            is not a number.
        ValueError: A number is not greater than 0, ``start`` is not from 0 to 1, or a limiter is
            given twice.

    Example:
        ```python
        import anyio

        from mtaio import Quota

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
                msg = (
                    f"a limit cannot be called {each!r}, which is an argument of part(). Rename it."
                )
                raise TypeError(msg)
        way_out = "Pass the share of each limit that is available at first, from 0 to 1."
        if checks.at_least("start", start, 0, way_out=way_out) > 1:
            msg = f"start={start!r} is more than 1. {way_out}"
            raise ValueError(msg)
        checks.flag("window", window)
        given = [each for each in limits.values() if isinstance(each, RateLimiter)]
        if len({*map(id, given)}) < len(given):
            msg = (
                f"{limits!r} has the same limiter twice, so each request would take its tokens "
                f"twice. Leave one out."
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
        Return a quota whose requests take one token from each rate limiter, as ``rate=[...]`` does.

        The same limiters in the same order give the same quota while it is in use, so that calls
        that name them wait in one queue.

        Args:
            rates: `RateLimiter` objects, or numbers of tokens per second.

        Raises:
            TypeError: An item is neither a number nor a `RateLimiter`.
            ValueError: There are none, one occurs twice, or a number is not greater than 0.
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
                    msg = f"rate={rates!r} has the same limiter twice. Leave one out."
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
        """Name shown in messages and metrics."""
        return self._limits.name

    @property
    def rate(self) -> float:
        """Requests per second that the slowest limit allows, if each costs one of each limit."""
        return min(share.limiter.rate / share.limiter.per for share in self._limits.all)

    @property
    def limits(self) -> tuple[str, ...]:
        """Names of the limits, in their order."""
        return tuple(share.name for share in self._limits.all)

    # ---- what requests do ----

    def take(self, *, timeout: float | None = None, **cost: float) -> Taken:
        """
        Return a block, for ``async with``, that starts when a request has what it needs.

        Args:
            timeout: Maximum seconds to wait; None for no limit. See `acquire`.
            **cost: Amount to take from each limit; 1 from those not named.

        Raises:
            TypeError, ValueError: As for `acquire`.
        """
        checks.timeout("timeout", timeout)
        return Taken(self._limits, self._limits.checked(cost), timeout)

    async def acquire(self, *, timeout: float | None = None, **cost: float) -> None:
        """
        Take from each limit, after waiting for enough of each behind the tasks that asked before.

        A checkpoint if it has to wait, and otherwise at least on every 64th call. If it is
        cancelled, it has taken nothing.

        Args:
            timeout: Maximum seconds to wait; None for no limit. Whether it suffices is decided when
                the call is made, from the requests ahead of it. If a limit is then lowered or held,
                the wait ends when the time is up. The time left under mtaio's timeouts around the
                call counts likewise.
            **cost: Amount to take from each limit, at least 0 and at most what the limit holds when
                full; 1 from those not named.

        Raises:
            LimitTimeoutError: The wait would exceed ``timeout`` or the time left; raised at once if
                that is known at once, with the seconds needed in ``retry_after``.
            LimitClosedError: The quota or one of its limiters is closed, or was closed during the
                wait.
            RateLimitError: A limit was lowered below the cost during the wait.
            TypeError: A name is not that of a limit, or a value is not a number.
            ValueError: A value is negative, NaN, more than the limit can hold, or, for a window,
                not whole.
            RuntimeError: Tasks of another running event loop are waiting.
        """
        if timeout is not None:
            checks.timeout("timeout", timeout)
        limits = self._limits
        await limits.grant(limits.checked(cost) if cost else limits.ones, timeout)

    def acquire_nowait(self, **cost: float) -> None:
        """
        Take from each limit if there is enough and no task waits, or raise.

        Not a checkpoint.

        Args:
            **cost: As for `acquire`.

        Raises:
            RateLimitError: There is not enough; ``retry_after`` has the seconds until there is.
            LimitClosedError: The quota or one of its limiters is closed.
            TypeError, ValueError: As for `acquire`.
        """
        self._limits.take_nowait(self._limits.checked(cost))

    def try_acquire(self, **cost: float) -> bool:
        """
        Take from each limit as `acquire_nowait` does, and return whether it did.

        Not a checkpoint.

        Raises:
            LimitClosedError: The quota or one of its limiters is closed.
            TypeError, ValueError: As for `acquire_nowait`.
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
        Return a part for a `mtaio.resilience.Pipeline` that computes costs from calls' arguments.

        When a call has returned, what ``used`` reports is settled. A call that fails keeps what it
        has taken; see `Taken`.

        Args:
            timeout: Maximum seconds that a call waits; None for no limit. See `acquire`.
            used: Called with the result of each call, or with the last item of a stream that was
                read to its end. Returns what the call used, as a mapping from names of limits to
                amounts, or None if the service has not said. If it is omitted, nothing is settled.
            **cost: For each limit a number, or a function that is called with the arguments of a
                call and returns a number; 1 for those not named.

        Raises:
            TypeError: A name is not that of a limit, or a value is neither a number nor a function.
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

        With ``@quota``, a call costs one of each limit; with ``@quota(tokens=estimate)``, what a
        function returns for the call's arguments, including ``self``.

        Args:
            fn: The function, if the decorator is used without parentheses.
            timeout: As for `part`.
            used: As for `part`.
            **cost: As for `part`.

        Raises:
            TypeError: What is decorated is not an async function, or as for `part`.
            ValueError: As for `part`.
        """
        part = self.part(timeout=timeout, used=used, **cost)
        return limit_through(fn, part.call, name="Quota")

    # ---- what the server says ----

    def hold(self, seconds: float) -> None:
        """
        Grant nothing for a while, as when a server has answered "429, retry later".

        What is left in the quota's own buckets is discarded, except in a limit with a long period,
        for which the server would have asked for a longer wait (a day's limit, if it asks for a
        second). Limiters that were passed are not affected. Otherwise as `RateLimiter.hold`.

        If the server keeps refusing after short waits, it allows less than it says. The quota then
        paces itself by what was granted between two refusals, and tries a twentieth more in each
        period; see `QuotaStatistics.pace`.

        Not a checkpoint. It can be called from any thread.

        Args:
            seconds: Seconds to pause, such as the service's ``Retry-After``; 0 or more.

        Raises:
            TypeError: ``seconds`` is not a number.
            ValueError: ``seconds`` is negative, infinite or NaN.
        """
        self._limits.hold(check_hold(seconds, "quota"))

    def close(self) -> None:
        """
        Refuse everything from now on, to shut down the program or what the quota guards.

        Tasks that wait, and all later calls, get a `mtaio.exceptions.LimitClosedError` at once. A
        closed quota cannot be reopened; limiters that were passed are not affected. Not a
        checkpoint. It can be called from any thread.
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
        Adjust to what the server says about its limits, such as in the headers of a response.

        Each argument maps names of limits to values; limits may be left out. Not a checkpoint. It
        can be called from any thread; outside the event loop's thread, it takes effect shortly
        afterwards.

        Args:
            limit: What the server allows in the limit's ``per`` seconds. A new value changes the
                rate and the size of the bucket; what is in use stays in use. Requests that wait for
                more than the new limit are refused.
            remaining: What the server has left. It counts if it is less than what the quota has
                left. More is ignored, since the server may not know what is in flight, unless the
                server's window, whose end ``reset`` gave, is over and a new one has begun.
            reset: Seconds until the server's window ends or its bucket is full.

        Raises:
            TypeError: A name is not that of a limit, or a value is not a number.
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
        Record a histogram of the waits from now on, as ``wait_duration`` in the statistics.

        A monitor calls it for what it watches; repeated calls have no effect. Not a checkpoint. It
        can be called from any thread.
        """
        self._limits.record_durations()

    def statistics(self) -> QuotaStatistics:
        """
        Return a snapshot of the quota.

        Not a checkpoint. It can be called from any thread.
        """
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
                f"number and its seconds, and acquire from the shared limiter separately."
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
