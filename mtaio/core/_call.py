"""
From whatever the user passes as ``fn`` to one coroutine function per item.

Promise: an async function is called in the event loop, anything else in a worker thread; what
comes back is awaited if it can be, so that a partial or a lambda around an async function works.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

from mtaio._internal import checks
from mtaio._internal.callables import call_method, is_async, is_async_generator, name_of, unwrap

__all__ = [
    "CoroutineFunction",
    "check_fn",
    "check_progress",
    "in_loop",
    "is_async",
    "name_of",
    "returns_coroutine",
    "settle",
    "shorten",
]

CoroutineFunction = Callable[..., Coroutine[Any, Any, Any]]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 40


def returns_coroutine(fn: Callable[..., Any]) -> bool:
    """Tell whether ``fn`` certainly returns a native coroutine, not just some awaitable."""
    fn = unwrap(fn)
    code = getattr(fn, "__code__", None) or getattr(call_method(fn), "__code__", None)
    return code is not None and bool(code.co_flags & inspect.CO_COROUTINE)


async def settle(result: Awaitable[Any]) -> Any:
    """Await ``result``; this makes a coroutine of any awaitable."""
    return await result


def in_loop(fn: Callable[..., Any]) -> CoroutineFunction:
    """Return a function that surely returns a coroutine, for an ``fn`` that `is_async`."""
    if returns_coroutine(fn):
        return fn

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return call


def check_fn(fn: object) -> None:
    """Refuse what cannot be called, and an async generator function, which has no one result."""
    if is_async_generator(fn):
        msg = (
            f"fn={fn!r} is an async generator function: it has no one result to wait for. "
            f"Call it and pass what it yields as the source."
        )
        raise TypeError(msg)
    checks.callable_(
        "fn", fn, way_out="Pass an async function, or a plain one to run in a worker thread."
    )


def check_progress(callback: object) -> None:
    """Refuse an ``on_progress`` that cannot be called, or that would have to be awaited."""
    if callback is None:
        return
    way_out = "Pass a plain function of two arguments, (done, total), or None."
    checks.callable_("on_progress", callback, way_out=way_out)
    if is_async(cast("Callable[..., Any]", callback)):
        msg = f"on_progress={callback!r} is an async function, which nobody would await. {way_out}"
        raise TypeError(msg)


def shorten(value: object) -> str:
    """Return a short repr of ``value`` for messages, whatever its ``__repr__`` does."""
    try:
        return _SHORT.repr(value)
    except Exception:  # noqa: BLE001 - a broken __repr__ must not hide the error being described
        return f"<{type(value).__name__}>"
