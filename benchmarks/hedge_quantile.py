"""
Hedge: how many calls "p95" hedges, by what is measured.

A hedge cuts off what it is to measure: a first attempt that is cancelled because the second was
faster never shows how long it would have taken. Simulated without an event loop.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from benchmarks._harness import Figure
from mtaio.resilience._quantile import Quantile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CALLS = 20_000
SLOW = 0.02

LATENCIES: dict[str, Callable[[random.Random], float]] = {
    "lognormal": lambda rng: rng.lognormvariate(0, 1),
    "exponential": lambda rng: rng.expovariate(1),
    "one in fifty is 40 times slower": lambda rng: (
        rng.uniform(0.9, 1.1) * (40 if rng.random() < SLOW else 1)
    ),
}


def share(kind: str, measured: str) -> Callable[[], Awaitable[float]]:
    """Return what simulates the share of the calls that are hedged, in percent."""

    async def measure() -> float:
        rng = random.Random(1)  # noqa: S311 - no secret depends on it
        draw = LATENCIES[kind]
        quantile = Quantile(0.95)
        hedged = 0
        for _ in range(CALLS):
            first, second = draw(rng), draw(rng)
            after = quantile.value
            if after is None or first <= after:
                quantile.add(first)
                continue
            hedged += 1
            answered = min(first, after + second)
            if measured == "answers":
                # The answer of a hedge, from the moment at which the hedge began.
                quantile.add(first if first <= after + second else second)
            elif measured == "first attempts that answered":
                if first <= after + second:
                    quantile.add(first)
            else:
                quantile.add(answered)
        return hedged / CALLS * 100

    return measure


MEASURED = ("answers", "first attempts that answered", "first attempts, cancelled ones too")

EVENTS = [
    Figure(
        title=f"{kind}, {measured}",
        measure=share(kind, measured),
        unit="% of the calls hedged",
        loops=("asyncio",),
    )
    for kind in LATENCIES
    for measured in MEASURED
]
