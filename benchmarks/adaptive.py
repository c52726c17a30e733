"""
The adaptive limit in a long overload, against the best fixed limit and other algorithms; its cost.

Four seeds, to be quick; the design page has twenty: ``python -m benchmarks._adaptive_docs``.
"""

from __future__ import annotations

import time
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from benchmarks._harness import Contest, Figure
from benchmarks._overload import DISTRIBUTIONS, SEEDS, Distribution, judge, simulate
from benchmarks._rivals import RIVALS
from benchmarks.rate_limiter import per_call
from mtaio.resilience import AdaptiveLimiter, Call, Pipeline
from mtaio.resilience._estimate import LimitEstimator

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._overload import Judgement, Limit
    from mtaio.types import Next

OURS = "mtaio"
FEW = SEEDS[:4]


def ours() -> LimitEstimator:
    """Return what an `AdaptiveLimiter` finds its limit with."""
    return LimitEstimator(10, 1, 200)


def judged(make: Callable[[], Limit], distribution: Distribution, clients: int) -> Judgement:
    """Return how an algorithm does on the few seeds."""
    results = [simulate(make, distribution, clients, seed) for seed in FEW]
    return judge(results, distribution, clients, FEW)


@cache
def ours_judged(distribution: Distribution, clients: int) -> Judgement:
    """Return how ours does."""
    return judged(ours, distribution, clients)


def least_goodput(distribution: Distribution, clients: int) -> float:
    return min(ours_judged(distribution, clients).goodput)


def highest_p99(distribution: Distribution, clients: int) -> float:
    return max(ours_judged(distribution, clients).p99)


def drift(distribution: Distribution, clients: int) -> float:
    return ours_judged(distribution, clients).drift


def figures(distribution: Distribution, clients: int) -> list[Figure]:
    """Return what is required in one case."""
    title = f"{distribution}, {clients} client{'s' * (clients > 1)}"
    return [
        Figure(
            title=f"{title}: least goodput of a phase",
            measure=partial(least_goodput, distribution, clients),
            unit="of the best",
            least=0.95,
            loops=("asyncio",),
        ),
        Figure(
            title=f"{title}: highest p99 of a phase",
            measure=partial(highest_p99, distribution, clients),
            unit="x the best",
            most=2,
            loops=("asyncio",),
        ),
        Figure(
            title=f"{title}: limit after 300 s",
            measure=partial(drift, distribution, clients),
            unit="x that after 30 s",
            most=1.2,
            loops=("asyncio",),
        ),
    ]


class Nothing:
    """A part that does nothing, so that a pipeline can be compared with one that has a limit."""

    def wrap(self, then: Next) -> Next:
        """Add a coroutine, and nothing else."""

        async def run(call: Call) -> Any:
            return await then(call)

        return run


async def answer() -> int:
    return 1


async def each_call(pipeline: Pipeline) -> float:
    calls = 1_000
    call = pipeline.run
    started = time.perf_counter()
    for _ in range(calls):
        await call(answer)
    return per_call(started, calls)


async def cost() -> float:
    """Return the microseconds that the limiter adds to a call."""
    bare, limited = Pipeline(Nothing()), Pipeline(AdaptiveLimiter())
    turns = [(await each_call(bare), await each_call(limited)) for _ in range(200)]
    return min(turn[1] for turn in turns) - min(turn[0] for turn in turns)


def rival_drift(make: Callable[[], Limit]) -> float:
    return judged(make, "exponential", 4).drift


EVENTS = [
    Figure(title="what it adds to a call", measure=cost, unit="µs", most=1.5),
    Contest(
        title="drift of the limit in overload",
        contenders={
            OURS: partial(drift, "exponential", 4),
            **{name: partial(rival_drift, make) for name, make in RIVALS.items()},
        },
        unit="x",
        loops=("asyncio",),
    ),
    *(
        figure
        for distribution in DISTRIBUTIONS
        for clients in (1, 4)
        for figure in figures(distribution, clients)
    ),
]
