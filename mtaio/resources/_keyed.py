"""
How often work may start for each of many keys: users, hosts, API tokens.

Promise: every key has a limiter of its own, so that none waits for another's sake; never more than
``max_keys`` are held, and forgetting one lets nobody start more often.
Cost: a look-up beside the limiter's own; half a kilobyte for each key held; no background task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from mtaio._internal import checks
from mtaio._internal.checkpoints import checkpoint
from mtaio.exceptions import RateLimitError
from mtaio.resources._decorate import AsyncFunction, Decorator, decorate
from mtaio.resources._keys import KeyTable
from mtaio.resources._rate import RateLimiter
from mtaio.resources._statistics import KeyedRateLimiterStatistics, KeyStatistics

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["KeyedRateLimiter"]

P = ParamSpec("P")
R = TypeVar("R")


class KeyedRateLimiter:
    """
    Limits how often work may start for each key: a `RateLimiter` of its own for every user or host.

    Keys are independent: who waits for one delays nobody else. A key that has been idle, with a
    full bucket and nobody waiting, for ``idle_ttl`` seconds is forgotten, as a new one would be
    just like it; a key that is limited at the moment never is, so nobody gains by being forgotten.
    When ``max_keys`` are held, the one that has been idle longest makes room for a new key at once;
    if none is idle, the new key is refused.

    May be made anywhere and used by one event loop after another, like `RateLimiter`.

    Args:
        rate: Tokens that become available to each key every ``per`` seconds; 0 pauses all,
            ``math.inf`` never waits.
        burst: Tokens that a full bucket holds, 1 or more. Default: ``rate`` rounded down, or 1 if
            that is more.
        per: The seconds that ``rate`` is meant for.
        max_keys: The most keys to hold, 1 or more.
        idle_ttl: Seconds for which an idle key is kept all the same; ``inf`` until it must make
            room.
        slack: As for `RateLimiter`.
        name: For messages and the monitor.

    Raises:
        TypeError: An argument is no number, or ``max_keys`` no int.
        ValueError: ``max_keys`` < 1, ``idle_ttl`` < 0, or the limits are refused as `RateLimiter`
            refuses them.

    Example:
        Each user may ask twice a second, whatever the others do:

        ```python
        import anyio

        from mtaio.resources import KeyedRateLimiter

        limiter = KeyedRateLimiter(2, burst=1, max_keys=1000)


        @limiter.limit(key=lambda user: user)
        async def greet(user: str) -> None:
            print(f"hello {user}")


        async def main() -> None:
            async with anyio.create_task_group() as group:
                for user in ("ada", "ada", "bob"):
                    group.start_soon(greet, user)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ("__weakref__", "_max_keys", "_table")

    def __init__(
        self,
        rate: float,
        burst: float | None = None,
        *,
        per: float = 1.0,
        max_keys: int = 10_000,
        idle_ttl: float = 60.0,
        slack: float = 0.02,
        name: str | None = None,
    ) -> None:
        like = RateLimiter(rate, burst, per=per, slack=slack, name=name)
        way_out = "Pass how many keys may be held at the same time."
        self._max_keys = checks.count("max_keys", max_keys, way_out=way_out)
        way_out = "Pass seconds >= 0, or math.inf to forget only when room is needed."
        checks.at_least("idle_ttl", idle_ttl, 0, way_out=way_out)
        self._table = KeyTable(like, max_keys, idle_ttl)

    def __repr__(self) -> str:
        return repr(self._table)

    @property
    def name(self) -> str | None:
        """The name given to the limiter."""
        return self._table.model.name

    @property
    def per(self) -> float:
        """The seconds that `rate` is meant for."""
        return self._table.model.per

    @property
    def slack(self) -> float:
        """Seconds by which a waiter served late may be counted as served earlier."""
        return self._table.model.slack

    @property
    def rate(self) -> float:
        """Tokens for each key every `per` seconds. Assigning is `reconfigure` with ``rate``."""
        return self._table.model.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self.reconfigure(rate=rate)

    @property
    def burst(self) -> float:
        """Tokens a full bucket holds. Assigning is `reconfigure` with ``burst``."""
        return self._table.model.burst

    @burst.setter
    def burst(self, burst: float) -> None:
        self.reconfigure(burst=burst)

    def reconfigure(self, *, rate: float | None = None, burst: float | None = None) -> None:
        """
        Change the limits of every key at run time, as `RateLimiter.reconfigure` does for one.

        Not a checkpoint. Takes about two microseconds for each key held.

        Args:
            rate: Tokens for each key every `per` seconds; None leaves it.
            burst: Tokens that a full bucket holds; None leaves it.

        Raises:
            TypeError, ValueError: As for the class; then nothing has changed.
            RuntimeError: Tasks of another running event loop are waiting; nothing has changed.
        """
        self._table.reconfigure(rate, burst)

    async def acquire(
        self, key: Hashable, tokens: float = 1, *, timeout: float | None = None
    ) -> None:
        """
        Wait for ``tokens`` of ``key``, behind all who asked for that key before, and take them.

        Returns at once if they are there and nobody waits, but at least one call in 64 is a
        checkpoint. Cancelled, it leaves the bucket as if it had never asked.

        Args:
            key: Whose tokens; compared as the keys of a dict are.
            tokens: How many, not necessarily whole; at most ``burst``. 0 returns at once.
            timeout: The most seconds to wait, as for `RateLimiter.acquire`.

        Raises:
            RateLimitTimeoutError: The wait cannot fit into ``timeout``.
            RateLimitError: The key is new, ``max_keys`` are held and none is idle; at once, with
                the seconds until one may be in ``retry_after``. Or ``burst`` was lowered below
                ``tokens`` meanwhile.
            TypeError: ``key`` cannot be hashed; ``tokens`` or ``timeout`` is no number.
            ValueError: ``tokens`` is negative, NaN, or more than ``burst``; ``timeout`` is negative
                or NaN.
            RuntimeError: Tasks of another running event loop are waiting for this key.
        """
        table = self._table
        try:
            limiter = table.limiter(key)
        except RateLimitError:
            if table.tired:
                table.tired = False
                await checkpoint()
            raise
        if table.tired:
            table.tired = False
            limiter.tire()
        await limiter.acquire(tokens, timeout=timeout)
        table.granted += 1

    def acquire_nowait(self, key: Hashable, tokens: float = 1) -> None:
        """
        Take ``tokens`` of ``key`` if that delays nobody who waits, or raise. Not a checkpoint.

        Args:
            key: Whose tokens; compared as the keys of a dict are.
            tokens: How many, not necessarily whole; at most ``burst``.

        Raises:
            RateLimitError: They are not there, with the seconds until they are in
                ``retry_after``; or the key is new and refused, as by `acquire`.
            TypeError: ``key`` cannot be hashed; ``tokens`` is no number.
            ValueError: ``tokens`` is negative, NaN, or more than ``burst``.
        """
        self._table.limiter(key).acquire_nowait(tokens)
        self._table.granted += 1

    def limit(
        self,
        *,
        key: Callable[..., Hashable],
        tokens: float = 1,
        timeout: float | None = None,
    ) -> Decorator:
        """
        Decorate an async function or method so that each call acquires first.

        Used as ``@limiter.limit(key=lambda user: user.id)``; name, signature and types stay.

        Args:
            key: Called with the arguments of each call, ``self`` included; returns the key.
            tokens: As for `acquire`.
            timeout: As for `acquire`.

        Raises:
            TypeError: ``key`` is not callable, or what is decorated is not an async function.
            ValueError: ``tokens`` or ``timeout`` could never be granted.
        """
        way_out = "Pass a function that takes what the decorated one takes and returns the key."
        checks.callable_("key", key, way_out=way_out)
        self._table.model.limit(tokens=tokens, timeout=timeout)  # refuses what it would

        def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
            async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                await self.acquire(key(*args, **kwargs), tokens, timeout=timeout)
                return await fn(*args, **kwargs)

            return limited

        return decorate(around, name=f"{type(self).__name__}.limit")

    def statistics(self) -> KeyedRateLimiterStatistics:
        """Return what is held and was done, all keys together. Not a checkpoint."""
        table = self._table
        return KeyedRateLimiterStatistics(
            keys=len(table),
            max_keys=self._max_keys,
            forgotten=table.forgotten,
            refused=table.refused,
            waiters=table.tally.waiters,
            granted=table.granted,
            cancelled=table.tally.cancelled,
            rejected=table.tally.rejected,
        )

    def statistics_for(self, key: Hashable) -> KeyStatistics:
        """
        Return what is held for one key; for one that is not held, what a new one would have.

        Not a checkpoint, and not a use: the key is neither taken in nor kept.

        Args:
            key: Which key.
        """
        limiter = self._table.peek(key)
        both = limiter.statistics()
        return KeyStatistics(
            tokens=both.tokens, waiters=limiter.waiters(), next_grant_in=both.next_grant_in
        )
