"""
How long work may take: one policy, applied to blocks, calls and functions.

Promise: the body runs in the caller's task, no task is spawned, nothing is swallowed but the
cancellation that this limit itself sent, and a result already obtained is never discarded.
Cost: less than ``anyio.fail_after``: one cancel scope, and no generator around it.

Why the limit is also kept outside the cancel scope: see `mtaio._internal.deadline`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, TypeVarTuple, overload

from mtaio._internal import checks
from mtaio._internal.callables import close_unstarted
from mtaio._internal.deadlines import remaining
from mtaio._internal.sentinel import UNSET, Unset
from mtaio.resources._begin import begin, check
from mtaio.resources._decorate import decorate
from mtaio.resources._scope import Policy, ShieldedScope, TimeoutScope, finite
from mtaio.resources._statistics import TimeoutStatistics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mtaio.resources._decorate import AsyncFunction, Decorator, Descriptor

__all__ = ["TimeoutManager"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class TimeoutManager:
    """
    A policy that limits how long work may take; reusable, by any number of tasks at once.

    Made anywhere, used in any event loop. A limit applies to the block, call or function it
    stands around, and starts when that is entered. Nested limits: the nearest deadline counts,
    and of equal ones the outermost. What raises `mtaio.exceptions.TimeoutError` is the deadline
    of this very limit and nothing else: a ``TimeoutError`` of the body, an error in its clean-up
    and a cancellation from outside pass as they are.

    Args:
        default_timeout: Seconds allowed where none are given; None for no limit.
        name: Named in errors.

    Raises:
        ValueError: ``default_timeout`` is negative or NaN.

    Example:
        ```python
        import anyio

        from mtaio.exceptions import TimeoutError
        from mtaio.resources import TimeoutManager

        timeouts = TimeoutManager(30.0, name="inventory")


        @timeouts.limit(5.0)
        async def look_up(item: str) -> str:
            await anyio.sleep(0.01)
            return f"{item}: 3 left, {timeouts.remaining():.0f} s to go"


        async def main() -> None:
            print(await look_up("lamp"))
            try:
                with timeouts(0.05):
                    await anyio.sleep_forever()
            except TimeoutError as error:
                print(error)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ("__weakref__", "_policy")

    def __init__(self, default_timeout: float | None = 30.0, *, name: str | None = None) -> None:
        self._policy = Policy(checks.timeout("default_timeout", default_timeout), name)

    def __repr__(self) -> str:
        policy = self._policy
        name = "" if policy.name is None else f" {policy.name!r}"
        return f"<TimeoutManager{name} of {policy.default} s>"

    @property
    def name(self) -> str | None:
        """The name given in errors."""
        return self._policy.name

    @property
    def default_timeout(self) -> float | None:
        """Seconds allowed where none are given; None for no limit."""
        return self._policy.default

    def __call__(self, timeout: float | Unset | None = UNSET) -> TimeoutScope:
        """
        Limit a block: ``with timeouts(5.0):``.

        Neither entering nor leaving is a checkpoint. The limit starts on entering.

        Args:
            timeout: Seconds; 0 cancels at the block's first checkpoint; None for no limit of its
                own (an outer one still applies); omitted for the default.

        Returns:
            A scope for one ``with`` or ``async with``; entering it raises ``RuntimeError`` where
            no task of an event loop runs.

        Raises:
            TimeoutError: (on leaving) The block's deadline interrupted it.
            ValueError: ``timeout`` is negative or NaN.
            TypeError: ``timeout`` is not a number.
        """
        return TimeoutScope(self._policy, self._policy.seconds(timeout))

    def timeout(self, timeout: float | Unset | None = UNSET) -> TimeoutScope:
        """Limit a block, as calling the manager does, for those who expect ``async with``."""
        return TimeoutScope(self._policy, self._policy.seconds(timeout))

    def shielded(self, *, grace: float = 5.0) -> TimeoutScope:
        """
        Give clean-up a bounded time inside a scope that is, or may become, cancelled.

        For ``grace`` seconds cancellation from outside does not reach the block, and `remaining`
        counts those seconds alone. When they are up the block is interrupted: by the cancellation
        from outside if there is one, which goes on outwards, else by
        `mtaio.exceptions.TimeoutError`. asyncio's own ``Task.cancel()`` goes through every shield;
        one that came before the block, and for which it cleans up, goes on when the time is up.

        Args:
            grace: Seconds, finite.

        Returns:
            A scope for one ``with`` or ``async with``.

        Raises:
            TimeoutError: (on leaving) The time was up, and nothing outside was cancelled.
            ValueError: ``grace`` is negative, NaN or without end.
            TypeError: ``grace`` is not a number.
        """
        return ShieldedScope(self._policy, finite("grace", grace))

    def remaining(self) -> float:
        """
        Return the seconds left to the running code; ``inf`` if nothing limits it.

        Counts every limit around it, of any manager or executor and of anyio's cancel scopes; 0
        when one has passed or was cancelled. The limits of mtaio are seen through shields and in
        worker threads too, those of anyio's scopes, by their nature, are not. Not a checkpoint.
        """
        return remaining()

    async def run(
        self,
        func: Callable[[*Ts], Awaitable[T]] | Awaitable[T],
        /,
        *args: *Ts,
        timeout: float | Unset | None = UNSET,
    ) -> T:
        """
        Limit one call, and return its result.

        A checkpoint if the call is one. Cancelled, it leaves what the call leaves.

        Args:
            func: What to call and await; or, with no arguments, an awaitable.
            *args: Its arguments.
            timeout: Seconds; None for no limit; omitted for the default.

        Returns:
            The result, also when it came after the deadline for want of a checkpoint.

        Raises:
            TimeoutError: The deadline interrupted the call.
            ValueError: ``timeout`` is negative or NaN. A coroutine is closed, not begun.
            TypeError: There is nothing to await; a sync function is found out only by calling it.
        """
        try:
            seconds = self._policy.seconds(timeout)
            check(func, args)
            with TimeoutScope(self._policy, seconds):
                return await begin(func, args)
        finally:
            close_unstarted(func)

    @overload
    def limit(self, fn: Descriptor, /) -> Descriptor: ...

    @overload
    def limit(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...

    @overload
    def limit(self, timeout: float | None = ...) -> Decorator: ...

    def limit(self, timeout: Any = UNSET) -> Any:
        """
        Limit every call of an async function: ``@timeouts.limit`` or ``@timeouts.limit(5.0)``.

        The function keeps its signature; methods may be decorated too. Each call has a limit of
        its own, which starts when the call is awaited.

        Args:
            timeout: Seconds; None for no limit; omitted for the default.

        Returns:
            The limited function, or a decorator that makes it.

        Raises:
            TimeoutError: (on calling) The deadline interrupted the call.
            ValueError: ``timeout`` is negative or NaN.
            TypeError: What is decorated is not an async function.
        """
        policy = self._policy
        fn: Any = None
        if timeout is not None and timeout is not UNSET and not isinstance(timeout, int | float):
            fn, timeout = timeout, UNSET
        seconds = policy.seconds(timeout)

        def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
            async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                with TimeoutScope(policy, seconds):
                    return await fn(*args, **kwargs)

            return limited

        decorator = decorate(around, name="TimeoutManager.limit")
        return decorator if fn is None else decorator(fn)

    def statistics(self) -> TimeoutStatistics:
        """
        Return what was limited so far. Not a checkpoint.

        Event loops of several threads may share a manager; its counts may then be a little low.
        """
        policy = self._policy
        return TimeoutStatistics(
            default_timeout=policy.default, entered=policy.entered, timed_out=policy.timed_out
        )
