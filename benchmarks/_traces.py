"""
Traces of requests, seeded, so that each run of each machine sees the same ones.

What a cache makes of a trace depends on nothing but the trace and the policy; so these stand in for
the workloads of which one hears: popularity (Zipf), scans, loops, and pasts that do not come again.
Keys are ints, because the hash of a str differs from process to process; popular ones are spread
over all of them, because neighbours never share a slot of the ghost.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CAPACITY", "LOOPS", "REQUESTS", "TRACES", "Trace"]

CAPACITY = 1_000
"""How many entries each cache may hold."""

REQUESTS = 1_000_000
KEYS = 100_000


@dataclass(frozen=True)
class Trace:
    """A way to make requests."""

    name: str
    ja: str
    """The same in Japanese, for the docs."""
    make: Callable[[Random], list[int]]
    capacity: int = CAPACITY
    """How many entries there is room for."""

    def keys(self) -> list[int]:
        """Return what is asked for, in order: the same each time."""
        return self.make(Random(20231023))  # noqa: S311 - a trace, no secret


def zipf(random: Random, skew: float, count: int = REQUESTS) -> list[int]:
    """Return requests of which the n-th most popular key gets a share like 1 / n ** skew."""
    weights = accumulate(1 / rank**skew for rank in range(1, KEYS + 1))
    keys = random.sample(range(KEYS), KEYS)
    return random.choices(keys, cum_weights=[*weights], k=count)


def with_scan(random: Random) -> list[int]:
    """Return Zipf requests, each third of which is one for a key that never comes again."""
    popular = zipf(random, 1.0)
    return [
        KEYS + number if number % 3 == 0 else key  # a scan goes through what lies side by side
        for number, key in enumerate(popular)
    ]


def with_scan_twice(random: Random) -> list[int]:
    """Return Zipf requests, after every other of which a new key comes twice, and never again."""
    popular = zipf(random, 1.0, REQUESTS // 2)
    made: list[int] = []
    for number, key in enumerate(popular):
        made.append(key)
        if number % 2:
            made += [KEYS + number] * 2
    return made


def loop(times: float, capacity: int = CAPACITY) -> Callable[[Random], list[int]]:
    """Return a way to go round and round in more keys than there is room for."""
    around = int(capacity * times)
    return lambda _random: [number % around for number in range(REQUESTS)]


def loop_and_zipf(random: Random) -> list[int]:
    """Return Zipf requests, every other of which goes round a loop of twice the capacity."""
    popular = zipf(random, 1.0)
    return [
        KEYS + number // 2 % (2 * CAPACITY) if number % 2 else key
        for number, key in enumerate(popular)
    ]


def drifting(random: Random) -> list[int]:
    """Return Zipf requests whose ranks move on: each 50 requests the newest key is the first."""
    weights = [*accumulate(1 / rank for rank in range(1, KEYS + 1))]
    ranks = random.choices(range(KEYS), cum_weights=weights, k=REQUESTS)
    return [number // 50 - rank for number, rank in enumerate(ranks)]


def phases(random: Random) -> list[int]:
    """Return Zipf requests whose popular keys are others each 100,000 requests."""
    return [key + KEYS * phase for phase in range(10) for key in zipf(random, 1.0, REQUESTS // 10)]


def working_sets(random: Random) -> list[int]:
    """Return requests for any of 900 keys; each 10,000 requests it is 900 others."""
    width = CAPACITY * 9 // 10
    return [number // 10_000 * width + random.randrange(width) for number in range(REQUESTS)]


def window(width: float) -> Callable[[Random], list[int]]:
    """Return a way to ask for what came up lately: a new key each 5 requests, the oldest goes."""
    span = int(CAPACITY * width)
    return lambda random: [number // 5 - random.randrange(span) for number in range(REQUESTS)]


def hot_spot(random: Random) -> list[int]:
    """Return requests, four fifths of them around a key that moves on by one each 20 requests."""
    return [
        10 * KEYS + number // 20 + int(random.gauss(0, CAPACITY / 4))
        if random.random() < 0.8  # noqa: PLR2004 - as it says
        else random.randrange(KEYS)
        for number in range(REQUESTS)
    ]


def recent(random: Random) -> list[int]:
    """Return requests, nine tenths of which repeat a late one, the later the more."""
    made: list[int] = []
    for number in range(REQUESTS):
        back = int(random.expovariate(1 / 700)) + 1
        made.append(made[-back] if random.random() < 0.9 and back <= number else KEYS + number)  # noqa: PLR2004 - as it says
    return made


def uniform(random: Random) -> list[int]:
    """Return requests for any of ten times the capacity, all alike: there is nothing to know."""
    return [random.randrange(10 * CAPACITY) for _ in range(REQUESTS)]


TRACES = (
    Trace("Zipf 1.0", "Zipf 1.0", lambda random: zipf(random, 1.0)),
    Trace("Zipf 0.8", "Zipf 0.8", lambda random: zipf(random, 0.8)),
    Trace("Zipf 1.0, a third a scan", "Zipf 1.0、3分の1はスキャン", with_scan),
    Trace(
        "Zipf 1.0, half a scan that asks twice",
        "Zipf 1.0、半分は二度ずつのスキャン",
        with_scan_twice,
    ),
    Trace("loop, 1.2 x capacity", "ループ、容量の1.2倍", loop(1.2)),
    Trace("loop, 1.5 x capacity", "ループ、容量の1.5倍", loop(1.5)),
    Trace("loop, 2 x capacity, and Zipf 1.0", "ループ、容量の2倍、半分はZipf 1.0", loop_and_zipf),
    Trace("Zipf 1.0, popular keys change at times", "Zipf 1.0、人気のキーが時々変わる", phases),
    Trace("Zipf 1.0, always drifting", "Zipf 1.0、少しずつ移り変わる", drifting),
    Trace("working sets of 0.9 x capacity", "ワーキングセット、容量の0.9倍", working_sets),
    Trace("sliding window, 0.9 x capacity", "スライディングウィンドウ、容量の0.9倍", window(0.9)),
    Trace("sliding window, 2 x capacity", "スライディングウィンドウ、容量の2倍", window(2)),
    Trace("a hot spot that moves", "移動するホットスポット", hot_spot),
    Trace("recently used comes again", "最近使ったキーがまた来る", recent),
    Trace("all keys alike", "すべてのキーが同じ頻度", uniform),
)

LOOPS = tuple(
    Trace(
        f"loop, 1.5 x capacity of {capacity:,}",
        f"ループ、容量{capacity:,}件の1.5倍",
        loop(1.5, capacity),
        capacity,
    )
    for capacity in (100, 10_000)
)
"""The same loop in other sizes; not for the docs."""
