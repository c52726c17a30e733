"""
Cancellation that nobody has asked for: a loader or a listener raised it as its own.

Promise: what the backend itself cancels is never taken for it.
"""

from __future__ import annotations

import math

import anyio

from mtaio.exceptions import StrayCancellationError

__all__ = ["is_cancellation", "is_stray", "stray"]


def is_cancellation(error: BaseException) -> bool:
    """Tell whether a plain function raised the cancellation of the backend that runs here."""
    try:
        return isinstance(error, anyio.get_cancelled_exc_class())
    except RuntimeError:  # no event loop runs here
        return False


def is_stray(error: BaseException) -> bool:
    """Tell whether an async function raised the backend's cancellation, and none was asked for."""
    cancelled = anyio.current_effective_deadline() == -math.inf
    return isinstance(error, anyio.get_cancelled_exc_class()) and not cancelled


def stray(error: BaseException, factory: object) -> StrayCancellationError:
    """Return the failure that stands for such a cancellation."""
    failure = StrayCancellationError(
        f"the loader {factory!r} raised {type(error).__name__} although nothing here was "
        f"cancelled. Look for a task that cancels itself, or an await on a task that somebody "
        f"else cancelled."
    )
    failure.__cause__ = error
    return failure
