"""Orders of parts that are refused, and those that are warned of."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest

from mtaio.resilience import (
    AdaptiveLimiter,
    Breaker,
    Fallback,
    Hedge,
    OrderWarning,
    Pipeline,
    Retry,
    Timeout,
)
from mtaio.resources import ConcurrencyLimiter, RateLimiter, ResourceLimiter, TimeoutManager
from tests.resilience.parts import Marked, answer


def part(kind: str) -> Marked:
    """Return a part of a kind."""
    return Marked(kind, [], kind)


def breaker() -> Marked:
    """Return what stands where a breaker does."""
    return part("breaker")


def hedge(after: float | str = "p95") -> Marked:
    """Return what stands where a hedge does."""
    made = part("hedge")
    made.after = after
    return made


REFUSED: dict[str, tuple[list[Any], str]] = {
    "total inside retry": (
        [Retry(), Timeout(5, total=True)],
        r"^Timeout\(5, total=True\) stands inside Retry\(3\), which starts it again",
    ),
    "total inside hedge": (
        [hedge(), Timeout(5, total=True)],
        r"^Timeout\(5, total=True\) stands inside Marked\('hedge'\), which starts it again",
    ),
    "attempt outside retry": (
        [Timeout(1), Retry()],
        r"^Timeout\(1\) stands outside of Retry\(3\), so that it limits all attempts together",
    ),
    "attempt outside hedge": (
        [Timeout(1), breaker(), hedge(), Timeout(0.5)],
        r"^Timeout\(1\) stands outside of Marked\('hedge'\), so that",
    ),
    "two breakers": (
        [breaker(), Retry(), breaker()],
        r"^Marked\('breaker'\) stands inside .*, and two breakers in one pipeline",
    ),
    "two hedges": (
        [hedge(), hedge()],
        r"^Marked\('hedge'\) stands inside .*, and two hedges in one pipeline start copies",
    ),
    "fallback inside retry": (
        [Retry(), Fallback(answer)],
        r"^Fallback\(answer\) stands inside Retry\(3\), which never sees a failure",
    ),
    "fallback inside breaker": (
        [breaker(), Fallback(answer)],
        r"^Fallback\(answer\) stands inside Marked\('breaker'\), which never sees",
    ),
    "fallback inside hedge": (
        [hedge(), Fallback(answer)],
        r"^Fallback\(answer\) stands inside Marked\('hedge'\), which never sees",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_order_that_cannot_be_meant_is_refused(name: str) -> None:
    """With the reason and the usual order."""
    parts, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as caught:
        Pipeline(*parts)
    assert str(caught.value).endswith(
        "The usual order is Fallback, Timeout(total=True), Retry, Breaker, Hedge, limiters, "
        "Timeout."
    )


def test_same_part_twice_is_refused() -> None:
    """A limiter that stands twice would take two slots, and wait for itself."""
    slots = ConcurrencyLimiter(1)
    with pytest.raises(ValueError, match=r"^<ConcurrencyLimiter: .* is in the pipeline twice"):
        Pipeline(slots, Retry(), slots)


WARNED: dict[str, tuple[list[Any], str]] = {
    "two retries": (
        [Retry(2), Retry(3)],
        r"^Retry\(3\) stands inside Retry\(2\): their attempts multiply",
    ),
    "slots outside retry": (
        [ConcurrencyLimiter(1), Retry()],
        r"^ConcurrencyLimiter\(1\) stands outside of Retry\(3\): a call keeps its place",
    ),
    "rate outside retry": (
        [RateLimiter(1), Retry()],
        r"^RateLimiter\(1, burst=1\) stands outside of Retry\(3\): a call keeps its place",
    ),
    "limiter outside hedge": (
        [ResourceLimiter(rate=1), hedge()],
        r"^ResourceLimiter\(\) stands outside of Marked\('hedge'\): the copies",
    ),
    "breaker outside retry": (
        [breaker(), Retry()],
        r"^Marked\('breaker'\) stands outside of Retry\(3\): it counts calls and not attempts",
    ),
    "hedge outside retry": (
        [hedge(), Retry()],
        r"^Marked\('hedge'\) stands outside of Retry\(3\): each copy of a call is retried",
    ),
    "inner timeout no shorter": (
        [Timeout(5, total=True), Retry(), Timeout(5)],
        r"^Timeout\(5\) stands inside Timeout\(5, total=True\), whose time is up first",
    ),
    "hedge that is never started": (
        [hedge(2), Timeout(2)],
        r"^Timeout\(2\) stands inside Marked\('hedge'\), and its time is up before a copy",
    ),
    "hedge that is never started in all": (
        [Timeout(2, total=True), hedge(2)],
        r"^Timeout\(2, total=True\) stands outside of .*, and its time is up before a copy",
    ),
    "breaker whose timeout inside has no limit": (
        [Timeout(5), Breaker(), Timeout(math.inf)],
        r"^Breaker\(.*\) has a timeout outside and none inside",
    ),
    "breaker that sees no timeout": (
        [Timeout(5), Breaker()],
        r"^Breaker\(.*\) has a timeout outside and none inside",
    ),
    "adaptive limit that sees no timeout": (
        [Timeout(5, total=True), Retry(), AdaptiveLimiter()],
        r"^AdaptiveLimiter\(.*\) has a timeout outside and none inside",
    ),
}


@pytest.mark.parametrize("name", WARNED)
def test_order_that_is_seldom_meant_is_warned_of(name: str) -> None:
    """With the reason, and the line that made the pipeline."""
    parts, message = WARNED[name]
    with pytest.warns(OrderWarning, match=message) as caught:
        Pipeline(*parts)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "parts",
    [
        [Timeout(5, total=True), Retry(), breaker(), hedge(), ConcurrencyLimiter(1), Timeout(1)],
        [Retry(), ConcurrencyLimiter(1), RateLimiter(1), Timeout(1)],
        [TimeoutManager(5), Retry(), TimeoutManager(1)],
        [TimeoutManager(None), Retry(), Timeout(1)],
        [TimeoutManager(5), TimeoutManager(None)],
        [hedge(1), Timeout(2)],
        [Retry(), Timeout(3), hedge(1), Timeout(2)],
        [Timeout(9, total=True), Retry(), breaker(), Timeout(3), hedge(1)],
        [Timeout(5, total=True), Retry()],
        [Fallback(answer), Timeout(1)],
        [Retry(), Fallback(answer, on=LookupError)],
        [Marked("own", []), Timeout(1), Marked("own", [])],
        [Breaker(), Timeout(1)],
        [Breaker()],
        [Timeout(5), Breaker(), ResourceLimiter(concurrency=1, timeout=1)],
        [Timeout(5), Breaker(), AdaptiveLimiter(), Timeout(1)],
        [Timeout(math.inf), Breaker()],
        [Timeout(math.inf, total=True), Retry(), Breaker(), Timeout(1)],
        [Retry(), Timeout(1), Timeout(math.inf)],
        [Hedge(math.inf), Timeout(1)],
    ],
    ids=lambda parts: "-".join(type(part).__name__ for part in parts),
)
def test_other_orders_are_fine(parts: list[Any]) -> None:
    """The usual one, parts of it, and those whose parts do not say what they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pipeline(*parts)
