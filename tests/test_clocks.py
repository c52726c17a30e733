"""
What keeps moments holds over one event loop after another, wherever their clocks start.

Each primitive keeps something for 30 seconds: a value, a debt of tokens, the state of a breaker.
It is begun in one loop, found ten seconds later in the next, and so on; it is over when the loops
have let 30 seconds go by, no sooner and no later, whatever their clocks said.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

from mtaio._internal import clock
from mtaio.cache import TTLCache, cached
from mtaio.core import Budget
from mtaio.events import EventEmitter
from mtaio.exceptions import BreakerOpenError, RateLimitError
from mtaio.monitoring import ResourceMonitor
from mtaio.resilience import AdaptiveLimiter, Breaker, Pipeline
from mtaio.resources import KeyedRateLimiter, RateLimiter
from tests.backends import BACKENDS
from tests.clocks import CLOCKS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Held = Callable[[], Awaitable[bool]]


@pytest.fixture(autouse=True)
def _clock_of_the_process() -> Iterator[None]:
    before = clock.read
    yield
    clock.follow(before)


class Kept:
    """
    Something that is kept for 30 seconds.

    Args:
        begin: Begins to keep it.
        held: Returns whether it is still kept.
    """

    def __init__(self, begin: Callable[[], Any], held: Callable[[], Any]) -> None:
        self.begin = begin
        self.held = held


def value_of(cache: TTLCache[int]) -> Kept:
    """Return a value in a cache."""
    return Kept(lambda: cache.set_nowait("key", 1), lambda: cache.get_nowait("key") == 1)


def value_that_is_there(cache: TTLCache[int]) -> Kept:
    """Return the same, as seen without a read."""

    def held() -> bool:
        assert ("key" in cache) == (cache.items() == [("key", 1)])
        return "key" in cache

    return Kept(lambda: cache.set_nowait("key", 1), held)


def cached_value() -> Kept:
    """Return the result of a function."""
    numbers = itertools.count()

    @cached(ttl=30)
    async def count() -> int:
        return next(numbers)

    async def held() -> bool:
        return await count() == 0

    return Kept(count, held)


def tokens_of(limiter: Any, *key: str) -> Kept:
    """Return the debt of a limiter."""

    def held() -> bool:
        try:
            limiter.acquire_nowait(*key)
        except RateLimitError:
            return True
        return False

    return Kept(lambda: limiter.acquire(*key), held)


def debt_that_is_seen(limiter: RateLimiter) -> Kept:
    """Return the same, as seen in the statistics, which change nothing."""
    return Kept(limiter.acquire, lambda: limiter.statistics().tokens < 1 - 1e-6)


def room_for_a_key() -> Kept:
    """Return the limit of a key that holds the only place."""
    limiter = KeyedRateLimiter(1, per=30, max_keys=1, idle_ttl=0)
    kept = tokens_of(limiter, "other")
    return Kept(lambda: limiter.acquire("key"), kept.held)


def broken() -> Kept:
    """Return an open breaker."""
    breaker = Breaker(window=1, min_calls=1, open_for=30)
    calls = Pipeline(breaker)

    async def fail() -> None:
        raise ConnectionError

    async def begin() -> None:
        with pytest.raises(ConnectionError):
            await calls.call(fail)

    async def held() -> bool:
        try:
            await calls.call(anyio.lowlevel.checkpoint)
        except BreakerOpenError as error:
            return 0 < error.retry_after <= 30
        return False

    return Kept(begin, held)


def retries() -> Kept:
    """Return what a call adds to a budget."""
    budget = Budget(1, min_per_second=0, window=30)
    return Kept(budget.record_call, lambda: budget.statistics().available == 1)


def retries_that_are_taken() -> Kept:
    """Return the same, seen by taking and giving back."""
    budget = Budget(1, min_per_second=0, window=30)

    def held() -> bool:
        taken = budget.take()
        if taken:
            budget.give_back()
        return taken

    return Kept(budget.record_call, held)


KEPT: Final[dict[str, Callable[[], Kept]]] = {
    "TTLCache": lambda: value_of(TTLCache(30)),
    "TTLCache, with idle_ttl": lambda: value_of(TTLCache(30, idle_ttl=1000)),
    "TTLCache, unread": lambda: value_that_is_there(TTLCache(30)),
    "cached": cached_value,
    "RateLimiter": lambda: tokens_of(RateLimiter(1, per=30)),
    "RateLimiter, window": lambda: tokens_of(RateLimiter.window(1, per=30)),
    "KeyedRateLimiter": lambda: tokens_of(KeyedRateLimiter(1, per=30), "key"),
    "KeyedRateLimiter, room": room_for_a_key,
    "Breaker": broken,
    "Budget": retries_that_are_taken,
}

SEEN: Final[dict[str, Callable[[], Kept]]] = {
    "RateLimiter": lambda: debt_that_is_seen(RateLimiter(1, per=30)),
    "RateLimiter, window": lambda: debt_that_is_seen(RateLimiter.window(1, per=30)),
    "Budget": retries,
}
"""What changes nothing, so that a loop in which nothing else is done goes by unnoticed."""

IN_TURN: Final = [
    ("virtual",) * 3,
    *(
        [
            ("virtual, late", "virtual", "virtual, trio"),
            ("virtual, late, trio", "virtual, trio", "virtual"),
        ]
        if "trio" in BACKENDS
        else []
    ),
    *itertools.permutations(["own", "own, behind", "own, ahead"]),
    ("own, ahead",) * 3,
    *itertools.permutations(["virtual", "own, ahead", "mock, late"]),
    ("mock",) * 3,
    ("virtual, late", "own, behind", "virtual"),
]


async def is_held(kept: Kept) -> bool:
    """Return whether it is still kept."""
    answer = kept.held()
    return answer if isinstance(answer, bool) else await answer


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("loops", IN_TURN, ids=" > ".join)
def test_three_loops_in_turn(name: str, loops: tuple[str, ...]) -> None:
    """It is kept for 30 seconds that the loops have let go by between them."""
    kept = KEPT[name]()

    async def first() -> None:
        begun = kept.begin()
        if begun is not None:
            await begun
        assert await is_held(kept)
        await anyio.sleep(10)
        assert await is_held(kept)

    async def second() -> None:
        assert await is_held(kept)
        await anyio.sleep(10)
        assert await is_held(kept)

    async def third() -> None:
        assert await is_held(kept)
        await anyio.sleep(6)
        assert await is_held(kept)
        await anyio.sleep(8)
        assert not await is_held(kept)

    for fn, loop in zip((first, second, third), loops, strict=True):
        CLOCKS[loop](fn)


@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("loops", IN_TURN, ids=" > ".join)
def test_statistics_after_another_loop(name: str, loops: tuple[str, ...]) -> None:
    """Statistics tell the same, although they change nothing."""
    kept = SEEN[name]()

    async def first() -> None:
        begun = kept.begin()
        if begun is not None:
            await begun
        await anyio.sleep(10)
        assert await is_held(kept)

    async def second() -> None:
        assert await is_held(kept)
        await anyio.sleep(16)
        assert await is_held(kept)
        await anyio.sleep(8)
        assert not await is_held(kept)

    CLOCKS[loops[0]](first)
    CLOCKS[loops[1]](second)


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("loop", [each for each in CLOCKS if not each.startswith("virtual, late")])
def test_between_real_loops(name: str, loop: str) -> None:
    """A loop on real time before, and one after, see it too: an hour on that in between is over."""
    kept = KEPT[name]()

    async def first() -> None:
        begun = kept.begin()
        if begun is not None:
            await begun
        assert await is_held(kept)

    async def second() -> None:
        assert await is_held(kept)
        await anyio.sleep(3600)

    async def third() -> None:
        assert await is_held(kept) is (not loop.startswith("virtual"))

    anyio.run(first)
    CLOCKS[loop](second)
    anyio.run(third)


def test_thresholds() -> None:
    """The cooldown of an alert goes on in the next loop, and is over there."""
    load = 0.0
    fired: list[float] = []
    monitor = ResourceMonitor(1)
    monitor.gauge("load", lambda: load)
    monitor.set_threshold("load", 10, cooldown=30)

    @monitor.on_threshold_exceeded
    async def _(*_: object) -> None:
        fired.append(anyio.current_time())

    async def rise_and_fall() -> None:
        nonlocal load
        async with monitor:
            load = 50.0
            await anyio.sleep(5)
            load = 0.0
            await anyio.sleep(5)

    async def rise() -> None:
        nonlocal load
        load = 50.0
        async with monitor:
            await anyio.sleep(40)

    CLOCKS["virtual, late"](rise_and_fall)
    assert len(fired) == 1
    CLOCKS["virtual"](rise)
    assert len(fired) == 2
    assert 20 <= fired[1] <= 30


def test_thresholds_that_must_be_exceeded_for_long() -> None:
    """A metric that was too high in the loop before needs only the rest of its time in the next."""
    fired: list[float] = []
    monitor = ResourceMonitor(1)
    monitor.gauge("load", lambda: 50.0)
    monitor.set_threshold("load", 10, for_seconds=30)

    @monitor.on_threshold_exceeded
    async def _(*_: object) -> None:
        fired.append(anyio.current_time())

    async def watch(seconds: float) -> None:
        async with monitor:
            await anyio.sleep(seconds)

    CLOCKS["virtual, late"](lambda: watch(10))
    assert not fired
    CLOCKS["virtual"](lambda: watch(40))
    assert len(fired) == 1
    assert 20 <= fired[0] <= 22


@pytest.mark.parametrize("loops", IN_TURN, ids=" > ".join)
def test_forgotten_names(loops: tuple[str, ...]) -> None:
    """The name that was emitted longest ago makes room, whichever loop that was in."""
    emitter = EventEmitter(max_names=2)

    async def emit(*names: str) -> None:
        for name in names:
            await anyio.sleep(1)
            await emitter.emit(name)

    CLOCKS[loops[0]](lambda: emit("first", "second"))
    CLOCKS[loops[1]](lambda: emit("first", "first"))
    CLOCKS[loops[2]](lambda: emit("third"))
    assert set(emitter.statistics().names) == {"first", "third"}


@pytest.mark.parametrize("loops", IN_TURN, ids=" > ".join)
def test_adaptive_limit(loops: tuple[str, ...]) -> None:
    """Calls are samples in each loop, those of the one before notwithstanding."""
    limiter = AdaptiveLimiter(initial=2, max_waiting=100)

    async def call(seconds: float) -> None:
        async with limiter.slot():
            await anyio.sleep(seconds)

    async def main(seconds: float) -> float:
        for _ in range(30):
            async with anyio.create_task_group() as group:
                for _ in range(2):
                    group.start_soon(call, seconds)
        return limiter.statistics().latency_seconds

    for loop, seconds in zip(loops, (0.1, 0.2, 0.3), strict=True):
        latency = CLOCKS[loop](partial(main, seconds))
        assert latency == pytest.approx(seconds)
