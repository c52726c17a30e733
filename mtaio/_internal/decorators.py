"""
What limits and pipelines do with a user's function: decorate it, or call it with ``run``.

Promise: the decorated function keeps its name, signature and types; functions, methods, static and
class methods, partials and objects with an async ``__call__`` all work; what cannot be awaited is
refused when it is decorated, not when it is called.

An async generator is refused too, unless the decorator has a meaning for streams: it runs in the
loop that consumes it, so what was to be limited (starting it, or each of its items) can be said
only there.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import update_wrapper
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, TypeVarTuple, cast, overload

from mtaio._internal.callables import is_async, is_async_generator, unawaitable_error

__all__ = ["AsyncFunction", "Decorator", "Descriptor", "call", "check_call", "decorate"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

AsyncFunction: TypeAlias = Callable[P, Coroutine[Any, Any, R]]
"""What ``async def`` makes."""

_Call: TypeAlias = Coroutine[Any, Any, Any]

Descriptor = TypeVar(
    "Descriptor",
    bound="staticmethod[..., _Call] | classmethod[Any, ..., _Call]",
)
"""An async function that ``@staticmethod`` or ``@classmethod`` has wrapped already."""


class Decorator(Protocol):
    """Takes an async function and returns one of the same signature."""

    @overload
    def __call__(self, fn: Descriptor, /) -> Descriptor: ...
    @overload
    def __call__(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...


class _Around(Protocol):
    """Makes the function that is called in place of the decorated one."""

    def __call__(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...


def decorate(
    around: _Around, *, name: str, stream: Callable[[Any], Callable[..., object]] | None = None
) -> Decorator:
    """
    Return a decorator that replaces ``fn`` by ``around(fn)`` with the name and signature of ``fn``.

    Args:
        around: Takes the function and returns an ``async def`` that calls it.
        name: What the user writes, ``"TimeoutManager.limit"``, for the message of a refusal.
        stream: Does the same for an async generator function; None to refuse it.

    Returns:
        A decorator; it raises ``TypeError`` for anything but an async function.

    Example:
        A limiter that decorates with and without options::

            def __call__(self, fn: Any = None, /, *, tokens: float = 1) -> Any:
                def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
                    async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                        await self.acquire(tokens)
                        return await fn(*args, **kwargs)

                    return limited

                decorator = decorate(around, name="RateLimiter")
                return decorator if fn is None else decorator(fn)
    """

    def decorator(fn: Any, /) -> Any:
        if isinstance(fn, staticmethod):
            return staticmethod(decorator(cast("staticmethod[..., Any]", fn).__func__))
        if isinstance(fn, classmethod):
            return classmethod(decorator(cast("classmethod[Any, ..., Any]", fn).__func__))
        if stream is not None and is_async_generator(fn):
            return update_wrapper(stream(fn), fn)
        _check_async(fn, name)
        return update_wrapper(around(fn), fn)

    return cast("Decorator", decorator)


def _check_async(fn: object, name: str) -> None:
    """Raise ``TypeError`` unless calling ``fn`` makes a coroutine."""
    if callable(fn) and is_async(fn):
        return
    if is_async_generator(fn):
        reason = (
            "it is an async generator function, which runs in the 'async for' that consumes it. "
            "For a stream, use @Pipeline(...), whose function returns an 'async with' block, or "
            "decorate what the generator awaits."
        )
    elif not callable(fn):
        reason = (
            f"it is of type {type(fn).__name__!r}, not a function. Write the decorator above an "
            f"'async def', and pass its own options by keyword."
        )
    else:
        reason = (
            "it is not an async function, and only an async function can wait. Make it "
            "'async def', or call it from one that is decorated."
        )
    msg = f"@{name} cannot decorate {fn!r}: {reason}"
    raise TypeError(msg)


def check_call(fn: object, args: tuple[object, ...]) -> None:
    """Raise ``TypeError`` unless ``fn`` can be called with ``args``, or awaited without."""
    if callable(fn):
        return
    if not inspect.isawaitable(fn):
        what = "can be neither called nor awaited"
    elif args:
        what = f"is already a call, and takes no arguments, such as {args[0]!r}"
    else:
        return
    msg = f"fn={fn!r} {what}. Pass an async function and its arguments."
    raise TypeError(msg)


def call(fn: Callable[[*Ts], Awaitable[T]] | Awaitable[T], args: tuple[*Ts]) -> Awaitable[T]:
    """Return what is to be awaited: what ``fn`` returns, or ``fn`` itself."""
    awaitable = fn(*args) if callable(fn) else fn
    if not inspect.isawaitable(awaitable):
        raise unawaitable_error(fn, awaitable, "run")
    return awaitable
