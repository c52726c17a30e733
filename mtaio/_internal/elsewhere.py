"""
Names that other libraries have for what has another name here.

Promise: using one is an ``AttributeError`` that says what it is here. To ``hasattr``, and to type
checkers, there is no such name.
Cost: nothing for other names. ``__getattr__`` would slow down all of them on Python 3.11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["known_elsewhere_as"]

C = TypeVar("C", bound="type[Any]")


def known_elsewhere_as(**names: str) -> Callable[[C], C]:
    """
    Return a decorator of a class that says of some names what they are here.

    Args:
        names: What to write in place of each name.
    """

    def decorate(cls: C) -> C:
        for name, here in names.items():
            setattr(cls, name, _Elsewhere(name, here))
        return cls

    return decorate


class _Elsewhere:
    """An attribute that is not there, and says what is."""

    # Without __set__, so that an object of a subclass may have an attribute of that name.
    __slots__ = ("_here", "_name")

    def __init__(self, name: str, here: str) -> None:
        self._name = name
        self._here = here

    def __get__(self, owner: object, cls: type) -> NoReturn:
        msg = f"{cls.__name__!r} object has no attribute {self._name!r}. Here it is {self._here}."
        raise AttributeError(msg)
