"""
A pool whose items are calls: awaitables, and functions without arguments.

Promise: a coroutine that never got to start is closed, so that no "never awaited" warning follows
an error.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from mtaio._internal.callables import close_unstarted
from mtaio.core._base import ExecutorBase, Options
from mtaio.core._call import check_fn, settle
from mtaio.core._compose import one_attempt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mtaio.core._pool import Policy, Pool
    from mtaio.core._signatures import Call


class Calling(ExecutorBase):
    """What the parts of `TaskExecutor` share that run several different calls."""

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
        # With its own limit, not the pool's watch: that counts the wait for a thread as well.
        settled = one_attempt(settle, self._default_timing, self._threads)
        return self._pool(
            partial(self._invoke, settled),
            (calls,),
            Options(
                limit=limit, timeout=None, rate=None, retry=None, errors=errors, on_progress=None
            ),
            put=put,
            put_error=put_error,
            reserve=reserve,
            subject=None,
        )

    async def _invoke(self, settled: Callable[..., Awaitable[Any]], call: Any) -> Any:
        if inspect.isawaitable(call):
            return await settled(call)
        return await one_attempt(call, self._default_timing, self._threads)()


def _check_call(number: int, call: object) -> None:
    if not callable(call):
        msg = (
            f"call {number} is {call!r}, a {type(call).__name__}, which can be neither awaited nor "
            f"called. Pass coroutines, other awaitables, or functions without arguments."
        )
        raise TypeError(msg)
    check_fn(call)


def close(calls: tuple[Call[Any], ...]) -> None:
    """Close the coroutines among ``calls`` that never started."""
    for call in calls:
        close_unstarted(call)
