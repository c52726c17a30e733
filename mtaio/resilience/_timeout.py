"""
How long the parts inside may take.

Promise: an error leaves it only if its own deadline interrupted what is inside; a result already
obtained is kept; a cancellation from outside passes as it is.
Cost: a cancel scope, which is several times what most parts cost. It has no deadline, since setting
and removing a timer would cost as much again: all calls of a part have the same time, so that one
timer, set for the call that began first, does for all of them. The time that is left is known to
`mtaio._internal.deadlines`, as with the timeouts of an executor, and not to AnyIO.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar, Literal, final

import anyio

from mtaio._internal import checks, clock, loops
from mtaio._internal.callables import name_of
from mtaio._internal.deadlines import Alarm, Deadline, current
from mtaio._internal.item_limits import Whole
from mtaio._internal.statistics import snapshot
from mtaio._internal.timeout_statistics import TimeoutStatistics
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.resilience._events import TimedOut, emit, is_wanted
from mtaio.resilience._part import Call, Next, StandalonePart
from mtaio.resilience._stream import OpenStream, opening_of

__all__ = ["Timeout"]

_WAY_OUT = "Pass seconds > 0, math.inf for no limit."


class _Limit(Deadline):
    """The limit of one call, as the code inside knows it, and the scope to cancel it by."""

    __slots__ = ("scope",)

    scope: anyio.CancelScope

    def overdue(self) -> None:
        """Cancel the call: its time is up."""
        self.scope.cancel()


class _Loop:
    """What the calls of one event loop share."""

    __slots__ = ("alarm", "between", "is_here", "scope", "waiting")

    def __init__(self) -> None:
        self.alarm = Alarm()
        self.between = Alarm()
        self.waiting = self.alarm.waiting
        self.scope = loops.scopes().new
        self.is_here = self.alarm.is_here  # a scope of trio's serves in any run, an alarm in one


@final
class Timeout(StandalonePart):
    """
    A part of a pipeline that limits the time of what is inside it.

    Inside a `Retry` or `Hedge` it limits each attempt. Outside of them it limits all attempts
    together, with the waits between them, and needs ``total=True``; a pipeline refuses one in the
    place of the other. For a stream, ``seconds`` limits the whole, from its opening; what the
    consumer does with an item is not interrupted, but if the time is then up, the next item is not
    waited for.

    It may also be used by itself: ``Timeout(1).run(fn)``, ``@Timeout(1)``.
    `mtaio.resources.TimeoutManager.remaining` takes it into account;
    ``anyio.current_effective_deadline`` does not.

    Args:
        seconds: Seconds from the moment the call reaches it, more than 0; ``inf`` for no limit.
        total: Whether it is outside of a retry or hedge.
        first: For streams, seconds from the opening to the first item; None for no such limit.
        between: For streams, seconds to wait for each further item, without the consumer's time;
            None for no such limit.
        name: Name shown in messages and metrics.

    Raises:
        ValueError: A number of seconds is not more than 0, or ``first`` or ``between`` is more than
            ``seconds``.
        TypeError: A number of seconds is not a number, or ``total`` is not a bool.

    Example:
        ```python
        import anyio

        from mtaio import Pipeline, Retry, Timeout

        api = Pipeline(Timeout(5, total=True), Retry(3), Timeout(1))


        async def main() -> None:
            await api.run(anyio.sleep, 0.01)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = (
        "__weakref__",
        "_between",
        "_entered",
        "_first",
        "_loop",
        "_name",
        "_seconds",
        "_timed_out",
        "_total",
    )

    kind: ClassVar[Literal["timeout"]] = "timeout"

    def __init__(
        self,
        seconds: float,
        *,
        total: bool = False,
        first: float | None = None,
        between: float | None = None,
        name: str | None = None,
    ) -> None:
        self._seconds = _checked("seconds", seconds)
        self._first = _part_of(seconds, "first", first)
        self._between = _part_of(seconds, "between", between)
        self._total = checks.flag("total", total)
        self._name = name
        self._loop: _Loop | None = None
        self._entered = 0
        self._timed_out = 0

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<Timeout{name} of {self._seconds} s{' in all' if self._total else ''}>"

    def __str__(self) -> str:
        first = "" if self._first is None else f", first={self._first:g}"
        between = "" if self._between is None else f", between={self._between:g}"
        return f"Timeout({self._seconds:g}{first}{between}{', total=True' if self._total else ''})"

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def seconds(self) -> float:
        """Seconds that what is inside may take."""
        return self._seconds

    @property
    def first(self) -> float | None:
        """Seconds until the first item of a stream; None for no such limit."""
        return self._first

    @property
    def between(self) -> float | None:
        """Seconds to wait for each further item of a stream; None for no such limit."""
        return self._between

    @property
    def total(self) -> bool:
        """Whether it limits all attempts together."""
        return self._total

    def wrap(self, then: Next) -> Next:
        """Return an async function that calls ``then`` and interrupts it when the time is up."""
        seconds = self._seconds
        get, put = current.get, current.set

        async def run_unlimited(call: Call) -> Any:
            self._entered += 1
            return await then(call)

        if seconds == math.inf:
            return run_unlimited

        async def run(call: Call) -> Any:
            self._entered += 1
            loop = self._loop
            if loop is None or not loop.is_here():
                loop = self._loop = _Loop()
            outer = get()
            moment = clock.reader()() + seconds
            limit = _Limit(moment, outer)
            limit.scope = scope = loop.scope()
            put(limit)
            scope.__enter__()
            loop.alarm.add(limit, moment)
            try:
                result = await then(call)
            except BaseException as error:
                loop.waiting.pop(limit, None)
                limit.moment = math.inf
                put(outer)
                if not scope.__exit__(type(error), error, error.__traceback__):
                    raise
                # A scope catches its own cancellation alone, which only the alarm can send.
                raise self._error(moment, call) from error
            loop.waiting.pop(limit, None)
            limit.moment = math.inf
            put(outer)
            scope.__exit__(None, None, None)
            return result

        return run

    def wrap_stream(self, then: Next) -> Next:
        """Return an async function that opens a stream with ``then`` and limits its time."""
        seconds, first, between = self._seconds, self._first, self._between
        to_first = seconds if first is None else first

        async def run(call: Call) -> OpenStream:
            self._entered += 1
            loop = self._loop
            if loop is None or not loop.is_here():
                loop = self._loop = _Loop()
            began = clock.now()
            # The scope has a deadline of its own: it is one for a stream, not one for each item.
            scope = loop.scope(deadline=clock.loop_deadline(began + to_first))
            whole: Whole | None = None
            if seconds != math.inf:
                moment = began + seconds
                whole = Whole(loop.alarm, moment, lambda: self._error(moment, call), scope.cancel)
            outer = current.get()
            limit = Deadline(began + to_first, outer)
            current.set(limit)
            scope.__enter__()
            try:
                opened: OpenStream = await then(call)
                opening = opening_of(opened)
                await opening.checked(self)
            except BaseException as error:
                limit.moment = math.inf
                current.set(outer)
                if whole is not None:
                    whole.release()
                if not scope.__exit__(type(error), error, error.__traceback__):
                    raise
                raise self._first_error(began, to_first, call) from error
            limit.moment = math.inf
            current.set(outer)
            scope.__exit__(None, None, None)
            if whole is not None:
                opening.limit_whole(whole)
            if between is not None:
                opening.limit_each(between, loop.between, partial(self._between_error, call))
            return opened

        return run

    def _error(self, moment: float, call: Call) -> MTAIOTimeoutError:
        what = "all attempts together" if self._total else "the call"
        text = f"{what} timed out after {self._seconds:g} s"
        return self._made(text, self._seconds, moment, call, "total" if self._total else "call")

    def _first_error(self, began: float, seconds: float, call: Call) -> MTAIOTimeoutError:
        if self._first is None:
            return self._error(began + seconds, call)
        text = f"the stream timed out: no item within {seconds:g} s"
        return self._made(text, seconds, began + seconds, call, "first")

    def _between_error(self, call: Call) -> MTAIOTimeoutError:
        seconds = self._between
        assert seconds is not None  # noqa: S101 - it was told to limit each item
        text = f"the stream timed out: no further item within {seconds:g} s"
        return self._made(text, seconds, clock.now(), call, "between")

    def _made(
        self,
        text: str,
        seconds: float,
        moment: float,
        call: Call,
        limit: Literal["call", "total", "first", "between"],
    ) -> MTAIOTimeoutError:
        """Count a call that took too long, tell of it, and return its error."""
        self._timed_out += 1
        if is_wanted(TimedOut):
            function = name_of(call.fn)
            emit(TimedOut(name=self._name, function=function, seconds=seconds, limit=limit))
        who = "" if self._name is None else f"{self._name}: "
        due = clock.loop_deadline(moment)
        return MTAIOTimeoutError(f"{who}{text}", timeout=seconds, deadline=due, name=self._name)

    def statistics(self) -> TimeoutStatistics:
        """
        Return a snapshot of the timeout.

        Not a checkpoint. It can be called from any thread.
        """
        return snapshot(TimeoutStatistics, self, default_timeout=self._seconds)


def _checked(name: str, seconds: float) -> float:
    """Return a number of seconds that is more than 0."""
    checks.at_least(name, seconds, 0, way_out=_WAY_OUT)
    if not seconds:
        msg = f"{name}={seconds!r} leaves no time. {_WAY_OUT}"
        raise ValueError(msg)
    return seconds


def _part_of(whole: float, name: str, seconds: float | None) -> float | None:
    """Return the limit of a part of a stream, which is shorter than the whole."""
    if seconds is not None and _checked(name, seconds) > whole:
        msg = (
            f"{name}={seconds!r} is more than seconds={whole!r}, the time for the whole stream, so "
            f"that it never limits anything. Pass fewer seconds, or None."
        )
        raise ValueError(msg)
    return seconds
