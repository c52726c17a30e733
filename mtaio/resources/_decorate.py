"""
What every ``limit`` decorator of this room has in common.

Promise: the decorated function keeps its name, signature and types; functions, methods, static and
class methods, partials and objects with an async ``__call__`` all work; whatever cannot wait for
its turn is refused when it is decorated, not when it is called.

An async generator is refused too: it runs in the loop that consumes it, so what was to be limited
(starting it, or each of its items) can be said only there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, cast, overload

__all__ = ["AsyncFunction", "Decorator", "Descriptor", "decorate"]

P = ParamSpec("P")
R = TypeVar("R")

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


class Around(Protocol):
    """Makes the function that is called in place of the decorated one."""

    def __call__(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...


def decorate(around: Around, *, name: str) -> Decorator:
    """
    Return a decorator that puts ``around(fn)``, dressed up as ``fn``, in the place of ``fn``.

    Args:
        around: Takes the function and returns an ``async def`` that calls it.
        name: What the user writes, ``"RateLimiter.limit"``, for the message of a refusal.

    Returns:
        A decorator; it raises ``TypeError`` for anything but an async function.

    Example:
        ``limit`` with and without options::

            def limit(self, fn: Any = None, /, *, tokens: float = 1) -> Any:
                def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
                    async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                        await self.acquire(tokens)
                        return await fn(*args, **kwargs)

                    return limited

                decorator = decorate(around, name="RateLimiter.limit")
                return decorator if fn is None else decorator(fn)
    """

    def decorator(fn: Any, /) -> Any:
        if isinstance(fn, staticmethod):
            return staticmethod(decorator(cast("staticmethod[..., Any]", fn).__func__))
        if isinstance(fn, classmethod):
            return classmethod(decorator(cast("classmethod[Any, ..., Any]", fn).__func__))
        _refuse(fn, name)
        return update_wrapper(around(fn), fn)

    return cast("Decorator", decorator)


def _refuse(fn: object, name: str) -> None:
    """Raise ``TypeError`` unless calling ``fn`` makes a coroutine."""
    call = getattr(type(fn), "__call__", None)  # noqa: B004 - the method itself, not whether
    if inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(call):
        return
    if inspect.isasyncgenfunction(fn) or inspect.isasyncgenfunction(call):
        reason = (
            "it is an async generator function, which runs in the loop that consumes it. Use the "
            "limiter in that loop, or around what the generator awaits."
        )
    elif not callable(fn):
        reason = (
            f"being of type {type(fn).__name__!r}, it is no function. Write @{name}, or "
            f"@{name}(...) with keywords, above an 'async def'."
        )
    else:
        reason = (
            "it is not an async function, and only one of those can wait for its turn. Make it "
            "'async def', or call it from one that is decorated."
        )
    msg = f"@{name} cannot decorate {fn!r}: {reason}"
    raise TypeError(msg)
