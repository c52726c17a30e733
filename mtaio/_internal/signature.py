"""
Checks, when a function is registered, that it takes the arguments of later calls.

Promise: nothing is called. A function whose parameters cannot be known is accepted.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from mtaio._internal.callables import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["check_takes", "check_takes_calls_of"]


def check_takes(name: str, fn: Callable[..., Any], *parameters: str, way_out: str) -> None:
    """Raise ``TypeError`` if ``fn`` cannot be called with so many positional arguments."""
    _check_binds(name, fn, parameters, (), way_out=way_out)


def check_takes_calls_of(
    called: Callable[..., Any], name: str, fn: Callable[..., Any], *, way_out: str
) -> None:
    """
    Raise ``TypeError`` if ``fn`` cannot be called with the arguments that ``called`` takes.

    That is tried with as few arguments as it takes, and with all; what it may take by position is
    then given so. If ``called`` takes any number of arguments, nothing is known of its calls.
    """
    signature = _signature_of(called)
    if signature is None:
        return
    named = [*signature.parameters.values()]
    if any(each.kind in _VARIABLE for each in named):
        return
    for given in ([each for each in named if each.default is each.empty], named):
        by_name = [each.name for each in given if each.kind is each.KEYWORD_ONLY]
        by_position = [each.name for each in given if each.name not in by_name]
        _check_binds(name, fn, by_position, by_name, way_out=way_out)


_VARIABLE: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _check_binds(
    name: str,
    fn: Callable[..., Any],
    by_position: Iterable[str],
    by_name: Iterable[str],
    *,
    way_out: str,
) -> None:
    """Raise ``TypeError`` if ``fn`` cannot be called with arguments of these names."""
    signature = _signature_of(fn)
    if signature is None:
        return
    try:
        signature.bind(*by_position, **dict.fromkeys(by_name))
    except TypeError as error:
        call = f"{name_of(fn)}({', '.join([*by_position, *(f'{each}=…' for each in by_name)])})"
        msg = f"{name}={fn!r} cannot be called as {call}: {error}. {way_out}"
        raise TypeError(msg) from None


def _signature_of(fn: Callable[..., Any]) -> inspect.Signature | None:
    """Return how ``fn`` can be called, if that can be known."""
    try:
        # Not the function that a decorator wraps: the wrapper is called.
        return inspect.signature(fn, follow_wrapped=False)
    except Exception:  # noqa: BLE001 - some builtins have none, and on Python 3.14 annotations are run
        return None
