"""
What the parts of a pipeline have in common: what they count, and how each is a decorator.

Promise: a cancellation is not an outcome, nor is a refusal by something inside. ``@Timeout(1)``
above a function is a pipeline of that part alone: the state is the part's, as in any pipeline, and
the function keeps its name, signature and types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeGuard, TypeVar, overload

from mtaio._internal.cancellation import is_cancelled
from mtaio._internal.filters import accepts
from mtaio.exceptions import LimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from mtaio._internal.decorators import AsyncFunction, Decorator, Descriptor

__all__ = ["REFUSALS", "decorate_through", "is_outcome"]

P = ParamSpec("P")
R = TypeVar("R")

REFUSALS: Final = LimitError
"""What a call raises that a part refuses: it says nothing about what is called."""


def is_outcome(error: BaseException) -> TypeGuard[Exception]:
    """Return whether a call has ended with ``error``, and was not cancelled or refused."""
    # What a cancelled call raises may be what its function made of the cancellation.
    return isinstance(error, Exception) and not accepts(REFUSALS, error) and not is_cancelled()


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
    from mtaio.resilience._pipeline import Pipeline  # noqa: PLC0415 - it loads all limiters

    pipeline: Any = Pipeline(part)
    return pipeline(fn, key=key)
