"""
What becomes of errors: one is raised bare, several as a flat group, each saying where it arose.

Promise: no error that an item raised is lost, and none is wrapped unless there are two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtaio._internal.cancellation import ADVICE, without_cancellation
from mtaio.core._call import name_of, shorten
from mtaio.core._notes import note
from mtaio.exceptions import StrayCancellationError

if TYPE_CHECKING:
    from collections.abc import Sequence

Failure = tuple[int, BaseException]


def annotate(error: BaseException, subject: object, index: int, item: Any, *, many: bool) -> None:
    """
    Add a note that names the item's number, the function and what it was called with, shortened.

    Without a function (``subject`` is None) the item is itself the call.
    """
    if subject is None:
        note(error, f"in call {index}: {name_of(item)}")
        return
    args = ", ".join(map(shorten, item)) if many else shorten(item)
    note(error, f"in item {index}: {name_of(subject)}({args})")


def silent_end() -> StrayCancellationError:
    """Return the failure that stands for one that hit no item, but would end a call in silence."""
    return StrayCancellationError(
        f"a task of this call was cancelled, but not through a cancel scope, and the rest of the "
        f"call with it. {ADVICE}"
    )


def conclude(failures: list[Failure], escaped: Sequence[BaseException] = ()) -> None:
    """
    Raise what has to be raised at the end of a call, if anything; ``failures`` is emptied.

    Args:
        failures: Numbered errors of items, in any order.
        escaped: Errors of no item: of the source, of a callback.
    """
    errors = [error for _, error in sorted(failures, key=_index)]
    remaining = map(without_cancellation, escaped)
    errors.extend(error for error in remaining if error is not None)
    failures.clear()
    try:
        if len(errors) == 1:
            raise errors[0]
        if errors:
            msg = f"{len(errors)} errors in one call"
            raise BaseExceptionGroup(msg, errors)
    finally:
        del errors, escaped  # the error holds this frame: else they keep each other alive


def _index(failure: Failure) -> int:
    return failure[0]
