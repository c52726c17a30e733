"""
What becomes of errors: one is raised bare, several as a flat group, each saying where it arose.

Promise: no error that an item raised is lost, and none is wrapped unless there are two.
"""

from __future__ import annotations

from typing import Any, cast

import anyio

from mtaio.core._call import name_of, shorten
from mtaio.exceptions import StrayCancellationError

Failure = tuple[int, BaseException]


def annotate(error: BaseException, subject: object, index: int, item: Any, *, many: bool) -> None:
    """
    Add a note that names the item's number, the function and what it was called with, shortened.

    Without a function (``subject`` is None) the item is itself the call.
    """
    if subject is None:
        error.add_note(f"in call {index}: {name_of(item)}")
        return
    args = ", ".join(map(shorten, item)) if many else shorten(item)
    error.add_note(f"in item {index}: {name_of(subject)}({args})")


def is_cancelled() -> bool:
    """Tell whether the running task is being cancelled through a scope it runs in."""
    return anyio.current_effective_deadline() == -float("inf")


def stray(error: BaseException, subject: object) -> StrayCancellationError:
    """Return the failure that stands for a cancellation nobody asked for."""
    failure = StrayCancellationError(
        f"{name_of(subject)} raised {type(error).__name__} although nothing here was cancelled. "
        f"Look for a task that cancels itself, or an await on a task that somebody else cancelled."
    )
    failure.__cause__ = error
    return failure


def without_cancellation(error: BaseException) -> BaseException | None:
    """Return ``error`` without the backend's cancellation in it; None if it was nothing else."""
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return group.split(cancelled)[1]
    return None if isinstance(error, cancelled) else error


def conclude(failures: list[Failure], escaped: tuple[BaseException, ...] = ()) -> None:
    """
    Raise what has to be raised at the end of a call, if anything.

    Args:
        failures: Numbered errors of items, in any order.
        escaped: Errors of no item: of the source, of a callback.
    """
    errors = [error for _, error in sorted(failures, key=_index)]
    errors += [rest for each in escaped if (rest := without_cancellation(each)) is not None]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        msg = f"{len(errors)} errors in one call"
        raise BaseExceptionGroup(msg, errors)


def _index(failure: Failure) -> int:
    return failure[0]
