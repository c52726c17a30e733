"""
The value of an argument that was not given, where None means something else.

Promise: one falsy value, which type checkers narrow with ``is UNSET``.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

__all__ = ["UNSET", "Unset"]


class _Sentinel(Enum):
    UNSET = "not given"

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "<not given>"


UNSET: Final = _Sentinel.UNSET
Unset = Literal[_Sentinel.UNSET]
