"""
How a task ended: cancelled, hit by a stray cancellation, or failed.

Promise: the backend's cancellation in a task that was not cancelled is an error, and not a silent
end: it would go unnoticed, and what it interrupted would look done.

`classify` decides; `failure_in` does so where the answer is what to raise or to report, and
`raise_failure` where a user's function is awaited. Who may cancel a task depends on whose it is:

- a task that we start is cancelled through the scopes around it alone. ``Task.cancel()`` comes from
  code that cancels what it does not own, and is stray there;
- the task of a caller (``own_task=False``) may be cancelled by anybody, with ``Task.cancel()`` too,
  as ``asyncio.timeout`` and ``asyncio.TaskGroup`` do. ``Task.cancelling`` tells that from an
  ``await`` on something that was cancelled elsewhere.
"""

from __future__ import annotations

import math
from typing import Final, cast

import anyio

from mtaio._internal.backend import is_cancelled_natively
from mtaio._internal.callables import name_of
from mtaio.exceptions import StrayCancellationError

__all__ = [
    "ADVICE",
    "Cancelled",
    "Failure",
    "Stray",
    "classify",
    "failure_in",
    "in_cancelled_task",
    "is_cancellation",
    "is_cancelled",
    "raise_failure",
    "stray_error",
    "without_cancellation",
]

ADVICE: Final = (
    "Look for a task that cancels itself, or an await on a task that something else cancelled."
)


# No dataclasses, which would be half the time that it takes to import this module.


class Cancelled:
    """The task was cancelled through a scope it runs in, and did nothing but stop."""

    __slots__ = ()


class Stray:
    """
    The backend's cancellation ended the task, but no scope around it is cancelled.

    Args:
        error: The cancellation.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException = error


class Failure:
    """
    The task failed.

    Args:
        error: What it raised, without a cancellation that came in the same group.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException = error


def classify(error: BaseException) -> Cancelled | Stray | Failure:
    """Return what ``error`` means, in the running task, which it ends."""
    rest = without_cancellation(error)
    if rest is not None:
        return Failure(rest)
    return Cancelled() if is_cancelled() else Stray(error)


def failure_in(error: BaseException, what: str, *, own_task: bool = True) -> BaseException | None:
    """
    Return the failure in ``error``, with which ``what`` ended in the running task.

    That is None for a cancellation, and a `StrayCancellationError` for a stray one.

    Args:
        error: What it raised.
        what: For the message.
        own_task: Whether the task is ours, or that of a caller, which gets what it was sent: a
            cancellation that came in a group stays in there.
    """
    if isinstance(error, Exception | GeneratorExit):
        return error
    if not own_task and (is_cancelled() or is_cancelled_natively()):
        return error if without_cancellation(error) is error else None
    ended = classify(error)
    if isinstance(ended, Failure):
        return ended.error
    return stray_error(error, what) if isinstance(ended, Stray) else None


def raise_failure(error: BaseException, fn: object, *, own_task: bool = False) -> None:
    """
    Raise the failure in ``error``, unless it is ``error`` itself or there is none.

    Called where a function of the user's, ``fn``, is awaited, in an ``except BaseException`` whose
    next line is ``raise``. The other arguments are those of `failure_in`.
    """
    if isinstance(error, Exception | GeneratorExit):
        return  # at once: a coroutine may be closed where no event loop runs
    failure = failure_in(error, name_of(fn), own_task=own_task)
    try:
        if failure is not None and failure is not error:
            raise failure from failure.__cause__
    finally:
        del failure  # it holds this frame: else they keep each other alive


def stray_error(error: BaseException, what: str) -> StrayCancellationError:
    """Return the error that stands for a stray cancellation raised by ``what``."""
    failure = StrayCancellationError(
        f"{what} raised {type(error).__name__} although nothing here was cancelled. {ADVICE}"
    )
    failure.__cause__ = error
    return failure


def is_cancelled() -> bool:
    """Return whether the running task is being cancelled through a scope it runs in."""
    return anyio.current_effective_deadline() == -math.inf


def in_cancelled_task() -> bool:
    """Return whether the running code is in a task that is being cancelled, if it is in one."""
    try:
        return is_cancelled()
    except RuntimeError:  # a callback of the event loop, or no event loop
        return False


def is_cancellation(error: BaseException) -> bool:
    """Return whether ``error`` is the cancellation of the running backend, if one runs."""
    try:
        return isinstance(error, anyio.get_cancelled_exc_class())
    except RuntimeError:  # no event loop runs here
        return False


def without_cancellation(error: BaseException) -> BaseException | None:
    """Return ``error`` without the backend's cancellation in it; None if it was nothing else."""
    if isinstance(error, (Exception, GeneratorExit)):
        return error  # neither backend's cancellation is an Exception, so none can be in it
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        matched, rest = group.split(cancelled)
        return group if matched is None else rest
    return None if isinstance(error, cancelled) else error
