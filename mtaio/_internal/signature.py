"""
Checks, when a function is registered, that it takes the arguments of later calls.

Promise: nothing is called. A function whose parameters cannot be known is accepted.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from mtaio._internal.callables import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_takes"]


def check_takes(name: str, fn: Callable[..., Any], *parameters: str, way_out: str) -> None:
    """Raise ``TypeError`` if ``fn`` cannot be called with so many positional arguments."""
    try:
        # Not the function that a decorator wraps: the wrapper is called.
        signature = inspect.signature(fn, follow_wrapped=False)
    except Exception:  # noqa: BLE001 - some builtins have none, and on Python 3.14 annotations are run
        return
    try:
        signature.bind(*parameters)
    except TypeError as error:
        call = f"{name_of(fn)}({', '.join(parameters)})"
        msg = f"{name}={fn!r} cannot be called as {call}: {error}. {way_out}"
        raise TypeError(msg) from None
