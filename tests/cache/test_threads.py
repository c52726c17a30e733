"""
Threads, for real: every operation at once from many, beside event loops that load and sweep.

What is thread-safe: every operation of `TTLCache` but ``async with``, and the calls of `cached`.
Each thread may have an event loop of its own; loads are shared within a loop.
"""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio._internal.gil import has_gil
from mtaio.cache import TTLCache, cached
from mtaio.cache._policy import POLICIES
from mtaio.testing import assert_quiescent
from mtaio.types import EvictionPolicy
from tests.cache.whole import assert_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

KEYS = 60
HAS_GIL = has_gil()
ROOM = 40
TAGS = ("a", "b", "c")


class Value:
    """A value that knows its key, and is like no other."""

    def __init__(self, key: object) -> None:
        self.key = key


@pytest.fixture
def eager_switches() -> Generator[None]:
    """Have the interpreter change threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Storm:
    """
    Threads that do whatever there is to do to one cache.

    Args:
        options: For the cache.
    """

    def __init__(self, **options: Any) -> None:
        self.cache: TTLCache[Value] = TTLCache(
            **{"default_ttl": 0.01, "max_size": ROOM, "on_removed": self.hear, **options}
        )
        self.heard: deque[tuple[Any, Value, str]] = deque()
        self.stored: deque[Value] = deque()
        self.loaded: deque[Value] = deque()
        self.reads: deque[int] = deque()
        self.failures: deque[BaseException] = deque()

    def hear(self, key: object, value: Value, cause: str) -> None:
        """Be the listener."""
        self.heard.append((key, value, cause))

    def value(self, key: object) -> Value:
        """Return a value to be stored."""
        made = Value(key)
        self.stored.append(made)
        return made

    def check(self, key: object, value: Value | None) -> None:
        """Hold that a value is that of its key."""
        assert value is None or value.key == key, f"{key} has the value of {value.key}"

    def blow(self, seed: int, rounds: int) -> None:
        """Do what comes, in one thread."""
        chance = random.Random(seed)  # noqa: S311 - reproducible, as far as threads are
        cache = self.cache
        operations: list[Callable[[int], object]] = [
            self.get,
            self.get,
            self.get_many,
            lambda key: cache.set_nowait(key, self.value(key)),
            lambda key: cache.set_nowait(key, self.value(key)),
            lambda key: cache.set_nowait(
                key, self.value(key), chance.choice([0, 1e-4, 10]), tags=chance.sample(TAGS, 2)
            ),
            lambda key: cache.set_many_nowait(
                {each: self.value(each) for each in (key, key + 1)}, tags=TAGS
            ),
            cache.delete_nowait,
            lambda key: cache.delete_many_nowait([key, key + 1]),
            cache.touch_nowait,
            lambda key: cache.touch_nowait(key, chance.choice([0, 1e-4, 10])),
            lambda key: key in cache,
            cache.is_loading,
            lambda _: self.look_at_size(),
            self.look_at_all,
            self.look_at_statistics,
        ]
        seldom: list[Callable[[], object]] = [
            cache.clear_nowait,
            lambda: cache.invalidate_tag_nowait(chance.choice(TAGS)),
        ]
        for turn in range(rounds):
            chance.choice(operations)(chance.randrange(KEYS))
            if turn % 50 == 0:
                chance.choice(seldom)()

    def get(self, key: int) -> None:
        """Read one."""
        self.check(key, self.cache.get_nowait(key))
        self.reads.append(1)

    def get_many(self, key: int) -> None:
        """Read two."""
        for each, value in self.cache.get_many_nowait([key, key + 1]).items():
            self.check(each, value)
        self.reads.append(2)

    def look_at_all(self, _: int) -> None:
        """Read everything without using it."""
        for key, value in self.cache.items():
            self.check(key, value)
        assert len([*self.cache]) <= ROOM

    def look_at_size(self) -> None:
        """See that there is not more than there is room for."""
        assert len(self.cache) <= ROOM

    def look_at_statistics(self, _: int) -> None:
        """See that what must hold at any moment does."""
        now = self.cache.statistics()
        assert now.size <= ROOM
        assert now.weight <= ROOM
        assert now.in_flight >= 0
        assert now.waiting >= 0

    async def load(self, key: int) -> Value:
        """Be the loader."""
        await checkpoint()
        made = Value(key)
        self.loaded.append(made)
        return made

    async def ask(self, seed: int, rounds: int) -> None:
        """Load, in a task."""
        chance = random.Random(seed)  # noqa: S311 - as above
        for turn in range(rounds):
            key = chance.randrange(KEYS)
            with anyio.CancelScope() as scope:
                if turn % 7 == 0:
                    scope.cancel()
                if turn % 5 == 0:
                    value = await self.cache.refresh(key, partial(self.load, key))
                else:
                    value = await self.cache.get_or_set(
                        key, partial(self.load, key), tags=TAGS if turn % 3 else ()
                    )
                self.check(key, value)

    async def loop(self, seed: int, rounds: int, *, entered: bool) -> None:
        """Run tasks that load, in an event loop."""
        async with anyio.create_task_group() as group:
            if entered:
                async with self.cache, anyio.create_task_group() as askers:
                    for number in range(4):
                        askers.start_soon(self.ask, seed + number, rounds)
            else:
                for number in range(4):
                    group.start_soon(self.ask, seed + number, rounds)

    def guarded(self, work: Callable[[], object]) -> None:
        """Do something, and keep what it raises."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told at the end
            self.failures.append(error)

    def rage(self, *works: Callable[[], object]) -> None:
        """Do all of these at once, each in a thread of its own."""
        threads = [threading.Thread(target=self.guarded, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        if self.failures:
            raise self.failures[0]

    def calm(self) -> None:
        """Hold that everything adds up afterwards, and that nothing is lost."""
        cache = self.cache
        assert_whole(cache)
        assert_quiescent(cache)
        assert not cache._loads.table
        now = cache.statistics()
        causes = Counter(cause for _, _, cause in self.heard)
        assert now.evictions == causes["evicted"]
        assert now.expirations == causes["expired"]
        assert all(value.key == key for key, value, _ in self.heard)
        held = [entry.value for entry in cache._store.entries.values()]
        gone = [value for _, value, _ in self.heard]
        fate = Counter(map(id, held + gone))
        assert max(fate.values()) == 1
        known = {id(value) for value in self.stored}
        assert known <= set(fate)  # each value that was set is there, or was reported when it went
        assert set(fate) <= known | {id(value) for value in self.loaded}
        assert now.loads >= len(self.loaded)


@pytest.mark.usefixtures("eager_switches")
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "options",
    [{}, {"idle_ttl": 0.005}, {"weigher": lambda _, __: 1, "jitter": 0.5}],
    ids=["plain", "idle", "weighed"],
)
def test_storm(policy: EvictionPolicy, options: dict[str, Any]) -> None:
    """Every operation that works on memory, from six threads at once."""
    storm = Storm(policy=policy, **options)
    storm.rage(*(partial(storm.blow, seed, 1000) for seed in range(6)))
    storm.calm()
    statistics = storm.cache.statistics()
    reads = sum(storm.reads)
    if HAS_GIL:
        assert statistics.hits + statistics.misses == reads
    else:
        assert statistics.hits + statistics.misses <= reads


@pytest.mark.usefixtures("eager_switches")
@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
@pytest.mark.parametrize("entered", [True, False], ids=["entered", "not entered"])
def test_storm_beside_loops(backend: str, policy: EvictionPolicy, *, entered: bool) -> None:
    """The same beside two event loops that load, of which one may have entered the cache."""
    storm = Storm(policy=policy)
    storm.rage(
        *(partial(storm.blow, seed, 1000) for seed in range(3)),
        partial(anyio.run, partial(storm.loop, 100, 200, entered=entered), backend=backend),
        partial(anyio.run, partial(storm.loop, 200, 200, entered=False), backend=backend),
    )
    storm.calm()


@pytest.mark.usefixtures("eager_switches")
def test_listener_that_changes_the_cache_in_a_storm() -> None:
    """Listeners that set and delete, in many threads at once, end, and lose nothing."""
    storm = Storm(max_size=8)

    def hear(key: object, value: Value, cause: str) -> None:
        storm.heard.append((key, value, cause))
        if isinstance(key, int) and key % 3 == 0:
            storm.cache.delete_nowait(key + 1)

    storm.cache = TTLCache(0.01, max_size=8, on_removed=hear)
    storm.rage(*(partial(storm.blow, seed, 800) for seed in range(4)))
    storm.calm()


@pytest.mark.usefixtures("eager_switches")
def test_reads_never_return_another_key_s_value() -> None:
    """Readers that take no lock, beside writers that evict all the time."""
    cache: TTLCache[int] = TTLCache(100, max_size=4)
    stop = threading.Event()
    wrong: list[tuple[int, int]] = []

    def read() -> None:
        while not stop.is_set():
            for key in range(8):
                value = cache.get_nowait(key)
                if value is not None and value != key:
                    wrong.append((key, value))

    def write() -> None:
        for turn in range(20_000):
            cache.set_nowait(turn % 8, turn % 8)

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=write) for _ in range(2)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert wrong == []
    assert_whole(cache)


def test_a_change_waits_for_that_of_another_thread() -> None:
    """When it returns it has been made."""
    cache: TTLCache[int] = TTLCache(100)
    within, release, done = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with cache._lock:
            within.set()
            assert release.wait(60)

    def change() -> None:
        cache.set_nowait("key", 1, 50)
        done.set()

    threads = [threading.Thread(target=hold), threading.Thread(target=change)]
    threads[0].start()
    assert within.wait(60)
    threads[1].start()
    assert not done.wait(0.1)
    assert "key" not in cache
    release.set()
    for thread in threads:
        thread.join(60)
    assert done.is_set()
    assert cache.get_nowait("key") == 1


@pytest.mark.usefixtures("eager_switches")
def test_set_many_is_seen_whole() -> None:
    """Other threads see all of what is set together, or nothing of it."""
    cache: TTLCache[int] = TTLCache(100)
    cache.set_many_nowait(dict.fromkeys(range(50), 0))
    torn: list[set[int]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen = {value for _, value in cache.items()}
            if len(seen) != 1:
                torn.append(seen)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(300):
        cache.set_many_nowait(dict.fromkeys(range(50), number))
    done.set()
    reader.join()
    assert torn == []


@pytest.mark.usefixtures("eager_switches")
def test_cached_functions_and_methods_in_a_storm(backend: str) -> None:
    """Calls in many loops at once, with invalidations from threads, answer for their arguments."""

    class Shop:
        @cached(ttl=0.001, max_size=10)
        async def price(self, item: int) -> tuple[object, int]:
            await checkpoint()
            return self, item

    shops = [Shop() for _ in range(3)]
    failures: list[BaseException] = []

    async def call(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - as above
        for _ in range(300):
            shop, item = chance.choice(shops), chance.randrange(10)
            assert await shop.price(item) == (shop, item)
            if chance.random() < 0.1:
                shop.price.invalidate_nowait(item)

    def work(seed: int) -> None:
        try:
            anyio.run(call, seed, backend=backend)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert_whole(Shop.price.cache)
    assert_quiescent(Shop.price.cache)


class Odd:
    """A key whose comparison fails with what a dict raises for a key that it has not."""

    def __hash__(self) -> int:
        return hash(("key", 1))

    def __eq__(self, other: object) -> bool:
        msg = "odd"
        raise KeyError(msg)


@pytest.mark.parametrize("locks", [True, False], ids=["get locks", "get does not"])
def test_look_up_without_the_lock_of_the_dict(
    monkeypatch: pytest.MonkeyPatch, *, locks: bool
) -> None:
    """A hit, a miss and an error of a key are the same where ``dict.get`` is slow in threads."""
    monkeypatch.setattr("mtaio.cache._store._GET_LOCKS", locks)
    cache, unhashable = TTLCache[str](), cast("Any", [])
    cache.set_nowait(("key", 1), "value")
    assert cache.get_nowait(("key", 1)) == "value"
    assert cache.get_nowait(("key", 2), "nothing") == "nothing"
    with pytest.raises(KeyError, match="odd"):
        cache.get_nowait(Odd())
    with pytest.raises(TypeError, match=r"^key=\[\] "):
        cache.get_nowait(unhashable)
    assert cache.statistics().misses == 1
