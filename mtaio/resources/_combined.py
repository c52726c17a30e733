"""
Three limits in one: how much runs at once, how often work starts, how long it may take.

Promise: entered in the order concurrency, rate, timeout, so that a task that holds a token never
waits for a slot, and the timeout covers the work alone; left in the opposite order, whatever
happens on the way in or inside, with everything given back exactly once.
Cost: that of its parts, and one exit stack for each entry.

What an entry must undo is kept as a stack in the context of the task: the object is shared by many
tasks, and one task may enter it several times.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar, TypeVarTuple, cast, final, overload

from mtaio._internal import checks
from mtaio._internal.copies import uncopied
from mtaio._internal.decorators import AsyncFunction, Decorator, Descriptor
from mtaio._internal.durations import record_durations_of
from mtaio._internal.limiting import limit_in, run_in
from mtaio._internal.rates import Rate
from mtaio._internal.statistics import COUNTER, GAUGE
from mtaio._internal.timeout_statistics import TimeoutStatistics
from mtaio.resources._concurrency import ConcurrencyLimiter, ConcurrencyStatistics
from mtaio.resources._rate import RateLimiter, RateLimiterStatistics
from mtaio.resources._timeout import TimeoutManager

__all__ = ["ResourceLimiter", "ResourceStatistics"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceStatistics:
    """The state of a `ResourceLimiter`'s parts, and what they have done so far."""

    entered: int = field(metadata=COUNTER)
    """Times the work inside was started."""
    in_flight: int = field(metadata=GAUGE)
    """Entries that have not been left yet."""
    concurrency: ConcurrencyStatistics | None
    """The slots; None if their number is not limited."""
    rate: RateLimiterStatistics | Any | None
    """The tokens, as the limiter's own ``statistics()``; None if the rate is not limited."""
    timeout: TimeoutStatistics | None
    """The limit of the work; None if there is none."""
    timeout_total: TimeoutStatistics | None
    """The limit of waiting and work together; None if there is none."""


class _Entry:
    """One entry of a task into a limiter, and the entry around it."""

    __slots__ = ("limiter", "outer", "stack")

    def __init__(self, limiter: ResourceLimiter, stack: ExitStack, outer: _Entry | None) -> None:
        self.limiter = limiter
        self.stack = stack
        self.outer = outer


_entries: Final[ContextVar[_Entry | None]] = ContextVar("mtaio.resources.entries", default=None)


@uncopied
@final
class ResourceLimiter:
    """
    A limit on the concurrency, rate and duration of work on one resource.

    It can be created at module level and used by one event loop after another, on either backend. A
    task that holds the limiter may enter it again; each entry takes another slot and token.

    Args:
        rate: Maximum number of starts per second; a `RateLimiter` or another object with ``rate``
            and ``acquire()``, such as a `mtaio.redis.RedisRateLimiter`, to share with other code;
            or a list of numbers and rate limiters, all of which apply. None for no limit.
        burst: Number of tokens that may be taken at once, 1 by default. Only if ``rate`` is a
            number.
        concurrency: Number of slots, or a `ConcurrencyLimiter` to share; None for no limit.
        timeout: Seconds for the work, once it has its slot and token; or a `TimeoutManager`, whose
            default applies; None for no limit.
        timeout_total: Seconds for waiting and work together; otherwise as ``timeout``.
        name: Name shown in messages and metrics, also for the parts that are created here.

    Raises:
        ValueError: Nothing is limited, a number is out of range, or ``burst`` is given although
            ``rate`` is not a number.
        TypeError: An argument is neither a number nor a limiter of its kind.

    Example:
        ```python
        import anyio

        from mtaio.resources import ResourceLimiter

        api = ResourceLimiter(concurrency=2, rate=100, burst=10, timeout=5.0)


        @api
        async def fetch(number: int) -> int:
            await anyio.sleep(0.01)
            return number * number


        async def main() -> None:
            async with anyio.create_task_group() as group:
                for number in range(6):
                    group.start_soon(fetch, number)
            print(await api.run(fetch, 7), api.statistics().entered)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariant: _entries holds, for each task, its entries into any limiter, innermost first.
    __slots__ = (
        "__weakref__",
        "_concurrency",
        "_entered",
        "_in_flight",
        "_name",
        "_rate",
        "_timeout",
        "_timeout_total",
    )

    def __init__(
        self,
        *,
        rate: float | Rate | Sequence[float | Rate] | None = None,
        burst: float | None = None,
        concurrency: int | ConcurrencyLimiter | None = None,
        timeout: float | TimeoutManager | None = None,
        timeout_total: float | TimeoutManager | None = None,
        name: str | None = None,
    ) -> None:
        if rate is None and concurrency is None and timeout is None and timeout_total is None:
            msg = (
                "a ResourceLimiter without rate, concurrency, timeout and timeout_total limits "
                "nothing. Pass at least one of them."
            )
            raise ValueError(msg)
        shared = _shared(rate)
        if burst is not None and (rate is None or shared is not None):
            msg = (
                f"burst={burst!r} belongs to a rate given as a number, not to rate={rate!r}. Give "
                f"the burst to the limiter itself, or pass a number as rate."
            )
            raise ValueError(msg)
        if rate is not None and shared is None:  # what is no number is refused there
            one = 1 if burst is None else burst
            shared = RateLimiter(cast("float", rate), burst=one, name=name)
        if concurrency is not None and not isinstance(concurrency, ConcurrencyLimiter):
            way_out = "Pass how much may run at once, at least 1, or a ConcurrencyLimiter to share."
            checks.count("concurrency", concurrency, way_out=way_out)
            concurrency = ConcurrencyLimiter(concurrency, name=name)
        if timeout is not None and not isinstance(timeout, TimeoutManager):
            checks.timeout("timeout", timeout)
            timeout = TimeoutManager(timeout, name=name)
        if timeout_total is not None and not isinstance(timeout_total, TimeoutManager):
            checks.timeout("timeout_total", timeout_total)
            timeout_total = TimeoutManager(timeout_total, name=name)
        self._rate: Rate | None = shared
        self._concurrency = concurrency
        self._timeout = timeout
        self._timeout_total = timeout_total
        self._name = name
        self._entered = 0
        self._in_flight = 0

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<ResourceLimiter{name}: {self._in_flight} in flight>"

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def rate(self) -> Rate | None:
        """The rate limiter, to share or to reconfigure; None if there is none."""
        return self._rate

    @property
    def concurrency(self) -> ConcurrencyLimiter | None:
        """The concurrency limiter, to share or to reconfigure; None if there is none."""
        return self._concurrency

    async def __aenter__(self) -> None:
        """
        Wait for a slot, then for a token, then start the timeout.

        A checkpoint if it has to wait, and otherwise on every 64th call. If it is cancelled, it
        holds nothing.

        Raises:
            TimeoutError: (`mtaio.exceptions.TimeoutError`) ``timeout_total`` ran out.
            ConcurrencyLimitError: The queue of a shared `ConcurrencyLimiter` is full.
            RuntimeError: Tasks of another event loop are waiting.
        """
        with ExitStack() as stack:
            if self._timeout_total is not None:
                stack.enter_context(self._timeout_total())
            if self._concurrency is not None:
                await self._concurrency.acquire()
                stack.callback(self._concurrency.release)
            if self._rate is not None:
                await self._rate.acquire()
            if self._timeout is not None:
                stack.enter_context(self._timeout())
            _entries.set(_Entry(self, stack.pop_all(), _entries.get()))
        self._entered += 1
        self._in_flight += 1

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """
        End the timeouts and release the slot.

        Not a checkpoint.

        Raises:
            TimeoutError: (`mtaio.exceptions.TimeoutError`) The work took too long.
            RuntimeError: A block that was entered later has not been left yet, or the block was
                entered in another context.
        """
        entry = _entries.get()
        if entry is None or entry.limiter is not self:
            if exc_type is GeneratorExit:  # closed after its loop was over, by whoever runs now
                self._in_flight -= 1
                if self._concurrency is not None:
                    self._concurrency.release()
                return None
            msg = (
                f"cannot leave {self!r} here: it is not what this task entered last. Use it in "
                f"'async with', and do not yield inside from an async generator."
            )
            raise RuntimeError(msg)
        _entries.set(entry.outer)
        self._in_flight -= 1
        return entry.stack.__exit__(exc_type, exc, traceback)

    async def run(self, fn: Callable[[*Ts], Awaitable[T]] | Awaitable[T], /, *args: *Ts) -> T:
        """
        Call ``fn(*args)`` under the limits and return its result.

        If the call is cancelled while it waits, it holds nothing and ``fn`` is not called.

        Args:
            fn: An async function; or, without arguments, an awaitable.
            *args: Positional arguments for ``fn``. For keyword arguments, use `functools.partial`.

        Raises:
            TimeoutError: (`mtaio.exceptions.TimeoutError`) The call, or the wait for it, took too
                long.
            TypeError: ``fn`` did not return an awaitable.
        """
        return await run_in(self, fn, args)

    @overload
    def __call__(self, fn: Descriptor, /) -> Descriptor: ...

    @overload
    def __call__(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...

    @overload
    def __call__(self, /) -> Decorator: ...

    def __call__(self, fn: Any = None, /) -> Any:
        """
        Decorate an async function or method so that each call is under the limits: ``@limiter``.

        The function keeps its name, signature and types.

        Args:
            fn: The function, if the decorator is used without parentheses.

        Returns:
            The decorated function, or a decorator.

        Raises:
            TypeError: What is decorated is not an async function.
        """
        return limit_in(fn, lambda: self, name="ResourceLimiter")

    def record_durations(self) -> None:
        """
        Make the parts record histograms of their waits from now on.

        A monitor calls it for what it watches; repeated calls have no effect. Not a checkpoint. It
        can be called from any thread.
        """
        for part in (self._concurrency, self._rate):
            record_durations_of(part)

    def statistics(self) -> ResourceStatistics:
        """
        Return a snapshot of the parts.

        Not a checkpoint. It can be called from any thread.
        """
        statistics_of_rate = getattr(self._rate, "statistics", None)
        concurrency = self._concurrency
        timeout, total = self._timeout, self._timeout_total
        return ResourceStatistics(
            entered=self._entered,
            in_flight=self._in_flight,
            concurrency=None if concurrency is None else concurrency.statistics(),
            rate=None if statistics_of_rate is None else statistics_of_rate(),
            timeout=None if timeout is None else timeout.statistics(),
            timeout_total=None if total is None else total.statistics(),
        )


def _shared(rate: object) -> Rate | None:
    """Return the limiter that ``rate`` is; None for a number, or what is refused as one."""
    if isinstance(rate, list | tuple):
        from mtaio.resources._quota import Quota  # noqa: PLC0415 - few programs use it

        return Quota.together(cast("Sequence[float | Rate]", rate))
    return rate if isinstance(rate, Rate) and _takes_no_key(rate) else None


def _takes_no_key(rate: Rate) -> bool:
    """Return whether it is a limiter whose ``acquire`` needs no key, and not a class of such."""
    from mtaio.resources._keyed import KeyedRateLimiter  # noqa: PLC0415 - few programs use it

    return not isinstance(rate, (KeyedRateLimiter, type))
