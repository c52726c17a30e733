"""
A cancellation that nobody meant for the task it turns up in.

Promise: in a task that was not cancelled the backend's cancellation is told apart from one that was
ordered, and becomes an error: nobody would see it else, and what it broke off would look done.
"""

from __future__ import annotations

import math

import anyio

from mtaio.exceptions import StrayCancellationError

__all__ = ["stray"]


def stray(error: BaseException, what: str) -> StrayCancellationError | None:
    """Return the error that stands for ``error`` if that is a stray cancellation of ``what``."""
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return None
    if anyio.current_effective_deadline() == -math.inf:
        return None
    failure = StrayCancellationError(
        f"{what} raised {type(error).__name__} although nothing here was cancelled. Look for a "
        f"task that cancels itself, or an await on a task that somebody else cancelled."
    )
    failure.__cause__ = error
    return failure
