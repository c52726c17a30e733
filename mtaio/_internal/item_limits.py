"""
How long the items of a stream may take: each of them, and all together.

Promise: only waiting for an item is limited, never what the consumer does between two items. An
item that has come is handed out, even if it is late. No cancel scope is open while the consumer has
an item: the stream may be iterated inside an async generator, and by one task after another.
Cost: a cancel scope for each item, and an entry with a timer that all streams share; no task.

A cancel scope cannot be used again, and cannot be entered when the wait turns out to take time: the
stream may have entered scopes of its own by then, and scopes have to be left in order.
"""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast, final

from mtaio._internal import clock, loops
from mtaio._internal.deadlines import Alarm, Deadline, current
from mtaio._internal.sources import scope_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import anyio

__all__ = ["ItemLimits", "Whole"]

_enclosing = current.get
_limit_by = current.set


@final
class Whole:
    """
    The limit of a whole stream, from its opening on.

    Args:
        alarm: Tells when its time is up; it begins now.
        moment: When that is, by `clock.now`, so far away as all that ``alarm`` has.
        error: Makes what is then raised.
        interrupt: Interrupts the opening of the stream.
    """

    # Invariant: _interrupt ends the opening as long as that goes on, then the wait for an item.
    __slots__ = ("_alarm", "_interrupt", "error", "is_over", "moment")

    def __init__(
        self,
        alarm: Alarm,
        moment: float,
        error: Callable[[], BaseException],
        interrupt: Callable[[], object],
    ) -> None:
        self._alarm = alarm
        self._interrupt = interrupt
        self.error: Callable[[], BaseException] = error
        self.moment: float = moment
        self.is_over: bool = False
        alarm.add(self, moment)

    def overdue(self) -> None:
        """Interrupt the stream: its time is up."""
        self.is_over = True
        self._interrupt()

    def go_on(self, limits: ItemLimits) -> None:
        """Interrupt the wait for an item from now on; the stream has been opened."""
        self._interrupt = partial(limits.end, self.error)
        if self.is_over:
            limits.end(self.error)

    def release(self) -> None:
        """Interrupt nothing any more."""
        self._alarm.discard(self)


@final
class ItemLimits(Deadline):
    """
    The limits of one stream, made where it is opened.

    As a `Deadline` it is what the stream itself can see of them while it makes an item.

    Args:
        next_item: Returns an awaitable of the next item; may be replaced before the first.
        name: Whose stream it is, for messages.
        close: Closes it where it has a scope open.
    """

    # Invariants:
    # - _scope is there while an item is waited for, and the alarm has this only then;
    # - _over is what raises, once the time for the whole is up; _expired, that of this item;
    # - _until is the nearest moment at which the whole has to end.
    moment: float
    outer: Deadline | None

    __slots__ = (
        "_alarm",
        "_between",
        "_close",
        "_error",
        "_expired",
        "_name",
        "_new_scope",
        "_over",
        "_scope",
        "_until",
        "_wholes",
        "next_item",
    )

    def __init__(
        self,
        next_item: Callable[[], Awaitable[Any]],
        name: str,
        close: Callable[[], Awaitable[object]],
    ) -> None:
        super().__init__(math.inf, None)
        self._close = close
        self.next_item: Callable[[], Awaitable[Any]] = next_item
        self._name = name
        self._new_scope = loops.scopes().new
        self._scope: anyio.CancelScope | None = None
        self._alarm: Alarm | None = None
        self._between = math.inf
        self._error: Callable[[], BaseException] | None = None
        self._expired = False
        self._over: Callable[[], BaseException] | None = None
        self._until = math.inf
        self._wholes: list[Whole] = []

    def limit_whole(self, whole: Whole) -> None:
        """Let no item be waited for when the time of ``whole`` is up."""
        whole.go_on(self)
        self._wholes.append(whole)
        self._until = min(self._until, whole.moment)

    def limit_each(self, seconds: float, alarm: Alarm, error: Callable[[], BaseException]) -> None:
        """Let none of the next items take more seconds; of several limits the least counts."""
        if seconds <= self._between:
            self._between, self._alarm, self._error = seconds, alarm, error

    def unlimit_each(self) -> None:
        """Forget the limit of each item."""
        self._between, self._alarm, self._error = math.inf, None, None

    def end(self, error: Callable[[], BaseException]) -> None:
        """Let no further item be waited for; called when the time for all of them is up."""
        self._over = error
        if self._scope is not None:
            self._scope.cancel()

    def overdue(self) -> None:
        """Interrupt the wait for an item: its time is up."""
        self._expired = True
        cast("anyio.CancelScope", self._scope).cancel()

    def release(self) -> None:
        """Give up the timers: there are no more items."""
        for whole in self._wholes:
            whole.release()
        self._wholes.clear()

    async def next(self) -> Any:
        """Return the next item, or raise what the stream raises, or the error of a limit."""
        if self._over is not None:
            raise self._over()
        if self._scope is not None:
            msg = (
                f"another task is already waiting for the stream of {self._name}. Iterate it in "
                f"one task, and pass the items on."
            )
            raise RuntimeError(msg)
        moment = clock.reader()() + self._between
        until = self._until
        self.moment = until if until < moment else moment  # noqa: FURB136 - min() is a call
        self.outer = outer = _enclosing()
        self._scope = scope = self._new_scope()
        _limit_by(self)
        scope.__enter__()
        alarm = self._alarm
        if alarm is not None:
            alarm.add(self, moment)
        try:
            item = await self.next_item()
        except BaseException as error:
            self._leave(outer)
            if not scope.__exit__(type(error), error, error.__traceback__):
                raise
            # A scope catches its own cancellation alone, which only an alarm can have sent.
            raise self._timed_out() from error
        self._scope = None
        if alarm is not None:
            alarm.waiting.pop(self, None)
        self.moment = math.inf
        self._expired = False
        _limit_by(outer)
        try:
            scope.__exit__(None, None, None)
        except RuntimeError as misnested:
            await self._abandon(scope)
            raise scope_error(self._name, "a time limit") from misnested
        return item

    async def _abandon(self, scope: anyio.CancelScope) -> None:
        """Leave a scope in which the stream has left another open: close the stream first."""
        with suppress(Exception):  # another error tells what is wrong
            await self._close()
        with suppress(RuntimeError):  # trio has left it already
            scope.__exit__(None, None, None)

    def _leave(self, outer: Deadline | None) -> None:
        self._scope = None
        if self._alarm is not None:
            self._alarm.discard(self)
        self.moment = math.inf
        _limit_by(outer)

    def _timed_out(self) -> BaseException:
        expired, self._expired = self._expired, False
        error = self._error if expired else self._over
        assert error is not None  # noqa: S101 - one of them has cancelled the scope
        return error()
