"""
Keys that cannot be: unhashable ones, and those that were changed while they were in the cache.

Promise: the error names the key and the way out; what a key's own code raises passes as it is.
"""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["changed", "check_hashable", "unhashable"]


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
            f"str, an int, or a tuple of those."
        )
    return error


def changed(key: object, error: BaseException) -> BaseException:
    """Return what to raise if an entry could not be taken out of the table."""
    if not isinstance(error, KeyError):
        return error
    return RuntimeError(
        f"key={reprlib.repr(key)} is in the cache, but not where its hash says: it was changed "
        f"meanwhile. Pass keys that stay as they are; clear() removes this one."
    )
