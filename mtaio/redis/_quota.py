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
    Several limits that requests of all processes take together: requests and tokens a minute.

    What a `mtaio.resources.Quota` is in one process: a request waits until there is enough of each
    limit, and takes all in one step of the server; `Taken.settle` corrects what was taken, and
    `observe` and `hold` follow what the service says, for all processes at once. Each limit is a
    bucket that refills evenly, and holds as much as its number when full.

    Within a process, tasks are served in the order of asking. Processes that wait take turns, and
    none is overtaken because its request is large. What another process gives back is noticed
    within a second.

    May be created anywhere; used inside the block of its store. Every process has to pass the same
    key and limits.

    Args:
        store: The server, entered before the first call.
        key: What is limited. Quotas with the same key on the same server share their limits.
        per: The seconds that the numbers are meant for.
        start: The share of each bucket that is there when the server sees the key for the first
            time, or for the first time in a day, from 0 to 1.
        on_failure: What to do while the server is down. ``"raise"`` raises `StoreError`.
            ``"allow"`` grants everything at once. ``"local"`` grants by a quota of this process
            alone: the numbers divided by the processes that the server saw within ten seconds, and
            its part of what was there at the last answer. What it grants is taken from the server
            when that is back.
        name: The name in messages and in the monitor. Default: ``key``.
        **limits: Each a number, for every ``per`` seconds, or a pair of a number and its seconds.

    Raises:
        TypeError: There is no limit, one has a name that `take` needs, or something has the wrong
            type.
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
        """The name given to the quota, or its key."""
        return self._tasks.name

    @property
    def key(self) -> str:
        """What is limited."""
        return self._tasks.key

    @property
    def rate(self) -> float:
        """How many requests a second the slowest limit allows that cost one of each."""
        return self._tasks.rate

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
        takes: Any = self._tasks  # whose grants are its own matter
        return Taken(takes, self._tasks.checked(cost), timeout)

    async def acquire(self, *, timeout: float | None = None, **cost: float) -> None:
        """
        Wait until there is enough of each limit, behind all of this process that asked before.

        A checkpoint. If it is cancelled, it has taken nothing: what it was granted in that moment
        goes back to the server, and what it may have been granted by a call under way does too.

        Args:
            timeout: The most seconds to wait; 0 to ask the server once; None for no limit. The
                first in the queue is refused as soon as it is known to wait for longer.
            **cost: What is taken of each limit, 0 or more and at most what it holds when full; what
                is not named costs 1.

        Raises:
            LimitTimeoutError: The wait does not fit into ``timeout``; ``retry_after`` estimates the
                seconds needed. Its message says so if the server has not answered in that time.
            RateLimitError: A limit was lowered below the cost during the wait.
            StoreError: The server is down, with ``on_failure="raise"``.
            TypeError: No limit has such a name, or a value is not a number.
            ValueError: A value is negative, NaN, or more than the limit ever holds.
            RuntimeError: The store is not entered, or tasks of another running event loop wait.
        """
        checks.timeout("timeout", timeout)
        await self._tasks.grant(self._tasks.checked(cost), timeout)

    async def try_acquire(self, **cost: float) -> bool:
        """
        Take what there is enough of if no task of this process waits.

        A checkpoint: it asks the server, by one call for all tasks that try at the same time.

        Args:
            **cost: As for `acquire`.

        Returns:
            Whether it was taken.

        Raises:
            StoreError: The server is down, with ``on_failure="raise"``.
            TypeError, ValueError, RuntimeError: As `acquire`.
        """
        return await self._tasks.try_grant(self._tasks.checked(cost))

    def part(
        self, *, timeout: float | None = None, used: Used | None = None, **cost: Cost
    ) -> QuotaPart:
        """
        Return a part of a `mtaio.resilience.Pipeline` whose calls cost what their arguments say.

        As `mtaio.resources.Quota.part`.

        Args:
            timeout: The most seconds that a call waits, as for `acquire`.
            used: Called with the result of each call; returns what it used of some limits, by their
                names, as a mapping; None to settle nothing.
            **cost: For each limit a number, or a function that gets the arguments of a call and
                returns a number; what is not named costs 1.

        Raises:
            TypeError: No limit has such a name, or a value is neither a number nor a function.
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
        Return an async function that takes one of each limit, and then calls ``then``.

        With it the quota is a part of a `mtaio.resilience.Pipeline`; `part` is one whose calls cost
        what their arguments say.
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
        return limit_through(fn, part.call, name="RedisQuota")

    # ---- what the service says ----

    def hold(self, seconds: float) -> None:
        """
        Grant nothing for so long, in no process: for a service that has said "429, retry later".

        What is in the buckets counts as gone. Of several holds the one that ends last counts. It is
        for requests that the server has not granted yet, and reaches it in the background, with
        this process's next call at the latest. Not a checkpoint; from any thread.

        Args:
            seconds: How long, such as the service's ``Retry-After``; 0 or more.

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
        Follow what the service says of its limits, as in the headers of an answer, everywhere.

        Each is a mapping by the names of limits, of which some may be missing. It reaches the
        server in the background, as `hold` does. Not a checkpoint; from any thread.

        Args:
            limit: What the service allows in the limit's ``per`` seconds, in place of the number
                that was given; what is in use stays so.
            remaining: What it has left. Less than there is at the server counts; more does not.
            reset: The seconds until the service's window ends, for the same calls as of a
                `mtaio.resources.Quota`. Nothing follows from it here.

        Raises:
            TypeError: No limit has such a name, or a value is not a number.
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
        Keep a histogram of the waits from now on, ``wait_duration`` in the statistics.

        A monitor calls it for what it watches. Not a checkpoint; from any thread. Calling it again
        changes nothing.
        """
        self._tasks.record_durations()

    def statistics(self) -> RedisQuotaStatistics:
        """Return what the quota has done here. Not a checkpoint; any thread may call it."""
        return self._tasks.statistics()
