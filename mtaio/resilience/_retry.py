"""
Another attempt after a failure, later each time.

Promise: at most ``attempts`` calls; only exceptions that the filter accepts are tried again,
cancellation never; no sleep that the caller's deadline would cut short anyway.
Cost: of a call that succeeds at once a count, and no object: what comes after a failure is in
`mtaio.resilience._attempts`, and how long it waits in ``_waits``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field, fields
from functools import partial
from inspect import isawaitable
from types import CoroutineType
from typing import (
    TYPE_CHECKING,
    Any,
    ParamSpec,
    TypeVar,
    TypeVarTuple,
    cast,
    final,
    overload,
)

import mtaio
from mtaio._internal import checks, clock, spans
from mtaio._internal.callables import close_unstarted, is_async, name_of, unawaitable_error
from mtaio._internal.cancellation import raise_failure
from mtaio._internal.decorators import AsyncFunction, Descriptor, decorate
from mtaio._internal.filters import Filter, check_filter
from mtaio._internal.signature import check_takes
from mtaio.resilience import _waits
from mtaio.resilience._attempts import (
    NOWHERE,
    Attempts,
    Counts,
    Holds,
    HoldsKey,
    Place,
    held_by,
    is_held_in,
    traced,
)
from mtaio.resilience._budget import Budget, record_call
from mtaio.resilience._events import Retried, check_listener
from mtaio.resilience._waits import Waits

if TYPE_CHECKING:
    import mtaio.statistics
    from mtaio.resilience._part import Call
    from mtaio.resilience._retry_block import Attempt

__all__ = ["Retry", "start"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_OWN_WAITS = {"wait_initial": 0.1, "wait_max": 30.0, "wait_exp_base": 2.0}


@final
@dataclass(frozen=True, slots=True, weakref_slot=True)
class Retry:
    """
    A policy for retries: how many attempts, after which failures, and the waits between them.

    Use ``@Retry(3)`` to decorate an async function, `run` for a single call, or ``async for attempt
    in Retry(3):`` with ``async with attempt:`` for a block (see `Attempt`).

    The wait before attempt ``n + 1`` is ``min(wait_max, wait_initial * wait_exp_base ** (n - 1))``
    seconds, of which the fraction ``jitter`` is random. If the exception has a ``retry_after``
    attribute, like mtaio's `RateLimitError`, the wait is at least that long, plus a random part of
    up to half of it or up to the policy's own wait, whichever is more. The argument ``retry_after``
    finds it elsewhere. For an exception group, the longest one counts.

    Every wait, and giving up, is logged at WARNING to ``mtaio.resilience`` and reported to
    `subscribe`.

    Args:
        attempts: Total number of attempts, at least 1. None for no limit, which requires
            ``within``.
        on: Exceptions to retry: a class, a tuple of classes, or a function from the exception to
            bool. An exception group counts if every exception in it does; a function is called with
            each. Only subclasses of ``Exception`` are considered, so that cancellation and
            ``KeyboardInterrupt`` pass at once. So does `mtaio.exceptions.BreakerOpenError`, unless
            that very class is named or a function accepts it.
        until: A function, plain or async, that returns whether a result is acceptable. If it is
            not, another attempt follows; the result of the last attempt is returned as it is.
        within: Seconds for all attempts together, from the start of the first. No attempt starts
            later, but none in progress is interrupted. ``inf`` for no limit; None if only
            ``attempts`` and the caller's deadline limit the call. With ``attempts=None`` and
            ``within=inf``, retries continue until the call is cancelled, also by the deadline of
            an AnyIO or trio scope; only mtaio's own timeouts end them with the error.
        per: Seconds over which attempts are counted, for services that are restarted: with
            ``Retry(5, per=60)``, there are at most five in any minute.
        wait_initial: Seconds before the second attempt.
        wait_max: Maximum wait in seconds.
        wait_exp_base: Factor from one wait to the next.
        jitter: Random fraction of each wait, from 0 (none) to 1 (anywhere between 0 and the wait,
            known as "full jitter").
        waits: The waits themselves, instead of the four arguments above: a list of seconds, whose
            last item is repeated, or a function from the number of the failed attempt, 1 for the
            first, to seconds. ``jitter`` then applies only to waits that a service has asked for.
        budget: A `Budget` for the retries of all calls; None for no limit.
        retry_after: A function that returns how long an exception asks to wait: seconds, or the
            value of an HTTP ``Retry-After`` header (seconds, possibly with a fraction, or a date,
            as a str). If it returns None or anything else, the exception's attribute
            ``retry_after`` is used.
        throttled: Exceptions, as for ``on``, with which a healthy service asks for a pause. They
            use up neither an attempt nor the budget, only time: until ``within`` is over or the
            caller's deadline would pass, or for 300 s if there is neither. The length of the pause
            may also be in the response's headers (``error.response.headers`` or ``error.headers``,
            as with httpx, requests and aiohttp). If none is given, pauses grow like other waits.
        hold: What to pause meanwhile: a limiter, a `Quota`, or a tuple of them. If it is inside the
            retry, in a pipeline or as the ``rate`` of an executor, refused calls queue there again
            in their order; otherwise they sleep. A pause is a day at most, whatever a service asks
            for.
        on_retry: A plain function that is called with a `Retried` after each failure that another
            attempt follows, before the wait. Errors that it raises are logged.
        name: Name shown in messages and metrics.

    Raises:
        ValueError, TypeError: An argument is invalid; the message says what to pass instead.

    Example:
        ```python
        from mtaio import Retry
        from mtaio.resilience import Budget

        patient = Retry(
            5, on=(ConnectionError, TimeoutError), wait_max=2.0, budget=Budget(0.1)
        )
        ```
    """

    attempts: int | None = 3
    _: KW_ONLY
    on: Filter = Exception
    until: Callable[[Any], object] | None = None
    within: float | None = None
    per: float | None = None
    wait_initial: float = 0.1
    wait_max: float = 30.0
    wait_exp_base: float = 2.0
    jitter: float = 1.0
    waits: Waits | None = None
    budget: Budget | None = None
    retry_after: Callable[[Exception], float | str | None] | None = None
    throttled: Filter | None = None
    hold: Holds | HoldsKey | tuple[Holds | HoldsKey, ...] | None = None
    on_retry: Callable[[Retried], object] | None = None
    name: str | None = None
    _counts: Counts = field(default_factory=Counts, init=False, repr=False, compare=False)
    _looks_at_all: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether it looks at results and at the clock, and so has to do with calls that succeed."""

    def __post_init__(self) -> None:
        if self.attempts is not None:
            checks.count("attempts", self.attempts, way_out="1 means a single call and no retry.")
        elif self.within is None:
            msg = (
                "attempts=None would go on for ever. Say for how long: within=60, or "
                "within=math.inf if it may."
            )
            raise ValueError(msg)
        check_filter(self.on)
        self._check_waits()
        self._check_limits()
        if self.retry_after is not None:
            way_out = "Pass a function from the exception to seconds or None."
            checks.callable_("retry_after", self.retry_after, way_out=way_out)
        if self.until is not None:
            way_out = "Pass a function from the result to bool."
            checks.callable_("until", self.until, way_out=way_out)
        if self.on_retry is not None:
            _check_hook(self.on_retry)
        self._check_hold()
        looking: tuple[object, ...] = self.until, self.within, self.per
        looks = any(each is not None for each in looking)
        object.__setattr__(self, "_looks_at_all", looks)

    def _check_waits(self) -> None:
        checks.at_least("wait_initial", self.wait_initial, 0, way_out="Pass seconds >= 0.")
        checks.at_least("wait_max", self.wait_max, 0, way_out="Pass seconds >= 0.")
        checks.at_least("wait_exp_base", self.wait_exp_base, 1, way_out="1 keeps waits equal.")
        checks.at_least("jitter", self.jitter, 0, way_out="Pass a fraction from 0 to 1.")
        if self.jitter > 1:
            msg = f"jitter={self.jitter!r} is more than 1. Pass a fraction from 0 to 1."
            raise ValueError(msg)
        if self.waits is None:
            return
        object.__setattr__(self, "waits", _waits.check_waits(self.waits))
        for name, default in _OWN_WAITS.items():
            if getattr(self, name) != default:
                msg = (
                    f"waits={self.waits!r} and {name}={getattr(self, name)!r} both say how long "
                    f"to wait. Pass one of them."
                )
                raise ValueError(msg)

    def _check_limits(self) -> None:
        if self.within is not None:
            way_out = "Pass the seconds for all attempts, math.inf for no limit."
            if checks.at_least("within", self.within, 0, way_out=way_out) == 0:
                msg = f"within={self.within!r} leaves no time. {way_out}"
                raise ValueError(msg)
        if self.per is not None:
            checks.positive("per", self.per, way_out="Pass seconds > 0.")
            if self.attempts is None:
                msg = (
                    f"per={self.per!r} counts attempts, and attempts=None sets no limit. Say how "
                    f"many there may be: Retry(5, per={self.per!r})."
                )
                raise ValueError(msg)
        given: Any = self.budget
        if given is not None and not isinstance(given, Budget):
            msg = (
                f"budget={given!r} is {checks.type_of(given)}, not a Budget. Pass "
                f"Budget(0.1) for one retry in ten calls, or None for no limit."
            )
            raise TypeError(msg)

    def _check_hold(self) -> None:
        if self.throttled is not None:
            check_filter(self.throttled, "throttled")
        elif self.hold is not None:
            msg = (
                f"hold={self.hold!r} is held after a refusal, but nothing says which errors are "
                f"refusals. Pass throttled=... too, a class or a function."
            )
            raise ValueError(msg)
        for each in held_by(self):
            fn: object = getattr(each, "hold", None)
            if not callable(fn) or isinstance(each, type) or is_async(fn):
                msg = (
                    f"hold={each!r} has no plain method hold(seconds). Pass a limiter or a Quota, "
                    f"or a tuple of them."
                )
                raise TypeError(msg)

    def __str__(self) -> str:
        """Return the policy as it is written in code, without default values."""
        options: list[str] = [f"{self.attempts}"]
        for each in fields(self)[1:]:
            value = getattr(self, each.name)
            if each.init and value != each.default:
                options.append(f"{each.name}={_shown(value)}")
        return f"Retry({', '.join(options)})"

    def wait_before(self, attempt: int, error: Exception | None = None) -> float:
        """Return the seconds to wait before ``attempt`` (2 is the first retry) after ``error``."""
        return _waits.wait_before(self, attempt, error)

    def statistics(self) -> mtaio.statistics.PolicyStatistics:
        """
        Return a snapshot of all calls under the policy.

        Not a checkpoint. It can be called from any thread.
        """
        from mtaio.resilience._statistics import PolicyStatistics  # noqa: PLC0415 - dear to import

        counts = self._counts
        return PolicyStatistics(
            retried=counts.retried,
            throttled=counts.throttled,
            failed=counts.failed,
            errors=dict(counts.errors),
            budget=None if self.budget is None else self.budget.statistics(),
        )

    async def run(
        self,
        fn: Callable[[*Ts], Awaitable[T]],
        /,
        *args: *Ts,
        on_retry: Callable[[Retried], object] | None = None,
    ) -> T:
        """
        Call ``fn(*args)`` until it succeeds or no further attempt is allowed.

        A checkpoint if the function is one, and before each retry. If it is cancelled, it leaves
        behind only what the function leaves behind, and a retry that was not made is returned to
        the budget. If the next wait would outlast the caller's deadline, the error is raised at
        once instead.

        Args:
            fn: An async function.
            *args: Positional arguments for ``fn``.
            on_retry: As for the class, for this call.

        Returns:
            The result of the attempt that succeeded, or of the last one if it raised nothing.

        Raises:
            Exception: The error of the last attempt, with a note that says why it was the last.
            TypeError: ``fn`` is not a function, or does not return an awaitable.
        """
        if on_retry is not None:
            _check_hook(on_retry)
        if self._looks_at_all:
            from mtaio.resilience._part import Call, call_function  # noqa: PLC0415 - few do

            call = self._around(call_function, Place(on_retry=on_retry))
            looked_at: T = await call(Call(fn, args))
            return looked_at
        budget = self.budget
        if budget is not None:
            record_call(budget)
        try:  # as in _around, which would cost each call another coroutine
            try:
                if spans.hook is None:
                    result: Any = fn(*args)
                else:
                    result = traced(fn, fn, 1)(*args)
                if type(result) is CoroutineType or isawaitable(result):
                    return cast("T", await result)
            except BaseException as error:
                raise_failure(error, fn)
                raise
        except Exception as error:
            result = None  # a future holds its error, and that this frame
            _check_callable(fn)  # only now, for it costs something
            attempts = Attempts(self, fn, 0.0, place=Place(on_retry=on_retry))
            seconds = attempts.after_error(error)
            if seconds is None:
                raise
        else:
            raise unawaitable_error(fn, result, "run")
        from mtaio.resilience._part import Call, call_function  # noqa: PLC0415 - as above

        again: T = await attempts.go_on(seconds, partial(call_function, Call(fn, args)))
        return again

    def _around(
        self,
        fn: Callable[..., Awaitable[T]],
        place: Place = NOWHERE,
        subject: object = None,
    ) -> AsyncFunction[..., T]:
        """
        Return an async function that does for each of its calls what `run` does for one.

        Args:
            fn: What makes an attempt.
            place: Where the policy is used.
            subject: The function, for messages; None if ``fn`` gets a `Call` that has it.
        """
        quiet = self._is_quiet
        until = self.until if place.judges else None

        async def retried(*args: Any, **kwargs: Any) -> T:
            started = 0.0 if quiet else self._start()
            try:
                try:
                    if spans.hook is None:
                        result: Any = await fn(*args, **kwargs)
                    else:
                        named = args[0].fn if subject is None else subject
                        result = await traced(fn, named, 1)(*args, **kwargs)
                    if until is None:
                        return cast("T", result)
                except BaseException as error:
                    raise_failure(error, args[0].fn if subject is None else subject)
                    raise
            except Exception as error:
                attempts = self._attempts(place, subject, args, started)
                seconds = attempts.after_error(error)
                if seconds is None:
                    raise
            else:
                attempts = self._attempts(place, subject, args, started)
                seconds = await attempts.after_result(result)
                if seconds is None:
                    return cast("T", result)
                del result
            return await attempts.go_on(seconds, partial(fn, *args, **kwargs))

        return retried

    def _attempts(
        self, place: Place, subject: object, args: tuple[Any, ...], started: float
    ) -> Attempts:
        """Return the attempts of a call, which has made its first."""
        if subject is not None:
            return Attempts(self, subject, started, place=place)
        call: Call = args[0]
        return Attempts(self, call.fn, started, place=place, key=call.key)

    def _placed(
        self, limiters: Iterable[object], *, retried: Callable[[], object] | None = None
    ) -> Place:
        """Return a place for `_around` with limiters inside of the policy; ``retried`` counts."""
        return Place(holds_inside=is_held_in(self, limiters), retried=retried)

    def _supervise(self, fn: object) -> Attempts:
        """Return the attempts of a service, which begins now."""
        return Attempts(self, fn, self._start(), is_service=True)

    def _start(self) -> float:
        """Begin a call: count it in the budget, and return the time if it is limited."""
        budget = self.budget
        if budget is not None:
            record_call(budget)
        return clock.now() if self._looks_at_all else 0.0

    @property
    def _is_quiet(self) -> bool:
        """Whether it has nothing to do with a call that succeeds at once."""
        return self.budget is None and not self._looks_at_all

    @overload
    def __call__(self, fn: Descriptor, /) -> Descriptor: ...

    @overload
    def __call__(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...

    def __call__(self, fn: Any, /) -> Any:
        """
        Decorate an async function or method so that each call is retried: ``@Retry(3)``.

        The function keeps its name, signature and types.

        Raises:
            TypeError: What is decorated is not an async function.
        """

        def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
            return self._around(fn, subject=fn)

        return decorate(around, name="Retry")(fn)

    def __aiter__(self) -> AsyncIterator[Attempt]:
        """
        Retry a block: ``async for attempt in Retry(3): async with attempt: ...``.

        Each iteration waits for its time, which is a checkpoint, and yields an `Attempt`. An error
        that is to be retried does not leave the block; the last one does.
        """
        from mtaio.resilience._retry_block import Tries  # noqa: PLC0415 - few retry a block

        return Tries(self)


start = Retry._start  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
"""How a block begins."""


def _shown(value: object) -> str:
    """Return a setting as it is written in code."""
    if isinstance(value, tuple):
        each = cast("tuple[object, ...]", value)
        return f"({', '.join(map(_shown, each))})"
    return name_of(value) if callable(value) else str(value)


def _check_callable(fn: object) -> None:
    if not callable(fn):
        close_unstarted(fn)
        checks.callable_("fn", fn, way_out="Pass an async function and, after it, its arguments.")


def _check_hook(fn: Callable[[Retried], object]) -> None:
    check_listener("on_retry", fn, Retried)
    check_takes("on_retry", fn, "retried", way_out="Let it take one argument, a Retried.")
