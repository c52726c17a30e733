"""
Apply a function to every item of a source: as a list, or for the effect.

Promise: items are taken from the source only when somebody is free to work on them; nothing
outlives the call.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, overload

from mtaio._internal.sentinel import UNSET, Unset
from mtaio.core._base import Options
from mtaio.core._streaming import Streaming

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
        EachOptions,
        MapOptions,
        Plain1,
        Plain2,
        Return,
        Source,
        Stop,
        T,
    )
    from mtaio.resources import RateLimiter


class Mapping(Streaming):
    """The part of `TaskExecutor` that works through sources."""

    @overload
    async def map(
        self,
        fn: Async1[A, T],
        a: Source[A],
        /,
        *,
        errors: Stop = "raise",
        **options: Unpack[MapOptions],
    ) -> list[T]: ...
    @overload
    async def map(
        self,
        fn: Async2[A, B, T],
        a: Source[A],
        b: Source[B],
        /,
        *,
        errors: Stop = "raise",
        **options: Unpack[MapOptions],
    ) -> list[T]: ...
    @overload
    async def map(
        self,
        fn: Callable[..., Awaitable[T]],
        a: Source[Any],
        b: Source[Any],
        c: Source[Any],
        /,
        *others: Source[Any],
        errors: Stop = "raise",
        **options: Unpack[MapOptions],
    ) -> list[T]: ...
    @overload
    async def map(
        self,
        fn: Plain1[A, T],
        a: Source[A],
        /,
        *,
        errors: Stop = "raise",
        **options: Unpack[MapOptions],
    ) -> list[T]: ...
    @overload
    async def map(
        self,
        fn: Plain2[A, B, T],
        a: Source[A],
        b: Source[B],
        /,
        *,
        errors: Stop = "raise",
        **options: Unpack[MapOptions],
    ) -> list[T]: ...
    @overload
    async def map(
        self,
        fn: Callable[..., T],
        a: Source[Any],
        b: Source[Any],
        c: Source[Any],
        /,
        *others: Source[Any],
        errors: Stop = "raise",
        **options: Unpack[MapOptions],
    ) -> list[T]: ...
    @overload
    async def map(
        self, fn: Async1[A, T], a: Source[A], /, *, errors: Return, **options: Unpack[MapOptions]
    ) -> list[T | Exception]: ...
    @overload
    async def map(
        self,
        fn: Async2[A, B, T],
        a: Source[A],
        b: Source[B],
        /,
        *,
        errors: Return,
        **options: Unpack[MapOptions],
    ) -> list[T | Exception]: ...
    @overload
    async def map(
        self,
        fn: Callable[..., Awaitable[T]],
        a: Source[Any],
        b: Source[Any],
        c: Source[Any],
        /,
        *others: Source[Any],
        errors: Return,
        **options: Unpack[MapOptions],
    ) -> list[T | Exception]: ...
    @overload
    async def map(
        self, fn: Plain1[A, T], a: Source[A], /, *, errors: Return, **options: Unpack[MapOptions]
    ) -> list[T | Exception]: ...
    @overload
    async def map(
        self,
        fn: Plain2[A, B, T],
        a: Source[A],
        b: Source[B],
        /,
        *,
        errors: Return,
        **options: Unpack[MapOptions],
    ) -> list[T | Exception]: ...
    @overload
    async def map(
        self,
        fn: Callable[..., T],
        a: Source[Any],
        b: Source[Any],
        c: Source[Any],
        /,
        *others: Source[Any],
        errors: Return,
        **options: Unpack[MapOptions],
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

        A checkpoint. Cancelled, it cancels the items in flight, waits for them, and takes no more;
        errors to report (see ``errors``) are then raised in the place of the cancellation.

        Args:
            fn: An async function, or a plain one, which then runs in worker threads.
            *iterables: Sync or async iterables; with several, ``fn`` gets one argument from each,
                until the shortest ends. An async generator is closed at the end of the call; any
                other iterator may be read on afterwards, though a few items further.
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

    @overload
    async def for_each(
        self,
        fn: Callable[[A], object],
        a: Source[A],
        /,
        *,
        errors: Stop = "raise",
        **options: Unpack[EachOptions],
    ) -> None: ...
    @overload
    async def for_each(
        self,
        fn: Callable[[A, B], object],
        a: Source[A],
        b: Source[B],
        /,
        *,
        errors: Stop = "raise",
        **options: Unpack[EachOptions],
    ) -> None: ...
    @overload
    async def for_each(
        self,
        fn: Callable[..., object],
        a: Source[Any],
        b: Source[Any],
        c: Source[Any],
        /,
        *others: Source[Any],
        errors: Stop = "raise",
        **options: Unpack[EachOptions],
    ) -> None: ...
    async def for_each(
        self,
        fn: Callable[..., object],
        /,
        *iterables: Source[Any],
        limit: int | None = None,
        timeout: float | Unset | None = UNSET,
        rate: float | RateLimiter | None = None,
        retry: int | Retry | None = None,
        errors: Stop = "raise",
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


def _append(results: list[Any], _index: int, value: Any) -> None:
    results.append(value)


def _forget(_index: int, _value: Any) -> None:
    pass
