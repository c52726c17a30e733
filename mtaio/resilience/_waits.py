"""
How long to wait before the next attempt.

Promise: never less than a service has asked for; what is random comes on top of that, so that
callers who were told the same do not come back at one moment.

The delays grow exponentially up to a cap and are spread by "full jitter", after Marc Brooker,
"Exponential Backoff And Jitter", AWS Architecture Blog, 2015: clients that failed together do not
come back together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from mtaio._internal import checks
from mtaio._internal.callables import is_async
from mtaio._internal.filters import errors_in
from mtaio._internal.signature import check_takes

if TYPE_CHECKING:
    from mtaio.resilience._retry import Retry

__all__ = ["Waits", "asked_by", "check_waits", "pause_after", "wait_before"]

Waits: TypeAlias = Sequence[float] | Callable[[int], float]
"""Seconds before each further attempt: a list, or a function of the attempt that failed."""

_SHORTEST_PAUSE: Final = 0.1
"""Seconds of the shortest pause after a refusal: a service that asks for none still needs one."""

_WAY_OUT: Final = "Pass seconds >= 0, one for each wait, or a function from the attempt to seconds."


def check_waits(waits: object) -> Waits:
    """Return ``waits`` as it is kept, if it says how long to wait."""
    if callable(waits):
        if is_async(waits):
            msg = f"waits={waits!r} is an async function and would not be awaited. {_WAY_OUT}"
            raise TypeError(msg)
        check_takes("waits", waits, "attempt", way_out=_WAY_OUT)
        return cast("Callable[[int], float]", waits)
    if isinstance(waits, str | bytes) or not isinstance(waits, Sequence):
        msg = f"waits={waits!r} is {checks.type_of(waits)}. {_WAY_OUT}"
        raise TypeError(msg)
    each = tuple(cast("Sequence[object]", waits))
    if not each:
        msg = f"waits={waits!r} is empty. {_WAY_OUT}"
        raise ValueError(msg)
    return tuple([checks.at_least("waits", one, 0, way_out=_WAY_OUT) for one in each])


def wait_before(
    policy: Retry, attempt: int, error: Exception | None, left: float = math.inf
) -> float:
    """
    Return the seconds to wait before ``attempt``; 2 is the first retry.

    Args:
        policy: Says how long.
        attempt: The attempt.
        error: What the attempt before raised, which may say how long; None if it raised nothing.
        left: Seconds until it has to be made. What is random ends before that.
    """
    longest = _longest(policy, attempt - 1)
    own = longest
    if policy.waits is None and policy.jitter:
        own -= longest * policy.jitter * _random()
    asked = 0.0 if error is None else asked_by(policy, error)
    return max(own, asked + _spread(policy, asked, longest, left)) if asked > 0 else own


def pause_after(policy: Retry, refusals: int, error: Exception, left: float) -> tuple[float, float]:
    """
    Return how long the pause is that a refusal asks for, and how long after it to come back.

    Args:
        policy: Says how long, if the error does not.
        refusals: How often the call has been refused.
        error: The refusal.
        left: Seconds until the next call has to be made.
    """
    longest = _longest(policy, refusals)
    asked = asked_by(policy, error, is_refusal=True)
    pause = max(asked if asked > 0 else longest, _SHORTEST_PAUSE)
    return pause, _spread(policy, pause, longest, left)


def asked_by(policy: Retry, error: Exception, *, is_refusal: bool = False) -> float:
    """
    Return for how long an error, or one in a group, asks to wait; 0 if it does not.

    Args:
        policy: May say where to look.
        error: The error.
        is_refusal: Whether to look at the headers of its response, too.
    """
    from mtaio._internal.retry_after import (  # noqa: PLC0415 - most calls succeed at once
        in_response,
        seconds,
    )

    longest = 0.0
    for each in errors_in(error):
        asked = None if policy.retry_after is None else seconds(policy.retry_after(each))
        if asked is None:
            asked = seconds(getattr(each, "retry_after", None))
        if asked is None and is_refusal:
            asked = in_response(each)
        longest = max(longest, asked or 0.0)
    return longest


def _longest(policy: Retry, failed: int) -> float:
    """Return the wait after the attempt ``failed``, without what is random."""
    waits: Any = policy.waits
    if waits is None:
        try:
            return min(policy.wait_max, policy.wait_initial * policy.wait_exp_base ** (failed - 1))
        except OverflowError:
            return policy.wait_max
    if not callable(waits):
        each = cast("tuple[float, ...]", waits)
        return each[min(failed, len(each)) - 1]
    return checks.at_least(f"what waits({failed}) returned", waits(failed), 0, way_out=_WAY_OUT)


def _spread(policy: Retry, asked: float, longest: float, left: float) -> float:
    """Return a random time to add to a wait that was asked for: up to half of it, or the own."""
    widest = min(max(asked / 2, longest), policy.wait_max)
    # A caller who can wait for as long as was asked comes in time, if only just.
    return min(widest * policy.jitter, max(left - asked, 0.0)) * _random()


def _random() -> float:
    from random import random  # noqa: PLC0415 - dear to import, and most calls succeed at once

    return random()  # noqa: S311 - no secret depends on it
