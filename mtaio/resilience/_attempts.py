"""
The attempts of one call under a `Retry`: after each, whether there is another, and when.

Promise: at most as many attempts, for as long, as the policy says; no sleep that the caller's
deadline would cut short anyway; a cancelled call leaves nothing taken from a budget for an attempt
that was not made.
Cost: an object for a call that has failed; none for one that succeeds at once.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from inspect import isawaitable, signature
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
    runtime_checkable,
)

import anyio

from mtaio._internal import clock, deadlines, spans
from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import is_cancelled, raise_failure
from mtaio._internal.filters import Filter, accepts, errors_in
from mtaio._internal.notes import note
from mtaio.exceptions import BreakerOpenError, LimitError
from mtaio.resilience import _events, _waits
from mtaio.resilience._budget import give_back, take
from mtaio.resilience._events import GaveUp, Retried, Throttled, is_wanted

if TYPE_CHECKING:
    from mtaio.resilience._retry import Retry

__all__ = [
    "LONGEST",
    "NOWHERE",
    "Attempts",
    "Counts",
    "Holds",
    "HoldsKey",
    "Place",
    "held_by",
    "is_held_in",
    "traced",
]

T = TypeVar("T")

Reason: TypeAlias = Literal["attempts", "within", "deadline", "budget"]

LONGEST: Final = 300.0
"""Seconds for which refusals are waited for where neither the policy nor the caller says."""

_LONGEST_HOLD: Final = 86_400.0
"""Seconds for which what a server says may hold a limiter; all its callers would be stopped."""

_MOST_TYPES: Final = 32
"""Types of errors that are counted by name; those beyond are counted together."""


@runtime_checkable
class Holds(Protocol):
    """What a `Retry` can hold while a service wants a pause: a rate limiter or a `Quota`, say."""

    def hold(self, seconds: float, /) -> object:
        """Grant nothing for so long."""
        ...


@runtime_checkable
class HoldsKey(Protocol):
    """What a `Retry` can hold for the key of a call: a `KeyedRateLimiter`, say."""

    def hold(self, key: Hashable, seconds: float) -> object:
        """Grant nothing to one key for so long."""
        ...


class Counts:
    """What has been counted, of a policy or of a place where it is used."""

    __slots__ = ("errors", "failed", "retried", "throttled", "warned")

    def __init__(self) -> None:
        self.retried: int = 0
        self.throttled: int = 0
        self.failed: int = 0
        self.errors: dict[str, int] = {}
        self.warned: bool = False

    def add_error(self, name: str) -> None:
        """Count an attempt that ended with an error of this type."""
        errors = self.errors
        if name not in errors and len(errors) >= _MOST_TYPES:
            name = "other"
        errors[name] = errors.get(name, 0) + 1


class Place:
    """
    Where a policy is used: what is said of its calls, and counted.

    Args:
        name: For events.
        counts: What is counted here; the policy counts by itself, too.
        holds_inside: Whether what the policy holds stands inside of it, so that a call that was
            refused waits there, in the order of all calls.
        retried: Called before each attempt but the first.
        on_retry: Is told of each attempt that failed, as the policy's own is.
        judges: Whether results are looked at; a stream that has been opened is none.
    """

    __slots__ = ("counts", "holds_inside", "judges", "name", "on_retry", "retried")

    def __init__(
        self,
        name: str | None = None,
        counts: Counts | None = None,
        *,
        holds_inside: bool = False,
        retried: Callable[[], object] | None = None,
        on_retry: Callable[[Retried], object] | None = None,
        judges: bool = True,
    ) -> None:
        self.judges: bool = judges
        self.on_retry: Callable[[Retried], object] | None = on_retry
        self.name: str | None = name
        self.counts: Counts | None = counts
        self.holds_inside: bool = holds_inside
        self.retried: Callable[[], object] | None = retried


NOWHERE: Final = Place()

_around: Final[ContextVar[Attempts | None]] = ContextVar("mtaio.retry", default=None)
"""Whose further attempt the running code is in; a first attempt costs nothing, and says nothing."""


class Attempts:
    """
    What one call has done so far, from its first failure on.

    Args:
        policy: What decides.
        subject: The function that is called, for messages; None for a block.
        started: When the first attempt began, if the policy limits the time.
        place: Where the policy is used.
        key: The key of the call, for what is held.
        is_service: Whether it is a service, which deadlines do not concern, and whose failures are
            logged where it lives.
    """

    # Invariants:
    # - `attempt` is the attempt that was made last, in which refusals do not count;
    # - _has_taken while a retry taken from the budget has not been made;
    # - with `per`, _begun has when each attempt began that still counts, but for those refused.
    __slots__ = (
        "__weakref__",
        "_begun",
        "_has_taken",
        "_is_service",
        "_key",
        "_place",
        "_policy",
        "_refusals",
        "_refused_at",
        "_started",
        "_subject",
        "_was_refused",
        "attempt",
        "is_over",
    )

    def __init__(
        self,
        policy: Retry,
        subject: object,
        started: float,
        *,
        place: Place = NOWHERE,
        key: Hashable = None,
        is_service: bool = False,
    ) -> None:
        self._policy = policy
        self._subject = subject
        self._started = started
        self._place = place
        self._key = key
        self._is_service = is_service
        self._begun: deque[float] | None = None if policy.per is None else deque([started])
        self._refusals = 0
        self._refused_at = 0.0
        self._was_refused = False
        self._has_taken = False
        self.attempt: int = 1
        self.is_over: bool = False

    def __str__(self) -> str:
        return f"{self._policy} of {self._function or 'a block'}"

    # ---- what comes after an attempt ----

    def after_error(self, error: Exception) -> float | None:
        """
        Return the seconds to wait before the next attempt; None if there is none.

        What a function of the user's raises, such as the filter, ends the call in place of the
        error.
        """
        for counts in self._counts():
            counts.add_error(type(error).__name__)
        policy = self._policy
        seconds: float | None = None
        try:
            if policy.throttled is not None and means(policy.throttled, error):
                seconds = self._after_refusal(error)
            elif policy.attempts != 1 and means(policy.on, error):
                seconds = self._after_failure(error, None)
            elif self.attempt > 1:
                note(error, f"gave up after {self.attempt} attempts")
        finally:
            if seconds is None:
                self._end()
        return seconds

    async def after_result(self, result: object) -> float | None:
        """Return the seconds to wait before the next attempt; None if the result is to be kept."""
        until = self._policy.until
        try:
            verdict: Any = cast("Callable[[object], object]", until)(result)
            if isawaitable(verdict):
                verdict = await verdict
        except BaseException as error:
            raise_failure(error, until)
            raise
        if verdict:
            return None
        for counts in self._counts():
            counts.add_error("result")
        seconds = self._after_failure(None, result)
        if seconds is None:
            self._end()
        return seconds

    def _after_failure(self, error: Exception | None, result: object) -> float | None:
        """Return the seconds to wait after an attempt that calls for another; None for none."""
        seconds, reason, text = self._next(error)
        if reason is not None:
            self._give_up(reason, text, error, result)
            return None
        policy = self._policy
        self._has_taken = policy.budget is not None
        self._was_refused = False
        on_retry = [each for each in (policy.on_retry, self._place.on_retry) if each is not None]
        if on_retry or is_wanted(Retried):
            event = Retried(
                name=self._name,
                function=self._function,
                attempt=self.attempt,
                seconds=seconds,
                error=error,
                result=_events.text_of(result) if error is None else None,
            )
            _events.emit(event, is_logged=not self._is_service)
            for each in on_retry:
                _events.call_listener(each, event)
        return seconds

    def _next(self, error: Exception | None) -> tuple[float, Reason | None, str]:
        """Return the seconds to wait; or why there is no further attempt, and a note of that."""
        policy = self._policy
        limit = math.inf if policy.attempts is None else policy.attempts
        if self._begun is not None:
            self._forget(clock.now())
        elif self.attempt >= limit:
            return 0.0, "attempts", f"gave up after {self.attempt} attempts"
        left, what = self._left()
        seconds = _waits.wait_before(policy, self.attempt + 1, error, left)
        if self._begun is not None and not self._is_within_rate(clock.now() + seconds):
            return 0.0, "attempts", f"gave up after {limit} attempts in {policy.per:g} s"
        if seconds >= left:
            number = f"attempt {self.attempt + 1}"
            return 0.0, what, _too_late(number, seconds, left, what)
        self._warn_if_nested()
        if policy.budget is not None and not take(policy.budget):
            text = f"not tried again: {policy.budget} is used up by the retries of all calls"
            return 0.0, "budget", text
        return seconds, None, ""

    def _after_refusal(self, error: Exception) -> float | None:
        """
        Return the seconds to wait after the service has refused the attempt.

        A refusal costs neither an attempt nor a retry of the budget, only time. What is held stands
        still for as long as the service asks. Where it stands inside of the policy, the call goes
        on at once and waits there, in its turn; it must not sleep here first, and then find others
        before it. Where it does not, the call sleeps, and not just as long: all who were told the
        same would come back at one moment.
        """
        policy = self._policy
        now = clock.now()
        if not self._refusals:
            self._refused_at = now
        self._refusals += 1
        left, what = self._left()
        if left == math.inf and policy.within is None:
            left, what = self._refused_at + LONGEST - now, "within"
        pause, more = _waits.pause_after(policy, self._refusals, error, left)
        for counts in self._counts():
            counts.throttled += 1
        if is_wanted(Throttled):
            event = Throttled(name=self._name, function=self._function, seconds=pause, error=error)
            _events.emit(event, is_logged=not self._is_service)
        if pause < math.inf:
            for each in held_by(policy):
                _hold(each, min(pause, _LONGEST_HOLD), self._key)
        if pause >= left:
            text = _too_late("the call that was refused", pause, left, what)
            self._give_up(what, text, error, None)
            return None
        self._was_refused = True
        return 0.0 if self._place.holds_inside else pause + more

    def _left(self) -> tuple[float, Literal["within", "deadline"]]:
        """Return in how many seconds the next attempt must have begun, and who says so."""
        within = self._policy.within
        if self._is_service:
            left = math.inf
        elif within == math.inf and self._policy.attempts is None:
            # It is meant to go on until it is cancelled, which is what a scope's deadline does.
            left = max(deadlines.logical() - clock.now(), 0.0)
        else:
            left = deadlines.remaining()
        if within is not None:
            rest = self._started + within - clock.now()
            if rest < left:
                return rest, "within"
        return left, "deadline"

    def _give_up(self, reason: Reason, text: str, error: Exception | None, result: object) -> None:
        """Say why there is no further attempt."""
        if error is not None:
            note(error, text)
        if is_wanted(GaveUp) and (self._is_service or not is_cancelled()):
            event = GaveUp(
                name=self._name,
                function=self._function,
                attempt=self.attempt,
                reason=reason,
                error=error,
                result=_events.text_of(result) if error is None else None,
            )
            _events.emit(event, is_logged=not self._is_service)

    # ---- the attempts ----

    async def go_on(self, seconds: float, call: Callable[[], Awaitable[T]]) -> T:
        """
        Wait, and make attempts until one succeeds or there is none left.

        Args:
            seconds: What `after_error` or `after_result` has returned.
            call: Makes an attempt.
        """
        outer = self.enter()
        try:
            while True:
                await self.sleep(seconds)
                try:
                    try:
                        if spans.hook is None:
                            result = await call()
                        else:
                            result = await traced(call, self._subject, self.attempt)()
                    except BaseException as error:
                        raise_failure(error, self._subject)
                        raise
                except Exception as error:
                    again = self.after_error(error)
                    if again is None:
                        raise
                else:
                    if self._policy.until is None or not self._place.judges:
                        return result
                    again = await self.after_result(result)
                    if again is None:
                        return result
                    del result
                seconds = again
        finally:
            self.leave(outer)

    def enter(self) -> Attempts | None:
        """Begin further attempts in this context; return whose attempt they are made in."""
        outer = _around.get()
        _around.set(self)
        self.is_over = False
        return outer

    def leave(self, outer: Attempts | None) -> None:
        """End what `enter` has begun."""
        self.is_over = True  # a task that goes on has the variable as it was
        _around.set(outer)

    async def sleep(self, seconds: float) -> None:
        """Wait for the next attempt, and begin it; a cancellation returns it to the budget."""
        try:
            await anyio.sleep_until(clock.loop_deadline(clock.now() + seconds))
        except BaseException:
            if self._has_taken and self._policy.budget is not None:
                give_back(self._policy.budget)
            raise
        self.begin()

    def begin(self) -> None:
        """Count the attempt that begins now."""
        self._has_taken = False
        if not self._was_refused:
            self.attempt += 1
            if self._begun is not None:
                self._begun.append(clock.now())
        for counts in self._counts():
            counts.retried += 1
        if self._place.retried is not None:
            self._place.retried()

    def start_over(self) -> None:
        """Forget the attempts made so far: what was called had recovered."""
        self.attempt = 1
        self._started = clock.now()
        self._refusals = 0

    def _forget(self, now: float) -> None:
        """Forget the attempts that no longer count, and say which one the last was."""
        begun = cast("deque[float]", self._begun)
        since = now - cast("float", self._policy.per)
        while begun and begun[0] <= since:
            begun.popleft()
        self.attempt = max(len(begun), 1)

    def _is_within_rate(self, moment: float) -> bool:
        """Return whether an attempt at ``moment`` would not be one too many."""
        since = moment - cast("float", self._policy.per)
        counting = sum(each > since for each in cast("deque[float]", self._begun))
        return counting < cast("int", self._policy.attempts)

    # ---- what is counted, and said ----

    @property
    def _name(self) -> str | None:
        return self._policy.name or self._place.name

    @property
    def _function(self) -> str | None:
        return None if self._subject is None else name_of(self._subject)

    def _counts(self) -> tuple[Counts, ...]:
        own = self._policy._counts  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - made for this
        return (own,) if self._place.counts is None else (own, self._place.counts)

    def _end(self) -> None:
        for counts in self._counts():
            counts.failed += 1

    def _warn_if_nested(self) -> None:
        """
        Warn, once for each policy, if the attempts of another one multiply those of this one.

        That is found out in a further attempt of the other one: only then do both retry.
        """
        outer = _around.get()
        counts = self._policy._counts  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - made for this
        if outer is None or outer is self or outer.is_over or counts.warned:
            return
        counts.warned = True
        from mtaio.resilience._order import OrderWarning  # noqa: PLC0415 - few policies are nested

        msg = (
            f"{self} runs inside of an attempt of {outer}: their attempts multiply, and a service "
            f"that is down gets all of them. Keep one, or silence this OrderWarning."
        )
        warnings.warn(msg, OrderWarning, stacklevel=2)


def traced(fn: Callable[..., Any], subject: object, number: int) -> Callable[..., Any]:
    """Return a function that makes an attempt in a span."""
    return spans.around("attempt", fn, subject, **{"mtaio.attempt": number})


def means(on: Filter, error: Exception) -> bool:
    """
    Return whether ``on`` means ``error``.

    It means a `mtaio.exceptions.BreakerOpenError` only if it names that very class, or is a
    function that accepts it: by default nothing waits for an open breaker, which is there to fail
    at once.
    """
    either: Any = on
    if isinstance(either, type | tuple):
        classes = cast("tuple[type, ...]", either if isinstance(either, tuple) else (either,))
        if not any(issubclass(each, BreakerOpenError) for each in classes) and any(
            isinstance(each, BreakerOpenError) for each in errors_in(error)
        ):
            return False
    return accepts(on, error)


def held_by(policy: Retry) -> tuple[Holds | HoldsKey, ...]:
    """Return what a policy holds."""
    if policy.hold is None:
        return ()
    return policy.hold if isinstance(policy.hold, tuple) else (policy.hold,)


def is_held_in(policy: Retry, places: Iterable[object]) -> bool:
    """Return whether all that a policy holds is among the limiters of these places."""
    held = held_by(policy)
    return bool(held) and all(any(each is place for place in places) for each in held)


def _hold(what: Holds | HoldsKey, seconds: float, key: Hashable) -> None:
    """Hold one of the objects of a policy; those that have keys hold the key of the call."""
    hold: Any = what.hold
    with suppress(LimitError):  # it has no room for another key: then the call sleeps
        if "key" not in signature(hold).parameters:
            hold(seconds)
        elif key is not None:
            hold(key=key, seconds=seconds)


def _too_late(what: str, seconds: float, left: float, limit: str) -> str:
    """Return a note for an error after which there is no time for another attempt."""
    due = ""
    if limit == "within":
        due = f", and of the time for all attempts there is {max(left, 0.0):.3g} s left"
    elif left < math.inf:
        due = f", and the deadline is in {left:.3g} s"
    return f"not tried again: {what} would have to wait {seconds:.3g} s{due}"
