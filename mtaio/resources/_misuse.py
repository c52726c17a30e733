"""
Errors for using a limiter, or a timeout, in a form that cannot work.

Promise: what Python would refuse with no hint, or let pass in silence, is a ``TypeError`` that
shows the right form. Type checkers see none of this, and go on refusing the wrong forms themselves.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

from mtaio._internal.blocks import defining
from mtaio._internal.checks import refuse_unnamed

__all__ = ["called_only", "keys_only", "refuse_positional"]

C = TypeVar("C", bound="type[Any]")


def _uncalled_block(self: object, *_: object) -> NoReturn:
    msg = (
        f"{self!r} is not a context manager, but makes one. Call it: 'with timeouts():', or "
        f"'with timeouts(5):' for 5 seconds."
    )
    raise TypeError(msg)


def _keyless_block(self: object, *_: object) -> NoReturn:
    msg = (
        f"{self!r} cannot be entered, because a block names no key. Write 'await "
        f"limiter.acquire(key)' before the work, or @limiter.limit(key=...) above its function."
    )
    raise TypeError(msg)


def _keyless_item(self: object, _: object) -> NoReturn:
    msg = (
        f"{self!r} cannot be indexed, because its keys have no limiters to hand out. Write 'await "
        f"limiter.acquire(key)'."
    )
    raise TypeError(msg)


def called_only(cls: C) -> C:
    """Decorate a class whose objects have to be called: ``with`` on one of them says so."""
    return defining(cls, _uncalled_block, "__enter__", "__exit__", "__aenter__", "__aexit__")


def keys_only(cls: C) -> C:
    """Decorate a class whose objects need a key: ``with`` on one of them says where to pass it."""
    defining(cls, _keyless_item, "__getitem__")
    return defining(cls, _keyless_block, "__enter__", "__exit__", "__aenter__", "__aexit__")


def refuse_positional(cls: str, rate: object, extra: tuple[object, ...]) -> NoReturn:
    """
    Raise because a second number was passed without a name.

    Args:
        cls: The class that was called.
        rate: The first number.
        extra: Those after it.
    """
    second = extra[0]
    way_out = (
        f"Write {cls}({rate!r}, burst={second!r}) for {rate!r} a second and {second!r} at once "
        f"after a rest; or {cls}({rate!r}, per={second!r}), the same as "
        f"{cls}({rate!r} / {second!r}, burst={rate!r}), for what aiolimiter calls "
        f"AsyncLimiter({rate!r}, {second!r})."
    )
    takes = "one number without a name, the rate"
    refuse_unnamed(cls, (rate, *extra), takes=takes, way_out=way_out)
