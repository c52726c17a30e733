"""
What acquiring returns in place of None, which an ``if`` would take for a refusal.

Promise: to test it is a ``TypeError`` that shows the right form. Type checkers see None, and go on
refusing to test it themselves.
"""

from __future__ import annotations

from typing import Final, NoReturn, cast

__all__ = ["SLOT", "SLOT_NOWAIT", "TOKENS", "TOKENS_NOWAIT"]


class _Acquired:
    """
    The result of a method that acquires or raises.

    Args:
        method: The method.
        otherwise: What it raises when it does not acquire.
        way_out: What to write in place of the ``if``.
    """

    __slots__ = ("_method", "_otherwise", "_way_out")

    def __init__(self, method: str, otherwise: str, way_out: str) -> None:
        self._method = method
        self._otherwise = otherwise
        self._way_out = way_out

    def __repr__(self) -> str:
        return "<acquired>"

    def __bool__(self) -> NoReturn:
        msg = (
            f"{self._method}() returns nothing to test: it acquires, or it raises "
            f"{self._otherwise}. {self._way_out}"
        )
        raise TypeError(msg)


def _waited(otherwise: str) -> _Acquired:
    way_out = "Leave out the 'if': what follows runs only once it has acquired."
    return _Acquired("acquire", otherwise, way_out)


def _tried(otherwise: str) -> _Acquired:
    way_out = (
        f"Write 'try: limiter.acquire_nowait()' and 'except {otherwise}:' in place of the 'if'."
    )
    return _Acquired("acquire_nowait", otherwise, way_out)


TOKENS: Final = cast("None", _waited("RateLimitError"))
TOKENS_NOWAIT: Final = cast("None", _tried("RateLimitError"))
SLOT: Final = cast("None", _waited("TimeoutError or ConcurrencyLimitError"))
SLOT_NOWAIT: Final = cast("None", _tried("ConcurrencyLimitError"))
