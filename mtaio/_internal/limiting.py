"""
A function under a limit: what is acquired before each call, and given back after it.

Promise: what was acquired is released once, however the call ends; a call that was refused, or
cancelled as it waited, has not begun. A decorated function keeps its name, signature and types.
Cost: that of the limit, and one frame.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, TypeVarTuple

from mtaio._internal import checks
from mtaio._internal.callables import close_unstarted
from mtaio._internal.decorators import AsyncFunction, call, check_call, decorate
from mtaio.exceptions import LimitClosedError

if TYPE_CHECKING:
    from collections.abc import Hashable
    from contextlib import AbstractAsyncContextManager

    from mtaio._internal.decorators import Decorator

__all__ = [
    "check_hold",
    "check_key",
    "closed_error",
    "limit",
    "limit_by",
    "limit_in",
    "limit_through",
    "run_in",
    "unhashable_error",
]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_Acquire: TypeAlias = Callable[..., Awaitable[object]]
_Release: TypeAlias = Callable[[], object]


def limit(fn: Any, acquire: _Acquire, release: _Release | None = None, *, name: str) -> Any:
    """
    Return what a limiter makes of ``fn``: it decorated, or a decorator if ``fn`` is None.

    Args:
        fn: The function, or None.
        acquire: Called before each call, and awaited.
        release: Called after it; None if there is nothing to give back.
        name: What decorates, ``"RateLimiter"``, for the message of a refusal.
    """

    def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
        if release is None:

            async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                await acquire()
                return await fn(*args, **kwargs)

        else:
            give_back = release

            async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                await acquire()
                try:
                    return await fn(*args, **kwargs)
                finally:
                    give_back()

        return limited

    decorator = decorate(around, name=name)
    return decorator if fn is None else decorator(fn)


def limit_in(
    fn: Any, block: Callable[[], AbstractAsyncContextManager[object, Any]], *, name: str
) -> Any:
    """Return the same as `limit`, for a limit that is a block: each call is made in its own."""

    def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
        async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            async with block():
                return await fn(*args, **kwargs)

        return limited

    decorator = decorate(around, name=name)
    return decorator if fn is None else decorator(fn)


def limit_through(
    fn: Any,
    through: Callable[..., Awaitable[Any]],
    *,
    name: str,
    key: Callable[..., Hashable] | None = None,
) -> Any:
    """
    Return the same as `limit`, for what makes each call itself, since its cost depends on it.

    Args:
        fn: The function, or None.
        through: Called with a function that makes the call, with the arguments of the call as a
            tuple and a dict, and with its ``key``; awaited for the result.
        name: What decorates, for the message of a refusal.
        key: Called with the arguments of each call; returns its key. None for no key.
    """

    def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
        async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            found = None if key is None else key(*args, **kwargs)
            result: R = await through(partial(fn, *args, **kwargs), args, kwargs, key=found)
            return result

        return limited

    decorator = decorate(around, name=name)
    return decorator if fn is None else decorator(fn)


def check_hold(seconds: object, what: str, way_out: str = "") -> float:
    """Return for how long a limiter is held; raise unless that is a finite number of at least 0."""
    wanted = "Pass the seconds during which nothing is to be granted."
    accepted = checks.at_least("seconds", seconds, 0, way_out=wanted)
    if accepted == math.inf:
        msg = f"seconds={seconds!r} would hold the {what} for ever. {wanted}{way_out}"
        raise ValueError(msg)
    return accepted


def closed_error(limiter: object, name: str | None) -> LimitClosedError:
    """Return the error for who waits at a limiter that is closed, or comes to it later."""
    return LimitClosedError(
        f"{limiter!r} is closed, and grants nothing more. End the work that needs it, or make a "
        f"new limiter for other work.",
        name=name,
    )


def check_key(key: object) -> None:
    """Raise ``TypeError`` for a key that cannot be hashed."""
    try:
        hash(key)
    except TypeError as error:
        raise unhashable_error(key, error) from error


def unhashable_error(key: object, error: TypeError) -> TypeError:
    """Return the error for a key that cannot be hashed."""
    return TypeError(
        f"key={reprlib.repr(key)} cannot be hashed: {error}. Pass what can be the key of a dict, "
        f"such as a str, an int, or a tuple of those."
    )


async def run_in(
    block: AbstractAsyncContextManager[object, Any],
    fn: Callable[[*Ts], Awaitable[T]] | Awaitable[T],
    args: tuple[*Ts],
) -> T:
    """Return what a limiter's ``run`` returns: the result of one call, made in its block."""
    try:
        check_call(fn, args)
        async with block:
            return await call(fn, args)
    finally:
        close_unstarted(fn)


def limit_by(
    key: Callable[..., Hashable],
    acquire: _Acquire,
    release: Callable[[Hashable], object] | None = None,
    *,
    name: str,
) -> Decorator:
    """Return the decorator that `limit` returns, where both take the key of the call."""

    def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
        if release is None:

            async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                await acquire(key(*args, **kwargs))
                return await fn(*args, **kwargs)

        else:
            give_back = release

            async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                mine = key(*args, **kwargs)
                await acquire(mine)
                try:
                    return await fn(*args, **kwargs)
                finally:
                    give_back(mine)

        return limited

    return decorate(around, name=name)
