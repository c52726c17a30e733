"""
What ``run(func, *args)`` and ``run(awaitable)`` have in common.

Promise: what cannot be awaited is refused by name.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["begin", "check"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def check(func: object, args: tuple[object, ...]) -> None:
    """Raise ``TypeError`` unless ``func`` can be called with ``args``, or awaited without."""
    if callable(func):
        return
    if not inspect.isawaitable(func):
        what = "can be neither called nor awaited"
    elif args:
        what = f"is already a call, and takes no arguments, such as {args[0]!r}"
    else:
        return
    msg = f"func={func!r} {what}. Pass an async function and its arguments."
    raise TypeError(msg)


def begin(func: Callable[[*Ts], Awaitable[T]] | Awaitable[T], args: tuple[*Ts]) -> Awaitable[T]:
    """Call ``func``, if that is what it is for, and return what is to be awaited."""
    awaitable = func(*args) if callable(func) else func
    if not inspect.isawaitable(awaitable):
        msg = (
            f"{func!r} returned {awaitable!r}, which cannot be awaited: a sync function cannot be "
            f"interrupted. Pass an async function, or hand the sync one to a thread: "
            f"run(anyio.to_thread.run_sync, func)."
        )
        raise TypeError(msg)
    return awaitable
