"""
A cancellation that nobody meant for the task it turns up in.

Promise: in a task that was not cancelled the backend's cancellation is told apart from one that was
ordered, and becomes an error: nobody would see it else, and what it broke off would look done.
"""

from __future__ import annotations

import math
from typing import Final, cast

import anyio

from mtaio.exceptions import StrayCancellationError

SEARCH: Final = (
    "Look for a task that cancels itself, or an await on a task that somebody else cancelled."
)


def is_cancelled() -> bool:
    """Tell whether the running task is being cancelled through a scope it runs in."""
    return anyio.current_effective_deadline() == -math.inf


def is_cancellation(error: BaseException) -> bool:
    """Tell whether ``error`` is the cancellation of the backend that runs here, if one does."""
    try:
        return isinstance(error, anyio.get_cancelled_exc_class())
    except RuntimeError:  # no event loop runs here
        return False


def is_stray(error: BaseException) -> bool:
    """Tell whether ``error`` is the backend's cancellation, and none was asked for."""
    return is_cancellation(error) and not is_cancelled()


def holds_cancellation(error: BaseException) -> bool:
    """Tell whether ``error`` is the backend's cancellation, or a group that has it."""
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return group.subgroup(cancelled) is not None
    return isinstance(error, cancelled)


def without_cancellation(error: BaseException) -> BaseException | None:
    """Return ``error`` without the backend's cancellation in it; None if it was nothing else."""
    if isinstance(error, Exception | GeneratorExit):
        return error  # neither backend's cancellation is an Exception, so none can be in it
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return group.split(cancelled)[1]
    return None if isinstance(error, cancelled) else error


def stray(error: BaseException, what: str) -> StrayCancellationError:
    """Return the error that stands for a stray cancellation which came out of ``what``."""
    failure = StrayCancellationError(
        f"{what} raised {type(error).__name__} although nothing here was cancelled. {SEARCH}"
    )
    failure.__cause__ = error
    return failure


def what_is_left(error: BaseException, what: str) -> BaseException | None:
    """
    Return what an end of ``what`` by ``error`` comes to, in the task that it has ended.

    That is ``error`` without a cancellation that was asked for, None if it was nothing else; and
    the error that stands for a stray one.
    """
    rest = without_cancellation(error)
    return stray(error, what) if rest is None and not is_cancelled() else rest
