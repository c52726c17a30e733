"""
All of several different calls at once.

Promise: at the first error the others are cancelled and awaited, and those that never started are
closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from mtaio.core._calling import Calling, close

if TYPE_CHECKING:
    from mtaio.core._pool import Policy
    from mtaio.core._signatures import T1, T2, T3, T4, T5, T6, Call, Job, T


class Gathering(Calling):
    """The part of `TaskExecutor` that waits for all of several calls."""

    @overload
    async def gather(
        self, a: Job[T1], /, *, limit: int | None = None, return_exceptions: Literal[False] = False
    ) -> tuple[T1]: ...
    @overload
    async def gather(
        self,
        a: Job[T1],
        b: Job[T2],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> tuple[T1, T2]: ...
    @overload
    async def gather(
        self,
        a: Job[T1],
        b: Job[T2],
        c: Job[T3],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> tuple[T1, T2, T3]: ...
    @overload
    async def gather(
        self,
        a: Job[T1],
        b: Job[T2],
        c: Job[T3],
        d: Job[T4],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def gather(
        self,
        a: Job[T1],
        b: Job[T2],
        c: Job[T3],
        d: Job[T4],
        e: Job[T5],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> tuple[T1, T2, T3, T4, T5]: ...
    @overload
    async def gather(
        self,
        a: Job[T1],
        b: Job[T2],
        c: Job[T3],
        d: Job[T4],
        e: Job[T5],
        f: Job[T6],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> tuple[T1, T2, T3, T4, T5, T6]: ...
    @overload
    async def gather(
        self, *calls: Job[T], limit: int | None = None, return_exceptions: Literal[False] = False
    ) -> tuple[T, ...]: ...
    @overload
    async def gather(
        self, *calls: Call[T], limit: int | None = None, return_exceptions: Literal[False] = False
    ) -> tuple[T, ...]: ...
    @overload
    async def gather(
        self, *calls: Call[Any], limit: int | None = None, return_exceptions: Literal[False] = False
    ) -> tuple[Any, ...]: ...
    @overload
    async def gather(
        self, a: Job[T1], /, *, limit: int | None = None, return_exceptions: Literal[True]
    ) -> tuple[T1 | Exception]: ...
    @overload
    async def gather(
        self,
        a: Job[T1],
        b: Job[T2],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[True],
    ) -> tuple[T1 | Exception, T2 | Exception]: ...
    @overload
    async def gather(
        self,
        a: Job[T1],
        b: Job[T2],
        c: Job[T3],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[True],
    ) -> tuple[T1 | Exception, T2 | Exception, T3 | Exception]: ...
    @overload
    async def gather(
        self,
        a: Job[T1],
        b: Job[T2],
        c: Job[T3],
        d: Job[T4],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[True],
    ) -> tuple[T1 | Exception, T2 | Exception, T3 | Exception, T4 | Exception]: ...
    @overload
    async def gather(
        self,
        a: Job[T1],
        b: Job[T2],
        c: Job[T3],
        d: Job[T4],
        e: Job[T5],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[True],
    ) -> tuple[T1 | Exception, T2 | Exception, T3 | Exception, T4 | Exception, T5 | Exception]: ...
    @overload
    async def gather(
        self,
        a: Job[T1],
        b: Job[T2],
        c: Job[T3],
        d: Job[T4],
        e: Job[T5],
        f: Job[T6],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[True],
    ) -> tuple[
        T1 | Exception,
        T2 | Exception,
        T3 | Exception,
        T4 | Exception,
        T5 | Exception,
        T6 | Exception,
    ]: ...
    @overload
    async def gather(
        self, *calls: Job[T], limit: int | None = None, return_exceptions: Literal[True]
    ) -> tuple[T | Exception, ...]: ...
    @overload
    async def gather(
        self, *calls: Call[T], limit: int | None = None, return_exceptions: bool
    ) -> tuple[T | Exception, ...]: ...
    @overload
    async def gather(
        self, *calls: Call[Any], limit: int | None = None, return_exceptions: bool
    ) -> tuple[Any, ...]: ...
    async def gather(
        self, *calls: Call[Any], limit: int | None = None, return_exceptions: bool = False
    ) -> tuple[Any, ...]:
        """
        Await everything, at most ``limit`` at once, and return the results in the order given.

        A checkpoint. At the first error the others are cancelled and awaited, those that never
        started are closed, and the error is raised bare, or several in a group.

        Args:
            *calls: Coroutines or other awaitables, or functions without arguments.
            limit: How many may run at once, beside ``max_workers``.
            return_exceptions: Put errors among the results; cancellation is never one of them.

        Returns:
            The results.
        """
        results: list[Any] = []
        errors: Policy = "return" if return_exceptions else "raise"
        try:
            pool = self._join(calls, limit, errors, put=results.__setitem__, reserve=results.append)
            await pool.run()
        finally:
            close(calls)
        return tuple(results)
