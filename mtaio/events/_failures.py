"""
What becomes of the errors that handlers raise.

Promise: each error is told once: to ``on_error``, or by the policy, or to the log when the emit
ends in a cancellation or worse. None is emitted, and none is handed to ``on_error`` twice, so no
loop can come of a handler of errors that fails itself.
"""

from __future__ import annotations

from inspect import isawaitable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import failure_in

if TYPE_CHECKING:
    from mtaio.events._event import Event
    from mtaio.events._listener import Listener
    from mtaio.events._rules import Rules

__all__ = ["Failures", "error_of"]

_LAST: Final = (2**63, 0)
"""The rank of an error that is no listener's."""

_BY_RANK: Final = itemgetter(0)


class Failures:
    """
    The errors of one emit; made when there is a first.

    Invariant: ``_kept`` are those nobody was told yet: the rank of the listener, what the user
    knows it as, and the error.
    """

    __slots__ = ("_event", "_kept", "_rules")

    def __init__(self, rules: Rules, event: Event[Any]) -> None:
        self._rules = rules
        self._event = event
        self._kept: list[tuple[tuple[int, int], object, Exception]] = []

    @property
    def ends_the_emit(self) -> bool:
        """Whether lower tiers are to be skipped."""
        return bool(self._kept) and self._rules.errors == "raise"

    async def take(self, listener: Listener, error: Exception, *, apart: bool) -> None:
        """
        Hand the error of a listener to ``on_error``, or else to the policy.

        Args:
            listener: Whose error it is.
            error: The error.
            apart: Whether this is a task that nobody but us can cancel.
        """
        subject = listener.subject
        on_error = self._rules.on_error
        if on_error is None:
            self._keep(listener.rank, subject, error)
            return
        try:
            result = on_error(error, self._event, subject)
            if isawaitable(result):
                await result
        except Exception as own:  # noqa: BLE001 - the policy decides; never emitted, never handed back
            self._keep(listener.rank, subject, error)
            self._keep(listener.rank, on_error, own)
        except BaseException as own:
            self._keep(listener.rank, subject, error)
            if not (apart and self._keep_own(listener.rank, own)):
                raise

    def add(self, error: Exception) -> None:
        """Take an error that no listener has raised."""
        self._keep(_LAST, self._event.name, error)

    def conclude(self) -> None:
        """Raise what is left to tell, in the order of the listeners."""
        if not self._kept:
            return
        errors = [error for _, _, error in sorted(self._kept, key=_BY_RANK)]
        self._kept.clear()
        msg = f"handlers of {self._event.name!r} failed"
        raise ExceptionGroup(msg, errors) from None  # it holds what would be its context

    def log(self) -> None:
        """Log what is left to tell, because the emit ends in a cancellation or worse."""
        for _, subject, error in sorted(self._kept, key=_BY_RANK):
            self._log(subject, error)
        self._kept.clear()

    def _keep(self, rank: tuple[int, int], subject: object, error: Exception) -> None:
        if self._rules.errors == "log":
            self._log(subject, error)
        else:
            self._kept.append((rank, subject, error))

    def _keep_own(self, rank: tuple[int, int], end: BaseException) -> bool:
        """Keep the failure of an ``on_error`` that has ended so, if it is one."""
        failure = error_of(self._rules.on_error, end)
        if failure is not None:
            self._keep(rank, self._rules.on_error, failure)
        return failure is not None

    def _log(self, subject: object, error: Exception) -> None:
        from logging import getLogger  # noqa: PLC0415 - most programs never come here

        getLogger("mtaio.events").error(
            "%s failed on event %r", _label(subject), self._event.name, exc_info=error
        )


def error_of(subject: object, end: BaseException) -> Exception | None:
    """
    Return what has failed where ``subject`` has ended a task of its own so; None if nothing has.

    A cancellation that nobody asked for would be lost, and the rest of the tier with it. One that
    was asked for comes beside an error in one group where a nursery of trio's raises them.
    """
    rest = failure_in(end, name_of(subject))
    return rest if isinstance(rest, Exception) else None


def _label(subject: object) -> str:
    """Return the name of a function, and of a stream what it listens to."""
    return name_of(subject) if callable(subject) else str(subject)
