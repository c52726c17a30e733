"""
Which orders of parts are refused, and which are warned of.

Promise: what cannot be meant is refused when the pipeline is made; what is seldom meant is warned
of. Both say why, and how to do it. Parts that say nothing of their ``kind`` may stand anywhere.

The rules and their reasons, with what other libraries do: docs/en/design/resilience.md.
"""

from __future__ import annotations

import warnings
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mtaio.resilience._part import Part

__all__ = ["OrderWarning", "check_order"]

USUAL: Final = (
    "The usual order is Fallback, Timeout(total=True), Retry, Breaker, Hedge, limiters, Timeout."
)

_REPEATS: Final = ("retry", "hedge")
"""What runs that which is inside several times."""

_LOOKS_AT_FAILURES: Final = ("retry", "breaker", "hedge")


class OrderWarning(UserWarning):
    """
    The parts of a pipeline stand in an order that is seldom meant.

    Where it is meant, silence it with `warnings.filterwarnings` around the making of the pipeline.
    """


def check_order(parts: Sequence[Part], originals: Sequence[object]) -> None:
    """Refuse or warn of an order; ``originals`` are the objects that the user passed."""
    for number, each in enumerate(originals):
        if any(each is other for other in originals[:number]):
            msg = (
                f"{each!r} is in the pipeline twice, and would take from each call what it takes "
                f"twice. Make two, or leave one out. {USUAL}"
            )
            raise ValueError(msg)
    for reason in _refusals(parts):
        msg = f"{reason} {USUAL}"
        raise ValueError(msg)
    for reason in _doubts(parts):
        warnings.warn(f"{reason} {USUAL}", OrderWarning, stacklevel=3)


def _kind(part: Part) -> str:
    return getattr(part, "kind", "")


def _total(part: Any) -> bool | None:
    """Return whether a timeout says that it limits all attempts; None if it does not say."""
    return getattr(part, "total", None)


def _pairs(parts: Sequence[Part]) -> Iterator[tuple[Part, str, Part, str]]:
    """Yield each two parts with their kinds, the outer first."""
    for outer, inner in combinations(parts, 2):
        yield outer, _kind(outer), inner, _kind(inner)


def _refusals(parts: Sequence[Part]) -> Iterator[str]:
    for outer, around, inner, within in _pairs(parts):
        if around in _REPEATS and within == "timeout" and _total(inner):
            yield (
                f"{inner} stands inside {outer}, which starts it again for each attempt, so that "
                f"it does not limit them all together. Put it outside of {outer}, or leave out "
                f"total=True."
            )
        elif around == "timeout" and within in _REPEATS and _total(outer) is False:
            yield (
                f"{outer} stands outside of {inner}, so that it limits all attempts together, and "
                f"a first attempt that hangs leaves no time for another. Write total=True if that "
                f"is meant; to limit each attempt, put it inside of {inner}."
            )
        elif around == within and around in {"breaker", "hedge"}:
            yield {
                "breaker": (
                    f"{inner} stands inside {outer}: two breakers in one pipeline count the same "
                    f"calls, and the one opens because of the other. Keep one, which may have a "
                    f"state for each key of its calls."
                ),
                "hedge": (
                    f"{inner} stands inside {outer}: two hedges in one pipeline start copies of "
                    f"copies. Keep one, with most=... for more copies."
                ),
            }[around]
        elif (
            around in _LOOKS_AT_FAILURES
            and within == "fallback"
            and getattr(inner, "on", None) is Exception
        ):
            yield (
                f"{inner} stands inside {outer}, which never sees a failure there, because the "
                f"fallback has answered it. Put the fallback outside of {outer}, or let it answer "
                f"certain exceptions alone: on=..."
            )


def _doubts(parts: Sequence[Part]) -> Iterator[str]:
    for outer, around, inner, within in _pairs(parts):
        if around == within == "retry":
            yield (
                f"{inner} stands inside {outer}: their attempts multiply, and a service that is "
                f"down gets all of them. Keep one."
            )
        elif around == "limiter" and within == "retry":
            yield (
                f"{outer} stands outside of {inner}: a call keeps its place in it while it waits "
                f"for its next attempt, and the retries are not limited. Put it inside of {inner}."
            )
        elif around == "limiter" and within == "hedge":
            yield (
                f"{outer} stands outside of {inner}: the copies that the hedge starts are not "
                f"limited. Put it inside of {inner}."
            )
        elif around == "breaker" and within == "retry":
            yield (
                f"{outer} stands outside of {inner}: it counts calls and not attempts, and does "
                f"not stop the retries of calls that run when it opens. Put it inside of {inner}."
            )
        elif around == "hedge" and within == "retry":
            yield (
                f"{outer} stands outside of {inner}: each copy of a call is retried, and their "
                f"attempts multiply. Put the hedge inside of {inner}."
            )
        elif around == within == "timeout":
            longest, seconds = getattr(outer, "seconds", None), getattr(inner, "seconds", None)
            if longest is not None and seconds is not None and seconds >= longest:
                yield (
                    f"{inner} stands inside {outer}, whose time is up first, so that it never "
                    f"limits anything. Give the inner one less time, or leave it out."
                )
    yield from _breakers_that_see_nothing(parts)


def _breakers_that_see_nothing(parts: Sequence[Part]) -> Iterator[str]:
    kinds = [_kind(part) for part in parts]
    for number, part in enumerate(parts):
        if (
            kinds[number] == "breaker"
            and "timeout" in kinds[:number]
            and "timeout" not in kinds[number:]
        ):
            yield (
                f"{part} has a timeout outside and none inside: to it, a call that hangs ends in a "
                f"cancellation, which is no failure, and it never opens for a service that hangs. "
                f"Put a Timeout inside of {part}."
            )
