"""
What a user's callable is, found out without calling it.

Promise: partials and objects with ``__call__`` are seen through, and nothing is called. A coroutine
that will not be awaited is closed, if it has not started, so that Python does not warn about it.
"""

from __future__ import annotations

import inspect
import warnings
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "call_method",
    "close_unstarted",
    "is_async",
    "is_async_def",
    "is_async_generator",
    "is_generator",
    "is_plain_def",
    "name_of",
    "unawaitable_error",
    "unwrap",
    "warn_where_defined",
]


_COROUTINE: Final = inspect.CO_COROUTINE


def is_async_def(fn: Any) -> bool:
    """
    Return whether ``fn`` is an ``async def`` function, a method of one, or a partial around either.

    Most async functions are, and this takes a twentieth of what `inspect` takes to find out about
    any callable. The call of such a function returns a coroutine, and runs none of its code.
    """
    while type(fn) is partial:
        fn = fn.func
    if type(fn) is MethodType:
        fn = fn.__func__
    return type(fn) is FunctionType and fn.__code__.co_flags & _COROUTINE != 0


def is_async(fn: Callable[..., Any]) -> bool:
    """Return whether calling ``fn`` only makes a coroutine, so that the loop may call it."""
    if is_async_def(fn):
        return True
    fn = unwrap(fn)
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(call_method(fn))


def is_async_generator(fn: object) -> bool:
    """Return whether calling ``fn`` makes an async generator."""
    fn = unwrap(fn)
    return inspect.isasyncgenfunction(fn) or inspect.isasyncgenfunction(call_method(fn))


def is_generator(fn: object) -> bool:
    """Return whether calling ``fn`` makes a generator, and runs none of its code."""
    fn = unwrap(fn)
    for each in (fn, call_method(fn)):
        if inspect.isgeneratorfunction(each):
            awaitable: int = each.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE
            return not awaitable
    return False


def name_of(fn: object) -> str:
    """Return a name of ``fn`` for messages."""
    while isinstance(fn, partial):
        fn = cast("object", fn.func)
    return getattr(fn, "__qualname__", None) or type(fn).__qualname__


def unawaitable_error(fn: object, result: object, method: str) -> TypeError:
    """Return the error for a sync function given to ``method``, which awaits what it returns."""
    if inspect.isasyncgen(result):
        way_out = (
            "An async generator runs in the 'async for' that consumes it: pass an async function "
            "that contains that loop. For streams use stream() of a pipeline."
        )
    else:
        way_out = (
            f"Pass an async function, or run the plain one in a thread: "
            f"{method}(anyio.to_thread.run_sync, fn)."
        )
    return TypeError(f"{fn!r} returned {result!r}, which cannot be awaited. {way_out}")


def unwrap(fn: Any) -> Any:
    """Return the function inside partials."""
    while isinstance(fn, partial):
        fn = fn.func
    return fn


def warn_where_defined(fn: Any, message: str) -> None:
    """Warn at the line where ``fn`` is defined: the stack may be the event loop's."""
    code = getattr(unwrap(fn), "__code__", None)
    if code is None:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
        return
    registry = unwrap(fn).__globals__.setdefault("__warningregistry__", {})
    warnings.warn_explicit(
        message, RuntimeWarning, code.co_filename, code.co_firstlineno, registry=registry
    )


def call_method(fn: object) -> Any:
    """Return what runs when an object is called, to look at its code."""
    return getattr(type(fn), "__call__", None)  # noqa: B004 - the method itself


def close_unstarted(call: object) -> None:
    """Close ``call`` if it is a coroutine that has not started."""
    if inspect.iscoroutine(call) and inspect.getcoroutinestate(call) == inspect.CORO_CREATED:
        call.close()


def is_plain_def(fn: object) -> bool:
    """
    Return whether ``fn`` is a ``def`` function that returns what it computes.

    Most plain functions are, and this takes a tenth of what `inspect` takes for any callable.
    """
    return type(fn) is FunctionType and not fn.__code__.co_flags & _NOT_PLAIN


_NOT_PLAIN: Final = (
    inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_GENERATOR
    | inspect.CO_ASYNC_GENERATOR
)
