"""
Which orders of parts are refused, and which cause a warning.

Promise: an order that cannot work is refused when the pipeline is made; one that is seldom intended
causes a warning. Both say why, and what to do. Parts without a ``kind`` may stand anywhere.

The rules and their reasons, with what other libraries do: docs/en/design/resilience.md.
"""

from __future__ import annotations

import math
import warnings
from itertools import combinations, takewhile
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mtaio.resilience._part import Part

    _Pair: TypeAlias = tuple[Part, str, Part, str]

__all__ = ["OrderWarning", "check_order", "check_place"]

USUAL: Final = (
    "The usual order is Fallback, Timeout(total=True), Retry, Breaker, Hedge, limiters, Timeout."
)

_REPEATS: Final = ("retry", "hedge")
"""Parts that may run what is inside them several times."""

_LOOKS_AT_FAILURES: Final = ("retry", "breaker", "hedge")


class OrderWarning(UserWarning):
    """
    The parts of a pipeline are in an order that is seldom intended.

    If it is intended, silence the warning with `warnings.filterwarnings` before creating the
    pipeline.
    """


def check_order(parts: Sequence[Part], originals: Sequence[object]) -> None:
    """Refuse an order, or warn about it; ``originals`` are the objects that the user passed."""
    for number, each in enumerate(originals):
        if any(each is other for other in originals[:number]):
            msg = (
                f"{each!r} is in the pipeline twice, and every call would go through it "
                f"twice. Make two, or leave one out. {USUAL}"
            )
            raise ValueError(msg)
    _refuse(_pairs(parts), parts)
    _warn(_pairs(parts), _without_timeout_inside(parts))


def check_place(parts: Sequence[Part], place: int, inner: Part) -> None:
    """
    Refuse the place of a `Keyed`, or warn about it, now that a part that it has made is known.

    Args:
        parts: Those of the pipeline.
        place: The index of the `Keyed` in it.
        inner: What it has made.
    """
    known = [*parts[:place], inner, *parts[place + 1 :]]
    pairs = [pair for pair in _pairs(known) if pair[0] is inner or pair[2] is inner]
    _refuse(pairs, known)
    _warn(pairs, [blind for blind in _without_timeout_inside(known) if blind is inner])


def _refuse(pairs: Iterable[_Pair], parts: Sequence[Part]) -> None:
    for pair in pairs:
        reason = _refusal(*pair, repeated=_is_repeated(pair[0], parts))
        if reason is not None:
            msg = f"{reason} {USUAL}"
            raise ValueError(msg)


def _warn(pairs: Iterable[_Pair], blind: Iterable[Part]) -> None:
    for pair in pairs:
        doubt = _doubt(*pair)
        if doubt is not None:
            warnings.warn(f"{doubt} {USUAL}", OrderWarning, stacklevel=4)
    for each in blind:
        warnings.warn(
            f"{each} has a timeout outside and none inside: it sees a call that times out as "
            f"cancelled, which is not a failure, so it never notices a service that hangs. Put a "
            f"Timeout inside of {each}. {USUAL}",
            OrderWarning,
            stacklevel=4,
        )


def _kind(part: Part) -> str:
    return getattr(part, "kind", "")


def _total(part: Any) -> bool | None:
    """Return whether a timeout says that it limits all attempts; None if it does not say."""
    return getattr(part, "total", None)


def _is_timed(part: Any) -> bool:
    """Return whether a part ends what takes too long: a timeout may have no limit."""
    if _kind(part) == "timeout":
        return getattr(part, "seconds", 0.0) not in {None, math.inf}
    return getattr(part, "is_timed", False)


def _seconds(part: Any) -> float:
    """Return the time that a timeout leaves, ``inf`` for no limit."""
    seconds = getattr(part, "seconds", None)
    return math.inf if seconds is None else seconds


def _after(part: Any) -> float:
    """Return the seconds after which a hedge starts a copy; 0 if it does not say, or never."""
    after = getattr(part, "after", None)
    return after if isinstance(after, int | float) and after < math.inf else 0


def _pairs(parts: Sequence[Part]) -> Iterator[_Pair]:
    """Yield each two parts with their kinds, the outer first."""
    for outer, inner in combinations(parts, 2):
        yield outer, _kind(outer), inner, _kind(inner)


def _is_repeated(part: Part, parts: Sequence[Part]) -> bool:
    """Return whether a retry or hedge stands outside of ``part``."""
    return any(_kind(each) in _REPEATS for each in takewhile(lambda it: it is not part, parts))


def _refusal(outer: Part, around: str, inner: Part, within: str, *, repeated: bool) -> str | None:
    """Return why one part cannot stand inside another; None if it can."""
    reason: str | None = None
    if around in _REPEATS and within == "timeout" and _total(inner):
        reason = (
            f"{inner} stands inside {outer}, which starts it again for each attempt, so that it "
            f"does not limit them all together. Put it outside of {outer}, or leave out total=True."
        )
    elif (
        around == "timeout" and within in _REPEATS and _total(outer) is False and not repeated
    ):  # inside a retry it limits each of its attempts, with the copies of a hedge
        reason = (
            f"{outer} stands outside of {inner}, so that it limits all attempts together, and a "
            f"first attempt that hangs leaves no time for another. Write total=True if that is "
            f"intended; to limit each attempt, put it inside of {inner}."
        )
    elif around == within == "breaker":
        reason = (
            f"{inner} stands inside {outer}, and two breakers in one pipeline count the same "
            f"calls, so that one opens because of the other. Keep one, which with max_keys=... has "
            f"a state for each key."
        )
    elif around == within == "hedge":
        reason = (
            f"{inner} stands inside {outer}, and two hedges in one pipeline start copies of "
            f"copies. Keep one, with max_hedges=... for more copies."
        )
    elif (
        around in _LOOKS_AT_FAILURES
        and within == "fallback"
        and getattr(inner, "on", None) is Exception
    ):
        reason = (
            f"{inner} stands inside {outer}, which never sees a failure there, because the "
            f"fallback has answered it. Put the fallback outside of {outer}, or let it answer "
            f"only certain exceptions: on=..."
        )
    return reason


def _doubt(outer: Part, around: str, inner: Part, within: str) -> str | None:
    """Return why one part seldom belongs inside another; None if it may."""
    doubt: str | None = None
    if around == within == "retry":
        doubt = (
            f"{inner} stands inside {outer}: their attempts multiply, and a service that is down "
            f"gets all of them. Keep one."
        )
    elif around == "limiter" and within == "retry":
        doubt = (
            f"{outer} stands outside of {inner}: a call keeps its place in it while it waits for "
            f"its next attempt, and the retries are not limited. Put it inside of {inner}."
        )
    elif around == "limiter" and within == "hedge":
        doubt = (
            f"{outer} stands outside of {inner}: the copies that the hedge starts are not limited. "
            f"Put it inside of {inner}."
        )
    elif around == "breaker" and within == "retry":
        doubt = (
            f"{outer} stands outside of {inner}: it counts calls and not attempts, and does not "
            f"stop the retries of calls that run when it opens. Put it inside of {inner}."
        )
    elif around == "hedge" and within == "retry":
        doubt = (
            f"{outer} stands outside of {inner}: each copy of a call is retried, and their "
            f"attempts multiply. Put the hedge inside of {inner}."
        )
    elif around == within == "timeout" and _seconds(outer) <= _seconds(inner) < math.inf:
        doubt = (
            f"{inner} stands inside {outer}, whose time is up first, so that it never limits "
            f"anything. Give the inner one less time, or leave it out."
        )
    elif around == "timeout" and within == "hedge" and _seconds(outer) <= _after(inner):
        doubt = (
            f"{outer} stands outside of {inner}, and its time is up before a copy would be "
            f"started, so that nothing is ever hedged. Give it more time, or hedge sooner."
        )
    elif around == "hedge" and within == "timeout" and _after(outer) >= _seconds(inner):
        doubt = (
            f"{inner} stands inside {outer}, and its time is up before a copy would be started, so "
            f"that nothing is ever hedged. Give it more time, or hedge sooner."
        )
    return doubt


def _without_timeout_inside(parts: Sequence[Part]) -> Iterator[Part]:
    """Yield parts that judge a service by how calls end, but see timeouts only as cancellations."""
    timed = [_is_timed(part) for part in parts]
    for number, part in enumerate(parts):
        needs = getattr(part, "needs_timeout", False)
        if needs and any(timed[:number]) and not any(timed[number:]):
            yield part
