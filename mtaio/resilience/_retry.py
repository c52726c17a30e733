"""
Another attempt after a failure, later each time.

Promise: at most ``attempts`` calls; only exceptions that the filter accepts are tried again,
cancellation never; no sleep that the caller's deadline would cut short anyway.

The delays grow exponentially up to a cap and are spread by "full jitter", after Marc Brooker,
"Exponential Backoff And Jitter", AWS Architecture Blog, 2015: clients that failed together do not
come back together.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from inspect import isawaitable
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, cast, final, overload

import anyio

from mtaio._internal import checks, clock, deadlines
from mtaio._internal.callables import close_unstarted, unawaitable_error
from mtaio._internal.cancellation import raise_failure
from mtaio._internal.decorators import AsyncFunction, Descriptor, decorate
from mtaio._internal.filters import Filter, accepts, check_filter, errors_in
from mtaio._internal.notes import note
from mtaio.exceptions import BreakerOpenError
from mtaio.resilience._budget import Budget, give_back, record_call, take

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@final
@dataclass(frozen=True, slots=True)
class Retry:
    """
    How often to try again, after which exceptions, and how long to wait before.

    Before attempt ``n + 1`` it sleeps ``min(wait_max, wait_initial * wait_exp_base ** (n - 1))``
    seconds, of which the fraction ``jitter`` is random. If the exception has a ``retry_after``
    attribute, as mtaio's `RateLimitError` does, the wait is at least that long; with the argument
    ``retry_after`` it is looked up elsewhere. Of a group of exceptions the longest wait counts.

    ``@Retry(3)`` above an async function retries each of its calls.

    Args:
        attempts: Calls in all, the first included; at least 1.
        on: Which exceptions to retry: a class, a tuple of classes, or a function from the
            exception to bool. A group of exceptions counts if each of them does, and a function is
            called with each. Only ``Exception`` is ever considered: cancellation,
            ``KeyboardInterrupt`` and the like pass at once, and so does the refusal of an open
            breaker (`mtaio.exceptions.BreakerOpenError`) unless that very class is named.
        wait_initial: Seconds before the second attempt.
        wait_max: The longest wait in seconds, whatever the number of attempts.
        wait_exp_base: The factor from one wait to the next.
        jitter: The random part of each wait, from 0 (none) to 1 (anywhere from 0 to the wait).
        budget: How many retries all calls with this `Budget` may make together; None for no
            limit.
        retry_after: Returns how long the exception asks to wait: seconds, or what an HTTP header
            ``Retry-After`` says (seconds, also with a fraction, or a date, as a str). None, or
            anything else, leaves it to the exception's attribute ``retry_after``.

    Raises:
        ValueError, TypeError: An argument is refused; the message names it and the way out.

    Example:
        ```python
        from mtaio.resilience import Budget, Retry

        patient = Retry(5, on=(ConnectionError, TimeoutError), wait_max=2.0, budget=Budget(0.1))
        ```
    """

    attempts: int = 3
    _: KW_ONLY
    on: Filter = Exception
    wait_initial: float = 0.1
    wait_max: float = 30.0
    wait_exp_base: float = 2.0
    jitter: float = 1.0
    budget: Budget | None = None
    retry_after: Callable[[Exception], float | str | None] | None = None

    def __post_init__(self) -> None:
        checks.count("attempts", self.attempts, way_out="1 means a single call and no retry.")
        checks.at_least("wait_initial", self.wait_initial, 0, way_out="Pass seconds >= 0.")
        checks.at_least("wait_max", self.wait_max, 0, way_out="Pass seconds >= 0.")
        checks.at_least("wait_exp_base", self.wait_exp_base, 1, way_out="1 keeps waits equal.")
        checks.at_least("jitter", self.jitter, 0, way_out="Pass a fraction from 0 to 1.")
        if self.jitter > 1:
            msg = f"jitter={self.jitter!r} is more than 1. Pass a fraction from 0 to 1."
            raise ValueError(msg)
        check_filter(self.on)
        given: Any = self.budget
        if given is not None and not isinstance(given, Budget):
            msg = (
                f"budget={given!r} is {checks.type_of(given)}, not a Budget. Pass "
                f"Budget(0.1) for one retry in ten calls, or None for no limit."
            )
            raise TypeError(msg)
        if self.retry_after is not None:
            way_out = "Pass a function from the exception to seconds or None."
            checks.callable_("retry_after", self.retry_after, way_out=way_out)

    def _accepts(self, error: Exception) -> bool:
        """
        Return whether to try again after ``error``.

        After a `mtaio.exceptions.BreakerOpenError` only if ``on`` names that very class, or is a
        function that accepts it.
        """
        on: Any = self.on
        if isinstance(on, type | tuple):
            # By default nothing waits in front of an open breaker, which is there to fail at once.
            classes = cast("tuple[type, ...]", on if isinstance(on, tuple) else (on,))
            if not any(issubclass(each, BreakerOpenError) for each in classes) and any(
                isinstance(each, BreakerOpenError) for each in errors_in(error)
            ):
                return False
        return accepts(self.on, error)

    def wait_before(self, attempt: int, error: Exception | None = None) -> float:
        """Return the seconds to sleep before ``attempt`` (2 is the first retry) after ``error``."""
        from random import random  # noqa: PLC0415 - dear to import, and most calls succeed at once

        try:
            longest = min(self.wait_max, self.wait_initial * self.wait_exp_base ** (attempt - 2))
        except OverflowError:
            longest = self.wait_max
        wait = longest * (1 - self.jitter * random())  # noqa: S311 - no secret depends on it
        return wait if error is None else max(wait, *map(self._asked_by, errors_in(error)))

    def _asked_by(self, error: Exception) -> float:
        """Return the seconds for which an error asks to wait; 0 if it does not."""
        from mtaio._internal.retry_after import seconds  # noqa: PLC0415 - most calls succeed at once

        asked: float | None = None
        if self.retry_after is not None:
            asked = seconds(self.retry_after(error))
        if asked is None:
            asked = seconds(getattr(error, "retry_after", None))
        return 0.0 if asked is None else asked

    def _affords(self, error: Exception) -> bool:
        """
        Take a retry from the budget, and return whether there was one.

        If there was none, ``error`` carries a note that says so.
        """
        budget = self.budget
        if budget is None or take(budget):
            return True
        note(error, f"not tried again: {budget} is used up by the retries of all calls")
        return False

    async def run(
        self,
        fn: Callable[[*Ts], Awaitable[T]],
        /,
        *args: *Ts,
        on_retry: Callable[[], object] | None = None,
    ) -> T:
        """
        Await ``fn(*args)`` until it succeeds or no further attempt may be made.

        A checkpoint if the function is, and before each retry. Cancelled, it leaves what the
        function leaves; a retry that has not been made returns to the budget. A wait that would
        outlast the caller's deadline is not started: the error comes at once, while the caller can
        still see it.

        Args:
            fn: An async function.
            *args: Its arguments.
            on_retry: Called before each attempt but the first.

        Returns:
            The result of the attempt that succeeded.

        Raises:
            Exception: That of the last attempt, with a note on why it was the last.
            TypeError: ``fn`` is not a function, or returned what cannot be awaited.
        """
        budget = self.budget
        if budget is not None:
            record_call(budget)
        attempt = 1
        while True:
            try:
                try:
                    result: Any = fn(*args)
                    if type(result) is CoroutineType or isawaitable(result):
                        return cast("T", await result)
                except BaseException as error:
                    raise_failure(error, fn)
                    raise
            except Exception as error:
                result = None  # a future holds its error, and that this frame
                _check_callable(fn)  # only now, for it costs something
                attempt += 1
                wait = self._wait(attempt, error)
                if wait is None:
                    raise
            else:
                raise unawaitable_error(fn, result, "run")
            await self._sleep(wait)
            if on_retry is not None:
                on_retry()

    @overload
    def __call__(self, fn: Descriptor, /) -> Descriptor: ...

    @overload
    def __call__(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...

    def __call__(self, fn: Any, /) -> Any:
        """
        Decorate an async function or method so that each call is tried again: ``@Retry(3)``.

        The function keeps its name, signature and types.

        Raises:
            TypeError: What is decorated is not an async function.
        """

        def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
            async def retried(*args: P.args, **kwargs: P.kwargs) -> R:
                return await self.run(partial(fn, *args, **kwargs))

            return retried

        return decorate(around, name="Retry")(fn)

    async def _sleep(self, seconds: float) -> None:
        """Wait for the next attempt; a cancellation returns it to the budget."""
        try:
            await anyio.sleep_until(clock.loop_deadline(clock.now() + seconds))
        except BaseException:
            if self.budget is not None:
                give_back(self.budget)
            raise

    def _wait(self, attempt: int, error: Exception) -> float | None:
        """Return the seconds to sleep before ``attempt``; None, with a note, if there is none."""
        if attempt > self.attempts or not self._accepts(error):
            if attempt > 2:  # noqa: PLR2004 - one attempt is not news
                note(error, f"gave up after {attempt - 1} attempts")
            return None
        wait = self.wait_before(attempt, error)
        left = deadlines.remaining()
        if wait >= left:
            due = "" if left == math.inf else f", and the deadline is in {left:.3g} s"
            note(error, f"not tried again: attempt {attempt} would have to wait {wait:.3g} s{due}")
            return None
        return wait if self._affords(error) else None


def _check_callable(fn: object) -> None:
    if not callable(fn):
        close_unstarted(fn)
        checks.callable_("fn", fn, way_out="Pass an async function and, after it, its arguments.")
