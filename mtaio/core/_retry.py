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
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio

from mtaio._internal import checks, clock, deadlines
from mtaio.core._errors import note

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_FILTER = "Pass an exception class, a tuple of them, or a function that returns whether to retry."


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """
    How often to try again, after which exceptions, and how long to wait before.

    Before attempt ``n + 1`` it sleeps ``min(wait_max, wait_initial * wait_exp_base ** (n - 1))``
    seconds, of which the fraction ``jitter`` is random. If the exception has a ``retry_after``
    attribute in seconds, as mtaio's `RateLimitError` does, the wait is at least that long.

    Args:
        attempts: Calls in all, the first included; at least 1.
        on: Which exceptions to retry: a class, a tuple of classes, or a function from the
            exception to bool. Only ``Exception`` is ever considered: cancellation,
            ``KeyboardInterrupt`` and the like pass at once.
        wait_initial: Seconds before the second attempt.
        wait_max: The longest wait in seconds, whatever the number of attempts.
        wait_exp_base: The factor from one wait to the next.
        jitter: The random part of each wait, from 0 (none) to 1 (anywhere from 0 to the wait).

    Raises:
        ValueError, TypeError: A value that makes no sense, named with the way out.

    Example:
        ```python
        from mtaio.core import Retry

        patient = Retry(attempts=5, on=(ConnectionError, TimeoutError), wait_max=2.0)
        ```
    """

    attempts: int = 3
    on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool] = Exception
    wait_initial: float = 0.1
    wait_max: float = 30.0
    wait_exp_base: float = 2.0
    jitter: float = 1.0

    def __post_init__(self) -> None:
        checks.count("attempts", self.attempts, way_out="1 means a single call and no retry.")
        checks.at_least("wait_initial", self.wait_initial, 0, way_out="Pass seconds >= 0.")
        checks.at_least("wait_max", self.wait_max, 0, way_out="Pass seconds >= 0.")
        checks.at_least("wait_exp_base", self.wait_exp_base, 1, way_out="1 keeps waits equal.")
        checks.at_least("jitter", self.jitter, 0, way_out="Pass a fraction from 0 to 1.")
        if self.jitter > 1:
            msg = f"jitter={self.jitter!r} is more than 1. Pass a fraction from 0 to 1."
            raise ValueError(msg)
        _check_filter(self.on)

    def accepts(self, error: Exception) -> bool:
        """Return whether ``error`` is one to try again after."""
        on: Any = self.on
        if isinstance(on, type | tuple):
            return isinstance(error, on)
        return bool(on(error))

    def wait_before(self, attempt: int, error: Exception | None = None) -> float:
        """Return the seconds to sleep before ``attempt`` (2 is the first retry) after ``error``."""
        try:
            longest = min(self.wait_max, self.wait_initial * self.wait_exp_base ** (attempt - 2))
        except OverflowError:
            longest = self.wait_max
        wait = longest * (1 - self.jitter * random.random())  # noqa: S311 - no secret depends on it
        asked = getattr(error, "retry_after", None)
        if isinstance(asked, int | float) and not math.isnan(asked):
            wait = max(wait, asked)
        return wait


def _check_filter(on: object) -> None:
    if isinstance(on, type | tuple):
        classes = cast("tuple[object, ...]", on) if isinstance(on, tuple) else (on,)
        for each in classes:
            if not (isinstance(each, type) and issubclass(each, Exception)):
                msg = f"on={on!r} holds {each!r}, which is not a subclass of Exception. {_FILTER}"
                raise TypeError(msg)
    else:
        checks.callable_("on", on, way_out=_FILTER)


def as_policy(retry: int | Retry | None, *, name: str = "retry") -> Retry | None:
    """Return what the argument ``name`` means: None for a single attempt, else a policy."""
    if retry is None:
        return None
    if not isinstance(retry, Retry):
        checks.count(name, retry, way_out="Pass the number of attempts, or a mtaio.core.Retry.")
        retry = Retry(attempts=retry)
    return retry if retry.attempts > 1 else None


async def attempts(
    policy: Retry,
    call: Callable[[], Awaitable[T]],
    on_retry: Callable[[], None],
) -> T:
    """
    Await ``call()`` until it succeeds or the policy gives up; then raise its last error.

    The error carries a note with the number of attempts. A wait that would outlast the caller's
    deadline is not started: the error comes at once, while the caller can still see it.
    """
    attempt = 1
    while True:
        try:
            return await call()
        except Exception as error:
            if attempt >= policy.attempts or not policy.accepts(error):
                if attempt > 1:
                    note(error, f"gave up after {attempt} attempts")
                raise
            attempt += 1
            wait = policy.wait_before(attempt, error)
            left = deadlines.remaining()
            if wait >= left:
                note(
                    error,
                    f"not tried again: attempt {attempt} would have to wait {wait:.3g} s, and the "
                    f"deadline is in {left:.3g} s",
                )
                raise
        await anyio.sleep_until(clock.loop_deadline(clock.now() + wait))
        on_retry()
