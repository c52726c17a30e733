"""One cache, changed and read by many threads, some of them with event loops."""

from __future__ import annotations

from collections import Counter, deque
from functools import partial
from typing import Any

import anyio
import pytest

from mtaio.cache import TTLCache, cached
from mtaio.cache._policy import POLICIES
from mtaio.types import EvictionPolicy
from tests.cache.whole import assert_whole
from tests.hammer.hammer import HAS_GIL, at_once, rounds

THREADS = 4
KEYS = 120
ROOM = 80


def key_of(number: int) -> tuple[str, int]:
    """Return a key that equals that of other threads, and is not the same object."""
    return "key", number


@pytest.mark.parametrize("policy", POLICIES)
def test_all_that_is_stored_is_there_or_was_reported(policy: EvictionPolicy) -> None:
    """Each value stored is held or reported once, a read gets its key's, and the counts add up."""
    gone: deque[tuple[Any, str]] = deque()
    cache = TTLCache[tuple[int, int]](
        60,
        max_size=ROOM,
        policy=policy,
        on_removed=lambda _, value, cause: gone.append((value, cause)),
    )
    stored = reads = 0

    def work(thread: int, turn: int) -> None:
        for step in range(KEYS):
            number = (step * (thread + 1) + turn) % KEYS
            cache.set_nowait(key_of(number), (number, step))
            found = cache.get_nowait(key_of((number + 7) % KEYS))
            assert found is None or found[0] == (number + 7) % KEYS
            if step % 10 == 0:
                cache.delete_nowait(key_of((number + 3) % KEYS))

    for turn in rounds(5):
        at_once(partial(work, thread, turn) for thread in range(THREADS))
        stored += THREADS * KEYS
        reads += THREADS * KEYS
        assert_whole(cache)
        assert len(cache) <= ROOM
        assert len(cache) + len(gone) == stored
        now = cache.statistics()
        assert now.evictions == Counter(cause for _, cause in gone)["evicted"]
        counted = now.hits + now.misses
        assert counted == reads if HAS_GIL else counted <= reads


def test_one_cached_function_in_many_loops(backend: str) -> None:
    """Calls in a loop of each thread, beside invalidations, answer for their arguments."""

    @cached(max_size=ROOM)
    async def double(number: int) -> int:
        await anyio.lowlevel.checkpoint()
        return 2 * number

    async def ask(thread: int) -> None:
        async with anyio.create_task_group() as group:
            for start in range(3):
                group.start_soon(ask_some, thread + start)

    async def ask_some(start: int) -> None:
        for step in range(60):
            number = (start * 31 + step) % KEYS
            assert await double(number) == 2 * number
            if step % 9 == 0:
                double.invalidate_nowait(number)

    for _ in rounds(2):
        at_once(partial(anyio.run, ask, thread, backend=backend) for thread in range(THREADS))
        assert_whole(double.cache)
        now = double.cache.statistics()
        assert (now.in_flight, now.waiting) == (0, 0)
        assert now.size <= ROOM


def test_one_plain_function_in_many_threads() -> None:
    """One thread at a time makes a call, all get its result or its error, and nobody hangs."""
    running: Counter[int] = Counter()
    made: deque[int] = deque()

    @cached(max_size=ROOM)
    def double(number: int) -> tuple[int, int]:
        running[number] += 1
        assert running[number] == 1
        made.append(number)
        try:
            if number % 7 == 0:
                double(number + 1)
        finally:
            running[number] -= 1
        if number % 11 == 0 and len(made) % 3 == 0:
            raise (LookupError, GeneratorExit)[len(made) % 2]
        return number, 2 * number

    def ask(thread: int) -> None:
        for step in range(80):
            number = (step * 3 + thread // 2) % KEYS
            try:
                assert double(number) == (number, 2 * number)
            except (LookupError, GeneratorExit):
                assert not number % 11 or not number % 7

    for _ in rounds(5):
        at_once(partial(ask, thread) for thread in range(THREADS))
        assert_whole(double.cache)
        now = double.cache.statistics()
        assert (now.in_flight, now.waiting) == (0, 0)
        assert now.loads == len(made)
        assert now.size <= ROOM
        double.cache.clear_nowait()


def test_counts_by_many_threads() -> None:
    """No increment is lost."""
    cache = TTLCache[int](60, max_size=ROOM)

    def work() -> None:
        for step in range(KEYS):
            cache.increment_nowait(key_of(step % 3))

    for turn in rounds(5):
        at_once([work] * THREADS)
        assert sum(value for _, value in cache.items()) == (turn + 1) * THREADS * KEYS
        assert_whole(cache)


def test_no_lock_is_held_over_the_code_of_others() -> None:
    """While a weigher, a listener or a loader runs, another thread can change the cache."""
    seen = []

    def elsewhere() -> None:
        """Change the cache in another thread, and wait for that."""
        at_once([lambda: cache.set_nowait("other", len(other)), lambda: other.append(1)])

    def weigh(key: object, _: object) -> float:
        if key == "weighed":
            seen.append("weigher")
            elsewhere()
        return 1

    def hear(key: object, *_: object) -> None:
        if key == "heard":
            seen.append("listener")
            elsewhere()

    async def load() -> int:
        seen.append("loader")
        elsewhere()
        return 1

    other: list[int] = []
    cache = TTLCache[int](60, max_size=10, weigher=weigh, on_removed=hear)
    cache.set_nowait("weighed", 1)
    cache.set_nowait("heard", 1)
    cache.delete_nowait("heard")
    anyio.run(cache.get_or_set, "loaded", load)
    assert seen == ["weigher", "listener", "loader"]
    assert len(other) == 3
    assert cache.get_nowait("other") is not None
