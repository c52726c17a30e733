"""
Several different calls at once: the first of them, or each as it is completed.

Promise: nothing outlives the call, or the block; calls that never started are closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from mtaio.core._buffer import Buffer
from mtaio.core._calling import close
from mtaio.core._failures import Failure, annotate, conclude
from mtaio.core._gathering import Gathering
from mtaio.core._stream import Stream

if TYPE_CHECKING:
    from mtaio.core._signatures import Call, Job

T = TypeVar("T")


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


class Joining(Gathering):
    """The part of `TaskExecutor` that runs several different calls at once."""

    @overload
    async def race(self, *calls: Job[T]) -> T: ...
    @overload
    async def race(self, *calls: Call[T]) -> T: ...
    @overload
    async def race(self, *calls: Call[Any]) -> Any: ...
    async def race(self, *calls: Call[Any]) -> Any:
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
        winners: list[Any] = []
        failures: list[Failure] = []

        def finish(_index: int, value: Any) -> None:
            winners.append(value)
            pool.stop()

        def drop_out(index: int, error: Exception) -> None:
            annotate(error, None, index, calls[index], many=False)
            failures.append((index, error))

        try:
            pool = self._join(calls, None, "return", put=finish, put_error=drop_out)
            await pool.run()
        finally:
            close(calls)
        if not winners:
            conclude(failures)
        return winners[0]

    @overload
    def as_completed(self, *calls: Job[T]) -> Stream[Outcome[T]]: ...
    @overload
    def as_completed(self, *calls: Call[T]) -> Stream[Outcome[T]]: ...
    @overload
    def as_completed(self, *calls: Call[Any]) -> Stream[Outcome[Any]]: ...
    def as_completed(self, *calls: Call[Any]) -> Stream[Outcome[Any]]:
        """
        Return an async context manager that iterates over outcomes as they come.

        ``async with executor.as_completed(a, b) as outcomes: async for outcome in outcomes: ...``

        Not a checkpoint. Leaving the block cancels and awaits what is in flight, and closes what
        never started. Errors are outcomes like results.

        Args:
            *calls: Awaitables, or functions without arguments.
        """
        buffer = Buffer(len(calls), ordered=False)

        def put_value(index: int, value: Any) -> None:
            buffer.put(index, Outcome(index=index, value=value))

        def put_error(index: int, error: Exception) -> None:
            buffer.put(index, Outcome(index=index, error=error))

        close_all = partial(close, calls)
        try:
            pool = self._join(calls, None, "return", put=put_value, put_error=put_error)
        except BaseException:
            close_all()
            raise
        return Stream(pool, buffer, on_exit=close_all)
