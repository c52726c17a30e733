"""
Several limits that requests take together across all processes: requests and tokens a minute.

Promise: a request gets all that it needs by one step of the server, or nothing. Within a process
tasks are served in the order of coming; processes that wait take turns. A task that is cancelled
has taken nothing: what it was granted in that moment goes back. What one process observes or holds
counts for all.
Cost: one task in the store's block, and one call to the server for all tasks that wait, when it
begins, when the first of them is due, and once a second; settling is reported in the background.
Why nothing is reserved ahead, as for a rate: docs/en/design/redis.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    ParamSpec,
    TypeAlias,
    TypeVar,
    final,
    overload,
)

from mtaio._internal import checks
from mtaio._internal.copies import uncopied
from mtaio._internal.decorators import AsyncFunction, Decorator, Descriptor
from mtaio._internal.limiting import check_hold, limit_through
from mtaio.redis._quota_tasks import QuotaTasks, RedisQuotaStatistics
from mtaio.resources import QuotaPart, Taken

if TYPE_CHECKING:
    from mtaio.redis._store import Store

__all__ = ["RedisQuota"]

P = ParamSpec("P")
R = TypeVar("R")

Cost: TypeAlias = float | Callable[..., float]
"""A number, or a function of a call's arguments that returns one."""

Used: TypeAlias = Callable[[Any], Mapping[str, float]]
"""A function of a call's result that returns what it has used, by the names of limits."""


@final
@uncopied
class RedisQuota:
    """
    Several rate limits taken together across processes, such as requests and tokens per minute.

    It works like a `mtaio.resources.Quota`, for all processes together: a request waits until there
    is enough of each limit and takes from all of them in one step on the server. `Taken.settle`
    corrects what was taken, and `observe` and `hold` adjust the limits to what the service says.
    Each limit is a bucket that refills evenly and holds as much as its number when full.

    Within a process, tasks are served in the order in which they asked. Processes that wait take
    turns, and none is overtaken because its request is large. What another process gives back is
    noticed within a second.

    It can be created anywhere, and is used inside the block of its store. Every process must pass
    the same key and limits.

    Args:
        store: The server, entered before the first call.
        key: What is limited. Quotas with the same key on the same server share their limits.
        per: The period of the limits in seconds.
        start: The share of each bucket, from 0 to 1, that is available when the server sees the key
            for the first time, or for the first time in a day.
        on_failure: What to do while the server is down. ``"raise"`` raises `StoreError`.
            ``"allow"`` grants everything at once. ``"local"`` uses a quota of this process alone,
            with the limits divided by the number of processes that the server saw within ten
            seconds, and this process's share of what was available at the last answer. What it
            grants is taken from the server's buckets when the server is back.
        name: Name shown in messages and metrics. Default: ``key``.
        **limits: Each a number, for every ``per`` seconds, or a pair of a number and a period of
            its own in seconds.

    Raises:
        TypeError: There are no limits, a limit has a name that `take` uses for itself, or an
            argument has the wrong type.
        ValueError: A number is not greater than 0 or is infinite, ``start`` is not from 0 to 1,
            ``key`` is empty, or ``on_failure`` is unknown.

    Example:
        ```python
        import anyio

        from mtaio.redis import RedisQuota, RedisStore

        store = RedisStore("redis://127.0.0.1:6379/0")
        quota = RedisQuota(store, "model", requests=120, tokens=40_000, per=60)


        async def ask(prompt: str) -> None:
            async with quota.take(tokens=len(prompt) + 500) as taken:
                print(f"sends {prompt}")
                taken.settle(tokens=len(prompt) + 20)


        async def main() -> None:
            async with store, anyio.create_task_group() as group:
                for prompt in ("one", "two"):
                    group.start_soon(ask, prompt)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    kind: ClassVar[Literal["limiter"]] = "limiter"

    __slots__ = ("__weakref__", "_tasks")

    def __init__(
        self,
        store: Store,
        key: str,
        *,
        per: float = 1.0,
        start: float = 1.0,
        on_failure: Literal["raise", "allow", "local"] = "raise",
        name: str | None = None,
        **limits: float | tuple[float, float],
    ) -> None:
        self._tasks = QuotaTasks(
            store,
            key,
            per=per,
            start=start,
            on_failure=on_failure,
            name=name,
            limits=limits,
        )

    def __repr__(self) -> str:
        return repr(self._tasks)

    @property
    def name(self) -> str:
        """Name shown in messages and metrics."""
        return self._tasks.name

    @property
    def key(self) -> str:
        """What is limited."""
        return self._tasks.key

    @property
    def rate(self) -> float:
        """Requests per second that the slowest limit allows, if each costs one of each limit."""
        return self._tasks.rate

    # ---- what requests do ----

    def take(self, *, timeout: float | None = None, **cost: float) -> Taken:
        """
        Return a block, for ``async with``, that starts when a request has what it needs.

        Args:
            timeout: Maximum seconds to wait; 0 to ask the server once; None for no limit. See
                `acquire`.
            **cost: Amount to take from each limit; 1 from those not named.

        Raises:
            TypeError, ValueError: As for `acquire`.
        """
        checks.timeout("timeout", timeout)
        takes: Any = self._tasks  # whose grants are its own matter
        return Taken(takes, self._tasks.checked(cost), timeout)

    async def acquire(self, *, timeout: float | None = None, **cost: float) -> None:
        """
        Take from each limit, after waiting behind the tasks of this process that asked before.

        A checkpoint. If it is cancelled, it has taken nothing: what it was granted at that moment,
        or by a call in progress, goes back to the server.

        Args:
            timeout: Maximum seconds to wait; 0 to ask the server once; None for no limit. The first
                task in the queue is refused as soon as it is known that it would have to wait
                longer.
            **cost: Amount to take from each limit, at least 0 and at most what the limit holds when
                full; 1 from those not named.

        Raises:
            LimitTimeoutError: The wait would exceed ``timeout``; ``retry_after`` estimates the
                seconds needed. The message says if the server did not answer in that time.
            RateLimitError: A limit was lowered below the cost during the wait.
            StoreError: The server is down, with ``on_failure="raise"``.
            TypeError: A name is not that of a limit, or a value is not a number.
            ValueError: A value is negative, NaN, or more than the limit can hold.
            RuntimeError: The store is not entered, or tasks of another running event loop are
                waiting.
        """
        checks.timeout("timeout", timeout)
        await self._tasks.grant(self._tasks.checked(cost), timeout)

    async def try_acquire(self, **cost: float) -> bool:
        """
        Take from each limit if there is enough and no task of this process waits.

        A checkpoint: it asks the server, with one call for all tasks that try at the same time.

        Args:
            **cost: As for `acquire`.

        Returns:
            Whether it was taken.

        Raises:
            StoreError: The server is down, with ``on_failure="raise"``.
            TypeError, ValueError, RuntimeError: As for `acquire`.
        """
        return await self._tasks.try_grant(self._tasks.checked(cost))

    def part(
        self, *, timeout: float | None = None, used: Used | None = None, **cost: Cost
    ) -> QuotaPart:
        """
        Return a part for a `mtaio.resilience.Pipeline` that computes costs from calls' arguments.

        Args:
            timeout: Maximum seconds that a call waits; 0 to ask the server once; None for no limit.
                See `acquire`.
            used: As for `mtaio.resources.Quota.part`.
            **cost: As for `mtaio.resources.Quota.part`.

        Raises:
            TypeError: A name is not that of a limit, or a value is neither a number nor a function.
            ValueError: A number could never be granted.
        """
        checks.timeout("timeout", timeout)
        if used is not None:
            checks.callable_("used", used, way_out="Pass a function of a call's result.")
        fixed = {each: value for each, value in cost.items() if not callable(value)}
        self._tasks.checked(fixed)
        self._tasks.check_names(cost)
        return QuotaPart(self, cost, used, timeout)

    def wrap(self, then: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
        """
        Return an async function that takes one of each limit, then calls ``then``.

        This makes the quota a part of a `mtaio.resilience.Pipeline`; for other costs, use `part`.
        """

        async def run(call: Any) -> Any:
            await self.acquire()
            return await then(call)

        return run

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
        return limit_through(fn, part.call, name="RedisQuota")

    # ---- what the service says ----

    def hold(self, seconds: float) -> None:
        """
        Grant nothing in any process for a while, as when a service has answered "429, retry later".

        What is left in the buckets is discarded. If there are several pauses, the one that ends
        last counts. Requests that the server has already granted are not affected. The server is
        told in the background, with this process's next call at the latest. Not a checkpoint. It
        can be called from any thread.

        Args:
            seconds: Seconds to pause, such as the service's ``Retry-After``; 0 or more.

        Raises:
            TypeError: ``seconds`` is not a number.
            ValueError: ``seconds`` is negative, infinite or NaN.
        """
        self._tasks.hold(check_hold(seconds, "quota"))

    def observe(
        self,
        *,
        limit: Mapping[str, float] | None = None,
        remaining: Mapping[str, float] | None = None,
        reset: Mapping[str, float] | None = None,
    ) -> None:
        """
        Adjust all processes to what the service says about its limits, as in response headers.

        Each argument maps names of limits to values; limits may be left out. The server is told in
        the background, as with `hold`. Not a checkpoint. It can be called from any thread.

        Args:
            limit: What the service allows in the limit's ``per`` seconds, replacing the number that
                was given; what is in use stays in use.
            remaining: What the service has left. It counts if it is less than what the server has;
                more is ignored.
            reset: Seconds until the service's window ends. It is accepted, as by
                `mtaio.resources.Quota`, but has no effect.

        Raises:
            TypeError: A name is not that of a limit, or a value is not a number.
            ValueError: A value is negative or NaN, or a limit is 0 or infinite.
        """
        limits, left = self._named("limit", limit), self._named("remaining", remaining)
        self._named("reset", reset)
        for name, value in limits.items():
            checks.positive(f"limit[{name!r}]", value, way_out="Pass what the service allows.")
        self._tasks.observe(limits, left)

    def _named(self, argument: str, values: Mapping[str, float] | None) -> dict[str, float]:
        """Return a mapping by the names of limits, or raise."""
        self._tasks.check_names(values or {})
        for name, value in (values or {}).items():
            way_out = "Pass what the service says."
            checks.at_least(f"{argument}[{name!r}]", value, 0, way_out=way_out)
        return dict(values or {})

    def record_durations(self) -> None:
        """
        Record a histogram of the waits from now on, as ``wait_duration`` in the statistics.

        A monitor calls it for what it watches; repeated calls have no effect. Not a checkpoint. It
        can be called from any thread.
        """
        self._tasks.record_durations()

    def statistics(self) -> RedisQuotaStatistics:
        """
        Return a snapshot of this process.

        Not a checkpoint. It can be called from any thread.
        """
        return self._tasks.statistics()
