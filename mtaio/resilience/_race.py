"""
One hedged call: its attempts, of which the first to succeed ends the others.

Promise: all attempts have ended when `Race.run` returns, and what it returns or raises is decided
once, by the first success, by an answer that is an error, or by the last failure.
Cost: the first attempt runs in the task of the caller, so that a call that is answered in time
starts no task. The group is entered all the same, as nothing can be added around a running call.
"""

from __future__ import annotations

from contextvars import copy_context
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, cast

import anyio

from mtaio._internal import clock, loops
from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import failure_in, without_cancellation
from mtaio._internal.checkpoints import checkpoint_if_cancelled
from mtaio._internal.deadlines import Alarm
from mtaio._internal.filters import Filter, accepts
from mtaio._internal.notes import note
from mtaio._internal.sources import within_grace
from mtaio.exceptions import LimitError
from mtaio.resilience._budget import Budget, give_back, take
from mtaio.resilience._events import Hedged, emit, is_wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.resilience._part import Call, Next
    from mtaio.resilience._quantile import Quantile

__all__ = ["Hedging", "Race"]


class Hedging:
    """
    What all calls through one hedge share: when to make further attempts, and the counts.

    Args:
        owner: The hedge, for messages.
        seconds: After how many seconds; None if ``quantile`` decides.
        quantile: Of the durations of first attempts.
        max_hedges: Further attempts of a call.
        on: Which exceptions are failures, not answers.
        budget: Further attempts of all calls.
    """

    __slots__ = (
        "_alarm",
        "_owner",
        "_quantile",
        "_seconds",
        "budget",
        "calls",
        "hedges",
        "max_hedges",
        "on",
        "rejected",
        "wins",
    )

    def __init__(
        self,
        owner: object,
        *,
        seconds: float | None,
        quantile: Quantile | None,
        max_hedges: int,
        on: Filter,
        budget: Budget | None,
    ) -> None:
        self._owner = owner
        self._seconds = seconds
        self._quantile = quantile
        self._alarm: Alarm | None = None
        self.max_hedges = max_hedges
        self.on = on
        self.budget = budget
        self.calls = 0
        self.hedges = 0
        self.wins = 0
        self.rejected = 0

    @property
    def after(self) -> float | None:
        """Seconds until the next attempt is made; None while too few calls have been measured."""
        return self._seconds if self._quantile is None else self._quantile.value

    def alarm(self) -> Alarm:
        """Return the alarm of the event loop that runs here."""
        alarm = self._alarm
        if alarm is None or not alarm.is_here():
            if alarm is not None and alarm.waiting and not loops.is_over(alarm.loop):
                raise loops.two_loops_error(self._owner)
            alarm = self._alarm = Alarm()
        return alarm

    def first_took(self, seconds: float) -> None:
        """Note how long a first attempt took, or how long it was given when a hedge was faster."""
        if self._quantile is not None:
            self._quantile.add(seconds)

    def is_allowed(self) -> bool:
        """Return whether the budget has a further attempt, and take it."""
        if self.budget is None or take(self.budget):
            return True
        self.rejected += 1
        return False

    def tell(self, call: Call, number: int, seconds: float) -> None:
        """Tell that a call makes its attempt ``number``, so long after the one before."""
        if is_wanted(Hedged):
            name: str | None = getattr(self._owner, "name", None)
            function = name_of(call.fn)
            emit(Hedged(name=name, function=function, attempt=number, seconds=seconds))

    def refused(self) -> None:
        """Note that a further attempt was refused by something inside the hedge."""
        self.rejected += 1
        self.give_back()

    def give_back(self) -> None:
        """Return a further attempt to the budget: it was not made."""
        if self.budget is not None:
            give_back(self.budget)


class Race:
    """
    The attempts of one call.

    Args:
        hedging: What it shares with other calls.
        then: What is inside the hedge.
        call: The call.
        discard: Closes a result that the caller does not get; None where nothing has to be closed.
    """

    # Invariants:
    # - _is_over once a result or an answer has been taken: nothing that comes later counts;
    # - every result is _result, or what `run` returns, or has been, or is being, discarded;
    # - while it waits for the alarm no attempt has failed, the first is under way, and _left > 0;
    # - _hedges is how many further attempts are under way.
    __slots__ = (
        "_after",
        "_alarm",
        "_answer",
        "_call",
        "_context",
        "_discard",
        "_failures",
        "_group",
        "_hedges",
        "_hedging",
        "_is_over",
        "_left",
        "_result",
        "_then",
    )

    def __init__(
        self,
        hedging: Hedging,
        then: Next,
        call: Call,
        discard: Callable[[Any], object] | None = None,
    ) -> None:
        self._discard = discard
        self._hedging = hedging
        self._then = then
        self._call = call
        self._alarm = hedging.alarm()
        self._context = copy_context()
        self._group = anyio.create_task_group()
        self._left = hedging.max_hedges
        self._hedges = 0
        self._is_over = False
        self._result: Any = None
        self._answer: Exception | None = None
        self._failures: list[Exception] = []

    async def run(self, after: float) -> Any:
        """Make the call, and make it again every ``after`` seconds."""
        self._after = after
        started = clock.now()
        was_cancelled = False
        try:
            try:
                async with self._group:
                    self._alarm.add(self, started + after)
                    try:
                        result = await self._then(self._call)
                    except Exception as failure:  # noqa: BLE001 - raised below, if nothing succeeds
                        self._fail(failure)
                    except BaseException:
                        was_cancelled = True
                        raise
                    else:
                        self._hedging.first_took(clock.now() - started)
                        if self._is_over:
                            await self._throw_away(result)
                        else:
                            self._take(result)
                    finally:
                        self._alarm.discard(self)
            except BaseExceptionGroup as group:  # of what no attempt may keep, such as SystemExit
                raise _alone(group)  # noqa: B904 - its context is that of where it was raised
        except BaseException:
            # From outside, as it waited for the losers: nobody gets the result of the winner.
            if self._is_over and self._answer is None:
                result, self._result = self._result, None
                await self._throw_away(result)
            raise
        if was_cancelled:  # by an attempt that was faster, else the cancellation had gone on
            self._hedging.first_took(clock.now() - started)
        if self._answer is None and self._is_over:
            result, self._result = self._result, None  # a cancelled loser may keep this object
            return result
        error = self._answer or self._last_failure()
        self._answer = None
        self._failures.clear()
        try:
            raise error
        finally:
            del error  # its traceback has this frame

    def overdue(self) -> None:
        """Start another attempt."""
        if self._hedging.is_allowed():
            self._left -= 1
            self._hedges += 1
            number = self._hedging.max_hedges - self._left + 1
            loops.mark(self._alarm.loop, self._context)
            self._context.run(self._group.start_soon, self._hedge, number)
            if self._left:
                self._alarm.add(self, clock.now() + self._after)

    async def _hedge(self, number: int) -> None:
        """Make a further attempt, in a task of its own."""
        try:
            await checkpoint_if_cancelled()
        except BaseException:
            self._hedging.give_back()
            raise
        self._hedging.hedges += 1
        self._hedging.tell(self._call, number, self._after)
        try:
            result = await self._then(self._call)
        except BaseException as error:
            if not self._takes(error):
                raise
        else:
            if self._is_over:
                await self._throw_away(result)
            else:
                self._hedging.wins += 1
                self._take(result)
        finally:
            self._hedges -= 1

    def _take(self, result: Any) -> None:
        """Take the result of the first attempt that has one."""
        self._result = result
        self._end()

    async def _throw_away(self, result: Any) -> None:
        """Have a result closed that the caller does not get: it came too late."""
        discard = self._discard
        if discard is None:
            return

        async def close() -> None:
            closing: Any = discard(result)
            if isawaitable(closing):
                await closing

        try:
            await within_grace(close, f"{name_of(discard)}, which discards a result,")
        except BaseException as error:
            failure = failure_in(error, name_of(discard), own_task=False)
            if not isinstance(failure, Exception):
                raise
            from logging import getLogger  # noqa: PLC0415 - few results are thrown away

            logger = getLogger("mtaio.resilience")
            logger.exception("%s failed for %r", name_of(discard), result, exc_info=failure)

    def _takes(self, error: BaseException) -> bool:
        """Note what a further attempt raised; return False if that is not a failure of a call."""
        # Not in _hedge, whose frame is in the traceback of the failure and would keep it alive.
        failure = failure_in(error, name_of(self._call.fn))
        if not isinstance(failure, Exception):
            return False
        if accepts(LimitError, failure):
            self._alarm.discard(self)
            self._hedging.refused()
        else:
            self._fail(failure)
        return True

    def _fail(self, error: Exception) -> None:
        self._alarm.discard(self)
        if self._is_over:
            return
        if accepts(LimitError, error) or accepts(self._hedging.on, error):
            self._failures.append(error)
        else:
            self._answer = error
            self._end()

    def _end(self) -> None:
        """Let nothing count any more, and cancel the attempts that are under way."""
        self._is_over = True
        self._alarm.discard(self)
        if self._hedges:  # else no attempt is under way but the one that has ended
            self._group.cancel_scope.cancel()

    def _last_failure(self) -> Exception:
        last = self._failures[-1]
        others = [type(error).__name__ for error in self._failures[:-1]]
        if others:
            note(last, f"the other attempts of the hedged call: {', '.join(others)}")
        return last


def _alone(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error in a task group's error if it is the only one, else the group."""
    errors = cast("BaseExceptionGroup[BaseException]", without_cancellation(group)).exceptions
    return errors[0] if len(errors) == 1 else group
