"""
How often the cache has what it is asked for, policy by policy, beside cachetools, cachebox, theine.

The default policy is held to the better of LRU and of theine less half a point on every trace, and
to theine itself on a loop of one and a half times the capacity; less two per cent of that.

Nothing here is timed, and nothing differs from run to run but theine, which learns in a thread of
its own; so each figure is computed once, however many rounds there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks._harness import Figure
from benchmarks._ratios import CACHES, ratio
from benchmarks._traces import LOOPS, TRACES, Trace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DEFAULT = "mtaio s3fifo"
LRU = "mtaio lru"
THEINE = "theine"

MARGIN = 0.02
"""By how large a part of what is to be reached the default may stay behind."""

LEAST = {
    "Zipf 1.0": 59.0,
    "Zipf 0.8": 31.0,
    "Zipf 1.0, a third a scan": 39.0,
    "loop, 1.2 x capacity": 75.0,
}
"""What the default policy must reach on any machine, in per cent."""


def hits(name: str, trace: Trace) -> Callable[[], Awaitable[float]]:
    async def measure() -> float:
        return ratio(name, trace.name, trace.capacity)

    return measure


def beyond(trace: Trace) -> Callable[[], Awaitable[float]]:
    """Return how many points the default is ahead of the goal, less the margin."""

    async def measure() -> float:
        goal = ratio(LRU, trace.name, trace.capacity)
        if THEINE in CACHES:
            spare = 0.0 if trace.name.startswith("loop, 1.5") else 0.5
            goal = max(goal, ratio(THEINE, trace.name, trace.capacity) - spare)
        return ratio(DEFAULT, trace.name, trace.capacity) - (1 - MARGIN) * goal

    return measure


def events() -> list[Figure]:
    """Return a figure for each cache on each trace, and how far the default is from the goal."""
    made: list[Figure] = []
    for trace in TRACES + LOOPS:
        for name in CACHES if trace in TRACES else (DEFAULT, LRU, *CACHES.keys() & {THEINE}):
            least = LEAST.get(trace.name) if name == DEFAULT else None
            made.append(
                Figure(
                    title=f"{trace.name}: {name}",
                    measure=hits(name, trace),
                    unit="%",
                    least=float("-inf") if least is None else least,
                    loops=("asyncio",),
                )
            )
        made.append(
            Figure(
                title="  beyond the better of lru and theine",
                measure=beyond(trace),
                unit="points",
                least=0,
                loops=("asyncio",),
            )
        )
    return made


EVENTS = events()
