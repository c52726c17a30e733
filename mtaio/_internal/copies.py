"""
What counts for all who use it, and is therefore not copied.

Promise: ``copy``, ``pickle`` and the pools of processes built on it refuse such an object, with the
way out. The copy would know nothing of what the original goes on to count: two limiters of ten a
second allow twenty, and a slot that was taken at the moment of copying never comes back.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

__all__ = ["uncopied"]

C = TypeVar("C", bound="type[Any]")


def uncopied(cls: C) -> C:
    """Decorate a class whose objects cannot be copied or pickled."""
    cls.__reduce__ = _reduce  # type: ignore[assignment] # it returns nothing
    return cls


def _reduce(self: object) -> NoReturn:
    msg = (
        f"{self!r} cannot be copied or pickled: the copy would count separately. Share the object; "
        f"in another process create a new one, or share a limit through mtaio.redis."
    )
    raise TypeError(msg)
