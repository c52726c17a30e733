"""
Apply a function to every item of a source, and get at the results while the work goes on.

Promise: a consumer that falls behind holds the work back; nothing outlives the block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from mtaio._internal import checks
from mtaio._internal.sentinel import UNSET, Unset
from mtaio.core._base import ExecutorBase, Options
from mtaio.core._buffer import Buffer
from mtaio.core._stream import Stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Unpack

    from mtaio.core._pool import Policy, Progress
    from mtaio.core._retry import Retry
    from mtaio.core._signatures import (
        A,
        Async1,
        Async2,
        B,
        Plain1,
        Plain2,
        Return,
        Source,
        Stop,
        StreamOptions,
        T,
    )
    from mtaio.resources import RateLimiter

_UNLIMITED_WINDOW = 100


class Streaming(ExecutorBase):
    """The part of `TaskExecutor` that hands out results as they come."""

    @overload
    def stream(
        self,
        fn: Async1[A, T],
        a: Source[A],
        /,
        *,
        errors: Stop = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        fn: Async2[A, B, T],
        a: Source[A],
        b: Source[B],
        /,
        *,
        errors: Stop = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        fn: Callable[..., Awaitable[T]],
        a: Source[Any],
        b: Source[Any],
        c: Source[Any],
        /,
        *others: Source[Any],
        errors: Stop = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        fn: Plain1[A, T],
        a: Source[A],
        /,
        *,
        errors: Stop = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        fn: Plain2[A, B, T],
        a: Source[A],
        b: Source[B],
        /,
        *,
        errors: Stop = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        fn: Callable[..., T],
        a: Source[Any],
        b: Source[Any],
        c: Source[Any],
        /,
        *others: Source[Any],
        errors: Stop = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[T]: ...
    @overload
    def stream(
        self, fn: Async1[A, T], a: Source[A], /, *, errors: Return, **options: Unpack[StreamOptions]
    ) -> Stream[T | Exception]: ...
    @overload
    def stream(
        self,
        fn: Async2[A, B, T],
        a: Source[A],
        b: Source[B],
        /,
        *,
        errors: Return,
        **options: Unpack[StreamOptions],
    ) -> Stream[T | Exception]: ...
    @overload
    def stream(
        self,
        fn: Callable[..., Awaitable[T]],
        a: Source[Any],
        b: Source[Any],
        c: Source[Any],
        /,
        *others: Source[Any],
        errors: Return,
        **options: Unpack[StreamOptions],
    ) -> Stream[T | Exception]: ...
    @overload
    def stream(
        self, fn: Plain1[A, T], a: Source[A], /, *, errors: Return, **options: Unpack[StreamOptions]
    ) -> Stream[T | Exception]: ...
    @overload
    def stream(
        self,
        fn: Plain2[A, B, T],
        a: Source[A],
        b: Source[B],
        /,
        *,
        errors: Return,
        **options: Unpack[StreamOptions],
    ) -> Stream[T | Exception]: ...
    @overload
    def stream(
        self,
        fn: Callable[..., T],
        a: Source[Any],
        b: Source[Any],
        c: Source[Any],
        /,
        *others: Source[Any],
        errors: Return,
        **options: Unpack[StreamOptions],
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
