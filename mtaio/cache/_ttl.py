"""
The cache: values by key, each for some time, as many as there is room for.

Promise: a value whose time is over is never returned, one load is made for a key however many ask,
and never more than ``max_size`` is held.
Cost: a hit takes about what a look-up in a dict and the time of day take; see benchmarks/cache.py.
Why the policies, the expiry and the loads are as they are: docs/en/design/caching.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

from mtaio.cache._block import Block
from mtaio.cache._loading import Loading
from mtaio.cache._options import Options
from mtaio.cache._policies import EvictionPolicy
from mtaio.cache._statistics import CacheStatistics

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import NoReturn, Self

    from mtaio.cache._listeners import RemovalCause

__all__ = ["TTLCache"]

T = TypeVar("T")


class TTLCache(Loading[T]):
    """
    Keeps values for some time, and loads each once, however many ask for it.

    Works as it is. Entered with ``async with``, it also removes what expires at once, in the
    background, and runs loads in a task group of its own, so that no caller's cancellation touches
    another's value. Only an entered cache can refresh values that it still serves
    (``stale_while_revalidate``, ``refresh_ahead``) and await an async ``on_removed``.

    May be made anywhere, also at module level, and used by one event loop after another, on either
    backend; values stay, loads end with their loop. Any thread may use it at any time, also with no
    event loop and with several: each operation is atomic, and what is returned for a key was that
    key's value at a moment during the call. Only loads are not shared between event loops, and
    ``async with`` belongs to one. The counts of hits and misses may fall short where threads run in
    parallel, on free-threaded builds. A change that a finaliser, a signal handler or the
    ``__eq__`` of a key asks for in the midst of another is made right after that one; a fork waits
    for the change under way, and its process has the values, but neither block nor loads.

    Args:
        default_ttl: Seconds for which a value is kept if none are given with it; ``math.inf`` for
            ever, 0 not at all.
        max_size: The most entries to hold, 1 or more; with a ``weigher`` the most that they may
            weigh. None for no limit.
        policy: Which entry is given up for want of room, an `EvictionPolicy` or its name.
        weigher: Called with key and value before a value is stored; returns its weight, 0 or more.
        idle_ttl: Seconds after which a value that nobody reads goes, before its time; None for no
            such limit.
        jitter: By up to what fraction a time to live is shortened at random, so that what was
            stored together does not expire together; 0 to less than 1.
        stale_while_revalidate: Seconds for which ``get_or_set`` still serves a value after its time
            while it loads a new one in the background, as RFC 5861 has it for HTTP. If that load
            fails the old value stays, and the next call tries again, after ``error_ttl``.
        refresh_ahead: After what fraction of its time, above 0 and below 1, ``get_or_set`` loads a
            new value in the background; None for never.
        error_ttl: Seconds for which an exception of a load is kept and raised to whoever asks; 0
            for not at all. It takes the place of a value, with weight 1.
        on_removed: Called with key, value and `RemovalCause` for each value that leaves, after the
            operation and outside the lock; plain, or async in an entered cache. What it raises is
            logged to ``mtaio.cache``. An async one is told in order, by one task; beyond 10,000
            that wait, removals are counted as ``unheard`` instead.
        name: For messages and the monitor.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A number is out of range or NaN, or there is no such policy.

    Example:
        Ten callers, one load:

        ```python
        import anyio

        from mtaio.cache import TTLCache

        cache: TTLCache[str] = TTLCache(60, max_size=1000)


        async def fetch(user: int) -> str:
            print(f"loading user {user}")
            await anyio.sleep(0.1)
            return f"user {user}"


        async def show(user: int) -> None:
            print(await cache.get_or_set(user, lambda: fetch(user)))


        async def main() -> None:
            async with cache, anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(show, 7)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ("__weakref__", "_policy_name")

    def __init__(
        self,
        default_ttl: float = 300.0,
        max_size: float | None = None,
        *,
        policy: EvictionPolicy | str = EvictionPolicy.S3FIFO,
        weigher: Callable[[Any, T], float] | None = None,
        idle_ttl: float | None = None,
        jitter: float = 0.0,
        stale_while_revalidate: float = 0.0,
        refresh_ahead: float | None = None,
        error_ttl: float = 0.0,
        on_removed: Callable[[Any, T, RemovalCause], Any] | None = None,
        name: str | None = None,
    ) -> None:
        options = Options(
            default_ttl=default_ttl,
            max_size=max_size,
            policy=policy,
            weigher=weigher,
            idle_ttl=idle_ttl,
            jitter=jitter,
            stale_while_revalidate=stale_while_revalidate,
            refresh_ahead=refresh_ahead,
            error_ttl=error_ttl,
            on_removed=on_removed,
            name=name,
        )
        self._policy_name = options.policy_name
        super().__init__(options)

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return (
            f"<{type(self).__name__}{name} {self._policy_name} {len(self)} of "
            f"{self._max_size:g}, {self._default_ttl:g} s>"
        )

    def __reduce__(self) -> NoReturn:
        msg = (
            f"{self!r} cannot be copied or pickled: it has a lock, and its moments mean nothing in "
            f"another process. Make another, and give it the items() of this one."
        )
        raise TypeError(msg)

    @property
    def name(self) -> str | None:
        """The name given to the cache."""
        return self._name

    @property
    def default_ttl(self) -> float:
        """Seconds for which a value is kept if none are given with it."""
        return self._default_ttl

    @property
    def max_size(self) -> float | None:
        """The most entries, or weight, to hold; None for no limit."""
        return None if self._max_size == math.inf else self._max_size

    @property
    def policy(self) -> EvictionPolicy:
        """Which entry is given up for want of room."""
        return self._policy_name

    async def __aenter__(self) -> Self:
        """
        Enter the cache in this event loop.

        Not a checkpoint.

        Raises:
            RuntimeError: It is entered already.
        """
        if self._block is not None and not self._block.is_over():
            msg = (
                f"{self!r} is entered already. Enter it once, around everything that uses it, or "
                f"make another."
            )
            raise RuntimeError(msg)
        self._forget_block()
        block = Block(self)
        await block.enter()
        self._settle(block)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """
        Leave the cache; values stay.

        A checkpoint. Loads in progress are cancelled, and who waits for them gets a
        `CacheClosedError`. An async ``on_removed`` is first told of everything that has left so
        far, unless the block ended with an error; what leaves meanwhile is counted as ``unheard``.

        Raises:
            StrayCancellationError: Somebody cancelled a task of the cache natively, and the block
                was cancelled for it. Else, nothing but what the body raised, and what loads raised
                that is no ``Exception``.
        """
        block = self._block
        if block is None or block.is_over():
            self._forget_block()
            return
        try:
            await block.leave(exc)
        finally:
            self._settle(None)

    def _forget_block(self) -> None:
        """Forget a block whose loop is over, and its loads."""
        block = self._block
        self._settle(None)
        if block is not None:
            with self._gate:
                self._flights.give_up(block.flights)

    def statistics(self) -> CacheStatistics:
        """Return what the cache holds and has done. Not a checkpoint."""
        with self._gate.held:
            flights = self._flights
            reads = self._hits + self._misses
            return CacheStatistics(
                size=len(self._entries),
                weight=self._total(),
                max_size=self.max_size,
                hits=int(self._hits),
                misses=self._misses,
                hit_rate=self._hits / reads if reads else 0.0,
                loads=flights.loads,
                load_failures=flights.failures,
                load_seconds=flights.seconds,
                in_flight=flights.loads - flights.ended,
                waiting=flights.waiting,
                evictions=self._evictions,
                expirations=self._expirations,
                unheard=0 if self._notices is None else self._notices.unheard,
            )
