"""
Apply a function to every item of a source: as a list, for the effect, or as a stream.

Promise: items are taken from the source only when somebody is free to work on them; nothing
outlives the call.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from mtaio._internal import checks
from mtaio._internal.unset import UNSET, Unset
from mtaio.core._base import ExecutorBase, Options
from mtaio.core._buffer import Buffer
from mtaio.core._stream import Stream

if TYPE_CHECKING:
    from mtaio.core._pool import Policy, Progress
    from mtaio.core._retry import Retry
    from mtaio.resources import RateLimiter

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")

Source = Iterable[A] | AsyncIterable[A]
"""What items come from: any iterable, sync or async."""

_UNLIMITED_WINDOW = 100

_Stop = Literal["raise", "collect"]


class Mapping(ExecutorBase):
    """The part of `TaskExecutor` that works through sources."""

    @overload
    async def map(
        self,
        fn: Callable[[A], Awaitable[T] | T],
        iterable: Source[A],
        /,
        *,
        limit: int | None = None,
        ordered: bool = True,
        timeout: float | Unset | None = UNSET,
        rate: float | RateLimiter | None = None,
        retry: int | Retry | None = None,
        errors: _Stop = "raise",
        on_progress: Progress | None = None,
    ) -> list[T]: ...
    @overload
    async def map(
        self,
        fn: Callable[[A, B], Awaitable[T] | T],
        iterable: Source[A],
        second: Source[B],
        /,
        *,
        limit: int | None = None,
        ordered: bool = True,
        timeout: float | Unset | None = UNSET,
        rate: float | RateLimiter | None = None,
        retry: int | Retry | None = None,
        errors: _Stop = "raise",
        on_progress: Progress | None = None,
    ) -> list[T]: ...
    @overload
    async def map(
        self,
        fn: Callable[..., Awaitable[T] | T],
        /,
        *iterables: Source[Any],
        limit: int | None = None,
        ordered: bool = True,
        timeout: float | Unset | None = UNSET,
        rate: float | RateLimiter | None = None,
        retry: int | Retry | None = None,
        errors: _Stop = "raise",
        on_progress: Progress | None = None,
    ) -> list[T]: ...
    @overload
    async def map(
        self,
        fn: Callable[..., Awaitable[T] | T],
        /,
        *iterables: Source[Any],
        errors: Literal["return"],
        limit: int | None = None,
        ordered: bool = True,
        timeout: float | Unset | None = UNSET,
        rate: float | RateLimiter | None = None,
        retry: int | Retry | None = None,
        on_progress: Progress | None = None,
    ) -> list[T | Exception]: ...
    async def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Source[Any],
        limit: int | None = None,
        ordered: bool = True,
        timeout: float | Unset | None = UNSET,
        rate: float | RateLimiter | None = None,
        retry: int | Retry | None = None,
        errors: Policy = "raise",
        on_progress: Progress | None = None,
    ) -> list[Any]:
        """
        Call ``fn`` with every item, several at once, and return the results as a list.

        A checkpoint. Cancelled, it cancels the items in flight, waits for them, and takes no more.

        Args:
            fn: An async function, or a plain one, which then runs in worker threads.
            *iterables: Sync or async iterables; with several, ``fn`` gets one argument from each,
                until the shortest ends. An async generator is closed at the end of the call.
            limit: How many items of this call may run at once, beside ``max_workers``.
            ordered: Whether results stand in the order of the items, or in that of completion.
            timeout: Seconds for each item (each attempt, with ``retry``), not counting the wait
                for a slot, a token or a thread; None for no limit; omitted: the executor's.
            rate: How many items may start per second, evenly spaced; or a `RateLimiter`.
            retry: Attempts per item in all; or a `Retry` policy.
            errors: ``"raise"``: at the first error cancel the other items and raise it, bare if it
                is the only one. ``"collect"``: run everything, then raise all errors in one
                group. ``"return"``: put errors where the results would be.
            on_progress: Called as ``on_progress(done, total)`` after each item; ``total`` is None
                if the sources do not tell their length.

        Returns:
            The results.

        Raises:
            Exception: What ``fn`` raised, with a note naming the item's index and argument.
            ExceptionGroup: Several items failed.
            TimeoutError: An item took longer than ``timeout``.
            ValueError, TypeError: An option makes no sense.
        """
        results: list[Any] = []
        options = Options(
            limit=limit,
            timeout=timeout,
            rate=rate,
            retry=retry,
            errors=errors,
            on_progress=on_progress,
        )
        if ordered:
            put, reserve = results.__setitem__, results.append
        else:
            put, reserve = partial(_append, results), None
        await self._pool(fn, iterables, options, put=put, reserve=reserve).run()
        return results

    async def for_each(
        self,
        fn: Callable[..., object],
        /,
        *iterables: Source[Any],
        limit: int | None = None,
        timeout: float | Unset | None = UNSET,
        rate: float | RateLimiter | None = None,
        retry: int | Retry | None = None,
        errors: _Stop = "raise",
        on_progress: Progress | None = None,
    ) -> None:
        """
        Call ``fn`` with every item for its effect: `map` without the list of results.

        Memory stays constant however long the source is. Arguments, errors and cancellation are
        those of `map`; with no results to stand among, ``errors="return"`` is refused.
        """
        if str(errors) == "return":  # callers may be untyped
            raise ValueError(
                'for_each() returns nothing, so errors="return" would lose them. Pass "collect" '
                "to run all items and raise the errors together."
            )
        options = Options(
            limit=limit,
            timeout=timeout,
            rate=rate,
            retry=retry,
            errors=errors,
            on_progress=on_progress,
        )
        await self._pool(fn, iterables, options, put=_forget).run()

    @overload
    def stream(
        self,
        fn: Callable[[A], Awaitable[T] | T],
        iterable: Source[A],
        /,
        *,
        ordered: bool = False,
        buffer: int | None = None,
        limit: int | None = None,
        timeout: float | Unset | None = UNSET,
        rate: float | RateLimiter | None = None,
        retry: int | Retry | None = None,
        errors: _Stop = "raise",
        on_progress: Progress | None = None,
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        fn: Callable[..., Awaitable[T] | T],
        /,
        *iterables: Source[Any],
        ordered: bool = False,
        buffer: int | None = None,
        limit: int | None = None,
        timeout: float | Unset | None = UNSET,
        rate: float | RateLimiter | None = None,
        retry: int | Retry | None = None,
        errors: _Stop = "raise",
        on_progress: Progress | None = None,
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        fn: Callable[..., Awaitable[T] | T],
        /,
        *iterables: Source[Any],
        errors: Literal["return"],
        ordered: bool = False,
        buffer: int | None = None,
        limit: int | None = None,
        timeout: float | Unset | None = UNSET,
        rate: float | RateLimiter | None = None,
        retry: int | Retry | None = None,
        on_progress: Progress | None = None,
    ) -> Stream[T | Exception]: ...
    def stream(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Source[Any],
        ordered: bool = False,
        buffer: int | None = None,
        limit: int | None = None,
        timeout: float | Unset | None = UNSET,
        rate: float | RateLimiter | None = None,
        retry: int | Retry | None = None,
        errors: Policy = "raise",
        on_progress: Progress | None = None,
    ) -> Stream[Any]:
        """
        Return an async context manager that iterates over results as they come.

        ``async with executor.stream(fn, source) as results: async for result in results: ...``

        Not a checkpoint: work starts on entering the block. A consumer that falls behind holds the
        work back. Leaving the block (``break``, an error, cancellation) cancels the items in
        flight and waits for them. An error that the consumer has not seen is raised by the block.
        Inside an item of the same executor the block lends that item's slot to its work.

        Args:
            fn: As for `map`.
            *iterables: As for `map`.
            ordered: Whether results come in the order of the items, or as they are completed.
            buffer: How many results may wait for the consumer beyond the ``limit`` items in
                flight; as many as ``limit`` if omitted. Without a limit, how many items may be in
                flight or wait; 100 if omitted, at least 1.
            limit: As for `map`.
            timeout: As for `map`.
            rate: As for `map`.
            retry: As for `map`.
            errors: ``"raise"``: results that are ready come first, then the error. ``"collect"``:
                all results first, then all errors in one group. ``"return"``: errors come as
                results.
            on_progress: As for `map`.

        Raises:
            ValueError, TypeError: An option makes no sense.
        """
        options = Options(
            limit=limit,
            timeout=timeout,
            rate=rate,
            retry=retry,
            errors=errors,
            on_progress=on_progress,
        )
        if buffer is not None:
            checks.count(
                "buffer", buffer, least=0, way_out="Pass how many results may wait, or omit it."
            )
        at_once = self._narrowed(limit)
        room = at_once or _UNLIMITED_WINDOW if buffer is None else buffer
        between = Buffer(max(room, 1) if at_once is None else at_once + room, ordered=ordered)
        pool = self._pool(fn, iterables, options, put=between.put, gate=between)
        return Stream(pool, between)


def _append(results: list[Any], _index: int, value: Any) -> None:
    results.append(value)


def _forget(_index: int, _value: Any) -> None:
    pass
