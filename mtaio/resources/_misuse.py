"""
Errors for using a limiter, or a timeout, in a form that cannot work.

Promise: what Python would refuse with no hint, or let pass in silence, is a ``TypeError`` that
shows the right form. Type checkers see none of this, and go on refusing the wrong forms themselves.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn, TypeVar, cast

from mtaio._internal.blocks import defining

__all__ = ["NO_SLOT", "NO_TOKENS", "called_only", "keys_only", "refuse_positional"]

C = TypeVar("C", bound="type[Any]")


class _Acquired:
    """
    What ``acquire_nowait`` returns instead of None, which an ``if`` would take for a refusal.

    Args:
        otherwise: What it raises when it does not acquire.
    """

    __slots__ = ("_otherwise",)

    def __init__(self, otherwise: str) -> None:
        self._otherwise = otherwise

    def __repr__(self) -> str:
        return "<acquired>"

    def __bool__(self) -> NoReturn:
        msg = (
            f"acquire_nowait() returns nothing to test: it acquires, or it raises "
            f"{self._otherwise}. Write 'try: limiter.acquire_nowait()' and 'except "
            f"{self._otherwise}:' in place of the 'if'."
        )
        raise TypeError(msg)


NO_TOKENS: Final = cast("None", _Acquired("RateLimitError"))
NO_SLOT: Final = cast("None", _Acquired("ConcurrencyLimitError"))


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


def called_only(cls: C) -> C:
    """Decorate a class whose objects have to be called: ``with`` on one of them says so."""
    return defining(cls, _uncalled_block, "__enter__", "__exit__", "__aenter__", "__aexit__")


def keys_only(cls: C) -> C:
    """Decorate a class whose objects need a key: ``with`` on one of them says so."""
    return defining(cls, _keyless_block, "__enter__", "__exit__", "__aenter__", "__aexit__")


def refuse_positional(cls: str, rate: object, extra: tuple[object, ...]) -> NoReturn:
    """
    Raise because a second number was passed without a name.

    Args:
        cls: The class that was called.
        rate: The first number.
        extra: Those after it.
    """
    call = ", ".join(map(repr, (rate, *extra)))
    second = extra[0]
    msg = (
        f"{cls}({call}) takes one number without a name, the rate. Write "
        f"{cls}({rate!r}, burst={second!r}) for {rate!r} a second and {second!r} at once after a "
        f"rest; or {cls}({rate!r}, per={second!r}), the same as "
        f"{cls}({rate!r} / {second!r}, burst={rate!r}), for what aiolimiter calls "
        f"AsyncLimiter({rate!r}, {second!r})."
    )
    raise TypeError(msg)
