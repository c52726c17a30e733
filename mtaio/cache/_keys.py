"""
Keys that cannot be, because they cannot be hashed, and one key in the place of many.

Promise: the error names the key and the way out; what a key's own code raises passes as it is.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["check_hashable", "check_many", "unhashable"]


def check_many(keys: object) -> None:
    """Raise ``TypeError`` unless ``keys`` are many; a text would be taken apart, silently."""
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        msg = (
            f"keys={reprlib.repr(keys)} is a {type(keys).__name__}, not a collection of keys. Pass "
            f"a list of keys, also for one."
        )
        raise TypeError(msg)


def check_hashable(key: Hashable) -> None:
    """Raise ``TypeError`` if ``key`` cannot be hashed."""
    try:
        hash(key)
    except TypeError as error:
        raise unhashable(key, error) from error


def unhashable(key: object, error: TypeError) -> TypeError:
    """Return what to raise for a key that a dict refused; its own error, if it was not the hash."""
    try:
        hash(key)
    except TypeError:
        return TypeError(
            f"key={reprlib.repr(key)} cannot be hashed: {error}. Pass a key that can, such as a "
            f"str, an int, or a tuple of those; of the arguments of a cached function, key= of "
            f"cached() makes one."
        )
    return error
