"""
A part as a decorator: ``@Timeout(1)`` above a function is a pipeline of that part alone.

Promise: the state is the part's, as in any pipeline; the function keeps its name, signature and
types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from mtaio._internal.decorators import AsyncFunction, Decorator, Descriptor

__all__ = ["decorate_through"]

P = ParamSpec("P")
R = TypeVar("R")


@overload
def decorate_through(part: object, fn: Descriptor, /) -> Descriptor: ...
@overload
def decorate_through(part: object, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...
@overload
def decorate_through(
    part: object, /, *, key: Callable[..., Hashable] | None = ...
) -> Decorator: ...
def decorate_through(
    part: Any, fn: Any = None, /, *, key: Callable[..., Hashable] | None = None
) -> Any:
    """
    Decorate an async function or method so that each call goes through this part.

    The same as ``Pipeline(part)`` does: see `Pipeline.__call__`. For several parts make a pipeline.

    Args:
        part: The part: this is its method ``__call__``.
        fn: The function.
        key: Called with the arguments of each call; returns its key.

    Returns:
        The decorated function, or a decorator that makes it.

    Raises:
        TypeError: What is decorated is not an async function, or ``key`` cannot be called.
    """
    from mtaio.resilience._pipeline import Pipeline  # noqa: PLC0415 - which imports the parts

    pipeline: Any = Pipeline(part)
    return pipeline(fn, key=key)
