"""
How often work may start: a token bucket whose waiters are served in order.

Promise: in any span of ``t`` seconds at most ``burst + rate * (t + slack) / per`` tokens are
granted, in the order of asking.
Cost: a few floats of state, no background task, nothing to close; one timer while anybody waits.
Why waiters are served by their own tasks: docs/en/design/rate-limiting.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, overload

from mtaio._internal import checks
from mtaio._internal.clock import now
from mtaio.exceptions import RateLimitError
from mtaio.resources._decorate import AsyncFunction, Decorator, Descriptor, decorate
from mtaio.resources._queued import QueuedBucket
from mtaio.resources._statistics import RateLimiterStatistics

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType
    from typing import Self

__all__ = ["RateLimiter"]

P = ParamSpec("P")
R = TypeVar("R")

# The fast paths look no further than this; other numbers, and mistakes, take the slow one.
_ONE: Final = 1
_PLAIN: Final = frozenset({int, float})


class RateLimiter(QueuedBucket):
    """
    Limits how often work may start: a token bucket with a fair queue.

    The bucket starts full. In any span of ``t`` seconds at most
    ``burst + rate * (t + slack) / per`` tokens are granted: after a rest ``burst`` at once, and in
    the long run ``rate`` every ``per`` seconds. With ``burst=1`` (`smooth`) work starts in even
    steps.

    May be made anywhere, also at module level, and used by one event loop after another, on either
    backend; by one at a time, and not from other threads. A task that is cancelled while it waits
    leaves the bucket as if it had never asked.

    Args:
        rate: Tokens that become available every ``per`` seconds, 0 or more. 0 pauses: the tokens
            still there may be taken, then everybody waits for a new rate. ``math.inf`` never waits.
        burst: Tokens that the full bucket holds, the most that can be acquired in one call, 1 or
            more. Default: ``rate`` rounded down, or 1 if that is more; without a limit, infinite
            until a finite rate is set.
        per: The seconds that ``rate`` is meant for.
        slack: Seconds by which a waiter served late may be counted as served earlier, though never
            before it asked, so that late wake-ups do not add up to a lower rate. 0 keeps to
            ``burst + rate * t / per``, as exactly as event loops fire their timers.
        name: For messages and the monitor.

    Raises:
        TypeError: An argument is no number.
        ValueError: ``rate`` < 0, ``burst`` < 1 or infinite, ``per`` <= 0 or infinite, ``slack`` < 0
            or infinite, or any is NaN.

    Example:
        At most five requests a second, two at once:

        ```python
        import anyio

        from mtaio.resources import RateLimiter

        limiter = RateLimiter(5, burst=2)


        async def request(number: int) -> None:
            async with limiter:
                print(f"request {number}")


        async def main() -> None:
            async with anyio.create_task_group() as group:
                for number in range(6):
                    group.start_soon(request, number)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ("__weakref__",)

    def __init__(
        self,
        rate: float,
        burst: float | None = None,
        *,
        per: float = 1.0,
        slack: float = 0.02,
        name: str | None = None,
    ) -> None:
        super().__init__(rate, burst, per=per, slack=slack, name=name)

    @classmethod
    def smooth(
        cls, rate: float, *, per: float = 1.0, slack: float = 0.02, name: str | None = None
    ) -> Self:
        """
        Make a limiter without bursts: one token at a time, ``per / rate`` seconds apart.

        The first ``per`` seconds see no more than ``rate`` and the one that starts them. The
        arguments are those of the class.
        """
        return cls(rate, burst=1, per=per, slack=slack, name=name)

    @property
    def name(self) -> str | None:
        """The name given to the limiter."""
        return self._name

    @property
    def per(self) -> float:
        """The seconds that `rate` is meant for."""
        return self._per

    @property
    def slack(self) -> float:
        """Seconds by which a waiter served late may be counted as served earlier."""
        return self._slack

    @property
    def rate(self) -> float:
        """Tokens every `per` seconds. Assigning is `reconfigure` with ``rate`` alone."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self.reconfigure(rate=rate)

    @property
    def burst(self) -> float:
        """Tokens the full bucket holds. Assigning is `reconfigure` with ``burst`` alone."""
        return math.inf if self._burst is None else self._burst

    @burst.setter
    def burst(self, burst: float) -> None:
        self.reconfigure(burst=burst)

    def reconfigure(self, *, rate: float | None = None, burst: float | None = None) -> None:
        """
        Change the limits at run time, for those who wait too.

        The tokens in the bucket are kept, as many as its new size allows; a larger bucket fills at
        the new rate. Not a checkpoint. A task that waits for more tokens than the new burst gets a
        `RateLimitError`; one with a timeout waits for its new turn, but not beyond its deadline.

        Args:
            rate: Tokens every `per` seconds, as for the class; None leaves it.
            burst: Tokens that the full bucket holds, as for the class; None leaves it.

        Raises:
            TypeError, ValueError: As for the class; then nothing has changed.
            RuntimeError: Tasks of another running event loop are waiting; nothing has changed.
        """
        line = self._reachable_line()
        most = self._most
        self._reshape(self._rate if rate is None else rate, self._burst if burst is None else burst)
        if line:
            line.rouse_head()
            if self._most < most:
                line.rouse_beyond(self._most)

    async def acquire(self, tokens: float = 1, *, timeout: float | None = None) -> None:
        """
        Wait for ``tokens``, behind all who asked before, and take them.

        Returns at once if they are there and nobody waits, but at least one call in 64 on a limiter
        is a checkpoint. Cancelled, it leaves the bucket as if it had never asked, and those behind
        move up.

        Args:
            tokens: How many, not necessarily whole; at most ``burst``. 0 returns at once.
            timeout: The most seconds to wait. Whether they suffice is judged when asking, by the
                tokens that are asked for ahead, as if nobody of those gave up; None waits for ever.
                Should the rate drop after that, the wait ends when the time is over.

        Raises:
            RateLimitTimeoutError: The wait cannot fit into ``timeout``; at once if it can be known
                at once. A builtin ``TimeoutError`` too; ``retry_after`` has the seconds needed.
            RateLimitError: ``burst`` was lowered below ``tokens`` meanwhile.
            TypeError: ``tokens`` or ``timeout`` is no number.
            ValueError: ``tokens`` is negative, NaN, or more than ``burst``; ``timeout`` is negative
                or NaN.
            RuntimeError: Tasks of another running event loop are waiting.
        """
        if (
            timeout is None
            and not self._line
            and (tokens is _ONE or (type(tokens) in _PLAIN and 0 < tokens <= self._most))
        ):
            moment = now()
            if moment < self._last:
                moment = self._moment()
            self._last = moment
            full_at = self._full_at
            if full_at < moment:  # noqa: PLR1730 - max() would cost a quarter of the call
                full_at = moment
            full_at += tokens * self._interval
            if full_at <= moment + self._reach:
                if self._granted < self._yield_at:
                    self._full_at = full_at
                    self._granted += 1
                    return
                await self._queue(self._enter(tokens, moment, None))
                return
        try:
            waiter = self._join(tokens, timeout)
        except RateLimitError:
            await self._refused()
            raise
        if waiter is not None:
            await self._queue(waiter)

    def acquire_nowait(self, tokens: float = 1) -> None:
        """
        Take ``tokens`` if that delays nobody who waits, or raise. Not a checkpoint.

        Args:
            tokens: How many, not necessarily whole; at most ``burst``.

        Raises:
            RateLimitError: They are not there; ``retry_after`` has the seconds until they are,
                after those who wait.
            TypeError: ``tokens`` is no number.
            ValueError: ``tokens`` is negative, NaN, or more than ``burst``.
        """
        if not self._line and (
            tokens is _ONE or (type(tokens) in _PLAIN and 0 < tokens <= self._most)
        ):
            moment = now()
            if moment < self._last:
                moment = self._moment()
            self._last = moment
            full_at = self._full_at
            if full_at < moment:  # noqa: PLR1730 - max() would cost a quarter of the call
                full_at = moment
            full_at += tokens * self._interval
            if full_at <= moment + self._reach:
                self._full_at = full_at
                self._granted += 1
                return
        self._acquire_nowait(tokens)

    def __aenter__(self) -> Coroutine[Any, Any, None]:
        """Acquire one token; a checkpoint where `acquire` is one."""
        return self.acquire()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Do nothing: tokens come back by themselves. Not a checkpoint."""

    @overload
    def limit(self, fn: Descriptor, /) -> Descriptor: ...
    @overload
    def limit(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...
    @overload
    def limit(self, /, *, tokens: float = 1, timeout: float | None = None) -> Decorator: ...
    def limit(self, fn: Any = None, /, *, tokens: float = 1, timeout: float | None = None) -> Any:
        """
        Decorate an async function or method so that each call acquires first.

        Used as ``@limiter.limit`` or ``@limiter.limit(tokens=3)``; name, signature and types stay.

        Args:
            fn: The function, when used without parentheses.
            tokens: As for `acquire`.
            timeout: As for `acquire`.

        Raises:
            TypeError: What is decorated is not an async function.
            ValueError: ``tokens`` or ``timeout`` could never be granted.
        """
        self._check(tokens)
        checks.timeout("timeout", timeout)

        def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
            async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                await self.acquire(tokens, timeout=timeout)
                return await fn(*args, **kwargs)

            return limited

        decorator = decorate(around, name=f"{type(self).__name__}.limit")
        return decorator if fn is None else decorator(fn)

    def statistics(self) -> RateLimiterStatistics:
        """Return what the limiter holds and has done. Not a checkpoint."""
        moment = self._moment()
        line = self._living_line()
        head = line.head() if line else None
        tally = self._tally
        return RateLimiterStatistics(
            tokens=max(0.0, self._tokens(moment)),
            waiters=tally.waiters,
            granted=self._granted,
            cancelled=tally.cancelled,
            rejected=tally.rejected,
            next_grant_in=self._due(1 if head is None else head.tokens, moment) - moment,
        )
