"""
Which exceptions are meant by ``on=``: a class, a tuple of classes, or a function.

Promise: only subclasses of ``Exception`` can be named, so that cancellation, ``KeyboardInterrupt``
and the like are never meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

from mtaio._internal import checks
from mtaio._internal.callables import is_async

__all__ = ["Filter", "accepts", "check_filter"]

Filter: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]

_WAY_OUT = "Pass an exception class, a tuple of them, or a function from the exception to bool."


def check_filter(on: object) -> None:
    """Refuse what names no exceptions, or would have to be awaited to do so."""
    if isinstance(on, type | tuple):
        classes = cast("tuple[object, ...]", on) if isinstance(on, tuple) else (on,)
        for each in classes:
            if not (isinstance(each, type) and issubclass(each, Exception)):
                msg = f"on={on!r} holds {each!r}, which is not a subclass of Exception. {_WAY_OUT}"
                raise TypeError(msg)
        return
    checks.callable_("on", on, way_out=_WAY_OUT)
    if is_async(cast("Callable[..., object]", on)):
        msg = f"on={on!r} is an async function, and its coroutine always counts as true. {_WAY_OUT}"
        raise TypeError(msg)


def accepts(on: Filter, error: Exception) -> bool:
    """Return whether ``error`` is one of those that ``on`` means."""
    either: Any = on
    if isinstance(either, type | tuple):
        return isinstance(error, either)
    return bool(either(error))
