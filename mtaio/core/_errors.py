"""
How errors are raised: one by itself, several as a flat group, each with a note of its origin.

Promise: no error that an item raised is lost, none is wrapped unless there are two, and each stays
the same object, with a note added.
"""

from __future__ import annotations

import reprlib
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import ADVICE, without_cancellation
from mtaio._internal.notes import note
from mtaio.exceptions import StrayCancellationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ItemError",
    "RemoteTraceback",
    "annotate",
    "conclude",
    "loud",
    "shorten",
    "silent_end",
]


class RemoteTraceback(Exception):  # noqa: N818 - no error, but where one arose
    """The cause of an error that came from another process: its traceback there."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


ItemError = tuple[int, BaseException]
"""The number of an item, and what it raised."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 40


def annotate(
    error: BaseException,
    subject: object,
    index: int,
    item: Any,
    *,
    many: bool,
    batch: bool = False,
) -> None:
    """
    Add a note that names the item's number, the function and what it was called with, shortened.

    Without a function (``subject`` is None) the item is itself the call. Of a ``batch`` the first
    item is shown, and how many there are.
    """
    if subject is None:
        note(error, f"in call {index}: {name_of(item)}")
        return
    if batch and len(item) > 1:
        args = f"[{shorten(item[0])}, ... {len(item)} items]"
    else:
        args = ", ".join(map(shorten, item)) if many else shorten(item)
    note(error, f"in item {index}: {name_of(subject)}({args})")


def shorten(value: object) -> str:
    """Return a short ``repr`` of ``value``, whatever that does."""
    try:
        return _SHORT.repr(value)
    except Exception:  # noqa: BLE001  # pragma: no cover - broken, and not caught by reprlib: before 3.14
        return f"<{type(value).__name__}>"


def loud(error: BaseException, kind: type[BaseException], what: str) -> BaseException:
    """
    Return ``error``; or if it is of the ``kind`` that ends an iteration another instead (PEP 479).

    Args:
        error: What was raised.
        kind: ``StopAsyncIteration`` where it would end a loop as if all results had come,
            ``GeneratorExit`` where only the event loop raises it.
        what: What raised it.
    """
    if not isinstance(error, kind):
        return error
    failure = RuntimeError(
        f"{what} raised {kind.__name__}, which would pass for a regular end. Catch it where it "
        f"arises, for example at an anext() without a default."
    )
    failure.__cause__ = error
    failure.__notes__ = [*getattr(error, "__notes__", ())]
    return failure


def silent_end() -> StrayCancellationError:
    """Return the error for a stray cancellation of no item, which would end a call silently."""
    return StrayCancellationError(
        f"a task of this call was cancelled, but not through a cancel scope, and the rest of the "
        f"call with it. {ADVICE}"
    )


def conclude(
    failures: list[ItemError], escaped: Sequence[BaseException] = (), *, where: str = "call"
) -> None:
    """
    Raise the errors of a call or a block at its end, if there are any; ``failures`` is emptied.

    Args:
        failures: Numbered errors of items, in any order.
        escaped: Errors that came otherwise: of the source, of a callback, of the body of a block.
            One that came several ways counts once.
        where: What has ended, as the message of a group says.
    """
    errors = [error for _, error in sorted(failures, key=itemgetter(0))]
    _add_others(errors, escaped)
    failures.clear()
    try:
        if len(errors) == 1:
            raise errors[0]
        if errors:
            msg = f"{len(errors)} errors in one {where}"
            raise BaseExceptionGroup(msg, errors)
    finally:
        del errors, escaped  # the error holds this frame: else they keep each other alive


def _add_others(errors: list[BaseException], others: Sequence[BaseException]) -> None:
    known = set(map(id, errors))
    for each in others:
        rest = without_cancellation(each)
        if rest is not None and id(rest) not in known:
            known.add(id(rest))
            errors.append(rest)
