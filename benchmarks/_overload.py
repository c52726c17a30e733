"""
A service in overload, and limits in front of it: what the design page of adaptive limits measures.

The service has ten workers and one queue, in order of arrival. A client gives a call up after a
second, but its work goes on: that is what makes an overload last. Each client has a limiter of its
own, which refuses calls beyond its limit and knows nothing of the others.

There are two simulations of the same. `simulate` is a queue of events and nothing more: a limit is
any object with ``limit`` and ``sample``. `simulate_in_loop` sends real calls through a `Pipeline`
with an `AdaptiveLimiter`, on the virtual clock of `mtaio.testing`, to show that what the one finds
is what the other does.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING, Final, Literal, Protocol

import anyio

from mtaio.exceptions import ConcurrencyLimitError
from mtaio.resilience import AdaptiveLimiter, Pipeline, Timeout
from mtaio.testing import run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "DISTRIBUTIONS",
    "FIXED",
    "LONG",
    "NAMES",
    "OTHERS",
    "SEEDS",
    "Judgement",
    "Limit",
    "Phase",
    "Result",
    "judge",
    "simulate",
    "simulate_in_loop",
]

WORKERS: Final = 10
SECONDS: Final = 0.05
"""What a call takes in the mean, without a queue."""
PATIENCE: Final = 1.0
"""Seconds after which a client gives a call up."""

SEEDS: Final = tuple(range(2001, 2021))
"""None of them was used to choose a constant of the estimator."""

Distribution = Literal["gamma", "exponential"]
DISTRIBUTIONS: Final[tuple[Distribution, ...]] = ("gamma", "exponential")

NAMES: Final = ("half load", "overload", "slower", "normal")


@dataclass(frozen=True)
class Phase:
    """A part of a simulation."""

    until: float
    """Seconds from the beginning."""
    load: float
    """Calls a second, of all clients together."""
    slow: float
    """A call takes so many times as long."""
    workers: int = WORKERS
    """Calls that the service works on at once."""

    @property
    def most(self) -> float:
        """The calls a second that can be answered."""
        return min(self.load, self.workers / (SECONDS * self.slow))


LONG: Final = (
    Phase(20, 100, 1),
    Phase(320, 400, 1),
    Phase(350, 200, 3),
    Phase(380, 150, 1),
)
"""Half of what the service can take; twice as much, for 300 s; then it takes three times as long
for each call; then all is well again."""


OTHERS: Final = {
    "half of the workers are lost": (
        Phase(20, 100, 1),
        Phase(80, 400, 1),
        Phase(110, 400, 1, workers=5),
        Phase(140, 400, 1, workers=5),
    ),
    "slower little by little": (
        Phase(20, 100, 1),
        Phase(80, 400, 1),
        *(Phase(80 + second, 400, 1 + second / 30) for second in range(1, 61)),
        Phase(200, 400, 3),
        Phase(230, 400, 3),
    ),
    "three times as fast": (
        Phase(20, 30, 3),
        Phase(80, 400, 3),
        Phase(110, 400, 1),
        Phase(140, 400, 1),
    ),
    "start in overload": (Phase(60, 400, 1), Phase(90, 400, 1)),
}
"""Other overloads: what counts is the last phase of each."""


class Limit(Protocol):
    """What decides how many calls of one client may be in flight."""

    @property
    def limit(self) -> float:
        """As many, rounded down."""
        ...

    def sample(self, moment: float, latency: float, in_flight: int, *, failed: bool) -> object:
        """Take what became of a call into account."""
        ...


@dataclass
class Fixed:
    """A limit that somebody has chosen."""

    limit: float

    def sample(self, moment: float, latency: float, in_flight: int, *, failed: bool) -> None:
        """Learn nothing."""


@dataclass(frozen=True)
class Result:
    """What a simulation has shown."""

    goodput: list[float]
    """For each phase, the calls a second that were answered in time."""
    p99: list[float]
    """For each phase, the seconds that 99 % of the answers took at most."""
    limits: list[float]
    """The limits of all clients together, at the end of each second."""

    @property
    def early(self) -> float:
        """The mean limit from 30 to 60 s after the overload has begun."""
        return fmean(self.limits[50:80])

    @property
    def late(self) -> float:
        """The mean limit in its last 30 s."""
        return fmean(self.limits[290:320])


def service_time(source: random.Random, distribution: Distribution, slow: float) -> float:
    """Return how long a call keeps a worker: the coefficient of variation is 0.32, or 1."""
    mean = SECONDS * slow
    if distribution == "gamma":
        return source.gammavariate(10, mean / 10)
    return source.expovariate(1 / mean)


class Tally:
    """What is counted while a simulation runs."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.phases = phases
        self.answers: list[list[float]] = [[] for _ in phases]
        self.limits: list[float] = []

    def result(self) -> Result:
        """Return what it comes to."""
        starts = [0.0, *(phase.until for phase in self.phases)]
        goodput: list[float] = []
        p99: list[float] = []
        for number, (phase, answers) in enumerate(zip(self.phases, self.answers, strict=True)):
            answers.sort()
            goodput.append(len(answers) / (phase.until - starts[number]))
            p99.append(answers[int(0.99 * len(answers))] if answers else PATIENCE)
        return Result(goodput, p99, self.limits)


def simulate(
    make: Callable[[], Limit],
    distribution: Distribution,
    clients: int,
    seed: int,
    phases: Sequence[Phase] = LONG,
) -> Result:
    """Run the phases as a queue of events, which takes a tenth of a second for 150,000 calls."""
    source = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    limits = [make() for _ in range(clients)]
    in_flight = [0] * clients
    free_at = [0.0] * WORKERS
    ends: list[tuple[float, int, int, float, int, bool]] = []
    tally = Tally(phases)
    moment = 0.0
    calls = 0
    for phase, answers in zip(phases, tally.answers, strict=True):
        while len(free_at) > phase.workers:
            heapq.heappop(free_at)
        while len(free_at) < phase.workers:
            heapq.heappush(free_at, moment)
        while moment < phase.until:
            moment += source.expovariate(phase.load)
            while ends and ends[0][0] <= moment:
                end, _, client, began, beside, answered = heapq.heappop(ends)
                in_flight[client] -= 1
                limits[client].sample(end, end - began, beside, failed=not answered)
            while moment >= len(tally.limits) + 1:
                tally.limits.append(sum(each.limit for each in limits))
            client = int(source.random() * clients)
            seconds = service_time(source, distribution, phase.slow)
            if in_flight[client] >= int(limits[client].limit):
                continue
            calls += 1
            in_flight[client] += 1
            end = max(moment, heapq.heappop(free_at)) + seconds
            heapq.heappush(free_at, end)
            answered = end - moment <= PATIENCE
            if answered:
                answers.append(end - moment)
            end = min(end, moment + PATIENCE)
            heapq.heappush(ends, (end, calls, client, moment, in_flight[client], answered))
    return tally.result()


def simulate_in_loop(
    distribution: Distribution,
    clients: int,
    seed: int,
    phases: Sequence[Phase] = LONG,
    *,
    backend: Literal["asyncio", "trio"] = "asyncio",
) -> Result:
    """Run the phases with real calls through pipelines, on the virtual clock."""
    source = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    limiters = [AdaptiveLimiter() for _ in range(clients)]
    pipelines = [Pipeline(limiter, Timeout(PATIENCE)) for limiter in limiters]
    free_at = [0.0] * WORKERS
    tally = Tally(phases)

    async def serve(seconds: float) -> None:
        moment = anyio.current_time()
        end = max(moment, heapq.heappop(free_at)) + seconds
        heapq.heappush(free_at, end)
        await anyio.sleep_until(end)

    async def ask(client: int, seconds: float, answers: list[float]) -> None:
        began = anyio.current_time()
        try:
            await pipelines[client].run(serve, seconds)
        except (ConcurrencyLimitError, TimeoutError):
            return
        answers.append(anyio.current_time() - began)

    async def main() -> None:
        started = anyio.current_time()
        moment = 0.0
        async with anyio.create_task_group() as group:
            for phase, answers in zip(phases, tally.answers, strict=True):
                while moment < phase.until:
                    moment += source.expovariate(phase.load)
                    await anyio.sleep_until(started + moment)
                    while moment >= len(tally.limits) + 1:
                        tally.limits.append(sum(each.limit for each in limiters))
                    client = int(source.random() * clients)
                    seconds = service_time(source, distribution, phase.slow)
                    group.start_soon(ask, client, seconds, answers)

    run(main, backend=backend)
    return tally.result()


FIXED: Final = {
    1: (8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 25, 30, 40),
    4: (2, 3, 4, 5, 6, 7, 8, 10),
}
"""The limits of each client among which the best one is looked for."""


@dataclass(frozen=True)
class Best:
    """The best that a fixed limit does in one phase."""

    goodput: list[float]
    """The highest of any, for each seed."""
    p99: list[float]
    """The lowest of those whose goodput is within 1 % of that, for each seed."""
    limit: int
    """The limit with that p99."""


@cache
def best_fixed(distribution: Distribution, clients: int, seeds: tuple[int, ...]) -> list[Best]:
    """Return for each phase what the best fixed limit does, which is another in each."""
    rows = {
        limit: [simulate(lambda: Fixed(limit), distribution, clients, seed) for seed in seeds]  # noqa: B023 - called at once
        for limit in FIXED[clients]
    }
    found: list[Best] = []
    for phase in range(len(LONG)):
        goodput = {key: fmean(each.goodput[phase] for each in row) for key, row in rows.items()}
        p99 = {key: fmean(each.p99[phase] for each in row) for key, row in rows.items()}
        most = max(goodput, key=goodput.__getitem__)
        good = [key for key in rows if goodput[key] >= 0.99 * goodput[most]]
        limit = min(good, key=p99.__getitem__)
        found.append(
            Best(
                [each.goodput[phase] for each in rows[most]],
                [each.p99[phase] for each in rows[limit]],
                limit,
            )
        )
    return found


@dataclass(frozen=True)
class Judgement:
    """How a limit compares with the best fixed one, over many seeds."""

    goodput: list[float]
    """For each phase, the mean goodput as a part of the best."""
    p99: list[float]
    """For each phase, the mean p99 as a multiple of the best."""
    worst_goodput: list[float]
    """The same of the worst seed."""
    worst_p99: list[float]
    """The same of the worst seed."""
    early: float
    """The mean of the limit, early in the overload."""
    drift: float
    """How many times as high it is at the end of the overload."""
    worst_drift: float
    """The same of the worst seed."""

    @property
    def holds(self) -> bool:
        """Whether the means meet every requirement."""
        return min(self.goodput) >= 0.95 and max(self.p99) <= 2 and self.drift <= 1.2  # noqa: PLR2004 - the requirements


def judge(
    results: Sequence[Result], distribution: Distribution, clients: int, seeds: tuple[int, ...]
) -> Judgement:
    """Compare the results, one for each seed, with the best fixed limit on the same seeds."""
    best = best_fixed(distribution, clients, seeds)
    goodput = [
        [each.goodput[n] / b for each, b in zip(results, phase.goodput, strict=True)]
        for n, phase in enumerate(best)
    ]
    p99 = [
        [each.p99[n] / b for each, b in zip(results, phase.p99, strict=True)]
        for n, phase in enumerate(best)
    ]
    return Judgement(
        goodput=[fmean(each) for each in goodput],
        p99=[fmean(each) for each in p99],
        worst_goodput=[min(each) for each in goodput],
        worst_p99=[max(each) for each in p99],
        early=fmean(each.early for each in results),
        drift=fmean(each.late for each in results) / fmean(each.early for each in results),
        worst_drift=max(each.late / each.early for each in results),
    )
