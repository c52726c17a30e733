"""
Several different calls at once: all of them, the first of them, or as they are completed.

Promise: nothing outlives the call, and a coroutine that never got to start is closed, so that no
"never awaited" warning follows an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from mtaio.core._base import ExecutorBase, Options
from mtaio.core._buffer import Buffer
from mtaio.core._call import check_fn, close_unstarted, is_async
from mtaio.core._failures import Failure, annotate, conclude
from mtaio.core._stream import Stream
from mtaio.core._threads import run_in_thread

if TYPE_CHECKING:
    from mtaio.core._pool import Policy, Pool

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")

Call = Awaitable[T] | Callable[[], Awaitable[T] | T]
"""An awaitable, or a function without arguments, async or plain, called when its turn comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T]):
    """How one of the calls of `TaskExecutor.as_completed` ended."""

    index: int
    """Its place among the arguments, from 0."""
    value: T | None = None
    """What it returned, if it did not fail."""
    error: Exception | None = None
    """What it raised, or None."""

    def result(self) -> T:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


class Joining(ExecutorBase):
    """The part of `TaskExecutor` that runs several different calls at once."""

    @overload
    async def gather(self, a: Awaitable[T1], /, *, limit: int | None = None) -> tuple[T1]: ...
    @overload
    async def gather(
        self, a: Awaitable[T1], b: Awaitable[T2], /, *, limit: int | None = None
    ) -> tuple[T1, T2]: ...
    @overload
    async def gather(
        self, a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], /, *, limit: int | None = None
    ) -> tuple[T1, T2, T3]: ...
    @overload
    async def gather(
        self,
        a: Awaitable[T1],
        b: Awaitable[T2],
        c: Awaitable[T3],
        d: Awaitable[T4],
        /,
        *,
        limit: int | None = None,
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def gather(
        self,
        a: Awaitable[T1],
        b: Awaitable[T2],
        c: Awaitable[T3],
        d: Awaitable[T4],
        e: Awaitable[T5],
        /,
        *,
        limit: int | None = None,
    ) -> tuple[T1, T2, T3, T4, T5]: ...
    @overload
    async def gather(
        self,
        a: Awaitable[T1],
        b: Awaitable[T2],
        c: Awaitable[T3],
        d: Awaitable[T4],
        e: Awaitable[T5],
        f: Awaitable[T6],
        /,
        *,
        limit: int | None = None,
    ) -> tuple[T1, T2, T3, T4, T5, T6]: ...
    @overload
    async def gather(
        self,
        *awaitables: Call[T],
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> tuple[T, ...]: ...
    @overload
    async def gather(
        self, *awaitables: Call[T], limit: int | None = None, return_exceptions: bool
    ) -> tuple[T | Exception, ...]: ...
    async def gather(
        self, *awaitables: Call[Any], limit: int | None = None, return_exceptions: bool = False
    ) -> tuple[Any, ...]:
        """
        Await everything, at most ``limit`` at once, and return the results in the order given.

        A checkpoint. At the first error the others are cancelled and awaited, those that never
        started are closed, and the error is raised bare, or several in a group.

        Args:
            *awaitables: Coroutines or other awaitables, or functions without arguments.
            limit: How many may run at once, beside ``max_workers``.
            return_exceptions: Put errors among the results; cancellation is never one of them.

        Returns:
            The results.
        """
        results: list[Any] = []
        errors: Policy = "return" if return_exceptions else "raise"
        try:
            pool = self._join(
                awaitables, limit, errors, put=results.__setitem__, reserve=results.append
            )
            await pool.run()
        finally:
            _close(awaitables)
        return tuple(results)

    async def race(self, *calls: Call[T]) -> T:
        """
        Return the first result; cancel the other calls and wait until they are gone.

        A checkpoint. Calls start in the order given, as many at once as ``max_workers`` allows. A
        call that fails is out of the race. What losers raise while they are cancelled is counted
        in the statistics, and otherwise ignored.

        Args:
            *calls: Awaitables, or functions without arguments; at least one.

        Returns:
            The result of the call that was first to succeed.

        Raises:
            Exception: The only call failed.
            ExceptionGroup: All of several calls failed.
            ValueError: No calls.
        """
        if not calls:
            raise ValueError("race() of no calls has no winner. Pass at least one.")
        winners: list[T] = []
        failures: list[Failure] = []

        def finish(_index: int, value: T) -> None:
            winners.append(value)
            pool.stop()

        def drop_out(index: int, error: Exception) -> None:
            annotate(error, None, index, calls[index], many=False)
            failures.append((index, error))

        try:
            pool = self._join(calls, None, "return", put=finish, put_error=drop_out)
            await pool.run()
        finally:
            _close(calls)
        if not winners:
            conclude(failures)
        return winners[0]

    def as_completed(self, *calls: Call[T]) -> Stream[Outcome[T]]:
        """
        Return an async context manager that iterates over outcomes as they come.

        ``async with executor.as_completed(a, b) as outcomes: async for outcome in outcomes: ...``

        Not a checkpoint. Leaving the block cancels and awaits what is in flight, and closes what
        never started. Errors are outcomes like results.

        Args:
            *calls: Awaitables, or functions without arguments.
        """
        buffer = Buffer(len(calls), ordered=False)

        def put_value(index: int, value: T) -> None:
            buffer.put(index, Outcome(index=index, value=value))

        def put_error(index: int, error: Exception) -> None:
            outcome: Outcome[T] = Outcome(index=index, error=error)
            buffer.put(index, outcome)

        close = partial(_close, calls)
        try:
            pool = self._join(calls, None, "return", put=put_value, put_error=put_error)
        except BaseException:
            close()
            raise
        return Stream(pool, buffer, on_exit=close)

    def _join(
        self,
        calls: tuple[Call[Any], ...],
        limit: int | None,
        errors: Policy,
        *,
        put: Callable[[int, Any], object],
        put_error: Callable[[int, Exception], object] | None = None,
        reserve: Callable[[Any], object] | None = None,
    ) -> Pool:
        for number, call in enumerate(calls):
            if not inspect.isawaitable(call):
                _check_call(number, call)
        return self._pool(
            self._invoke,
            (calls,),
            Options(
                limit=limit, timeout=None, rate=None, retry=None, errors=errors, on_progress=None
            ),
            put=put,
            put_error=put_error,
            reserve=reserve,
            subject=None,
        )

    async def _invoke(self, call: Call[Any]) -> Any:
        # With its own limit, not the pool's watch: that counts the wait for a thread as well.
        timing = self._default_timing
        if inspect.isawaitable(call) or is_async(call):
            with timing.limit():
                return await (call if inspect.isawaitable(call) else call())
        abandon = timing.timeout is not None
        return await run_in_thread(self._threads, call, timing, abandon_on_cancel=abandon)


def _check_call(number: int, call: object) -> None:
    if not callable(call):
        msg = (
            f"call {number} is {call!r}, a {type(call).__name__}, which can be neither awaited nor "
            f"called. Pass coroutines, other awaitables, or functions without arguments."
        )
        raise TypeError(msg)
    check_fn(call)


def _close(calls: tuple[Call[Any], ...]) -> None:
    for call in calls:
        close_unstarted(call)
