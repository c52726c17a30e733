"""
Which exceptions are meant by ``on=``: a class, a tuple of classes, or a function.

Promise: only subclasses of ``Exception`` can be named, so that cancellation, ``KeyboardInterrupt``
and the like are never meant. A group, which every task group raises, is meant if it is named, or if
each error in it is meant: one that is not says that trying again would not help.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, cast

from mtaio._internal import checks
from mtaio._internal.callables import is_async

__all__ = ["Filter", "accepts", "check_filter", "check_verdict", "errors_in"]

Filter: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Which exceptions are meant: a class, a tuple of classes, or a function that says whether."""

_WAY_OUT = "Pass an exception class, a tuple of them, or a function from the exception to bool."


def check_filter(on: object, name: str = "on") -> None:
    """Refuse what names no exceptions, or would have to be awaited to do so."""
    if isinstance(on, type | tuple):
        classes = cast("tuple[object, ...]", on) if isinstance(on, tuple) else (on,)
        for each in classes:
            if not (isinstance(each, type) and issubclass(each, Exception)):
                reason = f"{name}={on!r} holds {each!r}, which is not a subclass of Exception"
                raise checks.refusal(TypeError, reason, _WAY_OUT)
        return
    checks.callable_(name, on, way_out=_WAY_OUT)
    if is_async(cast("Callable[..., object]", on)):
        reason = f"{name}={on!r} is an async function, and its coroutine always counts as true"
        raise checks.refusal(TypeError, reason, _WAY_OUT)


def check_verdict(name: str, fn: object) -> None:
    """Refuse what cannot be called with a result, or would have to be awaited for its answer."""
    way_out = "Pass a plain function from the result to bool, or None."
    checks.callable_(name, fn, way_out=way_out)
    if is_async(cast("Callable[..., object]", fn)):
        msg = f"{name}={fn!r} is an async function, whose coroutine is always true. {way_out}"
        raise TypeError(msg)


def accepts(on: Filter, error: Exception) -> bool:
    """Return whether ``error`` is one of those that ``on`` means; a function sees no groups."""
    either: Any = on
    is_class = isinstance(either, type | tuple)
    if is_class and isinstance(error, either):
        return True
    if isinstance(error, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", error)
        return all(accepts(on, each) for each in group.exceptions)
    return not is_class and bool(either(error))


def errors_in(error: Exception) -> Iterator[Exception]:
    """Yield each error in a group, however deep, or ``error`` itself if it is none."""
    if isinstance(error, ExceptionGroup):
        for each in cast("ExceptionGroup[Exception]", error).exceptions:
            yield from errors_in(each)
    else:
        yield error
