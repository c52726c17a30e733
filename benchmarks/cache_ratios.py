"""
How often the cache has what it is asked for, policy by policy, beside cachetools, cachebox, theine.

Nothing here is timed, and nothing differs from run to run but theine, which learns in a thread of
its own; so each figure is computed once, however many rounds there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks._harness import Figure
from benchmarks._ratios import CACHES, ratio
from benchmarks._traces import TRACES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DEFAULT = "mtaio s3fifo"
LRU = "mtaio lru"

LEAST = {
    "Zipf 1.0": 59.0,
    "Zipf 0.8": 31.0,
    "Zipf 1.0, a third a scan": 39.0,
    "loop, 1.2 x capacity": 60.0,
}
"""What the default policy must reach, in per cent."""


def hits(name: str, trace: str) -> Callable[[], Awaitable[float]]:
    async def measure() -> float:
        return ratio(name, trace)

    return measure


def beyond_lru(trace: str) -> Callable[[], Awaitable[float]]:
    async def measure() -> float:
        return ratio(DEFAULT, trace) - ratio(LRU, trace)

    return measure


def events() -> list[Figure]:
    """Return a figure for each cache on each trace, and how far the default is from LRU."""
    made: list[Figure] = []
    for trace in TRACES:
        bound = LEAST.get(trace.name)
        for name in CACHES:
            least = bound if bound is not None and name == DEFAULT else float("-inf")
            made.append(
                Figure(
                    title=f"{trace.name}: {name}",
                    measure=hits(name, trace.name),
                    unit="%",
                    least=least,
                    loops=("asyncio",),
                )
            )
        made.append(
            Figure(
                title="  s3fifo beyond lru",
                measure=beyond_lru(trace.name),
                unit="points",
                least=float("-inf") if bound is None else -3.5,
                loops=("asyncio",),
            )
        )
    return made


EVENTS = events()
