"""
The value of an argument that was not given, where None means something else.

Promise: one falsy value, which type checkers narrow with ``is UNSET``.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

__all__ = ["UNSET", "Unset"]


class Unset(Enum):
    """The type of `UNSET`, its one member, which stands for an argument that was left out."""

    UNSET = "not given"

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "<not given>"


UNSET: Final = Unset.UNSET
"""Stands for an argument that was left out, where None means something else."""
