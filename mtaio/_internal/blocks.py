"""
What is said to those who write ``with`` where only ``async with`` can work.

Promise: the ``TypeError`` shows the right form, where Python's own has no hint. Type checkers see
none of this, and go on refusing ``with`` themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["async_only", "defining"]

C = TypeVar("C", bound="type[Any]")


def async_only(cls: C) -> C:
    """Decorate a class whose objects are for ``async with``, and let ``with`` say so."""
    return defining(cls, _sync_block, "__enter__", "__exit__")


def defining(cls: C, method: Callable[..., NoReturn], *names: str) -> C:
    """Give a class one method under several names, out of the sight of type checkers."""
    for name in names:
        setattr(cls, name, method)
    return cls


def _sync_block(self: object, *_: object) -> NoReturn:
    msg = f"{self!r} cannot wait in a 'with' block. Write 'async with'."
    raise TypeError(msg)
